/*
 * What the page draws but the JSON does not hold, read from the store one step at a time: the
 * distribution of TTFT and requests in flight over time.
 */
#pragma once

#include <stddef.h>

#include "core/err.h"
#include "results/store.h"

#define CURVES_CDF_POINTS  201
#define CURVES_TIME_POINTS 180

struct curves_step {
    size_t n_cdf;
    double ttft_ms[CURVES_CDF_POINTS], share[CURVES_CDF_POINTS];   // (n_cdf) share of finished
    double t_s[CURVES_TIME_POINTS], in_flight[CURVES_TIME_POINTS]; // since the step began
    double warm_s, end_s, drain_s;                                 // since the step began
};

/* (store_n_steps) entries; caller frees. */
int curves_read(struct store *s, struct curves_step **out, struct err *e) ERR_CHECKED;
