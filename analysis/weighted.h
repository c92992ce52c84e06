/*
 * Distributions of weighted values as guidellm summarises them (guidellm/schemas/base/statistics.py,
 * 0.8): percentiles are the first value at which the cumulated share of the weights reaches p (nearest
 * rank); rates and concurrency are weighted by how long each lasted. Pure.
 */
#pragma once

#include <stddef.h>

struct weighted_pair {
    double value, weight; // of an event: its time, its amount
};
struct weighted { // zeroed: empty
    struct weighted_pair *v;
    size_t n, cap;
};

void weighted_add(struct weighted *w, double value, double weight);
void weighted_join(struct weighted *w, const struct weighted *from);
void weighted_free(struct weighted *w);

#define WEIGHTED_PERCENTILES 11
extern const double weighted_percentiles[WEIGHTED_PERCENTILES]; // 0.001 to 0.999

struct weighted_summary { // all zero when there is nothing
    double mean, median, mode, variance, min, max, count, total;
    double percentile[WEIGHTED_PERCENTILES];
};

/* Of values; sorts them. count: the sum of weights, rounded. */
void weighted_summarise(struct weighted *w, struct weighted_summary *out);

/*
 * Of the rate at which events come: each event is taken to last from half-way after the one before to
 * half-way before the next, and its rate is its amount over that. Those within 100 us of one are one.
 * Events outside of [begin, end] are left out. Changes `events`.
 */
void weighted_rates(struct weighted *events, double begin, double end,
                    struct weighted_summary *out);

/*
 * Of how many intervals cover a time in [begin, end]: changes is (time, +1) for each begin and
 * (time, -1) for each end of the n intervals that touch the window. Changes `changes`.
 */
void weighted_concurrency(struct weighted *changes, size_t n, double begin, double end,
                          struct weighted_summary *out);
