/*
 * The greedy choice of a token: the largest of each row of logits, of equals the lowest id, soft-capped first
 * where the model wants that; and capped rows for whoever draws from them. A row with a logit that is no finite
 * number says so (workers/batch.h, BATCH_NOT_FINITE). Of a part of the vocabulary the host merges what
 * the ranks found: value first, then id.
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 * Not measured on a GPU yet.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include <stdint.h>

struct CUstream_st;

/* INFINITY and BATCH_NOT_FINITE where the row is not finite: nothing comes above that. */
struct head_found {
    float value;
    int32_t id;
};

struct head_rows {
    int n, vocab;        // this rank's part of the vocabulary
    int32_t first;       // its first id
    float softcap;       // c tanh(z / c); 0: none
    const float *logits; // (n, vocab)
    float *capped; // (n, vocab) what they become, `logits` itself is allowed; NULL: nobody asks
    struct head_found *parts; // (n, HEAD_PARTS) for the time between
    struct head_found *found; // (n)
};

enum {
    HEAD_PARTS = 32
}; // blocks that share a row

void head_queue(const struct head_rows *h, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
