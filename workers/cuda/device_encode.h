/*
 * Rows of weights as the device wants them (device_matrix.h): from float32, or as they are stored. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/cuda/device_matrix.h"
#include "workers/weights/weights.h"

/*
 * One row of n_cols float32 values in F32, BF16, INT8 or INT4: data (device_matrix_row_bytes), factors
 * (device_matrix_factor_bytes). Integers are the nearest, made as in workers/cpu/matrix.h.
 */
void device_encode_row(enum arch_dtype dtype, const float *values, int n_cols, void *data,
                       void *factors);

/* Whether columns first_col .. first_col + n_cols - 1 of a tensor of a file can keep the format that they have. */
bool device_encode_can_take(const struct weights_tensor *t, int first_col, int n_cols);

/*
 * These columns of a row in the format in which they are stored: floats, and codes with their factors, bit for
 * bit. `factors` is NULL where another row of an FP8 block has them. False: a code or factor is no number (NaN).
 */
bool device_encode_stored(const struct weights_tensor *t, int64_t row, int first_col, int n_cols,
                          void *data, void *factors);
