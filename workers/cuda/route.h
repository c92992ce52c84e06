/*
 * Mixture of experts: which experts a token takes and with which weights, by the rules of workers/router.c
 * (the first of equals, sums in the same order), and the slots sorted by expert. Nothing waits for the host.
 *
 * A slot is one of a token's experts: token * top_k + which. Where the choice is drawn, not the model's
 * (workers/router.h), the host draws: it is a function of layer, token and position alone.
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 * Experts are at most ROUTER_MAX_EXPERTS, of a token ROUTER_MAX_TOP. Logits that are NaN are chosen last.
 * Not measured on a GPU yet.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include <stdbool.h>
#include <stdint.h>

#include "model/arch.h"

struct CUstream_st;

struct route_tokens {
    int n, n_experts, top_k;
    enum arch_router router;
    int n_groups, top_groups; // ARCH_ROUTER_GROUPS; n_groups divides n_experts
    bool normalise;           // likewise: weights are divided by their sum
    float scale;              // likewise: of weights, thereafter
    const float *logits;      // (n, n_experts) bias included
    const float *correction;  // (n_experts) ARCH_ROUTER_GROUPS
    const int32_t *drawn;     // (n, top_k) ascending, instead of a choice; or NULL
    int32_t *experts;         // (n, top_k) ascending
    float *weights;           // (n, top_k)
};

void route_queue(const struct route_tokens *r, struct CUstream_st *stream);

struct route_slots {
    int n, n_experts;       // slots
    const int32_t *experts; // (n) of each slot
    int32_t *first;         // (n_experts + 1) where an expert's slots begin in `sorted`
    int32_t *sorted;        // (n) slots by expert, in the order of tokens
    int32_t *of_sorted;     // (n) the expert of each of `sorted`; or NULL
    int32_t *place;         // (n) where in `sorted` a slot is; or NULL
};

void route_sort_queue(const struct route_slots *s, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
