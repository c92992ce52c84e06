/*
 * Weights of each format (device_matrix.h) as kernels for tensor cores read them. A step is 64 bytes of a row:
 * lane t of 4 reads 16 of them. It is made of pieces of 32 columns, 8 of them in each lane: what two
 * instructions multiply, and what shares a factor.
 */
#pragma once

#include "workers/cuda/device.cuh"
#include "workers/cuda/device_matrix.h"

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/*
 * COLUMNS of a step; PIECES of it; SUMMED pieces that share a factor, 0 where there is none.
 *
 *   column  where in the step a lane's 8 columns of a piece begin
 *   unpack  these 8, as 4 pairs of bfloat16, exactly; without their factor
 *   raw     a row's factors of a step; `load` reads them, `factor` is that of a piece
 */
template <enum arch_dtype dtype> struct weights;

template <> struct weights<ARCH_BF16> {
    static constexpr int COLUMNS = 32, PIECES = 1, SUMMED = 0;
    struct raw {};
    __device__ static int column(int t, int) { return t * 8; }
    __device__ static void unpack(const uint4 &v, int, uint32_t pairs[4])
    {
        pairs[0] = v.x, pairs[1] = v.y, pairs[2] = v.z, pairs[3] = v.w;
    }
    __device__ static raw load(const device_matrix &, int64_t, int) { return {}; }
    __device__ static float factor(const raw &, int) { return 1; }
};

template <> struct weights<ARCH_FP8> {
    static constexpr int COLUMNS = 64, PIECES = 2, SUMMED = 2;
    typedef float raw;
    __device__ static int column(int t, int piece) { return t * 16 + piece * 8; }
    /* Sign, and the rest as the lowest bits of exponent and the highest of mantissa: 2^-120 of the value. */
    __device__ static void unpack(const uint4 &v, int piece, uint32_t pairs[4])
    {
        for (int i = 0; i < 4; i++) {
            const uint32_t four = word_of(v, 2 * piece + i / 2);
            const uint32_t two = __byte_perm(four, 0, i % 2 ? 0x3424u : 0x1404u);
            pairs[i] = bf16_mul2((two & 0x80008000u) | (two >> 4 & 0x07f007f0u), 0x7b807b80u);
        }
    }
    __device__ static raw load(const device_matrix &w, int64_t row, int step)
    {
        const int wide = (w.n_cols + DEVICE_MATRIX_FP8_BLOCK - 1) / DEVICE_MATRIX_FP8_BLOCK;
        const int64_t at = row / w.factor_rows * wide + step * COLUMNS / DEVICE_MATRIX_FP8_BLOCK;
        return __ldg((const float *)w.factors + at);
    }
    __device__ static float factor(const raw &r, int) { return r; }
};

template <> struct weights<ARCH_INT8> {
    static constexpr int COLUMNS = 64, PIECES = 2, SUMMED = 1;
    typedef uint32_t raw; // two of float16
    __device__ static int column(int t, int piece) { return piece * 32 + t * 8; }
    /* A byte in the last bits of 2^23 as float32; what is left has 8 bits, so the upper half is all of it. */
    __device__ static void unpack(const uint4 &v, int piece, uint32_t pairs[4])
    {
        for (int i = 0; i < 4; i++) {
            const uint32_t four = word_of(v, 2 * piece + i / 2) ^ 0x80808080u;
            const uint32_t at = 0x7440u + 2 * ((uint32_t)i % 2);
            const float lo = __uint_as_float(__byte_perm(four, 0x4b000000u, at)) - 0x800080p0f;
            const float hi = __uint_as_float(__byte_perm(four, 0x4b000000u, at + 1)) - 0x800080p0f;
            pairs[i] = __byte_perm(__float_as_uint(lo), __float_as_uint(hi), 0x7632u);
        }
    }
    __device__ static raw load(const device_matrix &w, int64_t row, int step)
    {
        const int n_steps = (w.n_cols + COLUMNS - 1) / COLUMNS;
        return __ldg((const uint32_t *)w.factors + row * n_steps + step);
    }
    __device__ static float factor(const raw &r, int piece)
    {
        return float_of_half((uint16_t)(r >> 16 * piece));
    }
};

template <> struct weights<ARCH_INT4> {
    static constexpr int COLUMNS = 128, PIECES = 4, SUMMED = 1;
    typedef uint2 raw; // four of float16
    __device__ static int column(int t, int piece) { return piece * 32 + t * 8; }
    /* In the last bits of bfloat16's 128: 136 more than the value. */
    __device__ static void unpack(const uint4 &v, int piece, uint32_t pairs[4])
    {
        const uint32_t eight = word_of(v, piece);
        for (int i = 0; i < 4; i++) {
            pairs[i] = bf16_add2((eight >> 4 * i & 0x000f000fu) | 0x43004300u, 0xc308c308u);
        }
    }
    __device__ static raw load(const device_matrix &w, int64_t row, int step)
    {
        const int n_steps = (w.n_cols + COLUMNS - 1) / COLUMNS;
        return __ldg((const uint2 *)w.factors + row * n_steps + step);
    }
    __device__ static float factor(const raw &r, int piece)
    {
        return float_of_half((uint16_t)((piece < 2 ? r.x : r.y) >> 16 * (piece % 2)));
    }
};

template <> struct weights<ARCH_MXFP4> {
    static constexpr int COLUMNS = 128, PIECES = 4, SUMMED = 1;
    typedef uint32_t raw; // four exponents
    __device__ static int column(int t, int piece) { return piece * 32 + t * 8; }
    /* As FP8's: 2^-126 of the value. */
    __device__ static void unpack(const uint4 &v, int piece, uint32_t pairs[4])
    {
        const uint32_t eight = word_of(v, piece);
        for (int i = 0; i < 4; i++) {
            const uint32_t two = eight << (12 - 4 * i);
            pairs[i] = bf16_mul2((two & 0x80008000u) | (two >> 6 & 0x01c001c0u), 0x7e807e80u);
        }
    }
    __device__ static raw load(const device_matrix &w, int64_t row, int step)
    {
        const int n_steps = (w.n_cols + COLUMNS - 1) / COLUMNS;
        return __ldg((const uint32_t *)w.factors + row * n_steps + step);
    }
    __device__ static float factor(const raw &r, int piece)
    {
        const uint32_t exponent = r >> 8 * piece & 0xffu;
        return __uint_as_float(exponent ? exponent << 23 : 0x00400000u);
    }
};
