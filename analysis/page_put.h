/*
 * Texts and numbers as the page's cells and cards show them; a dash where there is none. Escaped.
 */
#pragma once

#include "core/str.h"

struct json_t;

typedef void (*page_put_fn)(struct str *out, double x);

/* The text under a key of an object, which may be NULL. */
void page_put_text(struct str *out, const struct json_t *o, const char *key);
/* Three significant digits or whole numbers with separated thousands: "0.0532", "12.4", "15,120". */
void page_put_number(struct str *out, double x);
void page_put_usd(struct str *out, double x);
/* "7.81 - 8.39", with a sign where one bound is not known (NAN). */
void page_put_bounds(struct str *out, double lo, double hi, page_put_fn put);
/* A number and its mark, and small below them its bounds, where one is known. */
void page_put_interval(struct str *out, double x, double lo, double hi, const char *mark,
                       page_put_fn put);
/* The same as a cell of a table. */
void page_put_cell(struct str *out, double x, double lo, double hi, const char *mark,
                   page_put_fn put);
