/* Plain C: what any machine runs, and what the vector sets are compared with. */
#include "workers/cpu/kernels.h"

#include "workers/cpu/narrow.h"
#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"

#include <math.h>
#include <string.h>

/* Four floats: a vector register on any machine of today, by the compiler's own vector types. */
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));

#define QUADS    (MATRIX_PANEL / 4) // of a panel
#define MAX_ROWS 2                  // with their sums in 8 registers of 16

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 4")
#endif

/* Column k of a panel as float32. */
static inline __attribute__((always_inline)) void widen(float *out, enum arch_dtype dtype,
                                                        const void *panel, size_t k)
{
    const uint16_t *words = panel;
    for (size_t r = 0; r < MATRIX_PANEL; r++) {
        out[r] = dtype == ARCH_BF16 ? bf16_to_f32(words[(k / 2 * MATRIX_PANEL + r) * 2 + k % 2])
                                    : f16_to_f32(words[k * MATRIX_PANEL + r]);
    }
}

static const float *row(const struct kernels_tile *t, size_t i)
{
    return (const float *)(const void *)((const char *)t->x.data + i * t->x.stride);
}

/* Add one segment's products to the sums of m rows; m is a constant where this is called. */
static inline __attribute__((always_inline)) void
add_segment(quad sum[MAX_ROWS][QUADS], const int m, const struct kernels_tile *t, size_t segment)
{
    const void *panel = t->panels[segment * t->step];
    const float *x[MAX_ROWS] = {row(t, 0), m > 1 ? row(t, 1) : NULL};
    float wide[MATRIX_PANEL];
    for (size_t k = 0; k < (size_t)t->k; k++) {
        const float *w = (const float *)panel + k * MATRIX_PANEL;
        if (t->dtype != ARCH_F32) {
            widen(wide, t->dtype, panel, k);
            w = wide;
        }
        UNROLL
        for (int q = 0; q < QUADS; q++) {
            const quad v = *(const quad *)(w + 4 * q);
            UNROLL
            for (int i = 0; i < m; i++) {
                sum[i][q] += x[i][segment * (size_t)t->k + k] * v;
            }
        }
    }
}

static inline __attribute__((always_inline)) void tile_of(const int m, const struct kernels_tile *t)
{
    quad sum[MAX_ROWS][QUADS] = {0};
    UNROLL
    for (int i = 0; i < m; i++) {
        const quad *y = (const quad *)(t->y + (size_t)i * t->ldy);
        UNROLL
        for (int q = 0; q < QUADS; q++) {
            if (t->mode == KERNELS_ONTO) {
                sum[i][q] = y[q];
            }
        }
    }
    for (size_t s = 0; s < (size_t)t->n_segments; s++) {
        add_segment(sum, m, t, s);
    }
    UNROLL
    for (int i = 0; i < m; i++) {
        quad *y = (quad *)(t->y + (size_t)i * t->ldy);
        UNROLL
        for (int q = 0; q < QUADS; q++) {
            if (t->mode == KERNELS_ADD) {
                sum[i][q] += y[q];
            }
            y[q] = sum[i][q];
        }
    }
}

/* --- integers --------------------------------------------------------------------------------- */

/* Products of 32 columns: `group` 0 or 1 of a span of INT8 or INT4 weights with one row's inputs. */
static void dot_group(enum arch_dtype dtype, const unsigned char *span, int group,
                      const struct kernels_group *x, float *sum)
{
    const bool wide = dtype == ARCH_INT8;
    const int line = MATRIX_PANEL * 4, lines = wide ? 8 : 4;
    const unsigned char *w = span + group * lines * line;
    uint16_t factors[MATRIX_PANEL];
    memcpy(factors, span + 2 * lines * line + group * (int)sizeof factors, sizeof factors);
    for (int r = 0; r < MATRIX_PANEL; r++) {
        int dot = wide ? 16 * x->offset : x->offset;
        for (int k = 0; k < MATRIX_GROUP; k++) {
            const int byte = w[(wide ? k : k % 16) / 4 * line + 4 * r + k % 4];
            dot += x->values[k] * (wide ? byte : k < 16 ? byte & 15 : byte >> 4);
        }
        sum[r] += (float)dot * (f16_to_f32(factors[r]) * x->factor);
    }
}

static void tile_ints(const struct kernels_tile *t)
{
    const size_t span_bytes = matrix_offset(t->dtype, MATRIX_SPAN);
    for (size_t i = 0; i < (size_t)t->m; i++) {
        const struct kernels_group *x = (const void *)((const char *)t->x.data + i * t->x.stride);
        float sum[MATRIX_PANEL] = {0}, *y = t->y + i * t->ldy;
        for (int k = 0; k < t->k; k += MATRIX_GROUP) {
            const unsigned char *span =
                (const unsigned char *)t->panels[0] + (size_t)(k / MATRIX_SPAN) * span_bytes;
            dot_group(t->dtype, span, k % MATRIX_SPAN / MATRIX_GROUP, &x[k / MATRIX_GROUP], sum);
        }
        for (int r = 0; r < MATRIX_PANEL; r++) {
            y[r] = t->mode == KERNELS_ADD ? y[r] + sum[r] : sum[r];
        }
    }
}

static void tile(const struct kernels_tile *t)
{
    if (t->x.form == KERNELS_INT8) {
        tile_ints(t);
    } else if (t->m == MAX_ROWS) {
        tile_of(MAX_ROWS, t);
    } else {
        tile_of(1, t);
    }
}

/* --- vectors ---------------------------------------------------------------------------------- */

static float rounded(float v)
{
    return bf16_to_f32(bf16_from_f32(v));
}

static void round_all(float *x, int n)
{
    for (int i = 0; i < n; i++) {
        x[i] = rounded(x[i]);
    }
}

static void rmsnorm(float *out, const float *x, const struct kernels_norm *norm, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    float scale = 1.0f / sqrtf(sum / (float)n + norm->eps);
    for (int i = 0; i < matrix_padded(n); i++) {
        const float v = x[i] * scale;
        out[i] = (norm->rounds ? rounded(v) : v) * norm->w[i];
    }
}

static void rope(float *x, const float *cosines, const float *sines, int half)
{
    for (int j = 0; j < half; j++) {
        float a = x[j], b = x[j + half];
        x[j] = a * cosines[j] - b * sines[j];
        x[j + half] = b * cosines[j] + a * sines[j];
    }
}

static float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static float at_most(float x, float limit) // fminf, but a NaN stays
{
    return x > limit ? limit : x;
}

static float gated(enum arch_activation act, float gate, float up)
{
    switch (act) {
    case ARCH_GELU_TANH:
        return gate * sigmoid(gate * (KERNELS_GELU_1 + KERNELS_GELU_3 * gate * gate)) * up;
    case ARCH_SWIGLU_CLAMP:
        gate = at_most(gate, KERNELS_SWIGLU_LIMIT);
        up = -at_most(-at_most(up, KERNELS_SWIGLU_LIMIT), KERNELS_SWIGLU_LIMIT);
        return gate * sigmoid(KERNELS_SWIGLU_ALPHA * gate) * (up + 1.0f);
    default:
        return gate * sigmoid(gate) * up;
    }
}

static void gate(enum arch_activation act, float *out, const float *gate_up, int n_panels)
{
    for (int p = 0; p < n_panels; p++) {
        const float *g = gate_up + (size_t)p * 2 * MATRIX_PANEL, *up = g + MATRIX_PANEL;
        for (int i = 0; i < MATRIX_PANEL; i++) {
            out[p * MATRIX_PANEL + i] = gated(act, g[i], up[i]);
        }
    }
}

static void softcap(float *x, int n, float cap)
{
    for (int i = 0; i < n; i++) {
        x[i] = cap * tanhf(x[i] / cap);
    }
}

static float max(const float *x, int n)
{
    float m = x[0];
    for (int i = 1; i < n; i++) {
        m = x[i] > m ? x[i] : m;
    }
    return m;
}

static float exp_sum(float *x, int n, float largest)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        x[i] = expf(x[i] - largest);
        sum += x[i];
    }
    for (int i = n; i < matrix_padded(n); i++) {
        x[i] = 0;
    }
    return sum;
}

const struct kernels kernels_portable = {
    .name = "portable",
    .bf16_form = KERNELS_F32,
    .k_block = 512,
    .shapes = {{MAX_ROWS, 1, MAX_ROWS, 1}, {1, 1, 1, 1}, {MAX_ROWS, 1, MAX_ROWS, 1}},
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
