/*
 * Attention over a paged cache against sums in double, with every flag and every format of the cache;
 * and bit by bit: what a token gets does not depend on which other tokens and heads share the call.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/rng.h"
#include "workers/cpu/attention.h"
#include "workers/weights/bf16.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    POSITIONS = 300,
    BLOCKS = 19,
    HEADS = 4
};

static const struct kernels *sets[8];
static int n_sets;

static float *numbers(size_t n, uint64_t stream)
{
    float *v = mem_aligned((n + MATRIX_PANEL) * sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < n; i++) {
        v[i] = (float)(4 * rng_uniform(7, RNG_TOKENS, stream, i) - 2);
    }
    return v;
}

static void expect_near(float got, double want, double tolerance)
{
    if (!(fabs((double)got - want) <= tolerance)) {
        fail_msg("%g instead of %g, tolerance %g", (double)got, want, tolerance);
    }
}

/* --- what a cache keeps ----------------------------------------------------------------------- */

/* The nearest e4m3 number, ties to even: 8 steps between powers of two, the smallest power 2^-6. */
static double nearest_e4m3(double x)
{
    int exponent;
    frexp(x, &exponent); // |x| in [2^(exponent - 1), 2^exponent)
    const double step = ldexp(1, (exponent > -5 ? exponent : -5) - 4);
    return fmax(-448, fmin(rint(x / step) * step, 448));
}

/* Replace n values by what a cache of this dtype makes of them. */
static void as_stored(float *x, int n, enum arch_dtype dtype)
{
    float largest = 0;
    for (int i = 0; i < n; i++) {
        largest = fmaxf(largest, fabsf(x[i]));
    }
    const float factor = largest / (dtype == ARCH_INT8 ? 127.0f : 448.0f), inverse = 1 / factor;
    for (int i = 0; i < n; i++) {
        if (dtype == ARCH_BF16) {
            x[i] = bf16_to_f32(bf16_from_f32(x[i]));
        } else if (dtype == ARCH_INT8) {
            x[i] = rintf(x[i] * inverse) * factor;
        } else if (dtype == ARCH_FP8) {
            x[i] = (float)nearest_e4m3((double)(x[i] * inverse)) * factor;
        }
    }
}

/* --- a request's context ---------------------------------------------------------------------- */

struct context {
    struct cache cache;
    float *keys, *values; // (POSITIONS, key_dim), (POSITIONS, value_dim) as stored
    float *q;             // (POSITIONS, HEADS, key_dim)
    char *kv;             // (BLOCKS, cache.block_bytes)
    uint32_t blocks[BLOCKS];
};

static void store(struct context *c)
{
    const int n = c->cache.key_dim, m = c->cache.value_dim;
    for (int i = 0; i < POSITIONS; i++) {
        char *block = c->kv + c->blocks[i / 16] * c->cache.block_bytes;
        float *key = c->keys + (size_t)(i * n), *value = c->values + (size_t)(i * m);
        cache_store_key(&c->cache, block, i % 16, key);
        cache_store_value(&c->cache, block, i % 16, value);
        as_stored(key, n, c->cache.dtype);
        as_stored(value, m, c->cache.dtype);
        if (c->cache.shared) {
            memcpy(value, key, (size_t)m * sizeof *value);
        }
    }
}

static void open_context(struct context *c, enum arch_dtype dtype, int key_dim, int value_dim,
                         bool shared)
{
    struct err e = {0};
    *c = (struct context){0};
    assert_int_equal(cache_init(&c->cache, dtype, key_dim, value_dim, shared, &e), 0);
    c->keys = numbers((size_t)(POSITIONS * key_dim), 41);
    c->values = numbers((size_t)(POSITIONS * value_dim), 42);
    c->q = numbers((size_t)(POSITIONS * HEADS * key_dim), 43);
    // What is not written is garbage and must not matter.
    c->kv = (char *)numbers(BLOCKS * c->cache.block_bytes / sizeof(float), 44);
    for (uint32_t b = 0; b < BLOCKS; b++) {
        c->blocks[b] = (uint32_t)rng_permute(b, BLOCKS, 3, RNG_SHUFFLE, 0);
    }
    store(c);
}

static void close_context(struct context *c)
{
    free(c->keys);
    free(c->values);
    free(c->q);
    free(c->kv);
}

struct flags {
    struct layers_attention layer;
    const float *sinks; // (HEADS) or NULL
};

/* Tokens pos .. pos + n - 1, heads first .. first + n_heads - 1. */
static void attend(const struct kernels *set, const struct context *c, const struct flags *flags,
                   int pos, int n, int first, int n_heads, float *out)
{
    const size_t k = (size_t)c->cache.key_dim, v = (size_t)c->cache.value_dim;
    const struct attention a = {
        .cache = &c->cache,
        .layer = flags->layer,
        .n_tokens = n,
        .n_heads = n_heads,
        .pos = pos,
        .sinks = flags->sinks ? flags->sinks + first : NULL,
        .q = c->q + (size_t)(pos * HEADS + first) * k,
        .q_ld = HEADS * k,
        .q_step = k,
        .out = out + (size_t)(pos * HEADS + first) * v,
        .out_ld = HEADS * v,
        .out_step = v,
        .blocks = c->blocks,
        .kv = c->kv,
        .block_bytes = c->cache.block_bytes,
    };
    float *scratch = mem_aligned(attention_scratch_values(&c->cache) * sizeof *scratch);
    attention_run(set, &a, NULL, scratch);
    free(scratch);
}

/* Weights (pos + 1) of one query; returns their sum, a sink's included. */
static double weigh(const struct context *c, const struct flags *flags, int pos, int head,
                    double *weights)
{
    const int n = c->cache.key_dim, window = flags->layer.window;
    const float *q = c->q + (size_t)((pos * HEADS + head) * n);
    const double cap = (double)flags->layer.softcap;
    double largest = flags->sinks ? (double)flags->sinks[head] : -DBL_MAX, sum = 0;
    for (int j = 0; j <= pos; j++) {
        double score = 0;
        for (int d = 0; d < n; d++) {
            score += (double)q[d] * (double)c->keys[j * n + d] * (double)flags->layer.scale;
        }
        weights[j] = cap > 0 ? cap * tanh(score / cap) : score;
        weights[j] = window > 0 && j <= pos - window ? -DBL_MAX : weights[j];
        largest = fmax(largest, weights[j]);
    }
    for (int j = 0; j <= pos; j++) {
        weights[j] = exp(weights[j] - largest);
        sum += weights[j];
    }
    return sum + (flags->sinks ? exp((double)flags->sinks[head] - largest) : 0);
}

static void check_query(const struct context *c, const struct flags *flags, int pos, int head,
                        const float *out)
{
    double weights[POSITIONS];
    const double sum = weigh(c, flags, pos, head, weights);
    for (int d = 0; d < c->cache.value_dim; d++) {
        double want = 0;
        for (int j = 0; j <= pos; j++) {
            want += weights[j] / sum * (double)c->values[j * c->cache.value_dim + d];
        }
        expect_near(out[d], want, 5e-5);
    }
}

static void check_context(const struct kernels *set, const struct context *c,
                          const struct flags *flags)
{
    const size_t width = (size_t)(HEADS * c->cache.value_dim), n = POSITIONS * width;
    float *alone = numbers(n, 45), *group = numbers(n, 46);
    for (int pos = 0; pos < POSITIONS; pos++) {
        attend(set, c, flags, pos, 1, 0, HEADS, alone);
        for (int h = 0; h < HEADS && (pos % 37 == 0 || pos == 127 || pos == 128); h++) {
            check_query(c, flags, pos, h,
                        alone + (size_t)pos * width + (size_t)(h * c->cache.value_dim));
        }
    }
    for (int pos = 0; pos < POSITIONS; pos += 12) { // groups that straddle blocks and chunks
        attend(set, c, flags, pos, 12, 0, HEADS, group);
    }
    assert_memory_equal(alone, group, n * sizeof *alone);
    for (int pos = 0; pos < POSITIONS; pos += 30) {
        attend(set, c, flags, pos, 30, 0, 1, group);
        attend(set, c, flags, pos, 15, 1, HEADS - 1, group);
        attend(set, c, flags, pos + 15, 15, 1, HEADS - 1, group);
    }
    assert_memory_equal(alone, group, n * sizeof *alone);
    free(alone);
    free(group);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void any_head_size(void **state)
{
    (void)state;
    const int dims[] = {2, 10, 16, 32, 128};
    const struct flags plain = {.layer = {.scale = 0.3f}};
    for (int i = 0; i < 5 * n_sets; i++) {
        struct context c;
        open_context(&c, ARCH_F32, dims[i % 5], dims[i % 5], false);
        check_context(sets[i / 5], &c, &plain);
        close_context(&c);
    }
}

static void every_flag(void **state)
{
    (void)state;
    static const float sinks[HEADS] = {-3, 0.5f, 4, 40};
    static const struct flags flags[] = {
        {.layer = {.scale = 0.3f, .window = 1}},
        {.layer = {.scale = 0.3f, .window = 17}},
        {.layer = {.scale = 0.3f, .window = 128}},
        {.layer = {.scale = 0.4f, .softcap = 2}},
        {.layer = {.scale = 0.3f}, .sinks = sinks},
        {.layer = {.scale = 0.4f, .softcap = 3, .window = 19}, .sinks = sinks},
        {.layer = {.scale = 0.1f, .window = 1000}},
    };
    for (int i = 0; i < 7 * n_sets; i++) {
        struct context c;
        open_context(&c, ARCH_F32, 12, 20, false);
        check_context(sets[i / 7], &c, &flags[i % 7]);
        close_context(&c);
    }
}

static void every_format(void **state)
{
    (void)state;
    static const enum arch_dtype formats[] = {ARCH_F32, ARCH_BF16, ARCH_FP8, ARCH_INT8};
    const struct flags flags[] = {{.layer = {.scale = 0.3f}},
                                  {.layer = {.scale = 0.3f, .softcap = 4, .window = 21}}};
    for (int i = 0; i < 16 * n_sets; i++) {
        struct context c;
        const bool shared = i % 4 / 2;
        open_context(&c, formats[i % 16 / 4], shared ? 24 : 10, shared ? 14 : 18, shared);
        check_context(sets[i / 16], &c, &flags[i % 2]);
        close_context(&c);
    }
}

static void zeros_and_extremes_are_stored(void **state)
{
    (void)state;
    const float values[6] = {0, -0.0f, 1e30f, -1e30f, 1e-3f, 1e25f};
    for (int d = 0; d < 2; d++) {
        struct cache c;
        struct err e = {0};
        assert_int_equal(cache_init(&c, d ? ARCH_FP8 : ARCH_INT8, 6, 6, false, &e), 0);
        float *block = mem_aligned(c.block_bytes), scratch[6 * 16];
        cache_store_key(&c, block, 3, values);
        cache_store_key(&c, block, 4, (const float[6]){0});
        const float *keys = cache_keys(&c, block, scratch), *f = cache_key_factors(&c, block);
        for (int i = 0; i < 6; i++) {
            assert_true(fabs((double)keys[i * 16 + 3] * (double)f[3] - (double)values[i]) <= 4e27);
            assert_true(keys[i * 16 + 4] * f[4] == 0);
        }
        free(block);
    }
}

static void other_formats_are_refused(void **state)
{
    (void)state;
    struct cache c;
    struct err e = {0};
    assert_int_equal(cache_init(&c, ARCH_MXFP4, 16, 16, false, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
}

static int find_sets(void **state)
{
    (void)state;
    for (const struct kernels *k; (k = kernels_set(n_sets)) != NULL; n_sets++) {
        sets[n_sets] = k;
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_head_size),
        cmocka_unit_test(every_flag),
        cmocka_unit_test(every_format),
        cmocka_unit_test(zeros_and_extremes_are_stored),
        cmocka_unit_test(other_formats_are_refused),
    };
    return cmocka_run_group_tests(tests, find_sets, NULL);
}
