/*
 * Rows of tensors on their way into matrices on the device. Those of files are brought into their form by the
 * pool's threads in one half of a buffer, while the other half is copied. Generated ones are made on the device
 * (preset.h) where that can make them, with the same bits: all but integers.
 */
#pragma once

#include "core/err.h"
#include "core/pool.h"
#include "model/arch.h"
#include "workers/cuda/device_matrix.h"
#include "workers/cuda/gpu.h"
#include "workers/weights/weights.h"

/* What the rows of a matrix are made of. */
enum device_fill_making {
    DEVICE_FILL_ROWS,      // rows of a tensor
    DEVICE_FILL_KEYS_UP,   // W_UK of each head, transposed: (kv_rank, nope_dim) each
    DEVICE_FILL_VALUES_UP, // W_UV of each head: (v_dim, kv_rank) each
};

/* Rows of a tensor that become rows at .. at + n - 1 of a matrix. */
struct device_fill_source {
    struct weights_tensor t;
    enum device_fill_making making;
    int at, n;
    int first;     // row of t; but of ROWS: its head
    int first_col; // of the matrix' columns in t
    int head; // rows of a head, the last rope_dim of which are interleaved pairs; 0: there are none
};

struct device_fill;

/* `pool` is free; `model` and `a` are borrowed. ERR_ENV: no memory. */
int device_fill_open(struct device_fill **out, struct gpu *g, struct pool *pool, const char *model,
                     const struct arch *a, struct err *e) ERR_CHECKED;

/*
 * Fill rows of a matrix whose memory is zeros. Where factors are shared by factor_rows rows, `at` and `first` are
 * multiples of that, as 128 is. ERR_INPUT: a code that is no number, rows too wide; ERR_ENV: the device.
 */
int device_fill_rows(struct device_fill *f, const struct device_matrix *m,
                     const struct device_fill_source *s, struct err *e) ERR_CHECKED;

int device_fill_bytes(struct device_fill *f, void *device, const void *host, size_t n_bytes,
                      struct err *e) ERR_CHECKED;

/* Wait until all of it has happened. */
int device_fill_finish(struct device_fill *f, struct err *e) ERR_CHECKED;
void device_fill_close(struct device_fill *f);
