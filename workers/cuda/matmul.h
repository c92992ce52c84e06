/*
 * Products of weights and few tokens, of experts and their tokens, and of heads, by kernels of our own: weights
 * are streamed once for up to 64 tokens, 16 bytes a lane, and dequantised in registers. (gemm.h has the
 * products of any number of tokens.)
 *
 * Arithmetic. Weights other than F32 meet bfloat16 inputs in tensor cores, summed in float32: codes as they
 * are, exactly, in sums over 32 columns (FP8: 64) that are then multiplied by their factor in float32.
 * F32 weights meet float32 inputs in float32. Sums go over k in an order that depends on the matrix' size and
 * on the number of tokens by steps (to 16, 32, 64), never on other tokens or a race: a token of a batch of up
 * to 16 has the same bits in any of them; of experts' products, equal batches give equal bits.
 *
 * Rows of x and of w begin at multiples of 16 bytes; what stands in x behind n_cols does not matter. All
 * pointers are the device's. Queued on the stream; an error is the stream's (cudaGetLastError).
 *
 * Not measured yet on a GPU: any of the speeds that the shapes of blocks and MATMUL_WARPS were chosen for.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "workers/cuda/device_matrix.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st;

#define MATMUL_FEW  16 // tokens up to which these kernels are used for BF16 and F32
#define MATMUL_MOST 64 // and for the other formats

/*
 * y = x . w^T + bias, or y += that. With n_batch > 1, matrices stacked in w (w.n_rows is one's): batch b has
 * rows b * n_rows and up of w, x at column b * x_step, y at column b * y_step, and bias at b * n_rows.
 */
struct matmul {
    struct device_matrix w;
    int m;                            // tokens
    int n_batch;                      // 0 means 1
    bool add;                         // onto y
    const void *x;                    // (m, ldx) bfloat16, or float32 where w is
    float *y;                         // (m, ldy)
    const float *bias;                // (n_batch * n_rows) or NULL
    int64_t ldx, ldy, x_step, y_step; // in values; of x multiples of 8 (F32: 4)
};

/* m is at most MATMUL_MOST. */
void matmul_queue(const struct matmul *p, struct CUstream_st *stream);

/*
 * Mixture of experts: slot s = token * top_k + i is the token's i-th expert. For each slot
 * y[s] = x[s / slots_per_row] . w_e^T + bias_e, e being its expert. The host need not know how many
 * slots an expert has.
 */
struct matmul_experts {
    struct device_matrix w; // n_rows of one expert; all n_experts stand under each other
    int n_experts, n_tokens, top_k;
    int slots_per_row;     // top_k: x has a row for each token; 1: for each slot
    const uint32_t *first; // (n_experts + 1) where an expert's slots begin in `sorted`
    const uint32_t
        *sorted;   // (n_tokens * top_k) slots by expert; those of an expert differ in their tokens
    const void *x; // (n_tokens or n_tokens * top_k, ldx) as above
    float *y;      // (n_tokens * top_k, ldy)
    const float *bias; // (n_experts, n_rows) or NULL
    int64_t ldx, ldy;
};

void matmul_experts_queue(const struct matmul_experts *p, struct CUstream_st *stream);

/* out[token] = (out[token] +) the sum of weights[s] * y[s] over the token's slots, by rising expert number. */
struct matmul_mix {
    int n_tokens, top_k, n_cols; // top_k up to MATMUL_MIX_MOST
    const uint32_t *chosen;      // (n_tokens, top_k) experts of the slots, none twice
    const float *weights;        // (n_tokens, top_k)
    const float *y;              // (n_tokens * top_k, ldy)
    float *out;                  // (n_tokens, ldout)
    int64_t ldy, ldout;
    bool add;
};

#define MATMUL_MIX_MOST 32

void matmul_mix_queue(const struct matmul_mix *p, struct CUstream_st *stream);

/*
 * Rows first .. first + n - 1 of w as bfloat16: out (n, ld), columns to the next multiple of 8 too, which are 0.
 * A weight is code * factor in float32, rounded once. Not for F32.
 */
struct matmul_widen {
    struct device_matrix w;
    int first, n;
    uint16_t *out;
    int64_t ld; // a multiple of 8, at least n_cols
};

void matmul_widen_queue(const struct matmul_widen *p, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
