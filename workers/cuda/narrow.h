/*
 * Results of one product that are the input of the next: float32 rows as bfloat16, rounded to nearest even.
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

#ifdef __cplusplus
}
#endif
