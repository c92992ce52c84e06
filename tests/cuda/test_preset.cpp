/* Generated weights on the device against workers/weights, bit for bit. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/preset.h"

extern "C" {
#include "workers/weights/bf16.h"
#include "workers/weights/decode.h"
#include "workers/weights/fill.h"
#include "workers/weights/formats.h"
}

enum { ROWS = 5 };

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
    p.n_rows = n_rows, p.n_cols = n_cols, p.ld = n_cols;
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

static void check(const struct weights_tensor *t, size_t n, int64_t first_col, bool wide, bool in_order)
{
    const size_t ld = n + 3;
    device_array<uint32_t> out32(ROWS * ld, 0xffffffffu);
    device_array<uint16_t> out16(ROWS * ld, 0xffff);
    device_array<int32_t> rows(ROWS);
    rows.host = {3, 8, 0, 1, 9};
    preset_rows p = rows_of(t, ROWS, (int64_t)n);
    p.first_row = 4, p.first_col = first_col, p.ld = (int64_t)ld;
    p.rows = in_order ? nullptr : rows.device();
    p.dtype = wide ? ARCH_F32 : ARCH_BF16;
    p.out = wide ? (void *)out32.device() : (void *)out16.device();
    preset_queue(&p, nullptr);
    device_finish();
    out32.fetch(), out16.fetch();
    for (size_t i = 0; i < ROWS; i++) {
        check_row(t, in_order ? 4 + (int64_t)i : rows.host[i], first_col, n, wide, &out32.host[i * ld],
                  &out16.host[i * ld]);
        for (size_t k = n; k < ld; k++) { // what is between rows stays
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

static void codes(void **state)
{
    (void)state;
    const size_t n_rows = 40, n_cols = 1026;
    std::vector<float> want(n_cols);
    device_array<uint8_t> fp8(n_rows * n_cols, 0xff), mxfp4(n_rows * n_cols / 2, 0xff);
    for (enum arch_dtype dtype : {ARCH_FP8, ARCH_MXFP4}) {
        const struct weights_tensor t = tensor(dtype, (int64_t)n_rows, (int64_t)n_cols, 0);
        preset_rows p = rows_of(&t, (int64_t)n_rows, (int64_t)n_cols);
        p.dtype = dtype, p.out = dtype == ARCH_FP8 ? fp8.device() : mxfp4.device();
        preset_queue(&p, nullptr);
        device_finish();
        fp8.fetch(), mxfp4.fetch();
        for (size_t row = 0; row < n_rows; row++) {
            fill_f32(t.key, row * n_cols, n_cols, want.data());
            for (size_t k = 0; k < n_cols; k++) {
                const size_t at = row * n_cols + k;
                if (dtype == ARCH_FP8) {
                    assert_int_equal(fp8.host[at], formats_to_e4m3(want[k] / PRESET_FP8_FACTOR));
                } else {
                    const float scale = formats_e8m0(PRESET_MXFP4_EXPONENT);
                    assert_int_equal(mxfp4.host[at / 2] >> at % 2 * 4 & 15, formats_to_e2m1(want[k] / scale));
                }
            }
        }
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
