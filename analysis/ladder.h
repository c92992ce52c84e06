/*
 * The best limit of requests in flight, from a ladder of closed loops: the smallest one with 97 % of the
 * highest throughput among those that meet the objectives (less waiting is worth the rest). What is lost on
 * either side of it: the next rung above queues (TTFT), the one below leaves the target idle (throughput).
 *
 * The interval is a parametric bootstrap: each rung's throughput and its share of requests within the
 * objectives are drawn from normals around their means with the standard errors of their intervals, and
 * the best one of each draw is noted.
 *
 * A rung with a step that is `errors` or `client_limited` is never the best, nor one that is `too_short`
 * unless no other meets the objectives: is_short then says so.
 *
 * Each rung is checked by Little's law (Little 1961): N = X R, throughput times mean time in the
 * system, holds for any closed loop without think times. Steps of the same size, over passes, are one
 * rung. Pure; the same seed gives the same bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/measure.h"
#include "analysis/slo_decision.h"
#include "results/store.h"

#define LADDER_DRAWS  1000
#define LADDER_ENOUGH 0.97

struct ladder_rung {
    uint32_t users;
    size_t n_steps;
    struct stats_interval output_tokens_per_s;
    double requests_per_s, e2e_mean_s, ttft_p50_ms;
    double little; // X R / N
    struct slo_decision slo;
    enum verdict verdict; // the worst of its steps
};

struct ladder {
    struct ladder_rung *rungs; // (n) by rising users; NULL: fewer than two sizes were run
    size_t n;
    size_t best;   // position; n: no rung meets the objectives
    bool is_short; // the best one is too_short, for want of another
    double lo95, hi95;
};

/* Whether a step of a closed loop is one that a ladder may rest on. */
bool ladder_uses(const struct step_info *info, const struct measure *m);

/* All steps of the run in their order, (n) each. */
void ladder_find(const struct step_info *info, const struct measure *m, size_t n, double quantile,
                 uint64_t seed, struct ladder *out);
void ladder_free(struct ladder *l);
