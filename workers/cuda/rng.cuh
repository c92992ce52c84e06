/*
 * The random numbers of core/rng.h on the device, bit for bit: Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011)
 * of the counter (a, b) under the key seed + stream * GOLDEN.
 */
#pragma once

#include "workers/cuda/device.cuh"

extern "C" {
#include "core/rng.h"
}

__device__ static inline rng_bits device_rng_draw(uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b)
{
    const uint64_t key = seed + (uint64_t)stream * 0x9e3779b97f4a7c15u;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    rng_bits c = {{(uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32)}};
    for (int round = 0; round < 10; round++) {
        const uint64_t p = (uint64_t)0xd2511f53u * c.v[0], q = (uint64_t)0xcd9e8d57u * c.v[2];
        c = {{(uint32_t)(q >> 32) ^ c.v[1] ^ k0, (uint32_t)q, (uint32_t)(p >> 32) ^ c.v[3] ^ k1, (uint32_t)p}};
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    return c;
}

__device__ static inline double device_rng_uniform(uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b)
{
    const rng_bits r = device_rng_draw(seed, stream, a, b);
    return (double)(((uint64_t)r.v[1] << 32 | r.v[0]) >> 11 | 1) * 0x1p-53;
}
