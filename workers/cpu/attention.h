/*
 * Causal attention of a few queries over a request's paged keys and values: softmax(q . k * scale) . v
 * with a running maximum (Milakov, Gimelshein 2018), rescaled once per chunk of positions. One
 * function for every family: scores may be capped, the context may be a sliding window, a head may have
 * a sink (one more score in the denominator), keys and values may differ in size, and may be stored in
 * fewer bits (workers/cpu/cache.h).
 *
 * Chunks lie at fixed positions and a query meets exactly the positions it may see, in order, so its
 * result does not depend on which other queries share the call.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "workers/cpu/cache.h"
#include "workers/cpu/kernels.h"
#include "workers/layers.h"

#define ATTENTION_MAX_QUERIES 48 // of one call
#define ATTENTION_MAX_DIM     1024

/* Heads that share one KV head, for one or several consecutive positions of a request. */
struct attention {
    const struct cache *cache;
    struct layers_attention layer;
    int n_tokens, n_heads; // n_tokens * n_heads <= ATTENTION_MAX_QUERIES
    int pos;               // of the first token; a token sees positions up to its own
    const float *sinks;    // (n_heads) or NULL
    const float *q;        // (n_tokens, n_heads, key_dim), tokens q_ld floats, heads q_step apart
    size_t q_ld, q_step;
    float *out; // (n_tokens, n_heads, value_dim)
    size_t out_ld, out_step;
    const uint32_t *blocks; // the request's block table
    const char *kv;         // this KV head's part of block 0
    size_t block_bytes;     // from one block to the next
};

/* Floats of scratch that one call needs; 64-byte aligned. */
size_t attention_scratch_values(const struct cache *c);

/* `next`, what will probably be run after it, is fetched on the way; may be NULL. */
void attention_run(const struct kernels *k, const struct attention *a, const struct attention *next,
                   float *scratch);
