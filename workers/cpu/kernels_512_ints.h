/*
 * Tiles of integer weights in AVX-512: with VNNI where the file that includes this is compiled for it,
 * else by multiply-adds of 16-bit pairs. Integer sums are exact either way, so the two give the same
 * bits.
 */
#pragma once

#include "workers/cpu/kernels_512.h"

/* Sums of four products of unsigned weights and signed inputs, added to 16 lanes; exact. */
INLINE __m512i k512_dot(__m512i sum, __m512i w, __m512i x)
{
#ifdef __AVX512VNNI__
    return _mm512_dpbusd_epi32(sum, w, x);
#else
    const __m512i even = _mm512_and_si512(w, _mm512_set1_epi16(0xff));
    const __m512i x_even = _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8);
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(even, x_even));
    return _mm512_add_epi32(sum,
                            _mm512_madd_epi16(_mm512_srli_epi16(w, 8), _mm512_srai_epi16(x, 8)));
#endif
}

/* Quad q of a group of 32 columns, unsigned. */
INLINE __m512i k512_quad(const bool wide, const char *group, size_t q)
{
    const __m512i v = _mm512_loadu_si512(group + (wide ? q : q % 4) * 64);
    if (wide) {
        return v;
    }
    return _mm512_and_si512(q < 4 ? v : _mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

INLINE int k512_input(const struct kernels_group *x, size_t q)
{
    int v;
    __builtin_memcpy(&v, x->values + 4 * q, sizeof v);
    return v;
}

/* Group g of 32 columns; the same order of float operations as AVX2 has. */
INLINE void k512_group(__m512 acc[K512_ROWS][K512_PANELS], const size_t m, const size_t n,
                       const bool wide, const struct kernels_tile *t, const struct k512_rows *rows,
                       size_t g)
{
    const size_t group_bytes = wide ? 512 : 256, span = g / 2 * (2 * group_bytes + 64);
    const size_t at = span + g % 2 * group_bytes;
    __m512i sum[K512_ROWS][K512_PANELS];
    UNROLL
    for (size_t i = 0; i < m; i++) {
        const struct kernels_group *x = (const void *)k512_row(rows, i);
        UNROLL
        for (size_t p = 0; p < n; p++) {
            sum[i][p] = _mm512_set1_epi32(wide ? 16 * x->offset : x->offset);
        }
    }
    for (size_t q = 0; q < 8; q++) {
        __m512i w[K512_PANELS];
        UNROLL
        for (size_t p = 0; p < n; p++) {
            w[p] = k512_quad(wide, (const char *)t->panels[p] + at, q);
            if (wide || q < 4) {
                k512_fetch((const char *)t->ahead[p] + at + q * 64, t->soon);
            }
        }
        UNROLL
        for (size_t i = 0; i < m; i++) {
            const struct kernels_group *x = (const void *)k512_row(rows, i);
            const __m512i v = _mm512_set1_epi32(k512_input(x, q));
            UNROLL
            for (size_t p = 0; p < n; p++) {
                sum[i][p] = k512_dot(sum[i][p], w[p], v);
            }
        }
    }
    UNROLL
    for (size_t p = 0; p < n; p++) {
        const char *factors = (const char *)t->panels[p] + span + 2 * group_bytes + g % 2 * 32;
        const __m512 w =
            _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)(const void *)factors));
        UNROLL
        for (size_t i = 0; i < m; i++) {
            const struct kernels_group *x = (const void *)k512_row(rows, i);
            acc[i][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[i][p]),
                                        _mm512_mul_ps(w, _mm512_set1_ps(x->factor)), acc[i][p]);
        }
    }
}

INLINE void k512_ints(const size_t m, const size_t n, const bool wide, const struct kernels_tile *t)
{
    __m512 acc[K512_ROWS][K512_PANELS];
    k512_begin(acc, m, n, t);
    struct k512_rows x = k512_rows(t, m, 0);
    const size_t n_groups = (size_t)(t->k + MATRIX_GROUP - 1) / MATRIX_GROUP;
    for (size_t g = 0; g < n_groups; g++) {
        k512_group(acc, m, n, wide, t, &x, g);
        k512_advance(&x, m, sizeof(struct kernels_group));
    }
    k512_end(acc, m, n, t);
}

#define INT8(m, n) K512_CASE(m, n, k512_ints(m, n, true, t))
#define INT4(m, n) K512_CASE(m, n, k512_ints(m, n, false, t))

static void k512_int8_tile(const struct kernels_tile *t)
{
    switch (K512_SHAPE(t->m, t->n_panels)) {
        K512_INT_TILES(INT8)
    }
}

static void k512_int4_tile(const struct kernels_tile *t)
{
    switch (K512_SHAPE(t->m, t->n_panels)) {
        K512_INT_TILES(INT4)
    }
}

/* KERNELS_INT8 inputs. */
static void k512_int_tile(const struct kernels_tile *t)
{
    if (t->dtype == ARCH_INT8) {
        k512_int8_tile(t);
    } else {
        k512_int4_tile(t);
    }
}
