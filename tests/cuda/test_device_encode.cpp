/* Rows of weights in the device's formats, read back by device_matrix.h and what workers/weights says of codes. */
#include "tests/cuda/device_rows.h"

extern "C" {
#include "workers/cuda/device_encode.h"
#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"
#include "workers/weights/formats.h"
}

static const int widths[] = {1, 3, 8, 31, 32, 33, 64, 100, 127, 128, 129, 160, 512, 1000};

static float draw_float(float lo, float hi)
{
    return std::uniform_real_distribution<float>(lo, hi)(device_random());
}

static uint8_t draw_byte()
{
    return (uint8_t)device_random()();
}

/* --- from floats ---------------------------------------------------------------------------------- */

/* What a format makes of n floats, by the formulas of formats.h alone. */
static std::vector<float> rounded(enum arch_dtype dtype, const std::vector<float> &v)
{
    std::vector<float> out(v);
    for (size_t first = 0; first < v.size(); first += 32) {
        const size_t n = v.size() - first < 32 ? v.size() - first : 32;
        float group[32] = {0};
        uint8_t block[FORMATS_Q8_0_BYTES];
        memcpy(group, &v[first], n * sizeof *group);
        if (dtype == ARCH_INT8) {
            formats_to_q8_0(group, block);
            formats_q8_0(block, 32, group);
        } else if (dtype == ARCH_INT4) {
            formats_to_q4_0(group, block);
            formats_q4_0(block, 32, group);
        }
        for (size_t i = 0; i < n; i++) {
            out[first + i] = dtype == ARCH_BF16 ? bf16_to_f32(bf16_from_f32(group[i])) : group[i];
        }
    }
    return out;
}

static void check_floats(enum arch_dtype dtype, size_t n, float size)
{
    std::vector<float> values(n);
    for (float &v : values) {
        v = draw_float(-size, size);
    }
    device_row row(dtype, (int)n);
    device_encode_row(dtype, values.data(), (int)n, row.data.data(), row.factors.data());
    const std::vector<float> want = rounded(dtype, values);
    for (size_t i = 0; i < n; i++) {
        expect_near(row.value((int)i), want[i], 0);
    }
    row.check_padding();
}

static void floats_of_every_format(void **state)
{
    (void)state;
    for (enum arch_dtype dtype : {ARCH_F32, ARCH_BF16, ARCH_INT8, ARCH_INT4}) {
        for (int n : widths) {
            check_floats(dtype, (size_t)n, 0.1f);
            check_floats(dtype, (size_t)n, 0);
        }
    }
}

/* --- as stored ------------------------------------------------------------------------------------ */

/* A tensor of stored bytes drawn now, in memory as files have them. */
struct stored {
    struct weights_tensor t = {};
    std::vector<uint8_t> data, exponents;
    std::vector<float> scales;

    stored(enum arch_dtype dtype, int64_t n_rows, int64_t n_cols, bool is_gguf)
    {
        snprintf(t.name, sizeof t.name, "test.weight");
        t.n_rows = n_rows, t.n_cols = n_cols, t.stored = dtype, t.dtype = ARCH_F32;
        t.row_step = n_cols, t.col_step = 1;
        const bool apart = dtype == ARCH_MXFP4 && !is_gguf; // exponents
        const int64_t bytes = apart ? n_cols / 2 : weights_row_bytes(dtype, n_cols);
        data.resize((size_t)(n_rows * bytes));
        for (uint8_t &b : data) {
            b = draw_byte();
        }
        tame(dtype, is_gguf);
        exponents.resize(apart ? (size_t)(n_rows * n_cols / 32) : 0);
        for (uint8_t &b : exponents) {
            b = (uint8_t)(draw_byte() % 255);
            b = b > 240 ? 120 : b; // finite with any code
        }
        scales.resize((size_t)((n_rows + 127) / 128 * ((n_cols + 127) / 128)));
        for (float &s : scales) {
            s = draw_float(1e-6f, 1e-2f);
        }
        t.data = data.data();
        t.exponents = apart ? exponents.data() : nullptr;
        t.scales = dtype == ARCH_FP8 ? scales.data() : nullptr;
    }

    /* Numbers only: floats between -1 and 1, no NaN, finite factors. */
    void tame(enum arch_dtype dtype, bool is_gguf)
    {
        const int64_t step = weights_row_bytes(dtype, 32);
        for (size_t i = 0; i < data.size(); i++) {
            if (dtype == ARCH_FP8 && (data[i] & 0x7f) == 0x7f) {
                data[i] = 0x80;
            }
            if (dtype == ARCH_MXFP4 && is_gguf && i % (size_t)step == 0) {
                data[i] = (uint8_t)(100 + data[i] % 40);
            }
            if ((dtype == ARCH_INT8 || dtype == ARCH_INT4) && i % (size_t)step == 1) {
                data[i] = (uint8_t)(data[i] & 0x1f); // float16's exponent, its sign
            }
        }
        for (size_t i = 0; dtype == ARCH_F32 && i < data.size(); i += 4) {
            const float v = draw_float(-1, 1);
            memcpy(&data[i], &v, 4);
        }
        for (size_t i = 0; dtype == ARCH_BF16 && i < data.size(); i += 2) {
            const uint16_t v = bf16_from_f32(draw_float(-1, 1));
            memcpy(&data[i], &v, 2);
        }
    }
};

static void check_stored(enum arch_dtype dtype, int64_t n_cols, int first_col, int n, bool is_gguf, int head)
{
    stored s(dtype, 260, n_cols, is_gguf);
    s.t.rotary_head = head;
    assert_true(device_encode_can_take(&s.t, first_col, n));
    std::vector<float> room((size_t)n_cols);
    for (int row : {0, 1, 127, 128, 259}) {
        device_row got(dtype, n);
        assert_true(device_encode_stored(&s.t, row, first_col, n, got.data.data(), got.factors.data()));
        const float *want = (const float *)weights_rows(&s.t, row, 1, room.data());
        for (int i = 0; i < n; i++) {
            expect_near((float)got.value(i), want[first_col + i], 0); // FP8: a product, rounded once
        }
        got.check_padding();
    }
}

static void codes_as_stored(void **state)
{
    (void)state;
    for (enum arch_dtype dtype : {ARCH_F32, ARCH_BF16, ARCH_FP8}) {
        for (int n : widths) {
            check_stored(dtype, n, 0, n, false, 0);
        }
    }
    for (enum arch_dtype dtype : {ARCH_F32, ARCH_BF16}) {
        check_stored(dtype, 100, 7, 50, false, 0);
        check_stored(dtype, 100, 0, 100, false, 20);
    }
    check_stored(ARCH_FP8, 700, 128, 256, false, 0);
    check_stored(ARCH_FP8, 700, 512, 188, false, 0);
    for (enum arch_dtype dtype : {ARCH_MXFP4, ARCH_INT8, ARCH_INT4}) {
        for (int n : {32, 64, 96, 128, 160, 512}) {
            check_stored(dtype, n, 0, n, true, 0);
            check_stored(dtype, 512, 512 - n, n, true, 26);
        }
    }
    check_stored(ARCH_MXFP4, 512, 0, 512, false, 0);
    check_stored(ARCH_MXFP4, 512, 96, 160, false, 0);
}

/* Integer blocks keep their very codes and factors, which other ones of equal value would not be. */
static void blocks_bit_for_bit(void **state)
{
    (void)state;
    for (enum arch_dtype dtype : {ARCH_INT8, ARCH_INT4, ARCH_MXFP4}) {
        const stored s(dtype, 3, 160, true);
        const size_t step = (size_t)weights_row_bytes(dtype, 32), head = dtype == ARCH_MXFP4 ? 1 : 2;
        device_row got(dtype, 160);
        assert_true(device_encode_stored(&s.t, 2, 0, 160, got.data.data(), got.factors.data()));
        for (int i = 0; i < 160; i++) {
            const uint8_t *block = &s.data[(size_t)(2 * 5 + i / 32) * step], *codes = block + head;
            const int in = i % 32;
            const unsigned want = dtype == ARCH_INT8 ? codes[in]
                                  : in < 16          ? codes[in] & 15u
                                                     : (unsigned)codes[in - 16] >> 4;
            assert_int_equal(got.code(i), want);
            assert_memory_equal(&got.factors[(size_t)(i / 32) * head], block, head);
        }
    }
}

static void what_cannot_be_taken(void **state)
{
    (void)state;
    stored fp8(ARCH_FP8, 4, 300, false), q8(ARCH_INT8, 4, 320, true), f32(ARCH_F32, 4, 30, false);
    assert_true(device_encode_can_take(&fp8.t, 256, 44) && device_encode_can_take(&q8.t, 32, 64));
    assert_false(device_encode_can_take(&fp8.t, 64, 128) || device_encode_can_take(&fp8.t, 0, 64));
    assert_false(device_encode_can_take(&q8.t, 16, 32) || device_encode_can_take(&q8.t, 0, 16));
    f32.t.add = 1;
    assert_false(device_encode_can_take(&f32.t, 0, 30));
    f32.t.add = 0, f32.t.col_step = 4;
    assert_false(device_encode_can_take(&f32.t, 0, 30));
    f32.t.col_step = 1, f32.t.data = nullptr;
    assert_false(device_encode_can_take(&f32.t, 0, 30));
}

static bool takes(stored *s, int first_col, int n)
{
    device_row got(s->t.stored, n);
    return device_encode_stored(&s->t, 1, first_col, n, got.data.data(), got.factors.data());
}

/* In the row and columns that are taken, or elsewhere. */
static void codes_that_are_no_numbers(void **state)
{
    (void)state;
    for (uint8_t code : {0x7f, 0xff}) {
        stored s(ARCH_FP8, 4, 300, false);
        s.data[300 + 290] = code;
        assert_true(takes(&s, 0, 256));
        assert_false(takes(&s, 256, 44));
    }
    stored scaled(ARCH_FP8, 4, 300, false);
    scaled.scales[2] = INFINITY;
    assert_true(takes(&scaled, 0, 256));
    assert_false(takes(&scaled, 0, 300));
    stored pairs(ARCH_MXFP4, 4, 128, false), blocks(ARCH_MXFP4, 4, 128, true);
    pairs.exponents[4 + 3] = 0xff, blocks.data[(4 + 3) * 17] = 0xff;
    assert_true(takes(&pairs, 0, 96) && takes(&blocks, 0, 96));
    assert_false(takes(&pairs, 32, 96) || takes(&blocks, 32, 96));
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(floats_of_every_format), cmocka_unit_test(codes_as_stored),
        cmocka_unit_test(blocks_bit_for_bit),     cmocka_unit_test(what_cannot_be_taken),
        cmocka_unit_test(codes_that_are_no_numbers),
    };
    return device_test_run(tests, nullptr, nullptr);
}
