/*
 * How (seed, stream, a, b) becomes Philox input. The counter is (a, b), all 128 bits of it. The key
 * is seed + stream * GOLDEN mod 2^64. So, within one seed and stream no two (a, b) meet, as Philox
 * is a bijection of the counter; two seeds never share a key within a stream; and two streams share
 * one only if their seeds differ by exactly k * GOLDEN, k the difference of the stream numbers:
 * never for seeds that people write, and with probability 2^-60 for seeds drawn at random.
 */
#include "core/rng.h"

#include "core/err.h"

#include <Random123/philox.h>

#define GOLDEN         0x9E3779B97F4A7C15ULL // 2^64 / golden ratio, odd
#define FEISTEL_ROUNDS 8

struct rng_bits rng_draw(uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b)
{
    uint64_t k = seed + (uint64_t)stream * GOLDEN;
    philox4x32_key_t key = {{(uint32_t)k, (uint32_t)(k >> 32)}};
    philox4x32_ctr_t ctr = {{(uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b, (uint32_t)(b >> 32)}};
    philox4x32_ctr_t out = philox4x32_R(10, ctr, key);
    return (struct rng_bits){{out.v[0], out.v[1], out.v[2], out.v[3]}};
}

const char *rng_library(void)
{
    return TIDEMARK_RANDOM123;
}

uint64_t rng_u64(uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b)
{
    struct rng_bits r = rng_draw(seed, stream, a, b);
    return (uint64_t)r.v[1] << 32 | r.v[0];
}

double rng_uniform(uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b)
{
    // An odd multiple of 2^-53: exact, symmetric about 1/2, and neither 0 nor 1.
    return (double)(rng_u64(seed, stream, a, b) >> 11 | 1) * 0x1p-53;
}

uint64_t rng_below(uint64_t n, uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b)
{
    CHECK(n > 0);
    return (uint64_t)((unsigned __int128)rng_u64(seed, stream, a, b) * n >> 64);
}

/*
 * A balanced Feistel network on the smallest even number of bits that covers n, walked until it
 * lands inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): at most 4
 * steps on average.
 */
uint64_t rng_permute(uint64_t i, uint64_t n, uint64_t seed, enum rng_stream stream, uint64_t a)
{
    CHECK(i < n);
    int half_bits = 1;
    while (half_bits < 32 && (n - 1) >> (2 * half_bits) != 0) {
        half_bits++;
    }
    uint64_t mask = (1ULL << half_bits) - 1;
    uint64_t x = i;
    do {
        uint64_t left = x >> half_bits, right = x & mask;
        for (uint64_t round = 0; round < FEISTEL_ROUNDS; round++) {
            uint64_t f = rng_u64(seed, stream, a, round << 32 | right) & mask;
            uint64_t next = left ^ f;
            left = right;
            right = next;
        }
        x = left << half_bits | right;
    } while (x >= n);
    return x;
}
