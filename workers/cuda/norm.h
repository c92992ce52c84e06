/*
 * Hidden states between operations, one block of threads per token: what an operation gave is added, and
 * the next one's input is normed, in one pass over the row. RMSNorm: x / sqrt(mean(x^2) + eps) * w, in float32
 * (Zhang and Sennrich 2019); w holds 1 + w where a family wants that. Families round in three orders: to bfloat16
 * before w (`rounds`: Llama, Qwen2, DeepSeek-V3), or once, as `out`, after w (gpt-oss) or 1 + w (Gemma-2).
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

struct norm_rows {
    int n, hidden;
    float eps;
    bool rounds;              // x / sqrt(..) is rounded to bfloat16 before it meets w
    float *x;                 // (n, hidden) hidden states
    bool rounds_x;            // they are rounded to bfloat16 when branch has been added
    const float *branch;      // (n, hidden) to be added to x first; or NULL
    const float *branch_norm; // (hidden) what branch is normed by before that; or NULL
    const uint32_t *rows;     // (n_out) which rows `out` is made of; NULL: all n
    int n_out;                // with `rows`, which come without a branch
    const float *norm;        // (hidden) of `out`; NULL: there is no `out`
    void *out;                // (n or n_out, hidden) bfloat16 or float32
    bool wide;                // `out` is float32
};

void norm_queue(const struct norm_rows *r, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
