/*
 * Counter-based random numbers (Philox4x32-10, Random123): a draw is a pure function of
 * (seed, stream, a, b), so any rank can make any draw, and 1 rank and 64 ranks make the same ones.
 */
#pragma once

#include <stdint.h>

enum rng_stream {
    RNG_ARRIVAL = 1,
    RNG_INPUT_LENGTH,
    RNG_OUTPUT_LENGTH,
    RNG_ENTRY,     // which dataset entry
    RNG_TOKENS,    // ids of prompts that have lengths only
    RNG_BOOTSTRAP, // resampling in analysis
    RNG_STEP,      // seeds of steps
    RNG_SHUFFLE,
    RNG_BLOCK,  // ids of a trace's prefix block
    RNG_PREFIX, // ids of a prefix group, and which group an event is of
    RNG_MARK,   // what makes a preamble unique
    RNG_REPEAT, // which event repeats which
    RNG_MIX,    // which of several datasets
    RNG_THINK,  // time between turns
    RNG_SERVE,  // times of the null server
    RNG_URL,    // which of an endpoint's URLs
    RNG_ROUTE,  // experts of a token, where they are drawn
    RNG_SAMPLE, // which token of a distribution
    RNG_SEED,   // seeds of requests
};

/* 128 random bits for one (seed, stream, a, b). */
struct rng_bits {
    uint32_t v[4];
};
struct rng_bits rng_draw(uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b);

/* The version of Random123 that this was compiled with: "1.14.0+dfsg-4". */
const char *rng_library(void);

/* Uniform in (0, 1), 53 bits, never 0 or 1. */
double rng_uniform(uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b);

/* 64 random bits. */
uint64_t rng_u64(uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b);

/* Uniform in 0..n-1 (n > 0), multiply-shift on 64 bits. */
uint64_t rng_below(uint64_t n, uint64_t seed, enum rng_stream stream, uint64_t a, uint64_t b);

/* A keyed bijection of 0..n-1 (cycle-walking Feistel): index i of a shuffled list, no memory. */
uint64_t rng_permute(uint64_t i, uint64_t n, uint64_t seed, enum rng_stream stream, uint64_t a);
