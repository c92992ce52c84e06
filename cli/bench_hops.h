/*
 * What a hop between stages would take on measured edges, for a model and the batches of `tidemark
 * bench`: hidden states (arch_carried_bytes) over each edge as it was fitted, and beside it, where the costs of the
 * model's parts are known, the time of a stage with as many stages as ranks.
 */
#pragma once

#include <stdbool.h>

#include "cli/bench_cases.h"
#include "model/arch.h"
#include "workers/edges.h"
#include "workers/sim/costs.h"

#define BENCH_HOPS_MAX 64

struct bench_hop {
    bool is_prompt; // of so many tokens; else so many requests that decode
    int n_tokens;
    double n_bytes;
    double best_ns, median_ns, worst_ns; // over all edges
    int from, to;                        // of the worst
    double stage_ns;                     // of the slowest stage; NaN: not known
};

struct bench_hops {
    const char *model;
    const struct arch *arch;
    const struct costs *costs; // NULL: not known
    int n_stages;              // the time is of: the ranks, or as many as the model has layers
    int n;
    struct bench_hop v[BENCH_HOPS_MAX];
};

/* Of the first transport that carries hidden states; model, arch and costs are the caller's. */
void bench_hops_find(struct bench_hops *h, const struct bench_cases *cases, const struct edges *e);
