/*
 * The arithmetic of the CPU backend, one table per instruction set. Called by compute threads, each
 * on its own part of the outputs; nothing here waits or allocates.
 *
 * The rule that every set keeps: an output value depends only on its own inputs, through one fixed
 * order of operations. Sums over k run from 0 upwards in one accumulator with one kind of multiply
 * instruction, whatever the shape of the tile; a matrix's sums are cut after every k_block columns
 * and the parts added in order. So the bits of a result do not depend on how many rows share
 * a batch, on chunking, threads or pipeline stages. Different sets round differently.
 *
 * Activations are float32 in rows of `ld` floats, padded to whole panels; pads hold zeros. A product
 * takes its inputs in the form that the set has for the matrix's dtype (kernels_form): the rows as
 * they are, or narrowed once for all panels.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "workers/cpu/matrix.h"

/* gelu_tanh(x) = x sigmoid(c1 x + c3 x^3): c1 = 2 sqrt(2 / pi), c3 = 0.044715 c1 (Hendrycks 2016). */
#define KERNELS_GELU_1 1.5957691216f
#define KERNELS_GELU_3 0.0713548162f
/* gate sigmoid(1.702 gate) (up + 1), gate <= 7, up in -7 .. 7 (gpt-oss). */
#define KERNELS_SWIGLU_ALPHA 1.702f
#define KERNELS_SWIGLU_LIMIT 7.0f

enum kernels_mode {
    KERNELS_SET,  // y = sum
    KERNELS_ADD,  // y = y + sum: a residual
    KERNELS_ONTO, // the sum goes on from y: earlier k came before. Not for INT8 inputs
};

/* What the values of an input row are. */
enum kernels_input {
    KERNELS_F32,  // (k)
    KERNELS_BF16, // (k) rounded to nearest, ties to even
    KERNELS_INT8, // (k / 32, rounded up to an even number) struct kernels_group
};

/* 32 inputs: values[i] * factor; the factor is max|x| / 127. */
struct kernels_group {
    signed char values[MATRIX_GROUP];
    float factor;
    int offset; // -8 * sum of values: takes back what unsigned weights have too much
};

struct kernels_rows {
    enum kernels_input form;
    const void *data; // rows `stride` bytes apart
    size_t stride;
};

/*
 * y (m, 16 * n_panels) from x (m, n_segments * k) and panels of (k, 16). Most products have one
 * segment; the values of a paged cache have one per block, and float32 inputs. `ahead` are what will be
 * read later: as much of them is fetched on the way, so that arithmetic hides the memory; to the second
 * cache, or, if it is read `soon`, to the first. Tiles that share their panels may each fetch a part.
 * Inputs in float32 go with panels of F32, F16 and BF16, those in bfloat16 with BF16, integers with INT8
 * and INT4.
 */
struct kernels_tile {
    const void *const *panels; // (n_segments, step), the first n_panels of each
    const void *const *ahead;  // same shape
    size_t step;
    bool soon;
    int turn, n_turns;     // which of the tiles that share their panels this is
    enum arch_dtype dtype; // of the panels
    int n_panels, n_segments, m, k;
    struct kernels_rows x;
    float *y;
    size_t ldy;
    enum kernels_mode mode;
};

/*
 * The tiles a set has: of each height the widest and those that are one panel wide; and the widest of
 * one row more, since a tile's rows may be one less than those beside it.
 */
struct kernels_shape {
    int max_rows, max_panels; // of a tile
    int max_cells;            // m * n_panels is at most this, m rounded up to
    int unit;                 // whole multiples of this; max_rows is one
};

struct kernels_norm {
    const float *w; // (n) and its pad
    float eps;
    bool rounds; // to bfloat16 before w
};

struct kernels {
    const char *name;
    enum kernels_input bf16_form;   // of inputs to BF16 matrices
    int k_block;                    // columns between cuts of a sum, a multiple of MATRIX_SPAN
    struct kernels_shape shapes[3]; // by the inputs' form
    void (*tile)(const struct kernels_tile *t);
    /* One row of n values in another form, pads (kernels_row_bytes) included. */
    void (*narrow)(enum kernels_input form, const float *x, int n, void *out);
    /* out = x / sqrt(mean(x^2) + eps) * w over n values and their pad (Zhang, Sennrich 2019). */
    void (*rmsnorm)(float *out, const float *x, const struct kernels_norm *norm, int n);
    /* x rounded to bfloat16, n values. */
    void (*round)(float *x, int n);
    /* Rotate the pairs (j, j + half) of one head by its position's angles (Su et al. 2021). */
    void (*rope)(float *x, const float *cosines, const float *sines, int half);
    /* out = act(gate, up); gate and up alternate in panels of 16. */
    void (*gate)(enum arch_activation act, float *out, const float *gate_up, int n_panels);
    /* x = cap * tanh(x / cap) over n values. */
    void (*softcap)(float *x, int n, float cap);
    /* Largest of n > 0 values. */
    float (*max)(const float *x, int n);
    /* x = exp(x - max) over n values, 0 over their pad; returns the sum. */
    float (*exp_sum)(float *x, int n, float max);
};

extern const struct kernels kernels_portable;
#ifdef TIDEMARK_X86_64
extern const struct kernels kernels_avx2, kernels_avx512, kernels_avx512_bf16, kernels_amx;
#endif

/* "auto" is the fastest this machine runs. ERR_INPUT for a set that is unknown or cannot run here. */
int kernels_select(const struct kernels **out, const char *name, struct err *e) ERR_CHECKED;

/* The sets that can run here: the fastest first, NULL behind the last. */
const struct kernels *kernels_set(int i);

/* The form of inputs to matrices of this dtype. */
enum kernels_input kernels_form(const struct kernels *k, enum arch_dtype dtype);

/* Bytes from row to row of n values: rows begin at cache lines, and not all in the same set. */
size_t kernels_row_bytes(enum kernels_input form, int n);

/* Likewise floats from row to row of outputs. */
int kernels_ld(int n);

/* A tile of any size, cut into tiles that the set has. */
void kernels_tiles(const struct kernels *k, const struct kernels_tile *whole);

/* Columns of panels first .. end - 1 of x (m, w->n_cols) . w^T; y points at the first one's. x is in
 * kernels_form(k, w->dtype), or for BF16 matrices in float32. */
void kernels_matmul(const struct kernels *k, const struct matrix *w, int first, int end,
                    const struct kernels_rows *x, int m, float *y, size_t ldy,
                    enum kernels_mode mode);
