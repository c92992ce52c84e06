/*
 * Up to which rate the latency objectives hold. Per objective: the quantile of its metric at each rate
 * (failed requests count as +inf), made monotone by pooling adjacent violators (PAVA: Barlow et al.
 * 1972), and the rate at which that line, linear in log latency between rates, crosses the limit. The
 * answer is the lowest crossing over the objectives.
 *
 * The interval is a bootstrap over batches (sectioning: Asmussen and Glynn 2007, III.5a): each step's
 * quantile is moved by how the mean of its batches' quantiles moves when batches are drawn with
 * replacement. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "analysis/measure.h"
#include "analysis/stats.h"

#define SLO_DRAWS 1000

enum slo_verdict {
    SLO_FOUND,
    SLO_NOT_REACHED, // met at every rate
    SLO_FIRST_STEP,  // missed at the lowest rate already
    SLO_NONE,        // no objective, or no open-loop step
    SLO_VERDICTS,
};
extern const char *const slo_names[SLO_VERDICTS];

struct slo_step {
    double rate_rps;
    const struct measure *m;
};

struct slo_crossing {
    enum slo_verdict verdict;
    struct stats_interval rate_rps; // a bound beyond the rates that were run is STATS_NONE
};

struct slo_result {
    struct slo_crossing all;               // every objective
    struct slo_crossing metric[LATENCY_N]; // each alone; SLO_NONE without an objective
    double draws[SLO_DRAWS];               // of `all`; INFINITY: not reached, 0: first step
};

/* Isotonic least squares, weights 1: y (n) in place becomes non-decreasing. */
void slo_isotonic(double *y, size_t n);

/*
 * The rate at which log latency (n, made monotone in place) crosses log_limit: INFINITY when it never
 * does, 0 when it is above at the first rate. rate (n) rising.
 */
double slo_crossing_rate(const double *rate, double *log_latency, size_t n, double log_limit);

/* Steps in any order; those of closed loops are left out. */
void slo_find(const struct slo_step *steps, size_t n, uint64_t seed, struct slo_result *out);
