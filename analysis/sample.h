/*
 * Plain values with the statistics that numpy gives by default, which is what most peers report:
 * population standard deviation, percentiles linear between order statistics. Zeroed: empty.
 */
#pragma once

#include <stddef.h>

struct sample {
    double *v; // (n), sorted by sample_sort
    size_t n, cap;
};

void sample_add(struct sample *s, double x);
void sample_sort(struct sample *s);
void sample_free(struct sample *s);

double sample_sum(const struct sample *s);
double sample_mean(const struct sample *s);                 // numpy.mean; STATS_NONE when empty
double sample_sd(const struct sample *s);                   // numpy.std
double sample_percentile(const struct sample *s, double p); // numpy.percentile(p * 100); sorted
