/*
 * bfloat16: the upper half of an IEEE float32. Rounding is to nearest, ties to even, as hardware and
 * PyTorch round; a NaN stays a NaN.
 */
#pragma once

#include <stdint.h>
#include <string.h>

static inline float bf16_to_f32(uint16_t b)
{
    uint32_t u = (uint32_t)b << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t bf16_from_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(u >> 16 | 0x40u); // quiet, so that dropping bits cannot make an infinity
    }
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}
