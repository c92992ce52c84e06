/* How kernels find and read what workers/cuda/cache.h describes. */
#pragma once

#include "workers/cuda/cache.h"
#include "workers/cuda/device.cuh"

#define CACHE_FP8_TOP  448.0f
#define CACHE_INT8_TOP 127.0f
#define CACHE_LEAST    1e-30f // what is smaller throughout is stored as zeros

__host__ __device__ __forceinline__ uint32_t cache_code_bytes(enum arch_dtype dtype)
{
    return dtype == ARCH_F32 ? 4 : dtype == ARCH_BF16 ? 2 : 1;
}

/* Numbers of a unit of keys. */
__host__ __device__ __forceinline__ uint32_t cache_unit(enum arch_dtype dtype)
{
    return 16 / cache_code_bytes(dtype);
}

__host__ __device__ __forceinline__ bool cache_has_factors(enum arch_dtype dtype)
{
    return dtype == ARCH_FP8 || dtype == ARCH_INT8;
}

/* Bytes from the beginning of a head's part to number d of the key at position `at` of the block. */
__device__ __forceinline__ size_t cache_key_at(enum arch_dtype dtype, uint32_t at, uint32_t d)
{
    const uint32_t unit = cache_unit(dtype);
    return (size_t)(d / unit * CACHE_BLOCK + at) * 16 + d % unit * cache_code_bytes(dtype);
}

/* The same of a value, from where values begin. */
__device__ __forceinline__ size_t cache_value_at(const cache_layout &c, uint32_t at, uint32_t d)
{
    if (c.dtype == ARCH_F32) {
        return (size_t)(at * (uint32_t)c.value_dim + d) * 4;
    }
    const uint32_t bytes = cache_code_bytes(c.dtype), w = 4 / bytes;
    const uint32_t tile = d / (8 * w), lane = d % 8 * 4 + at % 8 / 2;
    return (size_t)(((tile * 32 + lane) * w + d % (8 * w) / 8) * 4 + at / 8 * 2 + at % 2) * bytes;
}

/* One head's part of the block of a position. */
__device__ __forceinline__ char *cache_part(const cache_layout &c, const void *kv, uint32_t block, int head)
{
    return (char *)kv + block * c.block_bytes + (size_t)head * c.head_bytes;
}

/* --- codes ---------------------------------------------------------------------------------------- */

/* e4m3: 4 bits of exponent with bias 7, 3 of mantissa. To nearest, ties to even. */
__device__ __forceinline__ uint8_t cache_e4m3_of(float x)
{
    const uint32_t sign = __float_as_uint(x) >> 24 & 0x80u;
    const float magnitude = fminf(fabsf(x), CACHE_FP8_TOP);
    if (magnitude < 0.015625f) { // counts of 2^-9
        return (uint8_t)(sign | (uint32_t)rintf(magnitude * 512));
    }
    uint32_t bits = __float_as_uint(magnitude);
    bits += 0x7ffffu + (bits >> 20 & 1u);
    return (uint8_t)(sign | ((bits >> 20) - (120u << 3)));
}

/* The float whose exponent and mantissa are the code's, times 2^120: small codes too. */
__device__ __forceinline__ float cache_e4m3_value(uint32_t code)
{
    const uint32_t bits = (code & 0x80u) << 24 | (code & 0x7fu) << 20;
    return __uint_as_float(bits) * 1.329227995784916e36f;
}

/* A unit of 16 bytes as pairs of bfloat16, in order: exactly, without factors. */
struct cache_bf16 {
    enum { UNIT = 8, HAS_FACTORS = 0 };
    static __device__ __forceinline__ void widen(uint32_t out[4], uint4 raw)
    {
        out[0] = raw.x, out[1] = raw.y, out[2] = raw.z, out[3] = raw.w;
    }
};

/* Upper halves of two floats that have nothing in the lower ones. */
__device__ __forceinline__ uint32_t cache_upper(float lo, float hi)
{
    return __float_as_uint(lo) >> 16 | (__float_as_uint(hi) & 0xffff0000u);
}

struct cache_fp8 {
    enum { UNIT = 16, HAS_FACTORS = 1 };
    static __device__ __forceinline__ void widen(uint32_t out[8], uint4 raw)
    {
        const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
        UNROLLED
        for (int i = 0; i < 8; i++) {
            const uint32_t two = words[i / 2] >> i % 2 * 16;
            out[i] = cache_upper(cache_e4m3_value(two & 0xffu), cache_e4m3_value(two >> 8 & 0xffu));
        }
    }
};

struct cache_int8 {
    enum { UNIT = 16, HAS_FACTORS = 1 };

    /* 2^23 + 128 + the code, in a float's mantissa. */
    static __device__ __forceinline__ float value(uint32_t code)
    {
        return __uint_as_float(0x4b000000u | (code ^ 0x80u)) - 8388736.0f;
    }
    static __device__ __forceinline__ void widen(uint32_t out[8], uint4 raw)
    {
        const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
        UNROLLED
        for (int i = 0; i < 8; i++) {
            const uint32_t two = words[i / 2] >> i % 2 * 16;
            out[i] = cache_upper(value(two & 0xffu), value(two >> 8 & 0xffu));
        }
    }
};
