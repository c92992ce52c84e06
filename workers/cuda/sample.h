/*
 * Tokens drawn on the device: the distributions of workers/sampler.h, cut down in the same order by the same
 * rules, and drawn from with the same numbers. Weights have the CPU's very bits. Sums are float64 in another
 * order, those that top_p is found by exact in whole numbers: so an id differs from the CPU's where a sum comes
 * within about 1e-13 of a bound or of the number drawn, and log-probabilities differ by a rounding.
 *
 * A block for each job; nothing is sorted. A job passes over its row about four times, six more with top_p.
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 * Not measured on a GPU yet.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include <stdint.h>

#include "model/wire.h"

#define SAMPLE_MAX_VOCAB (1 << 20) // ids; a caller refuses more

struct CUstream_st;

/* As struct sampler_job and its struct wire_sampling, without pointers. */
struct sample_job {
    uint64_t seed;
    float temperature, top_p, min_p;
    uint32_t top_k, logprobs;
    uint32_t row;                    // of `logits`
    uint32_t index;                  // of the token in its request's output
    uint32_t first_banned, n_banned; // ids banned[first_banned ..] may not be chosen
};

struct sample_found {
    int32_t id;
    float logprob; // where the job asks for it; else 0
    uint32_t n_top;
    struct wire_logprob top[WIRE_MAX_TOP]; // (n_top) likeliest first, of equals the lowest id
};

struct sample_rows {
    int n, vocab;                  // jobs, no two of one row
    float *logits;                 // (rows, vocab) soft-capped; those of banned ids are overwritten
    const struct sample_job *jobs; // (n)
    const int32_t *banned;         // ids; outside the vocabulary: ignored
    float *weights;                // (n, vocab) for the time between
    struct sample_found *found;    // (n)
};

void sample_queue(const struct sample_rows *s, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
