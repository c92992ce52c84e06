/*
 * Products of weights and any number of tokens. Few tokens go to kernels of our own (matmul.h); more go to
 * cuBLASLt: bfloat16 or float32 in, float32 out, summed in float32 (never TF32). Other formats are made
 * bfloat16 first (a weight times its factor, rounded once), as many rows at a time as the scratch holds.
 *
 * cuBLASLt's algorithm is asked for once per kind of product and bucket of m (up to the next power of two), so
 * equal products have equal bits; where it does not take a product of the bucket, that m has its own.
 */
#pragma once

#include "core/err.h"
#include "workers/cuda/matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

#define GEMM_WORKSPACE_BYTES ((size_t)32 << 20) // cuBLASLt's
#define GEMM_SCRATCH_BYTES   ((size_t)32 << 20) // a scratch that stays in second-level caches

struct gemm;

/*
 * On the current device, of whose memory it takes workspace and scratch; the latter holds at least a row as
 * bfloat16. ERR_ENV: the driver's word.
 */
int gemm_open(struct gemm **out, size_t scratch_bytes, struct err *e) ERR_CHECKED;
void gemm_close(struct gemm *g); // may be NULL

/*
 * As matmul_queue, with any m, and a bias only where there is one matrix. A gemm's products are queued on one stream, one after the other: they share its
 * buffers. ERR_ENV: cuBLASLt's word and the product's size; of our kernels an error is the stream's.
 */
int gemm_queue(struct gemm *g, const struct matmul *p, struct CUstream_st *stream,
               struct err *e) ERR_CHECKED;

#ifdef __cplusplus
}
#endif
