/*
 * A preset's weights made on the device, bit for bit those of workers/weights (fill.h has the formulas): no
 * file, no copy from the host. What is made is any rows and columns of one tensor, where they are to stand.
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

/* Of generated codes: every FP8 block has this factor, every MXFP4 group this exponent (E8M0: 2^-7). */
#define PRESET_FP8_FACTOR     0x1p-12f
#define PRESET_MXFP4_EXPONENT 120

struct preset_rows {
    // as in struct weights_tensor, whose data is NULL and which has no rotary_head
    enum arch_dtype stored; // F32, BF16, F16, FP8, MXFP4: values are what it can hold
    int64_t first, row_step, col_step;
    float add;
    bool is_norm;
    uint64_t key;
    // which part of it
    int64_t n_rows, n_cols, first_row, first_col;
    int head,
        rope_dim; // rows of a head whose rotary pairs are brought to halves (workers/layers.h); head 0: none
    // to where: rows of a matrix as device_matrix.h has it; what pads them is not written
    enum arch_dtype dtype; // F32, BF16; or, if stored so, FP8, MXFP4
    void *out;             // (n_rows, device_matrix_row_bytes)
    void *factors;         // of FP8 and MXFP4
    int factor_rows;       // of FP8
};

void preset_queue(const struct preset_rows *p, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
