/*
 * Numbers and intervals as JSON: a number that is missing (NaN) or infinite becomes null. Each returns
 * a new reference.
 */
#pragma once

#include "analysis/stats.h"

#include <stdbool.h>
#include <stddef.h>

struct json_t;

struct json_t *value_number(double x);
struct json_t *value_interval(struct stats_interval v); // {value, lo95, hi95}

/* obj[key] = x or null. */
void value_set(struct json_t *obj, const char *key, double x);

/* What is under a key, borrowed; NULL where there is nothing. obj may be NULL, here and below. */
const struct json_t *value_at(const struct json_t *obj, const char *key);
/* Whether it is a number, and the number: STATS_NONE when it is none. */
bool value_has(const struct json_t *obj, const char *key);
double value_get(const struct json_t *obj, const char *key);

/* US$ with three decimals or three significant digits, whichever is more: "12.345", "0.00192". "-" when
 * missing. Returns buf. */
const char *value_usd(double x, char *buf, size_t cap);

/* Append a text to a list of notes. */
void value_note(struct json_t *list, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
