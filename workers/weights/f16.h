/*
 * IEEE binary16 in software, exact both ways: to float32 without loss (subnormals included), from
 * float32 to nearest, ties to even, as hardware (F16C) and PyTorch round; a NaN stays a NaN.
 */
#pragma once

#include <stdint.h>
#include <string.h>

static inline float f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    float f;
    if (rest < 0x400u) {
        f = (float)rest * 0x1p-24f;
        return sign ? -f : f;
    }
    // Exponents 1 .. 30 move by 127 - 15; 31 is infinity or NaN and becomes 255.
    uint32_t u = sign | ((rest << 13) + (rest < 0x7c00u ? 112u << 23 : 224u << 23));
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t f16_from_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    const uint16_t sign = (uint16_t)(u >> 16 & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x1ffu));
    }
    if (u >= 0x477ff000u) {
        return (uint16_t)(sign | 0x7c00u); // 65520 and up
    }
    if (u < 0x38800000u) { // subnormal: let an addition round at 2^-24
        float magic;
        memcpy(&magic, &u, sizeof magic);
        magic += 0.5f;
        uint32_t rounded;
        memcpy(&rounded, &magic, sizeof rounded);
        return (uint16_t)(sign | (rounded - 0x3f000000u));
    }
    u += 0xfffu + (u >> 13 & 1u);
    return (uint16_t)(sign | ((u - (112u << 23)) >> 13));
}
