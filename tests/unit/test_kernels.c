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
#include "workers/cpu/kernels.h"
#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct kernels *sets[8];
static int n_sets;

static const enum arch_dtype dtypes[] = {ARCH_F32, ARCH_F16, ARCH_BF16, ARCH_INT8, ARCH_INT4};
enum {
    N_DTYPES = sizeof dtypes / sizeof *dtypes
};

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
    // In two parts, the second one beginning inside of a panel.
    const int cut = n / 2 + 1;
    matrix_pack(&p->w, 0, cut, ARCH_F32, p->wide);
    matrix_pack(&p->w, cut, n - cut, ARCH_F32, p->wide + (size_t)cut * (size_t)k);
    for (int i = 0; i < n; i++) {
        matrix_row(&p->w, i, p->wide + (size_t)i * (size_t)k);
    }
}

static void close_product(struct product *p)
{
    matrix_free(&p->w);
    free(p->wide);
    free(p->x);
}

/* The inputs in a form, and what they are then. */
struct inputs {
    struct kernels_rows rows;
    void *narrow;
    float *values; // (m, k)
};

static void open_inputs(struct inputs *in, const struct kernels *set, const struct product *p,
                        enum kernels_input form)
{
    const size_t k = (size_t)p->k, stride = kernels_row_bytes(form, p->k);
    in->values = xcalloc((size_t)p->m * k, sizeof *in->values);
    in->narrow = mem_aligned((size_t)p->m * stride);
    in->rows = (struct kernels_rows){form, in->narrow, stride};
    for (size_t i = 0; i < (size_t)p->m; i++) {
        char *row = (char *)in->narrow + i * stride;
        set->narrow(form, p->x + i * k, p->k, row);
        for (size_t j = 0; j < k; j++) {
            const struct kernels_group *g = (const void *)row;
            const size_t group = j / MATRIX_GROUP, at = j % MATRIX_GROUP;
            in->values[i * k + j] =
                form == KERNELS_INT8   ? g[group].factor * (float)g[group].values[at]
                : form == KERNELS_BF16 ? bf16_to_f32(((const uint16_t *)(const void *)row)[j])
                                       : ((const float *)(const void *)row)[j];
        }
    }
}

static void close_inputs(struct inputs *in)
{
    free(in->narrow);
    free(in->values);
}

static void check_product(const struct kernels *set, const struct product *p,
                          const struct inputs *in)
{
    const size_t ld = (size_t)matrix_padded(p->n);
    float *y = numbers((size_t)p->m * ld, 3), *before = numbers((size_t)p->m * ld, 3);
    kernels_matmul(set, &p->w, 0, p->w.n_panels, &in->rows, p->m, y, ld, KERNELS_ADD);
    for (int i = 0; i < p->m * p->n; i++) {
        int row = i / p->n, col = i % p->n;
        const float *x = in->values + (size_t)row * (size_t)p->k;
        const float *w = p->wide + (size_t)col * (size_t)p->k;
        size_t at = (size_t)row * ld + (size_t)col;
        double want = (double)before[at], size = fabs(want);
        for (int k = 0; k < p->k; k++) {
            want += (double)x[k] * (double)w[k];
            size += fabs((double)x[k] * (double)w[k]);
        }
        expect_near(y[at], want, (p->k + 4) * (double)FLT_EPSILON * size);
    }
    free(y);
    free(before);
}

/* Going on from the first half of k is the same sum. */
static void check_going_on(const struct kernels *set, const struct product *p,
                           const struct kernels_rows *x, const float *all)
{
    const int half = p->k / 2 / MATRIX_SPAN * MATRIX_SPAN;
    if (x->form == KERNELS_INT8 || p->k > set->k_block || half == 0) {
        return;
    }
    float one[MATRIX_PANEL];
    const void *panel = p->w.data, *rest = (const char *)panel + matrix_offset(p->w.dtype, half);
    struct kernels_tile t = {
        .panels = &panel,
        .ahead = &rest,
        .dtype = p->w.dtype,
        .n_panels = 1,
        .n_segments = 1,
        .n_turns = 1,
        .m = 1,
        .k = half,
        .x = *x,
        .y = one,
        .ldy = MATRIX_PANEL,
        .mode = KERNELS_SET,
    };
    set->tile(&t);
    t.panels = &rest;
    t.x.data = (const char *)x->data + (size_t)half * (x->form == KERNELS_BF16 ? 2 : 4);
    t.k = p->k - half;
    t.mode = KERNELS_ONTO;
    set->tile(&t);
    assert_memory_equal(all, one, sizeof one);
}

/* Row by row and panel by panel must give what all at once gives. */
static void check_alone(const struct kernels *set, const struct product *p,
                        const struct kernels_rows *x)
{
    const size_t ld = (size_t)matrix_padded(p->n);
    float *all = numbers((size_t)p->m * ld, 4), *one = numbers((size_t)p->m * ld, 5);
    kernels_matmul(set, &p->w, 0, p->w.n_panels, x, p->m, all, ld, KERNELS_SET);
    for (int panel = 0; panel < p->w.n_panels; panel++) {
        for (int row = 0; row < p->m; row++) {
            const struct kernels_rows x_row = {
                x->form, (const char *)x->data + (size_t)row * x->stride, x->stride};
            kernels_matmul(set, &p->w, panel, panel + 1, &x_row, 1,
                           one + (size_t)row * ld + (size_t)panel * MATRIX_PANEL, ld, KERNELS_SET);
        }
    }
    assert_memory_equal(all, one, (size_t)p->m * ld * sizeof *all);
    check_going_on(set, p, x, all);
    free(all);
    free(one);
}

static void check_in_form(const struct product *p, const struct kernels *set,
                          enum kernels_input form)
{
    struct inputs in;
    open_inputs(&in, set, p, form);
    check_product(set, p, &in);
    check_alone(set, p, &in.rows);
    close_inputs(&in);
}

static void check_sets(int m, int n, int k, enum arch_dtype dtype)
{
    struct product p;
    open_product(&p, m, n, k, dtype);
    for (int s = 0; s < n_sets; s++) {
        const enum kernels_input form = kernels_form(sets[s], dtype);
        check_in_form(&p, sets[s], form);
        if (form == KERNELS_BF16) { // these also take inputs as they are
            check_in_form(&p, sets[s], KERNELS_F32);
        }
    }
    close_product(&p);
}

static void products(void **state)
{
    (void)state;
    const int ms[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 32}, ns[] = {1, 16, 40, 100},
              ks[] = {1, 7, 64, 200};
    for (int i = 0; i < 14 * 4 * 4 * N_DTYPES; i++) {
        check_sets(ms[i % 14], ns[i / 14 % 4], ks[i / 56 % 4], dtypes[i / 224]);
    }
}

/* More columns than a block, and so many rows that one block of columns after the other is used. */
static void long_and_high_products(void **state)
{
    (void)state;
    for (int d = 0; d < N_DTYPES; d++) {
        check_sets(3, 50, 2100, dtypes[d]);
        check_sets(17, 16 * 35, 600, dtypes[d]);
        check_sets(530, 20, 2070, dtypes[d]);
    }
}

/* Where inputs or products are denormals, or vanish, a row alone still gets what it gets among others. */
static void products_near_nothing(void **state)
{
    (void)state;
    const int ms[] = {2, 16, 20}, sizes[][2] = {{10, -130}, {-70, -60}, {-63, -63}};
    for (int i = 0; i < 9; i++) {
        struct product p;
        open_product(&p, ms[i / 3], 40, 200, ARCH_BF16);
        for (int k = 0; k < p.m * p.k; k++) {
            p.x[k] = ldexpf(p.x[k], sizes[i % 3][0] + k % 3);
        }
        for (int k = 0; k < p.n * p.k; k++) {
            p.wide[k] = ldexpf(p.wide[k], sizes[i % 3][1]);
        }
        matrix_pack(&p.w, 0, p.n, ARCH_F32, p.wide);
        for (int s = 0; s < n_sets; s++) {
            struct inputs in;
            open_inputs(&in, sets[s], &p, kernels_form(sets[s], ARCH_BF16));
            check_alone(sets[s], &p, &in.rows);
            close_inputs(&in);
        }
        close_product(&p);
    }
}

/* Integer sums are exact and floats are taken in one order: vector sets agree to the bit. */
static void vector_sets_agree_on_integers(void **state)
{
    (void)state;
    for (int d = 3; d < N_DTYPES; d++) {
        struct product p;
        struct inputs in;
        float first[5 * 32], y[5 * 32];
        open_product(&p, 5, 32, 500, dtypes[d]); // one block of columns in any set
        open_inputs(&in, sets[0], &p, KERNELS_INT8);
        for (int s = 0; s < n_sets && sets[s] != &kernels_portable; s++) {
            kernels_matmul(sets[s], &p.w, 0, 2, &in.rows, 5, s ? y : first, 32, KERNELS_SET);
            assert_true(s == 0 || memcmp(first, y, sizeof y) == 0);
        }
        close_inputs(&in);
        close_product(&p);
    }
}

static void rows_of_a_packed_matrix_come_back(void **state)
{
    (void)state;
    struct err e = {0};
    for (int d = 0; d < 3; d++) {
        float *rows = numbers((size_t)(37 * 19), 6), row[19];
        struct matrix from, to; // through the dtype and on as it is
        uint16_t words[19];
        assert_int_equal(matrix_init(&from, 37, 19, dtypes[d], &e), 0);
        assert_int_equal(matrix_init(&to, 37, 19, dtypes[d], &e), 0);
        matrix_pack(&from, 0, 37, ARCH_F32, rows);
        for (int i = 0; i < 37; i++) {
            matrix_row(&from, i, row);
            for (int k = 0; k < 19; k++) {
                const float want = rows[i * 19 + k];
                words[k] = dtypes[d] == ARCH_BF16 ? bf16_from_f32(want) : f16_from_f32(want);
                assert_true(row[k] == (dtypes[d] == ARCH_F32    ? want
                                       : dtypes[d] == ARCH_BF16 ? bf16_to_f32(words[k])
                                                                : f16_to_f32(words[k])));
            }
            matrix_pack(&to, i, 1, dtypes[d], dtypes[d] == ARCH_F32 ? (void *)row : (void *)words);
        }
        assert_memory_equal(from.data, to.data, from.panel_bytes * (size_t)from.n_panels);
        matrix_free(&from);
        matrix_free(&to);
        free(rows);
    }
}

static void integers_are_the_nearest(void **state)
{
    (void)state;
    for (int d = 3; d < N_DTYPES; d++) {
        struct product p;
        open_product(&p, 1, 20, 83, dtypes[d]);
        const float *w = numbers(20 * 83, 1);
        for (int i = 0; i < 20 * 83; i++) { // values reach 2: steps of at most 2 / 127, 2 / 8
            const double step = dtypes[d] == ARCH_INT8 ? 2.01 / 127 : 2.01 / 8;
            // The end of the shorter side of -8 .. 7 may be a whole step away.
            expect_near(p.wide[i], (double)w[i], dtypes[d] == ARCH_INT8 ? step / 2 : step);
        }
        free((void *)(uintptr_t)w);
        close_product(&p);
    }
}

static void blocks_of_gguf_are_taken_as_they_are(void **state)
{
    (void)state;
    struct err e = {0};
    for (int d = 3; d < N_DTYPES; d++) {
        const bool wide = dtypes[d] == ARCH_INT8;
        uint8_t rows[3][2][34];
        const size_t block = wide ? 34 : 18;
        assert_int_equal(matrix_row_bytes(dtypes[d], 64), 2 * block);
        uint8_t *bytes = &rows[0][0][0];
        for (size_t i = 0; i < 6 * block; i++) {
            bytes[i] = (uint8_t)(i * 37 + i / 7);
        }
        for (size_t b = 0; b < 6; b++) { // factors of about 1
            bytes[b * block] = (uint8_t)(b * 40);
            bytes[b * block + 1] = 0x3c;
        }
        struct matrix m;
        assert_int_equal(matrix_init(&m, 3, 64, dtypes[d], &e), 0);
        matrix_pack(&m, 0, 3, dtypes[d], bytes);
        for (int r = 0; r < 3; r++) {
            float row[64];
            matrix_row(&m, r, row);
            for (size_t k = 0; k < 64; k++) {
                const uint8_t *from = bytes + ((size_t)r * 2 + k / 32) * block;
                const float factor = f16_to_f32((uint16_t)(from[0] | from[1] << 8));
                const size_t at = k % 32;
                const int q = wide      ? (int8_t)from[2 + at]
                              : at < 16 ? (from[2 + at] & 15) - 8
                                        : (from[2 + at - 16] >> 4) - 8;
                assert_true(row[k] == factor * (float)q);
            }
        }
        matrix_free(&m);
    }
}

static void halves_round_as_hardware_does(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const float f = f16_to_f32((uint16_t)h);
        assert_true(isnan(f) || f16_from_f32(f) == h);
        assert_true(isnan(f) == ((h & 0x7fff) > 0x7c00));
    }
    assert_true(f16_to_f32(0x3c00) == 1 && f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(f16_to_f32(0x7bff) == 65504 && isinf(f16_to_f32(0xfc00)));
    // Halves between two: to the even one; from the largest on to infinity.
    assert_int_equal(f16_from_f32(1 + 0x1p-11f), 0x3c00);
    assert_int_equal(f16_from_f32(1 + 0x3p-11f), 0x3c02);
    assert_int_equal(f16_from_f32(0x1p-25f), 0);
    assert_int_equal(f16_from_f32(0x3p-25f), 2);
    assert_int_equal(f16_from_f32(-65519), 0xfbff);
    assert_int_equal(f16_from_f32(-65520), 0xfc00);
    assert_int_equal(f16_from_f32(NAN) & 0x7e00, 0x7e00);
}

/* --- the rest --------------------------------------------------------------------------------- */

static double rounded(double v)
{
    return (double)bf16_to_f32(bf16_from_f32((float)v));
}

/* With and without rounding before w; sums in another order may round a value up that we round down. */
static void norms_of(bool rounds)
{
    const int sizes[] = {1, 8, 16, 24, 100, 512};
    for (int i = 0; i < 6 * n_sets; i++) {
        const int n = sizes[i % 6];
        float *x = numbers((size_t)n, 11), *w = numbers((size_t)n, 12), *y = numbers((size_t)n, 13);
        double squares = 0;
        for (int j = 0; j < n; j++) {
            squares += (double)x[j] * (double)x[j];
        }
        double scale = 1 / sqrt(squares / n + (double)1e-5f);
        const struct kernels_norm norm = {.w = w, .eps = 1e-5f, .rounds = rounds};
        sets[i / 6]->rmsnorm(y, x, &norm, n);
        for (int j = 0; j < n; j++) {
            const double unit = (double)x[j] * scale, near = (n / 8 + 8) * (double)FLT_EPSILON;
            const double low = rounds ? rounded(unit * (1 - near)) : unit * (1 - near);
            const double high = rounds ? rounded(unit * (1 + near)) : unit * (1 + near);
            const double want = (low + high) / 2 * (double)w[j];
            expect_near(y[j], want,
                        (fabs(high - low) / 2 + near * fabs(unit)) * fabs((double)w[j]));
        }
        for (int j = n; j < matrix_padded(n); j++) {
            assert_true(y[j] == 0);
        }
        free(x);
        free(w);
        free(y);
    }
}

static void norms(void **state)
{
    (void)state;
    norms_of(false);
    norms_of(true);
}

static void rounding(void **state)
{
    (void)state;
    float *x = numbers(100, 14), y[100];
    x[0] = 1 + 0x1p-8f; // ties go to even
    x[1] = 1 + 0x3p-8f;
    x[2] = -FLT_MAX; // overflows
    x[3] = INFINITY;
    x[4] = 0x1p-130f;
    const uint32_t all_ones = 0x7fffffff;
    memcpy(&x[5], &all_ones, sizeof all_ones); // a NaN that must not become -0
    for (int i = 0; i < n_sets; i++) {
        for (int n = 0; n <= 100; n += 20) {
            memcpy(y, x, sizeof y);
            sets[i]->round(y, n);
            for (int j = 0; j < 100; j++) {
                const float want = j < n ? bf16_to_f32(bf16_from_f32(x[j])) : x[j];
                assert_true(isnan(x[j]) ? isnan(y[j]) : y[j] == want);
            }
        }
    }
    assert_true(y[0] == 1 && y[1] == 1 + 0x1p-6f && y[2] == -INFINITY);
    free(x);
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

static double want_gate(enum arch_activation act, double g, double u)
{
    switch (act) {
    case ARCH_GELU_TANH:
        return 0.5 * g * (1 + tanh(sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
    case ARCH_SWIGLU_CLAMP:
        g = fmin(g, 7);
        u = fmax(-7, fmin(u, 7));
        return g / (1 + exp(-1.702 * g)) * (u + 1);
    default:
        return g / (1 + exp(-g)) * u;
    }
}

static void activations(void **state)
{
    (void)state;
    const enum arch_activation acts[] = {ARCH_SILU, ARCH_GELU_TANH, ARCH_SWIGLU_CLAMP};
    float in[64], out[32];
    for (int i = 0; i < 3 * n_sets; i++) {
        const enum arch_activation act = acts[i % 3];
        for (int j = 0; j < 64; j++) {
            in[j] = (float)(j - 32) * (j % 3 ? 0.3f : 40.0f); // up to 1280: exp must not overflow
        }
        sets[i / 3]->gate(act, out, in, 2);
        for (int j = 0; j < 32; j++) {
            double g = (double)in[j / 16 * 32 + j % 16], u = (double)in[j / 16 * 32 + 16 + j % 16];
            double want = want_gate(act, g, u);
            // Far on the left the exponent's own rounding shows.
            expect_near(out[j], want, 4e-6 * fabs(want) + 1e-6 * fabs(u));
        }
    }
}

static void caps(void **state)
{
    (void)state;
    for (int s = 0; s < n_sets; s++) {
        float x[37], before[37];
        for (int i = 0; i < 37; i++) {
            x[i] = before[i] = (float)(i - 18) * (i % 2 ? 9.7f : 0.01f);
        }
        sets[s]->softcap(x, 35, 50);
        for (int i = 0; i < 35; i++) {
            double want = 50 * tanh((double)before[i] / 50);
            expect_near(x[i], want, 5e-7 * fabs(want));
        }
        assert_true(x[35] == before[35] && x[36] == before[36]);
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

/* --- sets ------------------------------------------------------------------------------------ */

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
    for (const struct kernels *k; (k = kernels_set(n_sets)) != NULL; n_sets++) {
        sets[n_sets] = k;
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_round_as_hardware_does),
        cmocka_unit_test(products),
        cmocka_unit_test(long_and_high_products),
        cmocka_unit_test(products_near_nothing),
        cmocka_unit_test(vector_sets_agree_on_integers),
        cmocka_unit_test(rows_of_a_packed_matrix_come_back),
        cmocka_unit_test(integers_are_the_nearest),
        cmocka_unit_test(blocks_of_gguf_are_taken_as_they_are),
        cmocka_unit_test(norms),
        cmocka_unit_test(rounding),
        cmocka_unit_test(rotations),
        cmocka_unit_test(activations),
        cmocka_unit_test(caps),
        cmocka_unit_test(largest_and_exponentials),
        cmocka_unit_test(sets_are_chosen_by_name),
    };
    return cmocka_run_group_tests(tests, find_sets, NULL);
}
