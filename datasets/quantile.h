/*
 * A length distribution from published quantiles (min, median, mean, P90, P99, max) as a sampler:
 * monotone inverse CDF, convex between the quantiles, shaped so that the mean comes out too, with
 * small atoms at min and max. Pure function of a uniform draw.
 */
#pragma once

#include "core/err.h"

struct quantile_table {
    double min, median, mean, p90, p99, max;
};

/*
 * GKE Inference Quickstart's published ShareGPT benchmark: input and output tokens. The two are
 * drawn independently: the table publishes no joint distribution.
 */
extern const struct quantile_table quantile_sharegpt_input, quantile_sharegpt_output;

struct quantile_sampler {
    struct quantile_table table;
    double knots[8], values[8], shape[8]; // of the pieces; see quantile.c
    int n_pieces;
};

/* Fit the shapes to the mean. ERR_INPUT when the six numbers contradict each other. */
int quantile_init(struct quantile_sampler *q, const struct quantile_table *t,
                  struct err *e) ERR_CHECKED;

/* The length at u in (0, 1), a whole number of tokens in min..max. */
double quantile_at(const struct quantile_sampler *q, double u);
