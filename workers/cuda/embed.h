/*
 * Hidden states from token ids: rows of the embedding table as float32, times a factor (Gemma-2). A rank of
 * a group holds part of the vocabulary; ids of the others give zeros, and the ranks' sum is the embedding.
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 * Not measured on a GPU yet.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include <stdint.h>

#include "workers/cuda/device_matrix.h"

struct CUstream_st;

struct embed_rows {
    int n;
    const int32_t *ids;         // (n)
    int first;                  // the table has ids first .. first + n_rows - 1
    struct device_matrix table; // (n_vocab of this rank, hidden) in any form
    float scale;
    float *x; // (n, hidden)
};

void embed_queue(const struct embed_rows *e, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
