/*
 * AVX2 and FMA; compiled with -mavx2 -mfma -mf16c and entered only where the CPU has all. One
 * accumulator per output: tiles hold up to 12 vectors of outputs in registers, so 12 independent
 * chains hide the latency of the multiply-adds, and no sum is ever split over lanes.
 */
#include "workers/cpu/kernels.h"
#include "workers/cpu/narrow.h"

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define VEC        8 // floats in a vector
#define MAX_ROWS   6
#define MAX_PANELS 4
#define MAX_CELLS  6 // panels of 2 vectors: 12 accumulators of 16 registers
#define MAX_INTS   2 // rows, panels and cells of integers: their sums need two kinds of accumulator
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

INLINE __m256i load_ints(const void *p)
{
    return _mm256_loadu_si256((const __m256i_u *)p);
}

/* Column k of a panel; of BF16 even columns are the low halves of words that two columns share. */
INLINE struct pair load_weights(const enum arch_dtype dtype, const void *panel, size_t k)
{
    if (dtype == ARCH_F32) {
        return load_f32((const float *)panel + k * MATRIX_PANEL);
    }
    const uint16_t *words = (const uint16_t *)panel + (k & ~(size_t)1) * MATRIX_PANEL;
    if (dtype == ARCH_F16) {
        words = (const uint16_t *)panel + k * MATRIX_PANEL;
        const __m256i v = load_ints(words);
        return (struct pair){_mm256_cvtph_ps(_mm256_castsi256_si128(v)),
                             _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1))};
    }
    __m256i lo = load_ints(words), hi = load_ints(words + 2 * VEC);
    if (k % 2 == 0) {
        lo = _mm256_slli_epi32(lo, 16);
        hi = _mm256_slli_epi32(hi, 16);
    } else {
        const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
        lo = _mm256_and_si256(lo, upper);
        hi = _mm256_and_si256(hi, upper);
    }
    return (struct pair){_mm256_castsi256_ps(lo), _mm256_castsi256_ps(hi)};
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

/* Add column k; m and n are constants at every call: the loops disappear and acc lives in registers. */
INLINE void add_column(struct pair acc[MAX_ROWS][MAX_PANELS], const size_t m, const size_t n,
                       const enum arch_dtype dtype, const void *const *panels, const float *x,
                       size_t ldx, size_t k)
{
    UNROLL
    for (size_t p = 0; p < n; p++) {
        struct pair w = load_weights(dtype, panels[p], k);
        UNROLL
        for (size_t i = 0; i < m; i++) {
            __m256 b = _mm256_broadcast_ss(x + i * ldx + k);
            acc[i][p].lo = _mm256_fmadd_ps(b, w.lo, acc[i][p].lo);
            acc[i][p].hi = _mm256_fmadd_ps(b, w.hi, acc[i][p].hi);
        }
    }
}

/* A line of `ahead`. */
INLINE void fetch_line(const char *line, bool soon)
{
    if (soon) {
        _mm_prefetch(line, _MM_HINT_T0);
    } else {
        _mm_prefetch(line, _MM_HINT_T1);
    }
}

/* Two columns of 16 values: what is fetched ahead at a time. */
INLINE void fetch(const size_t n, const enum arch_dtype dtype, const void *const *ahead, bool soon,
                  size_t k)
{
    const size_t bytes = MATRIX_PANEL * (dtype == ARCH_F32 ? 4 : 2);
    UNROLL
    for (size_t p = 0; p < n; p++) {
        fetch_line((const char *)ahead[p] + k * bytes, soon);
        if (dtype == ARCH_F32) {
            fetch_line((const char *)ahead[p] + (k + 1) * bytes, soon);
        }
    }
}

INLINE void tile_of(const size_t m, const size_t n, const enum arch_dtype dtype,
                    const struct kernels_tile *t)
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
    const size_t ldx = t->x.stride / sizeof(float), n_k = (size_t)t->k;
    for (size_t s = 0; s < (size_t)t->n_segments; s++) {
        const float *x = (const float *)t->x.data + s * n_k;
        const void *const *panels = t->panels + s * t->step, *const *ahead = t->ahead + s * t->step;
        size_t k = 0;
        for (; k + 2 <= n_k; k += 2) {
            fetch(n, dtype, ahead, t->soon, k);
            add_column(acc, m, n, dtype, panels, x, ldx, k);
            add_column(acc, m, n, dtype, panels, x, ldx, k + 1);
        }
        if (k < n_k) {
            add_column(acc, m, n, dtype, panels, x, ldx, k);
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
        tile_of(m, n, ARCH_F32, t);                                                                \
    }                                                                                              \
    static void tile_f16_##m##_##n(const struct kernels_tile *t)                                   \
    {                                                                                              \
        tile_of(m, n, ARCH_F16, t);                                                                \
    }                                                                                              \
    static void tile_bf16_##m##_##n(const struct kernels_tile *t)                                  \
    {                                                                                              \
        tile_of(m, n, ARCH_BF16, t);                                                               \
    }
TILE(1, 1)
TILE(1, 4)
TILE(2, 1)
TILE(2, 3)
TILE(3, 1)
TILE(3, 2)
TILE(4, 1)
TILE(5, 1)
TILE(6, 1)

/* --- integers --------------------------------------------------------------------------------- */

/* Even and odd bytes of a quad as 16-bit integers: what the multiply-add of pairs takes. */
struct split {
    __m256i even, odd;
};

INLINE struct split split_weights(__m256i v)
{
    return (struct split){_mm256_and_si256(v, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(v, 8)};
}

INLINE struct split split_inputs(const signed char *x)
{
    const __m256i v = _mm256_castps_si256(_mm256_broadcast_ss((const float *)(const void *)x));
    return (struct split){_mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), _mm256_srai_epi16(v, 8)};
}

INLINE __m256i add_quad(__m256i sum, struct split w, struct split x)
{
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w.even, x.even));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(w.odd, x.odd));
}

/* Quad q of 8 rows, 0 or 1 of the panel, in a group of 32 columns. */
INLINE struct split load_quad(const bool wide, const char *group, size_t q, size_t half)
{
    const char *line = group + (wide ? q : q % 4) * 64 + half * 32;
    __m256i v = load_ints(line);
    if (!wide) {
        v = _mm256_and_si256(q < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
    }
    return split_weights(v);
}

/* The same order of float operations as AVX-512 has: the two give the same bits. */
INLINE void add_group(struct pair acc[MAX_INTS][MAX_INTS], const size_t m, const size_t n,
                      const bool wide, const char *const *groups, const char *const *factors,
                      const struct kernels_group *const *x)
{
    __m256i sum[MAX_INTS][MAX_INTS][2];
    UNROLL
    for (size_t i = 0; i < m; i++) {
        const __m256i offset = _mm256_set1_epi32(wide ? 16 * x[i]->offset : x[i]->offset);
        UNROLL
        for (size_t p = 0; p < n; p++) {
            sum[i][p][0] = sum[i][p][1] = offset;
        }
    }
    UNROLL
    for (size_t q = 0; q < 8; q++) {
        UNROLL
        for (size_t p = 0; p < n; p++) {
            const struct split lo = load_quad(wide, groups[p], q, 0);
            const struct split hi = load_quad(wide, groups[p], q, 1);
            UNROLL
            for (size_t i = 0; i < m; i++) {
                const struct split v = split_inputs(x[i]->values + 4 * q);
                sum[i][p][0] = add_quad(sum[i][p][0], lo, v);
                sum[i][p][1] = add_quad(sum[i][p][1], hi, v);
            }
        }
    }
    UNROLL
    for (size_t p = 0; p < n; p++) {
        const struct pair w = load_weights(ARCH_F16, factors[p], 0);
        UNROLL
        for (size_t i = 0; i < m; i++) {
            const __m256 f = _mm256_set1_ps(x[i]->factor);
            acc[i][p].lo = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i][p][0]), _mm256_mul_ps(w.lo, f),
                                           acc[i][p].lo);
            acc[i][p].hi = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[i][p][1]), _mm256_mul_ps(w.hi, f),
                                           acc[i][p].hi);
        }
    }
}

INLINE void ints_of(const size_t m, const size_t n, const bool wide, const struct kernels_tile *t)
{
    const size_t group_bytes = wide ? 512 : 256, span_bytes = 2 * group_bytes + 64;
    struct pair acc[MAX_INTS][MAX_INTS];
    const struct kernels_group *x[MAX_INTS];
    UNROLL
    for (size_t i = 0; i < m; i++) {
        x[i] = (const void *)((const char *)t->x.data + i * t->x.stride);
        UNROLL
        for (size_t p = 0; p < n; p++) {
            acc[i][p] = (struct pair){_mm256_setzero_ps(), _mm256_setzero_ps()};
        }
    }
    for (size_t g = 0; g < (size_t)(t->k + MATRIX_GROUP - 1) / MATRIX_GROUP; g++) {
        const char *groups[MAX_INTS], *factors[MAX_INTS];
        UNROLL
        for (size_t p = 0; p < n; p++) {
            const size_t span = g / 2 * span_bytes;
            groups[p] = (const char *)t->panels[p] + span + g % 2 * group_bytes;
            factors[p] = (const char *)t->panels[p] + span + 2 * group_bytes + g % 2 * 32;
            for (size_t at = 0; at < group_bytes; at += 64) {
                fetch_line((const char *)t->ahead[p] + span + g % 2 * group_bytes + at, t->soon);
            }
        }
        add_group(acc, m, n, wide, groups, factors, x);
        UNROLL
        for (size_t i = 0; i < m; i++) {
            x[i]++;
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

#define INTS(m, n)                                                                                 \
    static void tile_int8_##m##_##n(const struct kernels_tile *t)                                  \
    {                                                                                              \
        ints_of(m, n, true, t);                                                                    \
    }                                                                                              \
    static void tile_int4_##m##_##n(const struct kernels_tile *t)                                  \
    {                                                                                              \
        ints_of(m, n, false, t);                                                                   \
    }
INTS(1, 1)
INTS(1, 2)
INTS(2, 1)

#define ALL(m, n)                                                                                  \
    {                                                                                              \
        [ARCH_F32] = tile_f32_##m##_##n, [ARCH_F16] = tile_f16_##m##_##n,                          \
        [ARCH_BF16] = tile_bf16_##m##_##n,                                                         \
    }
#define ALL_INTS(m, n)                                                                             \
    {                                                                                              \
        [ARCH_F32] = tile_f32_##m##_##n, [ARCH_F16] = tile_f16_##m##_##n,                          \
        [ARCH_BF16] = tile_bf16_##m##_##n, [ARCH_INT8] = tile_int8_##m##_##n,                      \
        [ARCH_INT4] = tile_int4_##m##_##n,                                                         \
    }

#define ONLY_INTS(m, n)                                                                            \
    {                                                                                              \
        [ARCH_INT8] = tile_int8_##m##_##n, [ARCH_INT4] = tile_int4_##m##_##n,                      \
    }

static void tile(const struct kernels_tile *t)
{
    typedef void (*tile_fn)(const struct kernels_tile *);
    static const tile_fn tiles[MAX_ROWS][MAX_PANELS][ARCH_INT4 + 1] = {
        {ALL_INTS(1, 1), ONLY_INTS(1, 2), {0}, ALL(1, 4)},
        {ALL_INTS(2, 1), {0}, ALL(2, 3)},
        {ALL(3, 1), ALL(3, 2)},
        {ALL(4, 1)},
        {ALL(5, 1)},
        {ALL(6, 1)},
    };
    tiles[t->m - 1][t->n_panels - 1][t->dtype](t);
}

INLINE float sum_lanes(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* To bfloat16 and back: to nearest, ties to even; a NaN stays one. */
INLINE __m256 rounded(__m256 v)
{
    const __m256i bits = _mm256_castps_si256(v), one = _mm256_set1_epi32(1);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    const __m256i up = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), odd);
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    const __m256 near = _mm256_castsi256_ps(_mm256_and_si256(_mm256_add_epi32(bits, up), upper));
    return _mm256_blendv_ps(near, v, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
}

static void round_all(float *x, int n)
{
    int i = 0;
    for (; i + VEC <= n; i += VEC) {
        _mm256_storeu_ps(x + i, rounded(_mm256_loadu_ps(x + i)));
    }
    for (; i < n; i++) {
        x[i] = _mm256_cvtss_f32(rounded(_mm256_set1_ps(x[i])));
    }
}

static void rmsnorm(float *out, const float *x, const struct kernels_norm *norm, int n)
{
    struct pair sum = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    size_t padded = (size_t)matrix_padded(n);
    for (size_t i = 0; i < padded; i += MATRIX_PANEL) {
        struct pair v = load_f32(x + i);
        sum.lo = _mm256_fmadd_ps(v.lo, v.lo, sum.lo);
        sum.hi = _mm256_fmadd_ps(v.hi, v.hi, sum.hi);
    }
    float mean = sum_lanes(_mm256_add_ps(sum.lo, sum.hi)) / (float)n;
    __m256 scale = _mm256_set1_ps(1.0f / sqrtf(mean + norm->eps));
    for (size_t i = 0; i < padded; i += VEC) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), scale);
        v = norm->rounds ? rounded(v) : v;
        _mm256_storeu_ps(out + i, _mm256_mul_ps(v, _mm256_loadu_ps(norm->w + i)));
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
    x = _mm256_max_ps(least, _mm256_min_ps(_mm256_set1_ps(88.0f), x)); // in this order NaN stays
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

INLINE __m256 sigmoid(__m256 x)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, exp_ps(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

INLINE __m256 gated(const enum arch_activation act, __m256 g, __m256 u)
{
    const __m256 limit = _mm256_set1_ps(KERNELS_SWIGLU_LIMIT);
    __m256 s;
    switch (act) {
    case ARCH_GELU_TANH:
        s = _mm256_fmadd_ps(_mm256_mul_ps(g, g), _mm256_set1_ps(KERNELS_GELU_3),
                            _mm256_set1_ps(KERNELS_GELU_1));
        s = sigmoid(_mm256_mul_ps(g, s));
        break;
    case ARCH_SWIGLU_CLAMP:
        g = _mm256_min_ps(limit, g);
        u = _mm256_max_ps(_mm256_set1_ps(-KERNELS_SWIGLU_LIMIT), _mm256_min_ps(limit, u));
        u = _mm256_add_ps(u, _mm256_set1_ps(1.0f));
        s = sigmoid(_mm256_mul_ps(_mm256_set1_ps(KERNELS_SWIGLU_ALPHA), g));
        break;
    default:
        s = sigmoid(g);
    }
    return _mm256_mul_ps(_mm256_mul_ps(g, s), u);
}

INLINE void gate_of(const enum arch_activation act, float *out, const float *gate_up, int n_panels)
{
    for (size_t i = 0; i < (size_t)n_panels * MATRIX_PANEL; i += VEC) {
        const float *g = gate_up + i / MATRIX_PANEL * 2 * MATRIX_PANEL + i % MATRIX_PANEL;
        _mm256_storeu_ps(out + i,
                         gated(act, _mm256_loadu_ps(g), _mm256_loadu_ps(g + MATRIX_PANEL)));
    }
}

static void gate(enum arch_activation act, float *out, const float *gate_up, int n_panels)
{
    switch (act) {
    case ARCH_GELU_TANH:
        gate_of(ARCH_GELU_TANH, out, gate_up, n_panels);
        break;
    case ARCH_SWIGLU_CLAMP:
        gate_of(ARCH_SWIGLU_CLAMP, out, gate_up, n_panels);
        break;
    default:
        gate_of(ARCH_SILU, out, gate_up, n_panels);
    }
}

/*
 * tanh(x): near zero x + x^3 P(x^2) (Cephes, tanhf), else 1 - 2 / (exp(2 |x|) + 1) with x's sign.
 */
INLINE __m256 tanh_ps(__m256 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
    const __m256 a = _mm256_andnot_ps(sign, x), z = _mm256_mul_ps(x, x);
    __m256 p = _mm256_set1_ps(-5.70498872745e-3f);
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(2.06390887954e-2f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-5.37397155531e-2f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(1.33314422036e-1f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-3.33332819422e-1f));
    const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(p, z), x, x);
    const __m256 e = _mm256_add_ps(exp_ps(_mm256_add_ps(a, a)), one);
    const __m256 large = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), e));
    return _mm256_blendv_ps(_mm256_or_ps(large, _mm256_and_ps(sign, x)), small,
                            _mm256_cmp_ps(a, _mm256_set1_ps(0.625f), _CMP_LT_OQ));
}

static void softcap(float *x, int n, float cap)
{
    const __m256 inverse = _mm256_set1_ps(1.0f / cap), c = _mm256_set1_ps(cap);
    int i = 0;
    for (; i + VEC <= n; i += VEC) {
        const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), inverse);
        _mm256_storeu_ps(x + i, _mm256_mul_ps(c, tanh_ps(v)));
    }
    if (i < n) { // the same operations on what is left: a value's place must not matter
        float part[VEC] = {0};
        for (int j = i; j < n; j++) {
            part[j - i] = x[j];
        }
        softcap(part, VEC, cap);
        for (int j = i; j < n; j++) {
            x[j] = part[j - i];
        }
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
    .bf16_form = KERNELS_F32,
    .k_block = 512,
    .shapes = {{MAX_ROWS, MAX_PANELS, MAX_CELLS, 1},
               {1, 1, 1, 1}, // no BF16 inputs
               {MAX_INTS, MAX_INTS, MAX_INTS, 1}},
    .tile = tile,
    .narrow = narrow_row,
    .rmsnorm = rmsnorm,
    .round = round_all,
    .rope = rope,
    .gate = gate,
    .softcap = softcap,
    .max = max,
    .exp_sum = exp_sum,
};
