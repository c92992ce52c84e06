/*
 * What the AVX-512 kernel sets share: tiles of outputs in registers, one vector of 16 lanes to each
 * panel and row. Included by their translation units alone, each compiled for its own instructions.
 * No sum is ever split over lanes; a tile's chains of multiply-adds are independent.
 */
#pragma once

#include "workers/cpu/kernels.h"
#include "workers/cpu/vectors_512.h"

#include <immintrin.h>
#include <stdint.h>

#define K512_ROWS   12
#define K512_PANELS 4
#define K512_CELLS  24 // accumulators, of 32 registers

/* Rows of inputs, three to a pointer, so that few registers address twelve. */
struct k512_rows {
    const char *third[K512_ROWS / 3];
    size_t stride;
};

INLINE struct k512_rows k512_rows(const struct kernels_tile *t, size_t m, size_t at)
{
    struct k512_rows x = {.stride = t->x.stride};
    UNROLL
    for (size_t i = 0; i < (m + 2) / 3; i++) {
        x.third[i] = (const char *)t->x.data + at + 3 * i * x.stride;
    }
    return x;
}

INLINE const char *k512_row(const struct k512_rows *x, size_t i)
{
    return x->third[i / 3] + i % 3 * x->stride;
}

INLINE void k512_advance(struct k512_rows *x, size_t m, size_t bytes)
{
    UNROLL
    for (size_t i = 0; i < (m + 2) / 3; i++) {
        x->third[i] += bytes;
    }
}

INLINE void k512_begin(__m512 acc[K512_ROWS][K512_PANELS], const size_t m, const size_t n,
                       const struct kernels_tile *t)
{
    UNROLL
    for (size_t i = 0; i < m; i++) {
        UNROLL
        for (size_t p = 0; p < n; p++) {
            acc[i][p] = t->mode == KERNELS_ONTO
                            ? _mm512_loadu_ps(t->y + i * t->ldy + p * MATRIX_PANEL)
                            : _mm512_setzero_ps();
        }
    }
}

INLINE void k512_end(__m512 acc[K512_ROWS][K512_PANELS], const size_t m, const size_t n,
                     const struct kernels_tile *t)
{
    UNROLL
    for (size_t i = 0; i < m; i++) {
        UNROLL
        for (size_t p = 0; p < n; p++) {
            float *y = t->y + i * t->ldy + p * MATRIX_PANEL;
            if (t->mode == KERNELS_ADD) {
                acc[i][p] = _mm512_add_ps(_mm512_loadu_ps(y), acc[i][p]);
            }
            _mm512_storeu_ps(y, acc[i][p]);
        }
    }
}

/* A line of `ahead`. */
INLINE void k512_fetch(const char *line, bool soon)
{
    if (soon) {
        _mm_prefetch(line, _MM_HINT_T0);
    } else {
        _mm_prefetch(line, _MM_HINT_T1);
    }
}

/* --- which tile ------------------------------------------------------------------------------- */

#define K512_SHAPE(m, n) (8 * (m) + (n))
#define K512_CASE(m, n, ...)                                                                       \
    case K512_SHAPE(m, n):                                                                         \
        __VA_ARGS__;                                                                               \
        break;

/*
 * One case for each shape that kernels_tiles asks for: the widest tile of its height, that of one row
 * more, or one panel. OF(m, n) is a call in which both are constants.
 */
#define K512_FLOAT_TILES(OF)                                                                       \
    OF(1, 1)                                                                                       \
    OF(1, 4)                                                                                       \
    OF(2, 1)                                                                                       \
    OF(2, 4)                                                                                       \
    OF(3, 1)                                                                                       \
    OF(3, 4)                                                                                       \
    OF(4, 1)                                                                                       \
    OF(4, 4)                                                                                       \
    OF(5, 1)                                                                                       \
    OF(5, 4)                                                                                       \
    OF(6, 1)                                                                                       \
    OF(6, 3)                                                                                       \
    OF(6, 4)                                                                                       \
    OF(7, 1)                                                                                       \
    OF(7, 3)                                                                                       \
    OF(8, 1)                                                                                       \
    OF(8, 2) OF(8, 3) OF(9, 1) OF(9, 2) OF(10, 1) OF(10, 2) OF(11, 1) OF(11, 2) OF(12, 1) OF(12, 2)
#define K512_INT_TILES(OF)                                                                         \
    OF(1, 1)                                                                                       \
    OF(1, 4)                                                                                       \
    OF(2, 1)                                                                                       \
    OF(2, 4)                                                                                       \
    OF(3, 1) OF(3, 3) OF(3, 4) OF(4, 1) OF(4, 2) OF(4, 3) OF(5, 1) OF(5, 2) OF(6, 1) OF(6, 2)

#define K512_FLOATS                                                                                \
    {                                                                                              \
        K512_ROWS, K512_PANELS, K512_CELLS, 1                                                      \
    }
#define K512_INTS                                                                                  \
    {                                                                                              \
        6, K512_PANELS, 12, 1 /* each cell has a sum in floats and one in integers */              \
    }
#define K512_SHARED                                                                                \
    .rmsnorm = vectors_512_rmsnorm, .round = vectors_512_round, .rope = vectors_512_rope,          \
    .gate = vectors_512_gate, .softcap = vectors_512_softcap, .max = vectors_512_max,              \
    .exp_sum = vectors_512_exp_sum

/* KERNELS_F32 inputs, with weights of any float: for the sets above kernels_avx512.c's. */
void kernels_avx512_float_tile(const struct kernels_tile *t);

/* Of kernels_avx512_bf16.c, for the set above it. */
void kernels_avx512_bf16_int_tile(const struct kernels_tile *t);
void kernels_avx512_bf16_narrow(enum kernels_input form, const float *x, int n, void *out);
