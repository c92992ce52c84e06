/*
 * What the parts of a model weigh, what of it a token touches, and what it keeps of one: from struct
 * arch alone. Bytes are those of the stored formats, factors of blocks included. Pure.
 */
#pragma once

#include <stdint.h>

#include "model/arch.h"

/* One layer. */
struct sizes_layer {
    int64_t params;        // all
    int64_t active_params; // that one token is multiplied with: top_k of the experts
    double bytes;          // all, as stored
    double common_bytes;   // read for any batch: all but the routed experts
    double expert_bytes;   // of one routed expert; 0: none
    int64_t kv_values;     // of one token in the cache
    double pair_flops;     // of attention, for one token and one position that it sees
};

struct sizes_layer sizes_layer(const struct arch *a, int layer);

double sizes_value_bytes(enum arch_dtype dtype);

/* The head with the last norm, as read for logits; the embedding, as held. */
int64_t sizes_head_params(const struct arch *a);
double sizes_head_bytes(const struct arch *a);
double sizes_embed_bytes(const struct arch *a);

/* Of the whole model. A table that embedding and head share counts once. */
int64_t sizes_params(const struct arch *a);
int64_t sizes_active_params(const struct arch *a); // the embedding's row is looked up: not counted
double sizes_bytes(const struct arch *a);

/* Cache of one token in all layers. */
double sizes_kv_bytes(const struct arch *a, double value_bytes);

/* Experts that n tokens take between them, each top_k of n_experts at random: E (1 - (1 - k/E)^n). */
double sizes_distinct_experts(const struct arch *a, double n_tokens);

/* Bytes of a layer that a batch of n tokens reads. */
double sizes_read_bytes(const struct arch *a, const struct sizes_layer *l, double n_tokens);
