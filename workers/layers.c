#include "workers/layers.h"

#include "core/mem.h"

#include <math.h>
#include <stdlib.h>

void layers_forward(const struct layers_ops *ops, void *ctx, const struct arch *a, int n_layers,
                    bool has_head)
{
    const float scale = (float)(1 / sqrt(a->head_dim));
    ops->begin(ctx);
    for (int layer = 0; layer < n_layers; layer++) {
        ops->attn_in(ctx, layer);
        ops->attend(ctx, layer, scale);
        ops->attn_out(ctx, layer);
        ops->mlp_in(ctx, layer);
        ops->mlp_out(ctx, layer);
    }
    if (has_head) {
        ops->head(ctx);
    } else {
        ops->end(ctx);
    }
}

/* Long waves are slowed by the factor, short ones kept, those between blended. */
static double scale_llama3(const struct arch *a, double frequency)
{
    const double context = a->rope_llama3.original_context;
    const double wavelength = 2 * M_PI / frequency;
    const double low = a->rope_llama3.low, high = a->rope_llama3.high;
    if (wavelength < context / high) {
        return frequency;
    }
    if (wavelength > context / low) {
        return frequency / a->rope_llama3.factor;
    }
    double smooth = (context / wavelength - low) / (high - low);
    return (1 - smooth) * frequency / a->rope_llama3.factor + smooth * frequency;
}

void layers_rope_frequencies(const struct arch *a, float *out)
{
    for (int j = 0; j < a->head_dim / 2; j++) {
        double frequency = pow(a->rope_theta, -2.0 * j / a->head_dim);
        switch (a->rope) {
        case ARCH_ROPE_DEFAULT:
        case ARCH_ROPE_YARN:
            break;
        case ARCH_ROPE_LLAMA3:
            frequency = scale_llama3(a, frequency);
            break;
        }
        out[j] = (float)frequency;
    }
}

void layers_rope_tables(const struct arch *a, int n, float *cosines, float *sines)
{
    const size_t half = (size_t)a->head_dim / 2;
    float *frequencies = xcalloc(half, sizeof *frequencies);
    layers_rope_frequencies(a, frequencies);
    for (size_t i = 0; i < (size_t)n * half; i++) {
        // The angle is rounded to float32, as the reference implementation's is.
        float angle = (float)(i / half) * frequencies[i % half];
        cosines[i] = (float)cos((double)angle);
        sines[i] = (float)sin((double)angle);
    }
    free(frequencies);
}
