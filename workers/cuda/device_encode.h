/*
 * Rows of weights as the device wants them (device_matrix.h), from float32 or from GGUF's blocks. Floats that
 * were decoded from a format are encoded to it again exactly. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "workers/cuda/device_matrix.h"

/*
 * One row of n_cols float32 values: data (device_matrix_row_bytes), factors (device_matrix_factor_bytes). `scales`
 * (ceil(n_cols / 128)) are the factors that FP8's values are multiples of; otherwise NULL. INT8 and INT4 are
 * made anew, by the nearest code (workers/cpu/matrix.h); MXFP4 takes values that are e2m1 times a power of two.
 */
void device_encode_row(enum arch_dtype dtype, const float *values, int n_cols, const float *scales,
                       void *data, void *factors);

/* The same from GGUF's blocks of INT8 (Q8_0) or INT4 (Q4_0): codes and factors as they are. */
void device_encode_blocks(enum arch_dtype dtype, const uint8_t *blocks, int n_cols, void *data,
                          void *factors);
