/*
 * A weight matrix on the device, row-major (n_rows, n_cols): how its values lie in memory. Rows are padded
 * with zeros to whole chunks and so begin at multiples of 16 bytes; factors are apart.
 *
 *   dtype   chunk (columns, bytes)   values                                   factors
 *   F32       4   16                 float32                                  none
 *   BF16      8   16                 16 bits                                  none
 *   FP8      16   16                 e4m3                                     float32 of factor_rows x 128 values
 *   INT8     64   64                 int8                                     float16 of 32 values of a row
 *   INT4    128   64                 value + 8                                float16 of 32 values of a row
 *   MXFP4   128   64                 e2m1                                     e8m0 of 32 values of a row
 *
 * In a chunk of the last three, columns do not follow each other: 4 lanes of a warp read 16 bytes each, and
 * each has 8 columns of every 32 that share a factor. With t = column % 32 / 8 and i = column % 8:
 *
 *   INT8   byte 16 t + column % 64 / 32 * 8 + i
 *   4-bit  the 32-bit word (little-endian) 4 t + column % 128 / 32, bits 4 * (i / 2 + i % 2 * 4) and up
 *
 * Factors are row-major with device_matrix_factor_bytes a row: one per group of 32 columns of the row's
 * whole chunks, or (FP8) one per 128 columns for each factor_rows rows. factor_rows is 128 where the blocks of
 * 128 x 128 fall evenly on the matrix; who stacks matrices at other rows repeats factors, down to one per row.
 *
 * e4m3's NaN codes read as 480, e8m0's as 2^128: who loads weights refuses them. F16 has no layout: such
 * weights are loaded as F32, exactly.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "model/arch.h"

struct device_matrix {
    enum arch_dtype dtype;
    int n_rows, n_cols;
    int factor_rows;  // of FP8; otherwise 0
    const void *data; // (n_rows, device_matrix_row_bytes)
    const void
        *factors; // (n_rows or ceil(n_rows / factor_rows), device_matrix_factor_bytes), or NULL
};

#define DEVICE_MATRIX_GROUP     32  // columns that share a factor, but in FP8
#define DEVICE_MATRIX_FP8_BLOCK 128 // there

/* Columns that rows are padded to. */
static inline int device_matrix_chunk(enum arch_dtype dtype)
{
    switch (dtype) {
    case ARCH_F32:
        return 4;
    case ARCH_BF16:
        return 8;
    case ARCH_FP8:
        return 16;
    case ARCH_INT8:
        return 64;
    default:
        return 128;
    }
}

static inline size_t device_matrix_row_bytes(enum arch_dtype dtype, int n_cols)
{
    const int chunk = device_matrix_chunk(dtype);
    return (size_t)((n_cols + chunk - 1) / chunk) * (chunk < 64 ? 16 : 64);
}

/* Of a row of factors; 0 where there are none. */
static inline size_t device_matrix_factor_bytes(enum arch_dtype dtype, int n_cols)
{
    if (dtype == ARCH_FP8) {
        const int n = (n_cols + DEVICE_MATRIX_FP8_BLOCK - 1) / DEVICE_MATRIX_FP8_BLOCK;
        return (size_t)n * sizeof(float);
    }
    if (dtype == ARCH_F32 || dtype == ARCH_BF16) {
        return 0;
    }
    const int chunk = device_matrix_chunk(dtype), n_chunks = (n_cols + chunk - 1) / chunk;
    const size_t n_factors = (size_t)(n_chunks * (chunk / DEVICE_MATRIX_GROUP));
    return n_factors * (dtype == ARCH_MXFP4 ? 1 : 2);
}

/* Where a column's value lies in its row, counted in values of its size (from the low bits in 4-bit bytes). */
static inline size_t device_matrix_place(enum arch_dtype dtype, int column)
{
    const int chunk = device_matrix_chunk(dtype);
    if (chunk < 64) {
        return (size_t)column;
    }
    const int at = column % chunk, lane = at % 32 / 8, piece = at / 32, i = at % 8;
    const int in_piece = chunk == 64 ? i : i / 2 + i % 2 * 4;
    return (size_t)(column - at + lane * (chunk / 4) + piece * 8 + in_piece);
}
