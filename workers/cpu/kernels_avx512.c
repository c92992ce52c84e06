/*
 * AVX-512 (F, BW, DQ, VL); entered only where the CPU has all. Inputs stay float32, weights are
 * widened in registers.
 */
#include "workers/cpu/kernels_512.h"
#include "workers/cpu/narrow.h"

#include <math.h>

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
INLINE void fetch(const size_t n, const enum arch_dtype dtype, const void *const *ahead, size_t k)
{
    UNROLL
    for (size_t p = 0; p < n; p++) {
        const char *at = (const char *)ahead[p] + k * (dtype == ARCH_F32 ? 64 : 32);
        _mm_prefetch(at, _MM_HINT_T1);
        if (dtype == ARCH_F32) {
            _mm_prefetch(at + 64, _MM_HINT_T1);
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
            fetch(n, dtype, ahead, k);
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

#define SHAPE(m, n) (8 * (m) + (n))
#define CASE(m, n, ...)                                                                            \
    case SHAPE(m, n):                                                                              \
        __VA_ARGS__;                                                                               \
        break;
#define F32(m, n)  CASE(m, n, floats_of(m, n, ARCH_F32, t))
#define F16(m, n)  CASE(m, n, floats_of(m, n, ARCH_F16, t))
#define BF16(m, n) CASE(m, n, floats_of(m, n, ARCH_BF16, t))
#define INT8(m, n) CASE(m, n, k512_ints(m, n, true, t))
#define INT4(m, n) CASE(m, n, k512_ints(m, n, false, t))

static void tile_f32(const struct kernels_tile *t)
{
    switch (SHAPE(t->m, t->n_panels)) {
        K512_FLOAT_TILES(F32)
    }
}

static void tile_f16(const struct kernels_tile *t)
{
    switch (SHAPE(t->m, t->n_panels)) {
        K512_FLOAT_TILES(F16)
    }
}

static void tile_bf16(const struct kernels_tile *t)
{
    switch (SHAPE(t->m, t->n_panels)) {
        K512_FLOAT_TILES(BF16)
    }
}

static void tile_int8(const struct kernels_tile *t)
{
    switch (SHAPE(t->m, t->n_panels)) {
        K512_INT_TILES(INT8)
    }
}

static void tile_int4(const struct kernels_tile *t)
{
    switch (SHAPE(t->m, t->n_panels)) {
        K512_INT_TILES(INT4)
    }
}

void k512_float_tile(const struct kernels_tile *t)
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
    if (t->dtype == ARCH_INT8) {
        tile_int8(t);
    } else if (t->dtype == ARCH_INT4) {
        tile_int4(t);
    } else {
        k512_float_tile(t);
    }
}

/* --- vectors ---------------------------------------------------------------------------------- */

/* The first n of 16 lanes. */
INLINE __mmask16 lanes(int n)
{
    return n >= MATRIX_PANEL ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

void k512_rmsnorm(float *out, const float *x, const float *w, int n, float eps)
{
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        const __m512 v = _mm512_loadu_ps(x + i);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(sum) / (float)n + eps));
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        const __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x + i), scale);
        _mm512_storeu_ps(out + i, _mm512_mul_ps(v, _mm512_loadu_ps(w + i)));
    }
}

void k512_rope(float *x, const float *cosines, const float *sines, int half)
{
    for (int j = 0; j < half; j += MATRIX_PANEL) {
        const __mmask16 inside = lanes(half - j);
        const __m512 a = _mm512_maskz_loadu_ps(inside, x + j);
        const __m512 b = _mm512_maskz_loadu_ps(inside, x + j + half);
        const __m512 c = _mm512_maskz_loadu_ps(inside, cosines + j);
        const __m512 s = _mm512_maskz_loadu_ps(inside, sines + j);
        _mm512_mask_storeu_ps(x + j, inside, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + j + half, inside, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

/*
 * exp(x) by x = n ln 2 + r and a polynomial in r (Cephes, expf: relative error 2e-7); above 88 it is
 * that of 88, below -87.3 it is 0.
 */
INLINE __m512 exp_ps(__m512 x)
{
    const __m512 least = _mm512_set1_ps(-87.3f);
    const __mmask16 counts = _mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ);
    x = _mm512_max_ps(_mm512_min_ps(x, _mm512_set1_ps(88.0f)), least);
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_maskz_scalef_ps(counts, p, n);
}

INLINE __m512 sigmoid(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

INLINE __m512 gated(const enum arch_activation act, __m512 g, __m512 u)
{
    const __m512 limit = _mm512_set1_ps(KERNELS_SWIGLU_LIMIT);
    __m512 s;
    switch (act) {
    case ARCH_GELU_TANH:
        s = _mm512_fmadd_ps(_mm512_mul_ps(g, g), _mm512_set1_ps(KERNELS_GELU_3),
                            _mm512_set1_ps(KERNELS_GELU_1));
        s = sigmoid(_mm512_mul_ps(g, s));
        break;
    case ARCH_SWIGLU_CLAMP:
        g = _mm512_min_ps(g, limit);
        u = _mm512_max_ps(_mm512_min_ps(u, limit), _mm512_set1_ps(-KERNELS_SWIGLU_LIMIT));
        u = _mm512_add_ps(u, _mm512_set1_ps(1.0f));
        s = sigmoid(_mm512_mul_ps(_mm512_set1_ps(KERNELS_SWIGLU_ALPHA), g));
        break;
    default:
        s = sigmoid(g);
    }
    return _mm512_mul_ps(_mm512_mul_ps(g, s), u);
}

INLINE void gate_of(const enum arch_activation act, float *out, const float *gate_up, int n_panels)
{
    for (size_t p = 0; p < (size_t)n_panels; p++) {
        const float *g = gate_up + p * 2 * MATRIX_PANEL;
        _mm512_storeu_ps(out + p * MATRIX_PANEL,
                         gated(act, _mm512_loadu_ps(g), _mm512_loadu_ps(g + MATRIX_PANEL)));
    }
}

void k512_gate(enum arch_activation act, float *out, const float *gate_up, int n_panels)
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

/* tanh(x): near zero x + x^3 P(x^2) (Cephes, tanhf), else 1 - 2 / (exp(2 |x|) + 1) with x's sign. */
INLINE __m512 tanh_ps(__m512 x)
{
    const __m512 sign = _mm512_set1_ps(-0.0f), one = _mm512_set1_ps(1.0f);
    const __m512 a = _mm512_andnot_ps(sign, x), z = _mm512_mul_ps(x, x);
    __m512 p = _mm512_set1_ps(-5.70498872745e-3f);
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(2.06390887954e-2f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(-5.37397155531e-2f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.33314422036e-1f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(-3.33332819422e-1f));
    const __m512 small = _mm512_fmadd_ps(_mm512_mul_ps(p, z), x, x);
    const __m512 e = _mm512_add_ps(exp_ps(_mm512_add_ps(a, a)), one);
    const __m512 large = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), e));
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, _mm512_set1_ps(0.625f), _CMP_LT_OQ),
                                _mm512_or_ps(large, _mm512_and_ps(sign, x)), small);
}

void k512_softcap(float *x, int n, float cap)
{
    const __m512 inverse = _mm512_set1_ps(1.0f / cap), c = _mm512_set1_ps(cap);
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        const __mmask16 inside = lanes(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(inside, x + i), inverse);
        _mm512_mask_storeu_ps(x + i, inside, _mm512_mul_ps(c, tanh_ps(v)));
    }
}

float k512_max(const float *x, int n)
{
    __m512 m = _mm512_set1_ps(x[0]);
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        m = _mm512_max_ps(_mm512_mask_loadu_ps(m, lanes(n - i), x + i), m);
    }
    return _mm512_reduce_max_ps(m);
}

float k512_exp_sum(float *x, int n, float largest)
{
    const __m512 shift = _mm512_set1_ps(largest);
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        const __m512 v =
            _mm512_maskz_mov_ps(lanes(n - i), exp_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), shift)));
        _mm512_storeu_ps(x + i, v);
        sum = _mm512_add_ps(sum, v);
    }
    return _mm512_reduce_add_ps(sum);
}

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .bf16_form = KERNELS_F32,
    K512_SHAPES,
    .tile = tile,
    .narrow = narrow_row,
    .rmsnorm = k512_rmsnorm,
    .rope = k512_rope,
    .gate = k512_gate,
    .softcap = k512_softcap,
    .max = k512_max,
    .exp_sum = k512_exp_sum,
};
