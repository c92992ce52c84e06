/* Plain C: what any machine runs, and what the vector sets are compared with. */
#include "workers/cpu/kernels.h"

#include "workers/weights/bf16.h"

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

static void widen(float *out, const uint16_t *words)
{
    for (int r = 0; r < MATRIX_PANEL; r++) {
        out[r] = bf16_to_f32(words[2 * (r % 8) + r / 8]);
    }
}

/* Add one segment's products to the sums of m rows; m is a constant where this is called. */
static inline __attribute__((always_inline)) void
add_segment(quad sum[MAX_ROWS][QUADS], const int m, const struct kernels_tile *t, size_t segment)
{
    const void *panel = t->panels[segment * t->step];
    const float *x = t->x + segment * (size_t)t->k;
    float wide[MATRIX_PANEL];
    for (size_t k = 0; k < (size_t)t->k; k++) {
        const float *w = (const float *)panel + k * MATRIX_PANEL;
        if (t->dtype == ARCH_BF16) {
            widen(wide, (const uint16_t *)panel + k * MATRIX_PANEL);
            w = wide;
        }
        UNROLL
        for (int q = 0; q < QUADS; q++) {
            const quad v = *(const quad *)(w + 4 * q);
            UNROLL
            for (int i = 0; i < m; i++) {
                sum[i][q] += x[(size_t)i * t->ldx + k] * v;
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

static void tile(const struct kernels_tile *t)
{
    if (t->m == MAX_ROWS) {
        tile_of(MAX_ROWS, t);
    } else {
        tile_of(1, t);
    }
}

static void rmsnorm(float *out, const float *x, const float *w, int n, float eps)
{
    float sum = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    float scale = 1.0f / sqrtf(sum / (float)n + eps);
    for (int i = 0; i < matrix_padded(n); i++) {
        out[i] = x[i] * scale * w[i];
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

static void silu_mul(float *out, const float *gate_up, int n_panels)
{
    for (int p = 0; p < n_panels; p++) {
        const float *gate = gate_up + (size_t)p * 2 * MATRIX_PANEL, *up = gate + MATRIX_PANEL;
        for (int i = 0; i < MATRIX_PANEL; i++) {
            out[p * MATRIX_PANEL + i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
        }
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
    .max_rows = MAX_ROWS,
    .max_panels = 1,
    .max_cells = MAX_ROWS,
    .tile = tile,
    .rmsnorm = rmsnorm,
    .rope = rope,
    .silu_mul = silu_mul,
    .max = max,
    .exp_sum = exp_sum,
};
