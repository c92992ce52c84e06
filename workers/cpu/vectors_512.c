#include "workers/cpu/vectors_512.h"

#include <immintrin.h>
#include <math.h>

/* The first n of 16 lanes. */
INLINE __mmask16 lanes(int n)
{
    return (__mmask16)(n >= MATRIX_PANEL ? 0xffff : (1u << n) - 1);
}

/* To bfloat16 and back: to nearest, ties to even; a NaN stays one. */
INLINE __m512 rounded(__m512 v)
{
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), odd));
    const __m512i near = _mm512_and_si512(up, _mm512_set1_epi32((int)0xffff0000u));
    return _mm512_mask_mov_ps(_mm512_castsi512_ps(near), _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), v);
}

void vectors_512_round(float *x, int n)
{
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        const __mmask16 inside = lanes(n - i);
        _mm512_mask_storeu_ps(x + i, inside, rounded(_mm512_maskz_loadu_ps(inside, x + i)));
    }
}

void vectors_512_rmsnorm(float *out, const float *x, const struct kernels_norm *norm, int n)
{
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        const __m512 v = _mm512_loadu_ps(x + i);
        sum = _mm512_fmadd_ps(v, v, sum);
    }
    const float mean = _mm512_reduce_add_ps(sum) / (float)n;
    const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(mean + norm->eps));
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x + i), scale);
        v = norm->rounds ? rounded(v) : v;
        _mm512_storeu_ps(out + i, _mm512_mul_ps(v, _mm512_loadu_ps(norm->w + i)));
    }
}

void vectors_512_rope(float *x, const float *cosines, const float *sines, int half)
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
    x = _mm512_max_ps(least, _mm512_min_ps(_mm512_set1_ps(88.0f), x)); // in this order NaN stays
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
        g = _mm512_min_ps(limit, g);
        u = _mm512_max_ps(_mm512_set1_ps(-KERNELS_SWIGLU_LIMIT), _mm512_min_ps(limit, u));
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

void vectors_512_gate(enum arch_activation act, float *out, const float *gate_up, int n_panels)
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

void vectors_512_softcap(float *x, int n, float cap)
{
    const __m512 inverse = _mm512_set1_ps(1.0f / cap), c = _mm512_set1_ps(cap);
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        const __mmask16 inside = lanes(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(inside, x + i), inverse);
        _mm512_mask_storeu_ps(x + i, inside, _mm512_mul_ps(c, tanh_ps(v)));
    }
}

float vectors_512_max(const float *x, int n)
{
    __m512 m = _mm512_set1_ps(x[0]);
    for (int i = 0; i < n; i += MATRIX_PANEL) {
        m = _mm512_max_ps(_mm512_mask_loadu_ps(m, lanes(n - i), x + i), m);
    }
    return _mm512_reduce_max_ps(m);
}

float vectors_512_exp_sum(float *x, int n, float largest)
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
