/*
 * AVX2 and FMA; compiled with -mavx2 -mfma and entered only where the CPU has both. One accumulator
 * per output: tiles hold up to 12 vectors of outputs in registers, so 12 independent chains hide the
 * latency of the multiply-adds, and no sum is ever split over lanes.
 */
#include "workers/cpu/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define VEC        8 // floats in a vector
#define MAX_ROWS   6
#define MAX_PANELS 4
#define MAX_CELLS  6 // panels of 2 vectors: 12 accumulators of 16 registers
#define INLINE     static inline __attribute__((always_inline))

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

struct pair { // the 16 lanes of a panel
    __m256 lo, hi;
};

INLINE struct pair load_f32(const float *p)
{
    return (struct pair){_mm256_loadu_ps(p), _mm256_loadu_ps(p + VEC)};
}

INLINE struct pair load_weights(const bool bf16, const void *panel, size_t k)
{
    if (!bf16) {
        return load_f32((const float *)panel + k * MATRIX_PANEL);
    }
    const uint16_t *words = (const uint16_t *)panel + k * MATRIX_PANEL;
    __m256i v = _mm256_loadu_si256((const __m256i_u *)(const void *)words);
    return (struct pair){
        _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)),
        _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000))),
    };
}

INLINE void store(const struct kernels_tile *t, size_t row, size_t panel, struct pair v)
{
    float *y = t->y + row * t->ldy + panel * MATRIX_PANEL;
    if (t->mode == KERNELS_ADD) {
        struct pair before = load_f32(y);
        v.lo = _mm256_add_ps(before.lo, v.lo);
        v.hi = _mm256_add_ps(before.hi, v.hi);
    }
    _mm256_storeu_ps(y, v.lo);
    _mm256_storeu_ps(y + VEC, v.hi);
}

/* m and n are constants at every call: the loops over them disappear and acc lives in registers. */
INLINE void tile_of(const size_t m, const size_t n, const bool bf16, const struct kernels_tile *t)
{
    struct pair acc[MAX_ROWS][MAX_PANELS];
    UNROLL
    for (size_t i = 0; i < m; i++) {
        UNROLL
        for (size_t p = 0; p < n; p++) {
            acc[i][p] = t->mode == KERNELS_ONTO
                            ? load_f32(t->y + i * t->ldy + p * MATRIX_PANEL)
                            : (struct pair){_mm256_setzero_ps(), _mm256_setzero_ps()};
        }
    }
    const size_t ldx = t->ldx, n_k = (size_t)t->k, line = MATRIX_PANEL * (bf16 ? 2 : 4);
    for (size_t s = 0; s < (size_t)t->n_segments; s++) {
        const float *x = t->x + s * n_k;
        const void *const *panels = t->panels + s * t->step, *const *ahead = t->ahead + s * t->step;
        for (size_t k = 0; k < n_k; k++) {
            UNROLL
            for (size_t p = 0; p < n; p++) {
                _mm_prefetch((const char *)ahead[p] + k * line, _MM_HINT_T1);
                struct pair w = load_weights(bf16, panels[p], k);
                UNROLL
                for (size_t i = 0; i < m; i++) {
                    __m256 b = _mm256_broadcast_ss(x + i * ldx + k);
                    acc[i][p].lo = _mm256_fmadd_ps(b, w.lo, acc[i][p].lo);
                    acc[i][p].hi = _mm256_fmadd_ps(b, w.hi, acc[i][p].hi);
                }
            }
        }
    }
    UNROLL
    for (size_t i = 0; i < m; i++) {
        UNROLL
        for (size_t p = 0; p < n; p++) {
            store(t, i, p, acc[i][p]);
        }
    }
}

#define TILE(m, n)                                                                                 \
    static void tile_f32_##m##_##n(const struct kernels_tile *t)                                   \
    {                                                                                              \
        tile_of(m, n, false, t);                                                                   \
    }                                                                                              \
    static void tile_bf16_##m##_##n(const struct kernels_tile *t)                                  \
    {                                                                                              \
        tile_of(m, n, true, t);                                                                    \
    }
TILE(1, 1)
TILE(1, 2)
TILE(1, 3)
TILE(1, 4)
TILE(2, 1)
TILE(2, 2)
TILE(2, 3)
TILE(3, 1)
TILE(3, 2)
TILE(4, 1)
TILE(5, 1)
TILE(6, 1)

#define BOTH(m, n)                                                                                 \
    {                                                                                              \
        tile_f32_##m##_##n, tile_bf16_##m##_##n                                                    \
    }

static void tile(const struct kernels_tile *t)
{
    typedef void (*tile_fn)(const struct kernels_tile *);
    static const tile_fn tiles[MAX_ROWS][MAX_PANELS][2] = {
        {BOTH(1, 1), BOTH(1, 2), BOTH(1, 3), BOTH(1, 4)},
        {BOTH(2, 1), BOTH(2, 2), BOTH(2, 3)},
        {BOTH(3, 1), BOTH(3, 2)},
        {BOTH(4, 1)},
        {BOTH(5, 1)},
        {BOTH(6, 1)},
    };
    tiles[t->m - 1][t->n_panels - 1][t->dtype == ARCH_BF16](t);
}

INLINE float sum_lanes(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static void rmsnorm(float *out, const float *x, const float *w, int n, float eps)
{
    struct pair sum = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    size_t padded = (size_t)matrix_padded(n);
    for (size_t i = 0; i < padded; i += MATRIX_PANEL) {
        struct pair v = load_f32(x + i);
        sum.lo = _mm256_fmadd_ps(v.lo, v.lo, sum.lo);
        sum.hi = _mm256_fmadd_ps(v.hi, v.hi, sum.hi);
    }
    float mean = sum_lanes(_mm256_add_ps(sum.lo, sum.hi)) / (float)n;
    __m256 scale = _mm256_set1_ps(1.0f / sqrtf(mean + eps));
    for (size_t i = 0; i < padded; i += VEC) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), scale);
        _mm256_storeu_ps(out + i, _mm256_mul_ps(v, _mm256_loadu_ps(w + i)));
    }
}

static void rope(float *x, const float *cosines, const float *sines, int half)
{
    int j = 0;
    for (; j + VEC <= half; j += VEC) {
        __m256 a = _mm256_loadu_ps(x + j), b = _mm256_loadu_ps(x + j + half);
        __m256 c = _mm256_loadu_ps(cosines + j), s = _mm256_loadu_ps(sines + j);
        _mm256_storeu_ps(x + j, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + j + half, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
    for (; j < half; j++) {
        float a = x[j], b = x[j + half];
        x[j] = a * cosines[j] - b * sines[j];
        x[j + half] = b * cosines[j] + a * sines[j];
    }
}

/*
 * exp(x) for x <= 88, by x = n ln 2 + r and a polynomial in r (Cephes, expf: relative error 2e-7);
 * below -87.3 the result is 0.
 */
INLINE __m256 exp_ps(__m256 x)
{
    const __m256 least = _mm256_set1_ps(-87.3f);
    __m256 tiny = _mm256_cmp_ps(x, least, _CMP_LT_OQ);
    x = _mm256_max_ps(_mm256_min_ps(x, _mm256_set1_ps(88.0f)), least);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    __m256i power =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_andnot_ps(tiny, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

static void silu_mul(float *out, const float *gate_up, int n_panels)
{
    const __m256 one = _mm256_set1_ps(1.0f), zero = _mm256_setzero_ps();
    for (size_t i = 0; i < (size_t)n_panels * MATRIX_PANEL; i += VEC) {
        const float *gate = gate_up + i / MATRIX_PANEL * 2 * MATRIX_PANEL + i % MATRIX_PANEL;
        __m256 g = _mm256_loadu_ps(gate), u = _mm256_loadu_ps(gate + MATRIX_PANEL);
        __m256 d = _mm256_add_ps(one, exp_ps(_mm256_sub_ps(zero, g)));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_div_ps(g, d), u));
    }
}

static float max(const float *x, int n)
{
    int i = 0;
    float m = x[0];
    if (n >= VEC) {
        __m256 v = _mm256_loadu_ps(x);
        for (i = VEC; i + VEC <= n; i += VEC) {
            v = _mm256_max_ps(v, _mm256_loadu_ps(x + i));
        }
        __m128 h = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        h = _mm_max_ps(h, _mm_movehl_ps(h, h));
        m = _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
    }
    for (; i < n; i++) {
        m = x[i] > m ? x[i] : m;
    }
    return m;
}

static float exp_sum(float *x, int n, float largest)
{
    const __m256 shift = _mm256_set1_ps(largest), lanes = _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
    __m256 sum = _mm256_setzero_ps();
    for (int i = 0; i < matrix_padded(n); i += VEC) {
        __m256 v = exp_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), shift));
        __m256 inside = _mm256_cmp_ps(lanes, _mm256_set1_ps((float)(n - i)), _CMP_LT_OQ);
        v = _mm256_and_ps(v, inside);
        _mm256_storeu_ps(x + i, v);
        sum = _mm256_add_ps(sum, v);
    }
    return sum_lanes(sum);
}

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .max_rows = MAX_ROWS,
    .max_panels = MAX_PANELS,
    .max_cells = MAX_CELLS,
    .tile = tile,
    .rmsnorm = rmsnorm,
    .rope = rope,
    .silu_mul = silu_mul,
    .max = max,
    .exp_sum = exp_sum,
};
