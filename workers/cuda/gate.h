/*
 * The activation of an MLP: act(gate) * up, in float32 (the formulas of workers/cpu/kernels.h; no fast
 * approximations), for dense MLPs and for the slots of experts.
 *
 * Queued on the stream; an error is the stream's (cudaGetLastError). All pointers are the device's.
 * Not measured on a GPU yet.
 */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

#include <stdbool.h>
#include <stdint.h>

#include "model/arch.h"

struct CUstream_st;

struct gate_rows {
    int n, inner;
    enum arch_activation activation;
    const float *gate_up;   // (n, 2 * inner): the gates, then the ups
    const float *bias;      // (2 * inner) to be added, or (n_experts, 2 * inner); or NULL
    const int32_t *experts; // (n) whose bias a row takes; NULL: there is one
    void *out;              // (n, inner) bfloat16 or float32
    bool wide;              // `out` is float32
};

void gate_queue(const struct gate_rows *g, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
