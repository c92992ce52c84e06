/*
 * Keys and values in the device's paged cache: how a block of 16 positions lies there, and how a
 * batch's are put in. What is stored means the same as in workers/cpu/cache.h: FP8 (e4m3) and INT8
 * codes times a float32 factor per position and KV head, which makes the largest of them the largest code.
 *
 * A layer's cache is (n_blocks, n_kv_heads, head_bytes). One head's part of a block, in units of 16 bytes
 * that a lane loads at once, is laid out so that a warp which loads what its tensor core wants of 16 positions
 * reads whole lines:
 *
 *   keys    (key_dim / u padded, 16 positions, u)   u numbers fill a unit: 4, 8 or 16
 *   values  (value_dim / 8 w padded, 8 dims, 4 quads, w, 4 positions)   BF16: w = 2; FP8, INT8: w = 4
 *           quad t holds positions 2t, 2t + 1, 2t + 8, 2t + 9 of the dims g, g + 8, .., 8 of them apart
 *   values  (16 positions, value_dim)   F32
 *   factors (16) of keys, (16) of values   FP8 and INT8, float32
 *
 * With `shared` (latent attention) the values are the keys' first value_dim numbers, and not stored again.
 * Nothing has to be zeroed: numbers of positions not yet written are never used. Keys and values have
 * multiples of 8 numbers. head_bytes is a multiple of 128.
 *
 * Bytes per block and head at key_dim = value_dim = 128: BF16 8,192, FP8 4,224; latent 576: BF16 18,432.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/arch.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

#define CACHE_BLOCK  16          // positions
#define CACHE_NO_ROW 0xffffffffu // a token of padding: nothing is stored for it

struct cache_layout {
    enum arch_dtype dtype; // F32, BF16, FP8 or INT8
    int key_dim, value_dim, n_kv_heads;
    bool shared;
    uint32_t values_at, factors_at, head_bytes; // of one head's part of a block
    size_t block_bytes;                         // of all heads
};

void cache_layout_init(struct cache_layout *c, enum arch_dtype dtype, int key_dim, int value_dim,
                       int n_kv_heads, bool shared);

/* Where a batch's tokens belong. On the device, but for the struct itself. */
struct cache_tokens {
    int n;
    const uint32_t *row;    // (n) of the tables, or CACHE_NO_ROW
    const uint32_t *pos;    // (n)
    const uint32_t *tables; // (n_rows, max_blocks) blocks of the cache
    uint32_t max_blocks;
};

/* cos and sin: (positions, dim / 2); pairs (j, j + dim / 2) of a head's last `dim` numbers are turned. */
struct cache_rope {
    const float *cosines, *sines;
    int dim;
};

/*
 * One product's queries, keys and values: queries and keys are rotated; q for attention (attention.h), keys
 * and values into the cache. key_dim = value_dim <= 256.
 */
struct cache_place {
    struct cache_layout layout;
    struct cache_tokens tokens;
    struct cache_rope rope;
    void *kv; // the layer's cache
    int n_heads;
    const float *qkv;  // (n, n_heads + 2 n_kv_heads, key_dim)
    const float *bias; // (n_heads + 2 n_kv_heads, key_dim) not yet added; or NULL
    void *q;           // (n, n_heads, key_dim) bfloat16; float32 with an F32 cache
};

void cache_place_queue(const struct cache_place *p, struct CUstream_st *stream);

/*
 * Latent attention, first half: RMSNorm of the query's latents, into what the queries' product takes; RMSNorm
 * of the cache's latents, and beside them the rotated key that all heads share, into the cache.
 */
struct cache_latents {
    struct cache_layout layout; // shared; key_dim = value_dim (the latents' rank) + rope.dim
    struct cache_tokens tokens;
    struct cache_rope rope;
    void *kv;
    int q_rank; // 0: queries have no latents
    float eps;
    bool rounds;                   // as in norm.h
    const float *latents;          // (n, q_rank + key_dim)
    const float *q_norm, *kv_norm; // (q_rank), (value_dim)
    void *q_latents;               // (n, q_rank) bfloat16 or float32
    bool wide;                     // float32
};

void cache_latents_queue(const struct cache_latents *p, struct CUstream_st *stream);

/*
 * Second half: q of each head = its absorbed part (that product's result), then the rotated last rope.dim
 * numbers of its query.
 */
struct cache_queries {
    struct cache_tokens tokens; // no tables
    struct cache_rope rope;
    int n_heads, head_dim, rank;
    const float *heads;    // (n, n_heads, head_dim)
    const float *absorbed; // (n, n_heads, rank): tokens and heads so many floats apart
    size_t absorbed_token, absorbed_head;
    void *q;   // (n, n_heads, rank + rope.dim) bfloat16 or float32
    bool wide; // float32
};

void cache_queries_queue(const struct cache_queries *p, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
