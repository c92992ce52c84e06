/*
 * Values of a tensor as float32, whatever it is stored as and however it lies: strided, by blocks, in
 * another order, or not at all (generated).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "workers/weights/weights.h"

#define DECODE_SPAN 256 // a multiple of every block

/* Values col .. col + n - 1 of a row to out (n); col is a multiple of DECODE_SPAN. */
void decode_span(const struct weights_tensor *t, int64_t row, int64_t col, size_t n, float *out);
