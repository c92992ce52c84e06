/*
 * Causal attention of a few queries over a request's paged keys and values: softmax(q . k * scale) . v
 * with a running maximum (Milakov, Gimelshein 2018), rescaled once per chunk of positions. Chunks lie
 * at fixed positions and a query meets exactly the positions it may see, in order, so its result does
 * not depend on which other queries share the call.
 *
 * The KV pool holds, per block and KV head, the keys as (head_dim, 16 positions), then the values as
 * (padded head_dim / 16, 16 positions, 16): both are panels for kernels' tiles.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "workers/cpu/kernels.h"

#define ATTENTION_MAX_QUERIES 12 // of one call
#define ATTENTION_MAX_DIM     1024

/* Heads that share one KV head, for one or several consecutive positions of a request. */
struct attention {
    int n_tokens, n_heads; // n_tokens * n_heads <= ATTENTION_MAX_QUERIES
    int head_dim;
    int pos; // of the first token; a token sees positions 0 .. its own
    float scale;
    const float *q; // (n_tokens, n_heads, head_dim), tokens q_ld floats apart
    size_t q_ld;
    float *out; // same shape, tokens out_ld floats apart
    size_t out_ld;
    const uint32_t *blocks; // the request's block table
    const float *kv;        // this KV head's keys in block 0
    size_t block_values;    // from one block to the next
};

/* Floats of one KV head in one block. */
size_t attention_block_values(int head_dim);

/* Put one position's key, value (head_dim) at `at` (0..15) of a KV head's block. */
void attention_store_key(float *block, int at, int head_dim, const float *key);
void attention_store_value(float *block, int at, int head_dim, const float *value);

/* Floats of scratch that one call needs; 64-byte aligned. */
size_t attention_scratch_values(int head_dim);

/* `next`, what will probably be run after it, is fetched on the way; may be NULL. */
void attention_run(const struct kernels *k, const struct attention *a, const struct attention *next,
                   float *scratch);
