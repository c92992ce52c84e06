/*
 * The values of workers/weights/fill.h, one after the other: loops without a branch, which a compiler
 * turns into the vectors of whatever it compiles for. All of it is integers until one exact
 * conversion, so every instruction set gives the same bits.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FILL_GOLDEN 0x9e3779b97f4a7c15u
#define FILL_MEAN   131070   // of the sum of four fields
#define FILL_SCALE  0x1p-21f // exact: the sum has 18 bits
#define FILL_FIELDS 0xffff0000ffffu

static inline float fill_value(uint64_t h)
{
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    h ^= h >> 31;
    h = (h & FILL_FIELDS) + (h >> 16 & FILL_FIELDS);
    return (float)((int32_t)((uint32_t)h + (uint32_t)(h >> 32)) - FILL_MEAN) * FILL_SCALE;
}

/* n values; `state` is the first one's less FILL_GOLDEN. */
static inline void fill_loop_f32(uint64_t state, size_t n, float *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        state += FILL_GOLDEN;
        out[i] = fill_value(state);
    }
}

/* The same, rounded as workers/weights/bf16.h rounds; none is a NaN. */
static inline void fill_loop_bf16(uint64_t state, size_t n, uint16_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        state += FILL_GOLDEN;
        const float f = fill_value(state);
        uint32_t u;
        memcpy(&u, &f, sizeof u);
        out[i] = (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
    }
}
