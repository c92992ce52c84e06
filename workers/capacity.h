/*
 * What a model would do on machines of a kind, by arithmetic alone: which split over P stages of T
 * devices each, how fast in the steady state, and how many requests the memory holds. Rooflines are
 * bounds, not promises: queues and latencies are virtual.h's to say. Pure.
 *
 *   steady state   P lanes of B/P requests: a lane's step takes as long as the slowest stage, so that
 *                  tokens/s = (B / P) / slowest, and a request's next token comes after
 *                  max(P x slowest, the way through all stages and hops)
 *   KV room        floor((devices x memory x share - weights) / (cache bytes of a token x context)); GB are
 *                  10^9 bytes, the memory counts as one, an embedding that the head shares counts once
 *   on a split     the same of the stage that holds least: each has its own memory, and a shared
 *                  embedding stands in the first and in the last stage
 */
#pragma once

#include <stdbool.h>

#include "model/arch.h"
#include "results/record.h"
#include "workers/sim/costs.h"

struct capacity_machine {
    double memory_bytes; // of one device
    double memory_share; // that weights and cache may take, in (0, 1]
};

struct capacity_split {
    int pipeline, tensor;
    bool fits; // the weights; nothing below is set otherwise
    int first[RECORD_MAX_STAGES + 1];
    double stage_ns[RECORD_MAX_STAGES];
    double slowest_ns, imbalance; // over the mean
    double equal_ns;              // the slowest stage with as many layers each
    double tokens_per_s, tpot_ns;
};

/*
 * The best split of `pipeline` stages for lanes of n_requests / pipeline requests that decode behind
 * `context` tokens. `costs` are those of a stage of `tensor` devices. `m` may be NULL: any memory.
 */
void capacity_find(const struct arch *a, const struct costs *costs,
                   const struct capacity_machine *m, int pipeline, int tensor, double n_requests,
                   double context, struct capacity_split *out);

/* Requests of `context` tokens that n_devices hold between them; 0 when the weights do not fit. */
int64_t capacity_requests(const struct arch *a, const struct capacity_machine *m, double n_devices,
                          double kv_value_bytes, double context);
int64_t capacity_requests_on(const struct arch *a, const struct capacity_machine *m,
                             const struct capacity_split *s, double kv_value_bytes, double context);
