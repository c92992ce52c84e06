/*
 * The statistics that every answer is made of, over plain arrays: exact percentiles, moments,
 * order-statistic intervals, batch means, Student quantiles and least squares in time with
 * autocorrelated residuals. Pure functions; what the data do not say is STATS_NONE (a NaN).
 *
 * Percentiles are linear between order statistics (Hyndman and Fan 1996, type 7: numpy's default).
 */
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define STATS_Z95  1.959963984540054 // two-sided 95 % of a normal
#define STATS_NONE ((double)NAN)
#define STATS_INF  ((double)INFINITY)

/* Sorts ascending, in place. */
void stats_sort(double *v, size_t n);

/* p in [0, 1] of v, sorted (n). */
double stats_percentile(const double *v, size_t n, double p);

/* Copies, sorts, and takes the median. */
double stats_median(const double *v, size_t n);

double stats_mean(const double *v, size_t n);
double stats_sd(const double *v, size_t n); // n - 1 in the denominator

/*
 * Ranks (1-based) of the order statistics that enclose the p-quantile of n independent values with
 * 95 % confidence, each tail at most 2.5 %: exact binomial, and np -+ 1.96 sqrt(np(1 - p)) rounded outwards
 * beyond 2,000 (Conover 1999, section 3.2). 0: not in the sample. They enclose the sample percentile, too.
 */
struct stats_ranks {
    uint64_t lo, hi;
};
struct stats_ranks stats_quantile_ranks(uint64_t n, double p);

/* A value with its 95 % interval; lo and hi are NAN where there is none. */
struct stats_interval {
    double value, lo, hi;
};

/* Mean of k batch values and its Student interval (Schmeiser 1982, batch means). What is never negative
 * (latencies, rates) has no interval below 0. */
struct stats_interval stats_batch_means(const double *batch, size_t k);

/*
 * The mean of all values from the sums and counts of k batches, with the interval of the ratio
 * estimator (Cochran 1977, section 6.3): batches of unequal counts weigh what they hold. Batches
 * without values are left out; fewer than 2: no interval.
 */
struct stats_interval stats_batch_ratio(const double *sum, const double *count, size_t k);

/* The same with another confidence than 0.95; fewer than 2 batches: no interval. */
struct stats_interval stats_batch_ratio_at(const double *sum, const double *count, size_t k,
                                           double confidence);

/* A share k of n > 0 with its exact interval (Clopper and Pearson 1934): never no interval. */
struct stats_interval stats_binomial(double k, double n, double confidence);

/* t with P(T <= t) = p for Student's t with df > 0 degrees of freedom (df need not be whole). */
double stats_t_quantile(double p, double df);

/*
 * Least-squares slope of y against equally spaced times (m points, dt apart), and the one-sided 95 %
 * lower bound of the slope with the residuals' lag-1 autocorrelation r taken into account by an
 * effective sample size m(1 - r)/(1 + r). It is at least 6: the residuals of a queue that really
 * grows are a random walk, whose r near 1 would otherwise leave nothing to judge by.
 */
struct stats_slope {
    double slope, lower, n_effective;
};
struct stats_slope stats_slope_ar1(const double *y, size_t m, double dt);
