/*
 * Each kernel set against sums in double, with the tolerance that float32 sums of that length have;
 * and the promise of kernels.h, bit by bit: an output does not depend on what is computed beside it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/rng.h"
#include "workers/cpu/attention.h"
#include "workers/cpu/kernels.h"
#include "workers/weights/bf16.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct kernels *sets[2];
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

/* --- matrices --------------------------------------------------------------------------------- */

struct product {
    struct matrix w;
    float *wide; // (n, k) the matrix as float32, row-major
    float *x;    // (m, k)
    int m, n, k;
};

static void open_product(struct product *p, int m, int n, int k, enum arch_dtype dtype)
{
    struct err e = {0};
    *p = (struct product){.m = m, .n = n, .k = k};
    p->wide = numbers((size_t)n * (size_t)k, 1);
    p->x = numbers((size_t)m * (size_t)k, 2);
    assert_int_equal(matrix_init(&p->w, n, k, dtype, &e), 0);
    uint16_t *narrow = xcalloc((size_t)n * (size_t)k, sizeof *narrow);
    for (int i = 0; i < n * k && dtype == ARCH_BF16; i++) {
        narrow[i] = bf16_from_f32(p->wide[i]);
        p->wide[i] = bf16_to_f32(narrow[i]);
    }
    // In two parts, the second one beginning inside of a panel.
    const int cut = n / 2 + 1;
    const size_t at = (size_t)cut * (size_t)k;
    matrix_pack(&p->w, 0, cut, dtype == ARCH_BF16 ? (void *)narrow : (void *)p->wide);
    matrix_pack(&p->w, cut, n - cut,
                dtype == ARCH_BF16 ? (void *)(narrow + at) : (void *)(p->wide + at));
    free(narrow);
}

static void close_product(struct product *p)
{
    matrix_free(&p->w);
    free(p->wide);
    free(p->x);
}

static void check_product(const struct kernels *set, const struct product *p)
{
    const size_t ld = (size_t)matrix_padded(p->n);
    float *y = numbers((size_t)p->m * ld, 3), *before = numbers((size_t)p->m * ld, 3);
    kernels_matmul(set, &p->w, 0, p->w.n_panels, p->x, (size_t)p->k, p->m, y, ld, KERNELS_ADD);
    for (int i = 0; i < p->m * p->n; i++) {
        int row = i / p->n, col = i % p->n;
        const float *x = p->x + (size_t)row * (size_t)p->k;
        const float *w = p->wide + (size_t)col * (size_t)p->k;
        size_t at = (size_t)row * ld + (size_t)col;
        double want = (double)before[at], size = fabs(want);
        for (int k = 0; k < p->k; k++) {
            want += (double)x[k] * (double)w[k];
            size += fabs((double)x[k] * (double)w[k]);
        }
        expect_near(y[at], want, (p->k + 2) * (double)FLT_EPSILON * size);
    }
    free(y);
    free(before);
}

/* Row by row and panel by panel must give what all at once gives. */
static void check_alone(const struct kernels *set, const struct product *p)
{
    const size_t ld = (size_t)matrix_padded(p->n);
    float *all = numbers((size_t)p->m * ld, 4), *one = numbers((size_t)p->m * ld, 5);
    kernels_matmul(set, &p->w, 0, p->w.n_panels, p->x, (size_t)p->k, p->m, all, ld, KERNELS_SET);
    for (int panel = 0; panel < p->w.n_panels; panel++) {
        for (int row = 0; row < p->m; row++) {
            kernels_matmul(set, &p->w, panel, panel + 1, p->x + (size_t)row * (size_t)p->k,
                           (size_t)p->k, 1, one + (size_t)row * ld + (size_t)panel * MATRIX_PANEL,
                           ld, KERNELS_SET);
        }
    }
    assert_memory_equal(all, one, (size_t)p->m * ld * sizeof *all);
    // Going on from the first half of k is the same sum.
    const int half = p->k / 2;
    const size_t done = (size_t)half * MATRIX_PANEL * (p->w.dtype == ARCH_BF16 ? 2 : 4);
    const void *panel = p->w.data, *rest = (const char *)panel + done;
    struct kernels_tile t = {
        .panels = &panel,
        .ahead = &rest,
        .dtype = p->w.dtype,
        .n_panels = 1,
        .n_segments = 1,
        .m = 1,
        .k = half,
        .x = p->x,
        .ldx = (size_t)p->k,
        .y = one,
        .ldy = ld,
        .mode = KERNELS_SET,
    };
    set->tile(&t);
    t.panels = &rest;
    t.x += half;
    t.k = p->k - half;
    t.mode = KERNELS_ONTO;
    set->tile(&t);
    assert_memory_equal(all, one, MATRIX_PANEL * sizeof *all);
    free(all);
    free(one);
}

static void products(void **state)
{
    (void)state;
    const int ms[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 32}, ns[] = {1, 16, 40, 100},
              ks[] = {1, 7, 64};
    for (int i = 0; i < 11 * 4 * 3 * 2; i++) {
        struct product p;
        open_product(&p, ms[i % 11], ns[i / 11 % 4], ks[i / 44 % 3],
                     i / 132 ? ARCH_BF16 : ARCH_F32);
        for (int s = 0; s < n_sets; s++) {
            check_product(sets[s], &p);
            check_alone(sets[s], &p);
        }
        close_product(&p);
    }
}

static void rows_of_a_packed_matrix_come_back(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++) {
        struct product p;
        open_product(&p, 1, 37, 19, d ? ARCH_BF16 : ARCH_F32);
        float row[19];
        for (int i = 0; i < p.n; i++) {
            matrix_row(&p.w, i, row);
            assert_memory_equal(row, p.wide + (size_t)i * 19, sizeof row);
        }
        close_product(&p);
    }
}

/* --- the rest --------------------------------------------------------------------------------- */

static void norms(void **state)
{
    (void)state;
    const int sizes[] = {1, 8, 16, 24, 100, 512};
    for (int i = 0; i < 6 * n_sets; i++) {
        const int n = sizes[i % 6];
        float *x = numbers((size_t)n, 11), *w = numbers((size_t)n, 12), *y = numbers((size_t)n, 13);
        double squares = 0;
        for (int j = 0; j < n; j++) {
            squares += (double)x[j] * (double)x[j];
        }
        double scale = 1 / sqrt(squares / n + (double)1e-5f);
        sets[i / 6]->rmsnorm(y, x, w, n, 1e-5f);
        for (int j = 0; j < n; j++) {
            double want = (double)x[j] * scale * (double)w[j];
            expect_near(y[j], want, (n / 8 + 8) * (double)FLT_EPSILON * fabs(want));
        }
        for (int j = n; j < matrix_padded(n); j++) {
            assert_true(y[j] == 0);
        }
        free(x);
        free(w);
        free(y);
    }
}

static void rotations(void **state)
{
    (void)state;
    const int halves[] = {1, 4, 5, 8, 20, 64};
    for (int i = 0; i < 6 * n_sets; i++) {
        const int half = halves[i % 6];
        float *x = numbers(2 * (size_t)half, 21), *before = numbers(2 * (size_t)half, 21);
        float c[64], s[64];
        for (int j = 0; j < half; j++) {
            c[j] = cosf((float)j);
            s[j] = sinf((float)j);
        }
        sets[i / 6]->rope(x, c, s, half);
        for (int j = 0; j < half; j++) {
            double a = (double)before[j], b = (double)before[j + half];
            double cd = (double)c[j], sd = (double)s[j];
            expect_near(x[j], a * cd - b * sd, 1e-6);
            expect_near(x[j + half], b * cd + a * sd, 1e-6);
        }
        free(x);
        free(before);
    }
}

static void activations(void **state)
{
    (void)state;
    float in[64], out[32];
    for (int s = 0; s < n_sets; s++) {
        for (int i = 0; i < 64; i++) {
            in[i] = (float)(i - 32) * (i % 3 ? 0.3f : 40.0f); // up to 1280: exp must not overflow
        }
        sets[s]->silu_mul(out, in, 2);
        for (int i = 0; i < 32; i++) {
            double g = (double)in[i / 16 * 32 + i % 16], u = (double)in[i / 16 * 32 + 16 + i % 16];
            double want = g / (1 + exp(-g)) * u;
            expect_near(out[i], want, 1e-6 * fabs(want) + 1e-30);
        }
    }
}

static void largest_and_exponentials(void **state)
{
    (void)state;
    for (int i = 0; i < 40 * n_sets; i++) {
        const struct kernels *set = sets[i / 40];
        const int n = i % 40 + 1;
        float *x = numbers(48, 31), *before = numbers(48, 31);
        before[0] = x[0] = -200; // an exponential of nothing
        float largest = set->max(x, n), want = x[0];
        for (int j = 1; j < n; j++) {
            want = x[j] > want ? x[j] : want;
        }
        assert_true(largest == want);
        double sum = 0;
        float got = set->exp_sum(x, n, largest);
        for (int j = 0; j < n; j++) {
            double e = exp((double)before[j] - (double)largest);
            expect_near(x[j], e, 4e-7 * e + 1e-38);
            sum += e;
        }
        expect_near(got, sum, 1e-6 * sum);
        for (int j = n; j < matrix_padded(n); j++) {
            assert_true(x[j] == 0);
        }
        free(x);
        free(before);
    }
}

/* --- attention -------------------------------------------------------------------------------- */

enum {
    POSITIONS = 300,
    BLOCKS = 19,
    HEADS = 3
};

struct cache {
    int dim;
    float *keys, *values; // (POSITIONS, dim)
    float *q;             // (POSITIONS, HEADS, dim)
    float *kv;            // (BLOCKS, attention_block_values)
    uint32_t blocks[BLOCKS];
};

static void open_cache(struct cache *c, int dim)
{
    *c = (struct cache){.dim = dim};
    c->keys = numbers((size_t)(POSITIONS * dim), 41);
    c->values = numbers((size_t)(POSITIONS * dim), 42);
    c->q = numbers((size_t)(POSITIONS * HEADS * dim), 43);
    const size_t n = attention_block_values(dim);
    c->kv = numbers(BLOCKS * n, 44); // what is not written is garbage and must not matter
    for (uint32_t b = 0; b < BLOCKS; b++) {
        c->blocks[b] = (uint32_t)rng_permute(b, BLOCKS, 3, RNG_SHUFFLE, 0);
    }
    for (int i = 0; i < POSITIONS; i++) {
        float *block = c->kv + c->blocks[i / 16] * n;
        attention_store_key(block, i % 16, dim, c->keys + (size_t)(i * dim));
        attention_store_value(block, i % 16, dim, c->values + (size_t)(i * dim));
    }
}

static void close_cache(struct cache *c)
{
    free(c->keys);
    free(c->values);
    free(c->q);
    free(c->kv);
}

static void attend(const struct kernels *set, const struct cache *c, int pos, int n, int n_heads,
                   float *out)
{
    const struct attention a = {
        .n_tokens = n,
        .n_heads = n_heads,
        .head_dim = c->dim,
        .pos = pos,
        .scale = 0.3f,
        .q = c->q + (size_t)(pos * HEADS * c->dim),
        .q_ld = (size_t)(HEADS * c->dim),
        .out = out,
        .out_ld = (size_t)(HEADS * c->dim),
        .blocks = c->blocks,
        .kv = c->kv,
        .block_values = attention_block_values(c->dim),
    };
    float *scratch = mem_aligned(attention_scratch_values(c->dim) * sizeof *scratch);
    attention_run(set, &a, NULL, scratch);
    free(scratch);
}

static void check_attention(const struct cache *c, int pos, int head, const float *out)
{
    double weight[POSITIONS], sum = 0, largest = -DBL_MAX;
    const float *q = c->q + (size_t)((pos * HEADS + head) * c->dim);
    for (int j = 0; j <= pos; j++) {
        weight[j] = 0;
        for (int d = 0; d < c->dim; d++) {
            weight[j] += (double)q[d] * (double)c->keys[j * c->dim + d] * (double)0.3f;
        }
        largest = fmax(largest, weight[j]);
    }
    for (int j = 0; j <= pos; j++) {
        weight[j] = exp(weight[j] - largest);
        sum += weight[j];
    }
    for (int d = 0; d < c->dim; d++) {
        double want = 0;
        for (int j = 0; j <= pos; j++) {
            want += weight[j] / sum * (double)c->values[j * c->dim + d];
        }
        expect_near(out[d], want, 3e-5);
    }
}

static void attention(void **state)
{
    (void)state;
    const int dims[] = {2, 10, 16, 32, 64, 128};
    for (int i = 0; i < 6 * n_sets; i++) {
        struct cache c;
        open_cache(&c, dims[i % 6]);
        const size_t width = (size_t)(HEADS * c.dim);
        float *alone = numbers(POSITIONS * width, 45), *group = numbers(POSITIONS * width, 46);
        for (int pos = 0; pos < POSITIONS; pos++) {
            attend(sets[i / 6], &c, pos, 1, HEADS, alone + (size_t)pos * width);
            if (pos % 37 == 0 || pos == 127 || pos == 128) {
                for (int h = 0; h < HEADS; h++) {
                    check_attention(&c, pos, h, alone + (size_t)pos * width + (size_t)(h * c.dim));
                }
            }
        }
        for (int pos = 0; pos < POSITIONS; pos += 4) { // groups that straddle blocks and chunks
            attend(sets[i / 6], &c, pos, 4, HEADS, group + (size_t)pos * width);
        }
        assert_memory_equal(alone, group, POSITIONS * width * sizeof *alone);
        free(alone);
        free(group);
        close_cache(&c);
    }
}

static void sets_are_chosen_by_name(void **state)
{
    (void)state;
    struct err e = {0};
    const struct kernels *k;
    assert_int_equal(kernels_select(&k, "auto", &e), 0);
    assert_int_equal(kernels_select(&k, "portable", &e), 0);
    assert_string_equal(k->name, "portable");
    assert_int_equal(kernels_select(&k, "mmx", &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
}

static int find_sets(void **state)
{
    (void)state;
    struct err e = {0};
    sets[n_sets++] = &kernels_portable;
    if (kernels_select(&sets[n_sets], "auto", &e) == 0 && sets[n_sets] != sets[0]) {
        n_sets++;
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),    cmocka_unit_test(rows_of_a_packed_matrix_come_back),
        cmocka_unit_test(norms),       cmocka_unit_test(rotations),
        cmocka_unit_test(activations), cmocka_unit_test(largest_and_exponentials),
        cmocka_unit_test(attention),   cmocka_unit_test(sets_are_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, find_sets, NULL);
}
