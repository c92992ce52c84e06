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

#include "model/arch.h"

struct CUstream_st;

struct embed_rows {
    int n, hidden;
    const int32_t *ids;      // (n)
    enum arch_dtype dtype;   // F32, BF16, F16 or INT8
    const void *table;       // (n_vocab, hidden)
    const uint16_t *factors; // INT8: (n_vocab, ceil(hidden / 32)) float16; else NULL
    int first, n_vocab;      // the table has ids first .. first + n_vocab - 1
    float scale;
    float *x; // (n, hidden)
};

void embed_queue(const struct embed_rows *e, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
