/*
 * Results of one product that are the input of the next, and hidden states on their way to the next stage:
 * float32 as bfloat16, rounded to nearest even; and back.
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include <stdint.h>

struct CUstream_st;

struct narrow_values {
    int64_t n;      // a multiple of 4
    const float *x; // (n)
    uint16_t *out;  // (n) bfloat16
};

void narrow_queue(const struct narrow_values *v, struct CUstream_st *stream);

struct narrow_back {
    int64_t n;         // a multiple of 4
    const uint16_t *x; // (n) bfloat16
    float *out;        // (n)
};

void narrow_back_queue(const struct narrow_back *v, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
