/*
 * Values of a tensor as float32, whatever it is stored as and however it lies: strided, by blocks, in
 * another order, or not at all (generated).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "workers/weights/weights.h"

#define DECODE_SPAN 256 // a multiple of every block

/* Where a row lies. GGUF's Llama has rows j and j + D/2 of a head beside each other. */
int64_t decode_row(const struct weights_tensor *t, int64_t row);

/* Values col .. col + n - 1 of a row to out (n); col is a multiple of DECODE_SPAN. */
void decode_span(const struct weights_tensor *t, int64_t row, int64_t col, size_t n, float *out);
