/*
 * Which tensors a model has, their shapes, and how a checkpoint in Hugging Face layout spells and
 * stores them: data, from struct arch alone. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "model/arch.h"
#include "workers/weights/weights.h"

#define TENSORS_NAME_BYTES 96

/* A tensor as the engine wants it: (n_rows, n_cols); vectors have one row. */
struct tensors_shape {
    int64_t n_rows, n_cols;
    bool is_vector;
    bool is_norm; // generated as the identity
    bool exact;   // small, and stored as F32, BF16 or F16 whatever the rest is: vectors and routers
    enum arch_dtype dtype; // of the others, as config.json declares
};

/* Where it lies: value (row, col) is value first + row * row_step + col * col_step of the stored one. */
struct tensors_place {
    char name[TENSORS_NAME_BYTES];
    int n_dims;
    int64_t shape[4]; // of the stored tensor, in values; MXFP4 blocks are checked on their own
    int64_t first, row_step, col_step;
};

bool tensors_has(const struct arch *a, enum weights_id id, int layer);
bool tensors_is_of_layer(enum weights_id id);
bool tensors_is_of_expert(enum weights_id id);

struct tensors_shape tensors_shape(const struct arch *a, enum weights_id id);
struct tensors_place tensors_place(const struct arch *a, enum weights_id id, int layer, int expert);
