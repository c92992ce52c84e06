/*
 * Storage formats against what their standards say, written down another way: tables made with ldexp,
 * and for e4m3 the values that PyTorch's float8_e4m3fn has.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"
#include "workers/weights/fill.h"
#include "workers/weights/formats.h"

#include <float.h>
#include <math.h>
#include <string.h>

static double e4m3_by_hand(int code)
{
    const int e = code >> 3 & 15, m = code & 7;
    const double size = e == 0 ? ldexp(m, -9) : ldexp(8 + m, e - 10);
    return code & 0x80 ? -size : size;
}

static uint64_t fnv(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001b3u;
    }
    return h;
}

static void every_code_of_e4m3(void **state)
{
    (void)state;
    float values[256] = {0};
    for (int c = 0; c < 256; c++) {
        const float v = formats_e4m3((uint8_t)c);
        if ((c & 0x7f) == 0x7f) {
            assert_true(isnan(v));
            continue;
        }
        values[c] = v;
        assert_true((double)v == e4m3_by_hand(c) && !signbit(v) == !(c & 0x80));
    }
    assert_true(values[0x7e] == 448 && values[1] == 0x1p-9f && values[0x38] == 1);
    // torch.arange(256).view(torch.float8_e4m3fn).float(), its two NaNs set to 0
    assert_int_equal(fnv(values, sizeof values), 0x854cabd1defe4645u);
}

static void every_code_of_mxfp4(void **state)
{
    (void)state;
    static const double sizes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    for (int scale = 0; scale < 255; scale++) {
        uint8_t blocks[16], one = (uint8_t)scale;
        float out[32];
        for (int i = 0; i < 16; i++) {
            blocks[i] = (uint8_t)(i | (15 - i) << 4); // value 2i has code i, 2i + 1 has 15 - i
        }
        formats_mxfp4(blocks, &one, 32, out);
        for (int i = 0; i < 32; i++) {
            const int code = i % 2 == 0 ? i / 2 : 15 - i / 2;
            const double want = ldexp(sizes[code & 7], scale - 127) * (code & 8 ? -1 : 1);
            const float got = out[i]; // 6 * 2^127 is beyond float32
            assert_true((double)got == (want > (double)FLT_MAX    ? (double)INFINITY
                                        : want < -(double)FLT_MAX ? -(double)INFINITY
                                                                  : want));
            assert_true(!signbit(got) == !(code & 8));
            if (scale > 3) { // no subnormals: exact in bfloat16
                assert_true(bf16_to_f32(bf16_from_f32(got)) == got);
            }
        }
    }
    assert_true(isnan(formats_e8m0(255)));
}

/* GGUF keeps the two halves of 32 values in the halves of its bytes. */
static void gguf_groups_have_their_own_order(void **state)
{
    (void)state;
    uint8_t mxfp4[2 * FORMATS_MXFP4_BYTES], q4[2 * FORMATS_Q4_0_BYTES], q8[2 * FORMATS_Q8_0_BYTES];
    const uint16_t half = f16_from_f32(0.37f), tiny = 1; // the smallest float16
    for (int g = 0; g < 2; g++) {
        const uint16_t factor = g == 0 ? half : tiny;
        mxfp4[g * FORMATS_MXFP4_BYTES] = (uint8_t)(120 + g);
        memcpy(q4 + g * FORMATS_Q4_0_BYTES, &factor, 2);
        memcpy(q8 + g * FORMATS_Q8_0_BYTES, &factor, 2);
        for (int i = 0; i < 16; i++) {
            const uint8_t pair = (uint8_t)(i | (i * 7 % 16) << 4);
            mxfp4[g * FORMATS_MXFP4_BYTES + 1 + i] = pair;
            q4[g * FORMATS_Q4_0_BYTES + 2 + i] = pair;
        }
        for (int i = 0; i < 32; i++) {
            q8[g * FORMATS_Q8_0_BYTES + 2 + i] = (uint8_t)(i * 8 - 128);
        }
    }
    float a[64], b[64], c[64];
    formats_gguf_mxfp4(mxfp4, 64, a);
    formats_q4_0(q4, 64, b);
    formats_q8_0(q8, 64, c);
    for (int i = 0; i < 64; i++) {
        const int at = i % 32, code = at < 16 ? at : (at - 16) * 7 % 16;
        const float factor = i < 32 ? f16_to_f32(half) : 0x1p-24f;
        assert_true(a[i] == ldexpf(formats_e2m1((uint8_t)code), i < 32 ? -7 : -6));
        assert_true(b[i] == (float)(code - 8) * factor);
        assert_true(c[i] == (float)(at * 8 - 128) * factor);
    }
}

/* The nearest by trying every code. */
static uint8_t nearest(float v, float (*decode)(uint8_t), int n)
{
    uint8_t best = 0;
    for (int c = 1; c < n; c++) {
        const double d = fabs((double)decode((uint8_t)c) - (double)fabsf(v));
        const double best_d = fabs((double)decode(best) - (double)fabsf(v));
        if (d < best_d || (!(d > best_d) && c % 2 == 0)) {
            best = (uint8_t)c;
        }
    }
    return best;
}

static void codes_are_the_nearest(void **state)
{
    (void)state;
    uint32_t seed = 1;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        float v = ldexpf((float)(seed >> 8), (int)(seed % 24) - 34);
        v = i % 4 == 0 ? (float)(seed >> 20) * 0x1p-11f : v; // many ties
        assert_int_equal(formats_to_e4m3(v), nearest(v, formats_e4m3, 0x7f));
        assert_int_equal(formats_to_e2m1(v), nearest(v, formats_e2m1, 8));
        assert_int_equal(formats_to_e4m3(-v), 0x80 | nearest(v, formats_e4m3, 0x7f));
        assert_int_equal(formats_to_e2m1(-v), 8 | nearest(v, formats_e2m1, 8));
    }
    for (int c = 0; c < 256; c++) {
        assert_true((c & 0x7f) == 0x7f || formats_to_e4m3(formats_e4m3((uint8_t)c)) == c);
    }
    assert_int_equal(formats_to_e4m3(1e30f), 0x7e);
    assert_int_equal(formats_to_e2m1(-1e30f), 15);
}

static void generated_values_are_near_those_of_float32(void **state)
{
    (void)state;
    enum {
        N = 4096
    };
    float want[N], fp8[N], mxfp4[N], part[32];
    const uint64_t key = fill_key("model.layers.3.mlp.down_proj.weight");
    fill_f32(key, 0, N, want);
    fill_fp8(key, 0, N, fp8);
    fill_mxfp4(key, 0, N, mxfp4);
    double sum = 0;
    for (int i = 0; i < N; i++) {
        assert_true(isfinite(fp8[i]) && isfinite(mxfp4[i]));
        assert_true(fabsf(fp8[i] - want[i]) <= fmaxf(fabsf(want[i]) / 16, 0x1p-22f));
        assert_true(fabsf(mxfp4[i] - want[i]) <= fmaxf(fabsf(want[i]) / 4, 0x1p-9f));
        sum += (double)mxfp4[i] * (double)mxfp4[i];
    }
    const double deviation = sqrt(sum / N);
    assert_true(deviation > 0.016 && deviation < 0.021);
    fill_mxfp4(key, 1000, 32, part);
    assert_memory_equal(part, mxfp4 + 1000, sizeof part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_of_e4m3),
        cmocka_unit_test(every_code_of_mxfp4),
        cmocka_unit_test(gguf_groups_have_their_own_order),
        cmocka_unit_test(codes_are_the_nearest),
        cmocka_unit_test(generated_values_are_near_those_of_float32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
