#include "workers/layers.h"

#include "core/mem.h"

#include <math.h>
#include <stdlib.h>

static void feed_forward(const struct layers_ops *ops, void *ctx, const struct arch *a, int layer,
                         bool moe)
{
    if (!moe) {
        ops->mlp_in(ctx, layer);
        ops->mlp_out(ctx, layer);
        return;
    }
    // The shared expert's input is normed before the residual changes.
    ops->route(ctx, layer);
    if (a->moe.n_shared > 0) {
        ops->mlp_in(ctx, layer);
    }
    ops->experts(ctx, layer);
    if (a->moe.n_shared > 0) {
        ops->mlp_out(ctx, layer);
    }
}

void layers_forward(const struct layers_ops *ops, void *ctx, const struct arch *a,
                    const struct layers_part *part)
{
    ops->begin(ctx);
    for (int layer = 0; layer < part->n_layers; layer++) {
        const int of_model = part->first_layer + layer;
        const struct layers_attention attention = {
            .scale = a->attn_scale,
            .softcap = a->attn_softcap,
            .window = arch_window(a, of_model),
        };
        ops->attn_in(ctx, layer);
        ops->attend(ctx, layer, &attention);
        ops->attn_out(ctx, layer);
        feed_forward(ops, ctx, a, layer, arch_is_moe(a, of_model));
    }
    if (part->has_head) {
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

/* The pair, as a real number, whose wave turns `turns` times in the original context. */
static double yarn_pair(const struct arch *a, double turns)
{
    return a->rope_dim * log(a->rope_yarn.original_context / (2 * M_PI * turns)) /
           (2 * log(a->rope_theta));
}

/* Pairs below the first bound keep their frequency, above the second they are slowed, between blended. */
static double scale_yarn(const struct arch *a, int pair, double frequency)
{
    double low = yarn_pair(a, a->rope_yarn.beta_fast), high = yarn_pair(a, a->rope_yarn.beta_slow);
    if (a->rope_yarn.truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, a->rope_dim - 1);
    if (low == high) {
        high += 0.001;
    }
    double slowed = fmin(fmax((pair - low) / (high - low), 0), 1);
    return frequency / a->rope_yarn.factor * slowed + frequency * (1 - slowed);
}

void layers_rope_frequencies(const struct arch *a, float *out)
{
    for (int j = 0; j < a->rope_dim / 2; j++) {
        double frequency = pow(a->rope_theta, -2.0 * j / a->rope_dim);
        switch (a->rope) {
        case ARCH_ROPE_DEFAULT:
            break;
        case ARCH_ROPE_LLAMA3:
            frequency = scale_llama3(a, frequency);
            break;
        case ARCH_ROPE_YARN:
            frequency = scale_yarn(a, j, frequency);
            break;
        }
        out[j] = (float)frequency;
    }
}

void layers_rope_tables(const struct arch *a, int n, float *cosines, float *sines)
{
    const size_t half = (size_t)a->rope_dim / 2;
    const double factor = a->rope == ARCH_ROPE_YARN ? a->rope_yarn.attention_factor : 1;
    float *frequencies = xcalloc(half, sizeof *frequencies);
    layers_rope_frequencies(a, frequencies);
    for (size_t i = 0; i < (size_t)n * half; i++) {
        // The angle is rounded to float32, as the reference implementation's is.
        float angle = (float)(i / half) * frequencies[i % half];
        cosines[i] = (float)(cos((double)angle) * factor);
        sines[i] = (float)(sin((double)angle) * factor);
    }
    free(frequencies);
}
