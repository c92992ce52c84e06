/*
 * The price table: a CSV file that users edit. First line, exactly:
 *
 *   provider,instance_type,accelerator,accel_count,region,pricing_model,usd_per_hour,as_of,source_url,note
 *
 * then one row per (instance_type, region, pricing_model). Fields may be quoted as in RFC 4180. Strict:
 * anything doubtful is ERR_INPUT with the line's number, and what is not in the table is an error that
 * names what is, never a default. Rows called example-* are no market prices and say so. The file
 * comes from outside: every byte is checked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/cost.h"
#include "core/err.h"

struct json_t;

#define PRICES_STALE_DAYS 90
#define PRICES_MAX_BYTES  ((size_t)1 << 20)

struct price {
    char *provider, *instance_type, *accelerator, *region, *pricing_model, *as_of, *source_url,
        *note;           // never NULL
    int64_t accel_count; // 0: a machine without accelerators
    double usd_per_hour; // > 0
    int64_t as_of_day;   // days since 1970-01-01
    size_t line;
};

struct prices {
    struct price *rows; // (n)
    size_t n;
};

/* `where` names the text in messages. */
int prices_parse(struct prices *out, const char *text, size_t len, const char *where,
                 struct err *e) ERR_CHECKED;
int prices_load(struct prices *out, const char *path, struct err *e) ERR_CHECKED;
void prices_free(struct prices *p);

/* The one row; region NULL: the only one. Borrowed from p. */
int prices_find(const struct prices *p, const char *where, const char *instance_type,
                const char *pricing_model, const char *region, const struct price **out,
                struct err *e) ERR_CHECKED;

/* What a config asks for: its table, loaded, and the row in it. The error names the config's key. */
int prices_pick(struct prices *table, const struct cost_config *c, const struct price **row,
                struct err *e) ERR_CHECKED;

/* The row as a result file keeps it: an object of all columns, by their names. New reference. */
struct json_t *prices_dump(const struct price *row);
/* A table of that one row. `kept` comes from a file: checked as a line of a table is. */
int prices_undump(struct prices *out, const struct json_t *kept, const char *where,
                  struct err *e) ERR_CHECKED;

bool prices_is_example(const struct price *p);

/* Days from as_of to that moment. */
int64_t prices_age_days(const struct price *p, int64_t unix_ns);
