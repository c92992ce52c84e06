/*
 * One row of an option table and its one value: text or JSON to the field, and the field back to
 * canonical JSON. Inner half of core/opt.h, which walks tables and trees; nothing else includes it.
 */
#pragma once

#include <stdbool.h>

#include "core/opt.h"

struct json_t;
struct str;

/* Whether the row takes a list. */
bool opt_value_is_list(const struct opt *o);

/* Free what the field owns and make it zero. */
void opt_value_clear(const struct opt *o, void *base);

/* Clear, then the default. A default that its own parser refuses is a bug. */
void opt_value_default(const struct opt *o, void *base);

/* Set the field from a scalar or list; null is the default. ERR_INPUT begins with the row's key. */
int opt_value_apply(const struct opt *o, void *base, const struct json_t *v,
                    struct err *e) ERR_CHECKED;

/* The field as opt_value_apply reads it back: a new reference. */
struct json_t *opt_value_dump(const struct opt *o, const void *base);

/* Append what the row takes, for help: "integer 1..1024", "poisson|constant". */
void opt_value_put_type(const struct opt *o, struct str *s);
