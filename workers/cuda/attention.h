/*
 * Attention on the device over the paged cache (workers/cuda/cache.h): softmax(q . k * scale) . v with a
 * running maximum (Milakov, Gimelshein 2018), causal, with the flags of workers/layers.h and sinks (one more score
 * in a head's denominator). Contexts may be split: each part leaves its unnormalised sums with maximum and
 * denominator, and a second kernel joins them in order (as Flash-Decoding, Dao et al. 2023). No result
 * depends on the order in which blocks of threads run.
 *
 * The query heads that share a KV head, times consecutive tokens of a row, are the rows of a tile, and share what
 * is loaded. Three kernels:
 *
 *   wide   F32 caches: float32 throughout, a warp per row; 8 rows. For checks, not for speed
 *   small  up to 16 rows (decoding): four warps go through every fourth block of positions, from memory
 *          straight into the tensor cores' registers; joined at the end
 *   large  tiles of 64 or 128 rows (chunks of prompts), and all of latent attention: blocks of positions
 *          are staged in shared memory, in turn, while the ones before are computed with
 *
 * In small and large, scores and sums are float32, queries, keys, values and weights of the softmax
 * bfloat16; codes of FP8 and INT8 caches are widened exactly, their factors applied in float32.
 *
 * Limits: dims are multiples of 8; key_dim and value_dim <= 256, with shared keys and values <= 576 and <= 512.
 *
 * Which parts there are is decided on the host, per batch and window: attention_work_fill. Its arrays go to
 * the device in one copy. Their number depends on contexts and shape alone, so equal batches
 * give equal bits.
 *
 * Not measured on a GPU yet: everything. Tile sizes, the number of parts and the two stages are
 * reasoned from an H200's figures; the large kernel reads keys and queries from shared memory for mma.sync
 * and should be bound by that at 576 dims.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/cuda/cache.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

#define ATTENTION_WHOLE 0xffffffffu

/* Tokens of a row over a part of their context, for all heads. */
struct attention_item {
    uint32_t token;    // the first one's index in the batch
    uint32_t n_tokens; // 0: nothing to do
    uint32_t row;      // of the tables
    uint32_t pos;      // of the first token
    uint32_t from, to; // positions of the context; `from` begins a block
    uint32_t
        partial; // where its first token's sums go; ATTENTION_WHOLE: the result itself goes to `out`
    uint32_t partial_step; // from token to token
};

/* A token whose context was split. */
struct attention_merge {
    uint32_t token, first, n; // partials first .. first + n - 1; n = 0: nothing to do
};

/* Rows of a tile: `heads` of the query heads of one KV head (in `slices`) times `tokens`. */
struct attention_tile {
    int rows, heads, slices, tokens;
};

/* What of a model's attention the work depends on. */
struct attention_shape {
    struct cache_layout layout;
    int n_heads;
    int n_sms; // multiprocessors of the device
};

/* Room for the largest batch. Offsets in one allocation, which the host fills and copies whole. */
struct attention_limits {
    uint32_t max_small, max_large, max_merges; // items of the kernels (wide counts as small)
    uint32_t max_partials;
    size_t large_at, merges_at, bytes; // small items are at 0
    size_t partials_bytes;             // of the device memory for `partials`
};

/* What attention_work_fill made. */
struct attention_work {
    struct attention_item *small, *large; // (n_small), (n_large)
    struct attention_merge *merges;       // (n_merges)
    uint32_t n_small, n_large, n_merges;
};

/* Tokens of one row of the batch. */
struct attention_row {
    uint32_t token, n_tokens, pos, row; // as in struct attention_item
};

/* Shared memory that a block of its kernels needs at least; what a device allows is gpu_info's shared_bytes. */
uint32_t attention_large_shared_bytes(const struct attention_shape *s);

/* Tiles of the small (wide) and of the large kernel; rows = 0: this shape has none. */
struct attention_tile attention_work_small(const struct attention_shape *s);
struct attention_tile attention_work_large(const struct attention_shape *s);

void attention_work_limits(struct attention_limits *l, const struct attention_shape *s,
                           uint32_t max_rows, uint32_t max_tokens);

/*
 * The work of a batch in layers with this window (0: none). `memory` (limits.bytes) is written; the
 * arrays of `w` point into it.
 */
void attention_work_fill(struct attention_work *w, void *memory, const struct attention_limits *l,
                         const struct attention_shape *s, int window,
                         const struct attention_row *rows, uint32_t n_rows);

/*
 * For a graph whose grid does not change with the contexts: up to these numbers with items that do nothing.
 * For n rows of one token the most there can be are those of attention_work_limits for n rows and tokens.
 */
void attention_work_pad(struct attention_work *w, uint32_t n_small, uint32_t n_large,
                        uint32_t n_merges);

/* One layer. Pointers are the device's. */
struct attention_layer {
    struct attention_shape shape;
    float scale;            // of scores
    float softcap;          // c tanh(s / c) on scaled scores, before the mask; 0: none
    int window;             // positions that a token sees, its own included; 0: all before it
    const float *sinks;     // (n_heads) or NULL
    const void *kv;         // the layer's cache
    const uint32_t *tables; // (n_rows, max_blocks)
    uint32_t max_blocks;
    const void *q;              // (tokens, n_heads, key_dim) bfloat16; float32 with an F32 cache
    void *out;                  // (tokens, n_heads, value_dim); of tokens without items: untouched
    bool wide;                  // `out` is float32, not bfloat16
    struct attention_work work; // its arrays on the device
    float *
        partials; // (max_partials, n_heads, value_dim + 2): numbers 0, 1 are maximum and denominator
};

/* The error of a launch is the stream's (cudaGetLastError). */
void attention_queue(const struct attention_layer *a, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
