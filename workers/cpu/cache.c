#include "workers/cpu/cache.h"

#include "workers/batch.h"
#include "workers/cpu/matrix.h"
#include "workers/weights/bf16.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK    BATCH_KV_BLOCK
#define LINE     ((size_t)64)
#define FP8_TOP  448.0f
#define INT8_TOP 127.0f
#define LEAST    1e-30f // what is smaller throughout is stored as zeros
_Static_assert(BLOCK == MATRIX_PANEL, "a KV block is one panel of keys");

static size_t code_bytes(const struct cache *c)
{
    return c->dtype == ARCH_F32 ? 4 : c->dtype == ARCH_BF16 ? 2 : 1;
}

static bool has_factors(const struct cache *c)
{
    return c->dtype == ARCH_FP8 || c->dtype == ARCH_INT8;
}

int cache_init(struct cache *c, enum arch_dtype dtype, int key_dim, int value_dim, bool shared,
               struct err *e)
{
    if (dtype != ARCH_F32 && dtype != ARCH_BF16 && dtype != ARCH_FP8 && dtype != ARCH_INT8) {
        return err_set(e, ERR_INPUT, "KV cache: float32, bfloat16, fp8 or int8 wanted");
    }
    CHECK(!shared || value_dim <= key_dim);
    *c = (struct cache){
        .dtype = dtype, .key_dim = key_dim, .value_dim = value_dim, .shared = shared};
    const size_t codes = code_bytes(c) * BLOCK;
    c->values_at = (size_t)key_dim * codes;
    c->factors_at = c->values_at + (shared ? 0 : (size_t)matrix_padded(value_dim) * codes);
    c->block_bytes = c->factors_at + (has_factors(c) ? 2 * BLOCK * sizeof(float) : 0);
    c->block_bytes = (c->block_bytes + LINE - 1) / LINE * LINE;
    return 0;
}

int cache_init_for(struct cache *c, const struct arch *a, enum arch_dtype dtype, struct err *e)
{
    if (!arch_is_latent(a)) {
        return cache_init(c, dtype, a->head_dim, a->v_dim, false, e);
    }
    const int rank = a->latent.kv_rank;
    return cache_init(c, dtype, matrix_padded(rank) + a->rope_dim, rank, true, e);
}

double cache_token_bytes(const struct cache *c, const struct arch *a)
{
    const int n_heads = arch_is_latent(a) ? 1 : a->n_kv_heads;
    return (double)a->n_layers * n_heads * (double)c->block_bytes / BLOCK;
}

/* --- codes ------------------------------------------------------------------------------------ */

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/*
 * e4m3: 4 bits of exponent with bias 7, 3 of mantissa, the largest value 448. To nearest, ties to even.
 */
static uint8_t to_e4m3(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint8_t sign = (uint8_t)(bits >> 24 & 0x80u);
    float magnitude = fminf(fabsf(x), FP8_TOP);
    if (magnitude < 0x1p-6f) { // counts of 2^-9
        return (uint8_t)(sign | (uint8_t)lrintf(magnitude * 0x1p9f));
    }
    memcpy(&bits, &magnitude, sizeof bits);
    bits += 0x7ffffu + (bits >> 20 & 1u);
    return (uint8_t)(sign | (uint8_t)((bits >> 20) - (120u << 3)));
}

static float from_e4m3(uint8_t code)
{
    const uint32_t sign = (code & 0x80u) << 24, magnitude = code & 0x7fu;
    const float normal = from_bits((magnitude << 20) + (120u << 23));
    const float small = (float)(int32_t)magnitude * 0x1p-9f;
    const float value = magnitude < 8 ? small : normal;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return from_bits(bits | sign);
}

/* What x must be divided by to fit the codes; 1 where they need none. */
static float factor_of(const struct cache *c, const float *x, int n)
{
    if (!has_factors(c)) {
        return 1;
    }
    float largest = 0;
    bool is_finite = true;
    for (int i = 0; i < n; i++) {
        largest = fmaxf(largest, fabsf(x[i])); // which takes no notice of a NaN
        is_finite &= fabsf(x[i]) <= FLT_MAX;
    }
    if (!is_finite) {
        return NAN; // and so is what is read
    }
    return largest > LEAST ? largest / (c->dtype == ARCH_FP8 ? FP8_TOP : INT8_TOP) : 1;
}

static void put(const struct cache *c, char *codes, size_t i, float x)
{
    uint16_t half;
    switch (c->dtype) {
    case ARCH_F32:
        memcpy(codes + i * sizeof x, &x, sizeof x);
        break;
    case ARCH_BF16:
        half = bf16_from_f32(x);
        memcpy(codes + i * sizeof half, &half, sizeof half);
        break;
    case ARCH_FP8:
        codes[i] = (char)to_e4m3(x);
        break;
    default:
        codes[i] = (char)(int8_t)lrintf(fmaxf(-INT8_TOP, fminf(x, INT8_TOP)));
    }
}

/* n codes as float32; loops that the compiler makes vector code of. */
static void widen(const struct cache *c, float *restrict out, const void *restrict in, size_t n)
{
    const uint16_t *halves = in;
    const uint8_t *codes = in;
    const int8_t *bytes = in;
    if (c->dtype == ARCH_BF16) {
        for (size_t i = 0; i < n; i++) {
            out[i] = from_bits((uint32_t)halves[i] << 16);
        }
    } else if (c->dtype == ARCH_FP8) {
        for (size_t i = 0; i < n; i++) {
            out[i] = from_e4m3(codes[i]);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            out[i] = (float)bytes[i];
        }
    }
}

/* --- storing ---------------------------------------------------------------------------------- */

static void put_factor(const struct cache *c, char *block, size_t i, float factor)
{
    if (has_factors(c)) {
        memcpy(block + c->factors_at + i * sizeof factor, &factor, sizeof factor);
    }
}

void cache_store_key(const struct cache *c, void *block, int at, const float *key)
{
    const float factor = factor_of(c, key, c->key_dim), inverse = 1 / factor;
    for (int d = 0; d < c->key_dim; d++) {
        put(c, block, (size_t)d * BLOCK + (size_t)at, key[d] * inverse);
    }
    put_factor(c, block, (size_t)at, factor);
}

void cache_store_value(const struct cache *c, void *block, int at, const float *value)
{
    if (c->shared) {
        return;
    }
    const float factor = factor_of(c, value, c->value_dim), inverse = 1 / factor;
    char *values = (char *)block + c->values_at;
    for (int d = 0; d < c->value_dim; d++) {
        size_t line = (size_t)(d / MATRIX_PANEL * BLOCK + at);
        put(c, values, line * MATRIX_PANEL + (size_t)(d % MATRIX_PANEL), value[d] * inverse);
    }
    put_factor(c, block, BLOCK + (size_t)at, factor);
}

/* --- reading ---------------------------------------------------------------------------------- */

size_t cache_keys_floats(const struct cache *c)
{
    return c->dtype == ARCH_F32 ? 0 : (size_t)c->key_dim * BLOCK;
}

size_t cache_values_floats(const struct cache *c)
{
    const bool in_place = c->dtype == ARCH_F32 && !c->shared;
    return in_place ? 0 : (size_t)matrix_padded(c->value_dim) * BLOCK;
}

const float *cache_keys(const struct cache *c, const void *block, float *scratch)
{
    if (c->dtype == ARCH_F32) {
        return block;
    }
    widen(c, scratch, block, (size_t)c->key_dim * BLOCK);
    return scratch;
}

/* A panel of 16 dimensions by 16 positions, turned round. */
static void turn(float *restrict out, const float *restrict keys, int n_dims)
{
    for (int at = 0; at < BLOCK; at++) {
        for (int d = 0; d < n_dims; d++) {
            out[at * MATRIX_PANEL + d] = keys[d * BLOCK + at];
        }
        for (int d = n_dims; d < MATRIX_PANEL; d++) {
            out[at * MATRIX_PANEL + d] = 0;
        }
    }
}

const float *cache_values(const struct cache *c, const void *block, const float *keys,
                          float *scratch)
{
    const char *values = (const char *)block + c->values_at;
    if (c->shared) {
        for (int d = 0; d < c->value_dim; d += MATRIX_PANEL) {
            int n = c->value_dim - d < MATRIX_PANEL ? c->value_dim - d : MATRIX_PANEL;
            turn(scratch + (size_t)d * BLOCK, keys + (size_t)d * BLOCK, n);
        }
        return scratch;
    }
    if (c->dtype == ARCH_F32) {
        return (const float *)(const void *)values;
    }
    widen(c, scratch, values, (size_t)matrix_padded(c->value_dim) * BLOCK);
    return scratch;
}

const float *cache_key_factors(const struct cache *c, const void *block)
{
    const void *at = (const char *)block + c->factors_at;
    return has_factors(c) ? at : NULL;
}

const float *cache_value_factors(const struct cache *c, const void *block)
{
    const float *keys = cache_key_factors(c, block);
    return keys && !c->shared ? keys + BLOCK : keys;
}
