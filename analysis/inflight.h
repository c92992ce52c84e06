/*
 * How many requests were in flight, exactly, from the records themselves: each counts from t_send to
 * its end. A cancelled request counts until the drain ended; one that failed otherwise until the last
 * thing known of it. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "results/record.h"

/* When a sent request left the system; t_drain_ns for what was still there. */
int64_t inflight_end_ns(const struct record *r, int64_t t_drain_ns);

/* Time-average in each of m equal parts of [from, to): mean (m). */
void inflight_means(const struct record *r, size_t n, int64_t from_ns, int64_t to_ns,
                    int64_t t_drain_ns, double *mean, size_t m);
