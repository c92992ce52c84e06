/*
 * The parts of the HTML page that are text and tables: head and style, answer cards, the tables of
 * steps, definitions, provenance. Everything that comes from the run is escaped. Pure.
 */
#pragma once

#include "core/str.h"
#include "results/store.h"

struct json_t;

/* Document type to <main>: style, title, validity line. */
void page_head(struct str *out, const struct json_t *report);
void page_answers(struct str *out, const struct json_t *report);
void page_repeats(struct str *out, const struct json_t *report); // nothing with one pass
void page_steps(struct str *out, const struct json_t *report);
void page_cost(struct str *out, const struct json_t *report);
void page_definitions(struct str *out, const struct json_t *report);
void page_provenance(struct str *out, const struct json_t *report, const struct store_meta *meta);
void page_foot(struct str *out);
