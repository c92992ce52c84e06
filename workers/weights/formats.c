#include "workers/weights/formats.h"

#include "workers/weights/f16.h"

#include <math.h>
#include <string.h>

#define F16_MAX 65504.0f

static const float e2m1[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                               -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static float from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float formats_e4m3(uint8_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x80u) << 24, rest = code & 0x7fu;
    if (rest == 0x7f) {
        return from_bits(sign | 0x7fc00000u);
    }
    if (rest < 8) {
        return sign ? -(float)rest * 0x1p-9f : (float)rest * 0x1p-9f;
    }
    return from_bits(sign | ((rest << 20) + (120u << 23)));
}

float formats_e2m1(uint8_t code)
{
    return e2m1[code & 0xfu];
}

float formats_e8m0(uint8_t code)
{
    if (code == 0xff) {
        return from_bits(0x7fc00000u);
    }
    return code == 0 ? 0x1p-127f : from_bits((uint32_t)code << 23);
}

static uint32_t to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* Where one unit in the last place is the step of the smallest codes, an addition rounds to them. */
static uint32_t small_code(float v, float magic)
{
    return to_bits(v + magic) - to_bits(magic);
}

/* Rounded to n mantissa bits, exponent and mantissa as one number; ties to even. */
static uint32_t top_bits(float v, int n)
{
    const uint32_t u = to_bits(v), drop = 23 - (uint32_t)n;
    return (u + (1u << (drop - 1)) - 1 + (u >> drop & 1)) >> drop;
}

uint8_t formats_to_e4m3(float v)
{
    const uint32_t sign = to_bits(v) >> 24 & 0x80u;
    const float size = fminf(fabsf(v), 448);
    return (uint8_t)(sign | (size < 0x1p-6f ? small_code(size, 0x1p14f)
                                            : top_bits(size, 3) - (120u << 3)));
}

uint8_t formats_to_e2m1(float v)
{
    const uint32_t sign = to_bits(v) >> 28 & 8u;
    const float size = fminf(fabsf(v), 6);
    return (uint8_t)(sign |
                     (size < 1 ? small_code(size, 0x1p22f) : top_bits(size, 1) - (126u << 1)));
}

void formats_fp8(const uint8_t *codes, float factor, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = formats_e4m3(codes[i]) * factor;
    }
}

void formats_mxfp4(const uint8_t *blocks, const uint8_t *scales, size_t n, float *out)
{
    for (size_t g = 0; g < n / FORMATS_GROUP; g++) {
        const float scale = formats_e8m0(scales[g]);
        for (size_t i = 0; i < FORMATS_GROUP / 2; i++) {
            const uint8_t pair = blocks[g * FORMATS_GROUP / 2 + i];
            out[g * FORMATS_GROUP + 2 * i] = formats_e2m1(pair) * scale;
            out[g * FORMATS_GROUP + 2 * i + 1] = formats_e2m1((uint8_t)(pair >> 4)) * scale;
        }
    }
}

void formats_gguf_mxfp4(const uint8_t *groups, size_t n, float *out)
{
    for (size_t g = 0; g < n / FORMATS_GROUP; g++, out += FORMATS_GROUP) {
        const uint8_t *group = groups + g * FORMATS_MXFP4_BYTES;
        const float scale = formats_e8m0(group[0]);
        for (size_t i = 0; i < FORMATS_GROUP / 2; i++) {
            out[i] = formats_e2m1(group[1 + i]) * scale;
            out[i + FORMATS_GROUP / 2] = formats_e2m1((uint8_t)(group[1 + i] >> 4)) * scale;
        }
    }
}

static float factor_of(const uint8_t *group)
{
    return f16_to_f32((uint16_t)(group[0] | group[1] << 8));
}

void formats_q8_0(const uint8_t *groups, size_t n, float *out)
{
    for (size_t g = 0; g < n / FORMATS_GROUP; g++, out += FORMATS_GROUP) {
        const uint8_t *group = groups + g * FORMATS_Q8_0_BYTES;
        const float factor = factor_of(group);
        for (size_t i = 0; i < FORMATS_GROUP; i++) {
            out[i] = (float)(int8_t)group[2 + i] * factor;
        }
    }
}

void formats_q4_0(const uint8_t *groups, size_t n, float *out)
{
    for (size_t g = 0; g < n / FORMATS_GROUP; g++, out += FORMATS_GROUP) {
        const uint8_t *group = groups + g * FORMATS_Q4_0_BYTES;
        const float factor = factor_of(group);
        for (size_t i = 0; i < FORMATS_GROUP / 2; i++) {
            out[i] = (float)((group[2 + i] & 0xf) - 8) * factor;
            out[i + FORMATS_GROUP / 2] = (float)((group[2 + i] >> 4) - 8) * factor;
        }
    }
}

/* The factor of a group by which its largest value becomes `most`; its inverse, of the float16 that it is kept as. */
static float put_factor(float factor, uint8_t *group)
{
    const uint16_t bits = f16_from_f32(fmaxf(-F16_MAX, fminf(factor, F16_MAX)));
    const float kept = f16_to_f32(bits);
    group[0] = (uint8_t)bits;
    group[1] = (uint8_t)(bits >> 8);
    return kept != 0 ? 1 / kept : 0;
}

/* In the order of sizes; a NaN is none. */
static int32_t size_of(float v)
{
    const int32_t size = (int32_t)(to_bits(v) & 0x7fffffffu);
    return size > 0x7f800000 ? 0 : size;
}

static int32_t largest_size(const float *values)
{
    int32_t most = 0;
    for (size_t i = 0; i < FORMATS_GROUP; i++) {
        const int32_t size = size_of(values[i]);
        most = size > most ? size : most;
    }
    return most;
}

/* The value of that size, the first of several. */
static float largest_of(const float *values)
{
    const int32_t most = largest_size(values);
    size_t i = 0;
    while (most > 0 && size_of(values[i]) != most) {
        i++;
    }
    return most > 0 ? values[i] : 0;
}

/* Ties to even: where a unit is the last place of a float32, an addition rounds. A NaN becomes the top. */
static int nearest(float v, float bottom, float top)
{
    v = v < top ? v : top;
    v = v > bottom ? v : bottom;
    return (int)(v + 0x1.8p23f - 0x1.8p23f);
}

void formats_to_q8_0(const float *values, uint8_t *group)
{
    const float inverse = put_factor(from_bits((uint32_t)largest_size(values)) / 127, group);
    for (size_t i = 0; i < FORMATS_GROUP; i++) {
        group[2 + i] = (uint8_t)nearest(values[i] * inverse, -127, 127);
    }
}

void formats_to_q4_0(const float *values, uint8_t *group)
{
    const float inverse = put_factor(-largest_of(values) / 8, group);
    for (size_t i = 0; i < FORMATS_GROUP / 2; i++) {
        const int low = nearest(values[i] * inverse, -8, 7) + 8;
        const int high = nearest(values[i + FORMATS_GROUP / 2] * inverse, -8, 7) + 8;
        group[2 + i] = (uint8_t)(low | high << 4);
    }
}
