/*
 * AVX512_BF16 and AVX512_VNNI; compiled with -mavx512bf16 -mavx512vnni on top of kernels_avx512.c's
 * instructions and entered only where the CPU has all. Inputs to bfloat16 matrices are narrowed to
 * bfloat16: vdpbf16ps multiplies two columns at once and adds into float32.
 */
#include "workers/cpu/kernels_512.h"
#include "workers/cpu/kernels_512_ints.h"
#include "workers/cpu/narrow.h"

/* --- bfloat16 --------------------------------------------------------------------------------- */

INLINE __m512 dot_pairs(__m512 sum, __m512i w, int x)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(x));
}

/* Two columns, or with `single` the first of them: what lies behind the last counts for nothing. */
INLINE void add_columns(__m512 acc[K512_ROWS][K512_PANELS], const size_t m, const size_t n,
                        const void *const *panels, const void *const *ahead, bool soon,
                        const struct k512_rows *x, size_t pair, size_t at, const bool single)
{
    __m512i w[K512_PANELS];
    UNROLL
    for (size_t p = 0; p < n; p++) {
        w[p] = _mm512_loadu_si512((const char *)panels[p] + pair * 64);
        if (single) {
            w[p] = _mm512_and_si512(w[p], _mm512_set1_epi32(0xffff));
        }
        k512_fetch((const char *)ahead[p] + pair * 64, soon);
    }
    UNROLL
    for (size_t i = 0; i < m; i++) {
        uint32_t v = 0;
        __builtin_memcpy(&v, k512_row(x, i) + at, single ? 2 : 4);
        UNROLL
        for (size_t p = 0; p < n; p++) {
            acc[i][p] = dot_pairs(acc[i][p], w[p], (int)v);
        }
    }
}

INLINE void pairs_of(const size_t m, const size_t n, const struct kernels_tile *t)
{
    enum {
        AT_ONCE = 4,
    };
    __m512 acc[K512_ROWS][K512_PANELS];
    k512_begin(acc, m, n, t);
    const size_t n_k = (size_t)t->k, n_pairs = n_k / 2;
    for (size_t s = 0; s < (size_t)t->n_segments; s++) {
        const void *const *panels = t->panels + s * t->step, *const *ahead = t->ahead + s * t->step;
        struct k512_rows x = k512_rows(t, m, s * n_k * 2);
        size_t pair = 0;
        for (; pair + AT_ONCE <= n_pairs; pair += AT_ONCE) {
            UNROLL
            for (size_t j = 0; j < AT_ONCE; j++) {
                add_columns(acc, m, n, panels, ahead, t->soon, &x, pair + j, 4 * j, false);
            }
            k512_advance(&x, m, 4 * AT_ONCE);
        }
        for (; pair < n_pairs; pair++) {
            add_columns(acc, m, n, panels, ahead, t->soon, &x, pair, 0, false);
            k512_advance(&x, m, 4);
        }
        if (n_k % 2) {
            add_columns(acc, m, n, panels, ahead, t->soon, &x, pair, 0, true);
        }
    }
    k512_end(acc, m, n, t);
}

/* --- tiles ------------------------------------------------------------------------------------ */

#define PAIRS(m, n) K512_CASE(m, n, pairs_of(m, n, t))

static void tile_pairs(const struct kernels_tile *t)
{
    switch (K512_SHAPE(t->m, t->n_panels)) {
        K512_FLOAT_TILES(PAIRS)
    }
}

void kernels_avx512_bf16_int_tile(const struct kernels_tile *t)
{
    k512_int_tile(t);
}

static void tile(const struct kernels_tile *t)
{
    switch (t->x.form) {
    case KERNELS_INT8:
        kernels_avx512_bf16_int_tile(t);
        break;
    case KERNELS_BF16:
        tile_pairs(t);
        break;
    case KERNELS_F32:
        kernels_avx512_float_tile(t);
    }
}

/* --- narrow inputs ---------------------------------------------------------------------------- */

void kernels_avx512_bf16_narrow(enum kernels_input form, const float *x, int n, void *out)
{
    if (form != KERNELS_BF16) {
        narrow_row(form, x, n, out);
        return;
    }
    uint16_t *words = out;
    for (int i = 0; i < matrix_padded(n); i += MATRIX_PANEL) {
        const __mmask16 inside = (__mmask16)(n - i >= MATRIX_PANEL ? 0xffff : (1u << (n - i)) - 1);
        const __m256bh v = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(inside, x + i));
        _mm256_storeu_si256((__m256i_u *)(void *)(words + i), (__m256i)v);
    }
}

const struct kernels kernels_avx512_bf16 = {
    .name = "avx512_bf16",
    .bf16_form = KERNELS_BF16,
    .k_block = 512,
    .shapes = {K512_FLOATS, K512_FLOATS, K512_INTS},
    K512_SHARED,
    .tile = tile,
    .narrow = kernels_avx512_bf16_narrow,
};
