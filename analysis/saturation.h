/*
 * Where it saturates: the corner of the broken stick (fit.h) with its interval, cross-checked by the
 * verdicts of the steps, which judge in-flight slope and TTFT drift one rate at a time. The two must
 * agree within one step of the grid of rates, or within 15 % where bisection made it finer; if not, the answer is `inconclusive` with the reason.
 *
 *   found         plateau and verdicts agree
 *   not_reached   no step was unstable or full of errors and served tokens follow offered ones up to the
 *                 highest rate
 *   first_step    the lowest rate was unstable already: its throughput is capacity, but there is no line
 *                 below the corner; the rate assumes a slope of 1
 *   inconclusive  everything else
 *
 * Steps of a closed loop, and windows too short for their rates to be a steady state's, stay out. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/fit.h"
#include "analysis/measure.h"
#include "analysis/stats.h"

enum saturation_verdict {
    SATURATION_FOUND,
    SATURATION_NOT_REACHED,
    SATURATION_FIRST_STEP,
    SATURATION_INCONCLUSIVE,
    SATURATION_N,
};
extern const char *const saturation_names[SATURATION_N];

#define SATURATION_METHOD                                                                          \
    "through-origin broken stick of served on realised offered output tokens/s; circular block "   \
    "bootstrap, 1000 draws"

struct saturation_step {
    double rate_rps; // nominal
    const struct measure *m;
};

/* What the verdicts of single steps say. */
struct saturation_check {
    double highest_stable_rps, lowest_unstable_rps; // around the change; STATS_NONE: there is none
    double rate_rps;                                // midway
    double grid_rps;                                // between the two
    double lowest_rps;                              // of all open-loop steps
    double lowest_failing_rps;                      // of verdict errors; STATS_NONE: there is none
    bool agrees;                                    // |stick - midway| <= grid, or 15 %
};

struct saturation {
    enum saturation_verdict verdict;
    struct stats_interval rate_rps, output_tokens_per_s; // STATS_NONE where there is no answer
    struct saturation_check check;
    size_t n_steps; // used in the fit
    char reason[200];
    struct fit_result fit;
    struct fit_result *draws; // (FIT_DRAWS); NULL when nothing was fitted
};

/* Whether the fit uses this step. */
bool saturation_uses(const struct saturation_step *s);

void saturation_find(const struct saturation_step *steps, size_t n, uint64_t seed,
                     struct saturation *out);
void saturation_free(struct saturation *s);

/* 95 % interval of f over the draws around `value`; an infinite bound is STATS_NONE. */
struct stats_interval saturation_interval(const struct saturation *s, double value,
                                          double (*f)(const struct fit_result *draw, const void *),
                                          const void *arg);
