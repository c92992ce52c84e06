/* Generated weights on the device against workers/weights, bit for bit. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/device_matrix.h"
#include "workers/cuda/preset.h"

extern "C" {
#include "workers/layers.h"
#include "workers/weights/bf16.h"
#include "workers/weights/decode.h"
#include "workers/weights/fill.h"
#include "workers/weights/formats.h"
}

enum { ROWS = 6 };

/* A tensor of a name drawn now: plain, one part of several interleaved ones, or transposed. */
static struct weights_tensor tensor(enum arch_dtype stored, int64_t n_rows, int64_t n_cols, int way)
{
    char name[32];
    snprintf(name, sizeof name, "model.%u", (unsigned)device_random()());
    struct weights_tensor t = {};
    t.n_rows = n_rows, t.n_cols = n_cols, t.stored = stored, t.key = fill_key(name);
    t.first = way == 0 ? 0 : way == 1 ? (int64_t)1 << 40 : 7;
    t.row_step = way == 2 ? 1 : way == 1 ? 2 * n_cols : n_cols;
    t.col_step = way == 2 ? n_rows : 1;
    return t;
}

static preset_rows rows_of(const struct weights_tensor *t, int64_t n_rows, int64_t n_cols)
{
    preset_rows p = {};
    p.stored = t->stored, p.first = t->first, p.row_step = t->row_step, p.col_step = t->col_step;
    p.add = t->add, p.is_norm = t->is_norm, p.key = t->key;
    p.n_rows = n_rows, p.n_cols = n_cols;
    return p;
}

/* The bits of row `row` from column `col` on: of float32, or of bfloat16 in the upper half. */
static void check_row(const struct weights_tensor *t, int64_t row, int64_t col, size_t n, bool wide,
                      const uint32_t *got32, const uint16_t *got16)
{
    for (size_t i = 0; i < n; i++) {
        float want;
        uint32_t bits;
        struct weights_tensor from = *t; // decode_span begins at multiples of its own
        from.first += (col + (int64_t)i) * t->col_step;
        decode_span(&from, row, 0, 1, &want);
        memcpy(&bits, &want, sizeof bits);
        assert_int_equal(wide ? got32[i] : got16[i], wide ? bits : bf16_from_f32(want));
    }
}

/* Six rows of a tensor; `turned`: of two heads of 5 rows from the second on, the last 4 of which are pairs. */
static void check(const struct weights_tensor *t, size_t n, int64_t first_col, bool wide, bool turned)
{
    preset_rows p = rows_of(t, ROWS, (int64_t)n);
    p.first_row = turned ? 0 : 4, p.first_col = first_col;
    p.head = turned ? 5 : 0, p.rope_dim = 4;
    p.dtype = wide ? ARCH_F32 : ARCH_BF16;
    const size_t ld = device_matrix_row_bytes(p.dtype, (int)n) / (wide ? 4 : 2);
    device_array<uint32_t> out32(ROWS * ld, 0xffffffffu);
    device_array<uint16_t> out16(ROWS * ld, 0xffff);
    p.out = wide ? (void *)out32.device() : (void *)out16.device();
    preset_queue(&p, nullptr);
    device_finish();
    out32.fetch(), out16.fetch();
    for (size_t i = 0; i < ROWS; i++) {
        const int64_t row = turned ? layers_rotary_source((int)i, 5, 4) : 4 + (int64_t)i;
        check_row(t, row, first_col, n, wide, &out32.host[i * ld], &out16.host[i * ld]);
        for (size_t k = n; k < ld; k++) { // what pads rows stays
            assert_true(out32.host[i * ld + k] == 0xffffffffu && out16.host[i * ld + k] == 0xffff);
        }
    }
}

static void values_of_every_dtype(void **state)
{
    (void)state;
    for (enum arch_dtype stored : {ARCH_F32, ARCH_BF16, ARCH_F16, ARCH_FP8, ARCH_MXFP4}) {
        for (int way = 0; way < 6; way++) {
            const struct weights_tensor t = tensor(stored, 10, 700, way % 3);
            check(&t, way < 3 ? 700 : 13, way < 3 ? 0 : 64 + way, way % 2, way > 3);
        }
    }
}

static void norms(void **state)
{
    (void)state;
    for (float add : {0.0f, -1.0f, 0.25f}) {
        struct weights_tensor t = tensor(ARCH_BF16, 10, 70, 0);
        t.is_norm = true, t.add = add;
        check(&t, 70, 0, true, true);
        t.is_norm = false;
        check(&t, 70, 0, false, true);
    }
}

static uint8_t code_at(const device_array<uint8_t> &data, enum arch_dtype dtype, size_t row_bytes, size_t row, int k)
{
    const size_t place = device_matrix_place(dtype, k);
    const uint8_t *from = &data.host[row * row_bytes];
    return dtype == ARCH_FP8 ? from[place] : (uint8_t)(from[place / 2] >> place % 2 * 4 & 15);
}

static void check_factors(enum arch_dtype dtype, int n_cols, const uint8_t *row)
{
    const int each = dtype == ARCH_FP8 ? 128 : 32;
    for (int i = 0; i < (n_cols + each - 1) / each; i++) {
        float factor;
        memcpy(&factor, row + (dtype == ARCH_FP8 ? 4 * i : 0), sizeof factor);
        assert_true(dtype == ARCH_FP8 ? factor == PRESET_FP8_FACTOR : row[i] == PRESET_MXFP4_EXPONENT);
    }
}

/* n_cols is no multiple of anything, rows come from the middle, and factors are shared by factor_rows. */
static void check_codes(enum arch_dtype dtype, int n_cols, int factor_rows)
{
    const int n_rows = 40, first_col = 128;
    const float scale = dtype == ARCH_FP8 ? PRESET_FP8_FACTOR : formats_e8m0(PRESET_MXFP4_EXPONENT);
    const size_t row_bytes = device_matrix_row_bytes(dtype, n_cols);
    const size_t factor_bytes = device_matrix_factor_bytes(dtype, n_cols);
    const struct weights_tensor t = tensor(dtype, n_rows + 3, n_cols + 200, 0);
    std::vector<float> want((size_t)n_cols);
    device_array<uint8_t> data(n_rows * row_bytes, 0xff);
    device_array<uint8_t> factors((size_t)n_rows * factor_bytes, 0xff);
    preset_rows p = rows_of(&t, n_rows, n_cols);
    p.dtype = dtype, p.first_row = 3, p.first_col = first_col;
    p.out = data.device(), p.factors = factors.device(), p.factor_rows = factor_rows;
    preset_queue(&p, nullptr);
    device_finish();
    data.fetch(), factors.fetch();
    for (int row = 0; row < n_rows; row++) {
        fill_f32(t.key, (uint64_t)(row + 3) * (uint64_t)t.row_step + first_col, want.size(), want.data());
        check_factors(dtype, n_cols, &factors.host[(size_t)(row / factor_rows) * factor_bytes]);
        for (int k = 0; k < n_cols; k++) {
            const float v = want[(size_t)k] / scale;
            assert_int_equal(code_at(data, dtype, row_bytes, (size_t)row, k),
                             dtype == ARCH_FP8 ? formats_to_e4m3(v) : formats_to_e2m1(v));
        }
    }
    const size_t lines = (size_t)((n_rows + factor_rows - 1) / factor_rows);
    for (size_t i = lines * factor_bytes; i < factors.host.size(); i++) {
        assert_int_equal(factors.host[i], 0xff);
    }
}

static void codes(void **state)
{
    (void)state;
    for (int n_cols : {1, 31, 32, 130, 1026}) {
        check_codes(ARCH_FP8, n_cols, 1);
        check_codes(ARCH_FP8, n_cols, 7);
        check_codes(ARCH_MXFP4, n_cols, 1);
    }
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_dtype),
        cmocka_unit_test(norms),
        cmocka_unit_test(codes),
    };
    return device_test_run(tests, nullptr, nullptr);
}
