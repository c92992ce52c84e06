/*
 * The arithmetic of the CPU backend, one table per instruction set. Called by compute threads, each
 * on its own part of the outputs; nothing here waits or allocates.
 *
 * The rule that every set keeps: an output value depends only on its own inputs, through one fixed
 * order of operations. Sums over k run from 0 upwards in one accumulator with one kind of multiply
 * instruction, whatever the shape of the tile. So the bits of a result do not depend on how many
 * rows share a batch, on chunking, threads or pipeline stages. Different sets round differently.
 *
 * Activations are float32 in rows of `ld` floats, padded to whole panels; pads hold zeros.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "workers/cpu/matrix.h"

enum kernels_mode {
    KERNELS_SET,  // y = sum
    KERNELS_ADD,  // y = y + sum: a residual
    KERNELS_ONTO, // the sum goes on from y: earlier k came before
};

/*
 * y (m, 16 * n_panels) from x (m, n_segments * k) and panels of (k, 16). Most products have one
 * segment; the values of a paged cache have one per block. `ahead` are what will be read next: their
 * first k lines are fetched on the way, so that arithmetic hides the memory.
 */
struct kernels_tile {
    const void *const *panels; // (n_segments, step), the first n_panels of each
    const void *const *ahead;  // same shape
    size_t step;
    enum arch_dtype dtype; // of the panels
    int n_panels, n_segments, m, k;
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
    enum kernels_mode mode;
};

struct kernels {
    const char *name;
    int max_rows, max_panels; // of a tile
    int max_cells;            // m * n_panels is at most this
    void (*tile)(const struct kernels_tile *t);
    /* out = x / sqrt(mean(x^2) + eps) * w over n values and their pad (Zhang, Sennrich 2019). */
    void (*rmsnorm)(float *out, const float *x, const float *w, int n, float eps);
    /* Rotate the pairs (j, j + half) of one head by its position's angles (Su et al. 2021). */
    void (*rope)(float *x, const float *cosines, const float *sines, int half);
    /* out = silu(gate) * up; gate and up alternate in panels of 16. */
    void (*silu_mul)(float *out, const float *gate_up, int n_panels);
    /* Largest of n > 0 values. */
    float (*max)(const float *x, int n);
    /* x = exp(x - max) over n values, 0 over their pad; returns the sum. */
    float (*exp_sum)(float *x, int n, float max);
};

extern const struct kernels kernels_portable;
#ifdef TIDEMARK_AVX2
extern const struct kernels kernels_avx2;
#endif

/* "auto" is the fastest this machine runs. ERR_INPUT for a set that is unknown or cannot run here. */
int kernels_select(const struct kernels **out, const char *name, struct err *e) ERR_CHECKED;

/* A tile of any size, cut into tiles that the set has. */
void kernels_tiles(const struct kernels *k, const struct kernels_tile *whole);

/* Columns of panels first .. end - 1 of x (m, w->n_cols) . w^T; y points at the first one's. */
void kernels_matmul(const struct kernels *k, const struct matrix *w, int first, int end,
                    const float *x, size_t ldx, int m, float *y, size_t ldy,
                    enum kernels_mode mode);
