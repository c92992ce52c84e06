/*
 * The answers: one JSON object (schema tidemark.report/1, docs/report.schema.json) from one result
 * file, and its renderings as text and as one self-contained HTML page. Same file in, same bytes out.
 */
#pragma once

#include <stdbool.h>

#include "analysis/cost.h"
#include "analysis/step.h"
#include "core/err.h"
#include "core/str.h"
#include "results/store.h"

#define REPORT_MUCH_FAILED 0.01 // share of requests from which on goodput does not stand alone

struct report_config {
    struct slo_config slo;
    struct cost_config cost;
    bool reprice; // the price is asked anew: read the table, not what the file keeps
};

/*
 * slo and cost as stored in the file's config (so that a report can be remade), or as overridden.
 * The price is the one that the file keeps: without it cost is null and a warning says so. With
 * `reprice` it is that of cost.prices, and ERR_INPUT where that has none.
 */
int report_build(struct store *s, const struct report_config *cfg, struct json_t **report,
                 struct err *e) ERR_CHECKED;
/* Answers and steps; report_text has the definitions as well. columns: of the terminal. */
void report_text_table(const struct json_t *report, int columns, struct str *out);
void report_text(const struct json_t *report, int columns, struct str *out);
/* Needs the store for what is drawn but not in the JSON: TTFT distributions, in-flight series, spans. */
int report_html(struct store *s, const struct json_t *report, struct str *out,
                struct err *e) ERR_CHECKED;
