/*
 * Which layers go to which pipeline stage. A stage is as slow as the sum of its layers; stage 0 also
 * pays for the embedding, the last one for the head. The pipeline is as fast as its slowest stage, so
 * that one is made as fast as can be, by dynamic programming over given costs: layers may differ
 * (dense or experts, sliding or not), and a stage's memory may be bounded. Pure.
 */
#pragma once

#include <stdbool.h>

#include "model/arch.h"

/* In any one unit: ns, bytes read. */
struct split_costs {
    int n_layers;
    const double *layer; // (n_layers)
    double embed, head;
};

/* What a stage has to hold, in any one unit: weights, and cache where that is to be kept room for. */
struct split_memory {
    const double *layer; // (n_layers)
    double embed, head;
    double limit; // of a stage
};

/*
 * first[s] .. first[s + 1] - 1 become stage s's layers, at least one each (n_stages <= n_layers). Ties
 * go to the split with the smallest sum of squares. False: no split fits the memory (NULL: no limit).
 */
bool split_layers(const struct split_costs *c, const struct split_memory *m, int n_stages,
                  int *first /* (n_stages + 1) */);

/* As even as counts can be, what is left over to the middle stages: for comparison. */
void split_equal(int n_layers, int n_stages, int *first /* (n_stages + 1) */);

/* The cost of stage s, and the slowest stage's over the mean. */
double split_stage_cost(const struct split_costs *c, int n_stages, const int *first, int s);
double split_imbalance(const struct split_costs *c, int n_stages, const int *first);

/* By the bytes that a batch of n_tokens, each decoding, reads. */
void split_by_bytes(const struct arch *a, double n_tokens, int n_stages, int *first);
