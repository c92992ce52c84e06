#include "workers/cpu/narrow.h"

#include "workers/weights/bf16.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LEAST 1e-30f // inputs below count as zeros, so that no quotient overflows

static void narrow_group(const float *x, struct kernels_group *g)
{
    float largest = 0;
    bool is_finite = true;
    for (int i = 0; i < MATRIX_GROUP; i++) {
        largest = fmaxf(largest, fabsf(x[i])); // which takes no notice of a NaN
        is_finite &= fabsf(x[i]) <= FLT_MAX;
    }
    if (!is_finite) { // what is computed with it is no number either
        *g = (struct kernels_group){.factor = NAN};
        return;
    }
    const bool counts = largest > LEAST;
    g->factor = counts ? largest / 127.0f : 0;
    const float inverse = counts ? 127.0f / largest : 0;
    int sum = 0;
    for (int i = 0; i < MATRIX_GROUP; i++) {
        g->values[i] = (signed char)lrintf(x[i] * inverse);
        sum += g->values[i];
    }
    g->offset = -8 * sum;
}

static void narrow_ints(const float *x, int n, struct kernels_group *out)
{
    const int n_groups = (n + MATRIX_SPAN - 1) / MATRIX_SPAN * (MATRIX_SPAN / MATRIX_GROUP);
    for (int g = 0; g < n_groups; g++, x += MATRIX_GROUP) {
        const int left = n - g * MATRIX_GROUP;
        if (left >= MATRIX_GROUP) {
            narrow_group(x, &out[g]);
            continue;
        }
        float part[MATRIX_GROUP] = {0};
        for (int i = 0; i < left; i++) {
            part[i] = x[i];
        }
        narrow_group(part, &out[g]);
    }
}

void narrow_row(enum kernels_input form, const float *x, int n, void *out)
{
    uint16_t *words = out;
    switch (form) {
    case KERNELS_INT8:
        narrow_ints(x, n, out);
        break;
    case KERNELS_BF16:
        for (int i = 0; i < matrix_padded(n); i++) {
            words[i] = i < n ? bf16_from_f32(x[i]) : 0;
        }
        break;
    case KERNELS_F32:
        memcpy(out, x, (size_t)n * sizeof *x);
        memset((float *)out + n, 0, (size_t)(matrix_padded(n) - n) * sizeof *x);
        break;
    }
}
