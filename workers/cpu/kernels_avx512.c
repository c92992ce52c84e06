/*
 * AVX-512 (F, BW, DQ, VL); entered only where the CPU has all. Inputs stay float32, weights are
 * widened in registers.
 */
#include "workers/cpu/kernels_512.h"
#include "workers/cpu/kernels_512_ints.h"
#include "workers/cpu/narrow.h"

/* --- products --------------------------------------------------------------------------------- */

/* Column k of a panel; of BF16 even columns are the low halves of words that two columns share. */
INLINE __m512 load_weights(const enum arch_dtype dtype, const void *panel, size_t k)
{
    const char *bytes = panel;
    if (dtype == ARCH_F32) {
        return _mm512_loadu_ps(bytes + k * 64);
    }
    if (dtype == ARCH_F16) {
        return _mm512_cvtph_ps(
            _mm256_loadu_si256((const __m256i_u *)(const void *)(bytes + k * 32)));
    }
    const __m512i v = _mm512_loadu_si512(bytes + k / 2 * 64);
    return _mm512_castsi512_ps(k % 2 == 0
                                   ? _mm512_slli_epi32(v, 16)
                                   : _mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
}

/* Column k of the panels, whose inputs lie `at` bytes behind where x points. */
INLINE void add_column(__m512 acc[K512_ROWS][K512_PANELS], const size_t m, const size_t n,
                       const enum arch_dtype dtype, const void *const *panels,
                       const struct k512_rows *x, size_t k, size_t at)
{
    __m512 w[K512_PANELS];
    UNROLL
    for (size_t p = 0; p < n; p++) {
        w[p] = load_weights(dtype, panels[p], k);
    }
    UNROLL
    for (size_t i = 0; i < m; i++) {
        const __m512 v = _mm512_set1_ps(*(const float *)(const void *)(k512_row(x, i) + at));
        UNROLL
        for (size_t p = 0; p < n; p++) {
            acc[i][p] = _mm512_fmadd_ps(w[p], v, acc[i][p]);
        }
    }
}

/* What two columns further is fetched for later. */
INLINE void fetch(const size_t n, const enum arch_dtype dtype, const void *const *ahead, bool soon,
                  size_t k)
{
    UNROLL
    for (size_t p = 0; p < n; p++) {
        const char *at = (const char *)ahead[p] + k * (dtype == ARCH_F32 ? 64 : 32);
        k512_fetch(at, soon);
        if (dtype == ARCH_F32) {
            k512_fetch(at + 64, soon);
        }
    }
}

INLINE void floats_of(const size_t m, const size_t n, const enum arch_dtype dtype,
                      const struct kernels_tile *t)
{
    __m512 acc[K512_ROWS][K512_PANELS];
    k512_begin(acc, m, n, t);
    const size_t n_k = (size_t)t->k;
    for (size_t s = 0; s < (size_t)t->n_segments; s++) {
        const void *const *panels = t->panels + s * t->step, *const *ahead = t->ahead + s * t->step;
        struct k512_rows x = k512_rows(t, m, s * n_k * sizeof(float));
        size_t k = 0;
        for (; k + 2 <= n_k; k += 2) {
            fetch(n, dtype, ahead, t->soon, k);
            add_column(acc, m, n, dtype, panels, &x, k, 0);
            add_column(acc, m, n, dtype, panels, &x, k + 1, sizeof(float));
            k512_advance(&x, m, 2 * sizeof(float));
        }
        if (k < n_k) {
            add_column(acc, m, n, dtype, panels, &x, k, 0);
        }
    }
    k512_end(acc, m, n, t);
}

#define F32(m, n)  K512_CASE(m, n, floats_of(m, n, ARCH_F32, t))
#define F16(m, n)  K512_CASE(m, n, floats_of(m, n, ARCH_F16, t))
#define BF16(m, n) K512_CASE(m, n, floats_of(m, n, ARCH_BF16, t))

static void tile_f32(const struct kernels_tile *t)
{
    switch (K512_SHAPE(t->m, t->n_panels)) {
        K512_FLOAT_TILES(F32)
    }
}

static void tile_f16(const struct kernels_tile *t)
{
    switch (K512_SHAPE(t->m, t->n_panels)) {
        K512_FLOAT_TILES(F16)
    }
}

static void tile_bf16(const struct kernels_tile *t)
{
    switch (K512_SHAPE(t->m, t->n_panels)) {
        K512_FLOAT_TILES(BF16)
    }
}

void kernels_avx512_float_tile(const struct kernels_tile *t)
{
    switch (t->dtype) {
    case ARCH_BF16:
        tile_bf16(t);
        break;
    case ARCH_F16:
        tile_f16(t);
        break;
    default:
        tile_f32(t);
    }
}

static void tile(const struct kernels_tile *t)
{
    if (t->x.form == KERNELS_INT8) {
        k512_int_tile(t);
    } else {
        kernels_avx512_float_tile(t);
    }
}

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .bf16_form = KERNELS_F32,
    .k_block = 512,
    .shapes = {K512_FLOATS, K512_FLOATS, K512_INTS},
    K512_SHARED,
    .tile = tile,
    .narrow = narrow_row,
};
