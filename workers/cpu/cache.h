/*
 * How keys and values lie in the paged cache: the layout of one block (16 positions) of one KV head,
 * in float32 or in fewer bits.
 *
 *   keys    (key_dim, 16 positions)
 *   values  (padded value_dim / 16, 16 positions, 16): both are panels of float32 for kernels' tiles
 *   factors (16) of keys, (16) of values: FP8 and INT8 only, float32
 *
 * FP8 (e4m3) and INT8 codes times the factor of their position and head are the values; the factor
 * makes the largest of them the largest code. Where values are the keys' first value_dim numbers (latent
 * attention) they are stored once, as keys.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "model/arch.h"

struct cache {
    enum arch_dtype dtype; // F32, BF16, FP8 or INT8
    int key_dim, value_dim;
    bool shared; // values are the keys' first value_dim
    size_t values_at, factors_at, block_bytes;
};

/* ERR_INPUT for a dtype that a cache has not. */
int cache_init(struct cache *c, enum arch_dtype dtype, int key_dim, int value_dim, bool shared,
               struct err *e) ERR_CHECKED;

/* The same, as a's layers need it: of one KV head, with latent attention of all heads. */
int cache_init_for(struct cache *c, const struct arch *a, enum arch_dtype dtype,
                   struct err *e) ERR_CHECKED;

/* Bytes of one token in all of a's layers. */
double cache_token_bytes(const struct cache *c, const struct arch *a);

/* Put one position's key (key_dim), value (value_dim) at `at` (0..15) of a block. */
void cache_store_key(const struct cache *c, void *block, int at, const float *key);
void cache_store_value(const struct cache *c, void *block, int at, const float *value);

/* Floats that cache_keys and cache_values may need for one block. */
size_t cache_keys_floats(const struct cache *c);
size_t cache_values_floats(const struct cache *c);

/*
 * A block's codes as panels of float32, without factors: where they lie, or made in `scratch`. `keys`
 * is what cache_keys said of the same block.
 */
const float *cache_keys(const struct cache *c, const void *block, float *scratch);
const float *cache_values(const struct cache *c, const void *block, const float *keys,
                          float *scratch);

/* Factors of the block's 16 keys, values; NULL where there are none. */
const float *cache_key_factors(const struct cache *c, const void *block);
const float *cache_value_factors(const struct cache *c, const void *block);
