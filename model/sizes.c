#include "model/sizes.h"

#include <math.h>

double sizes_value_bytes(enum arch_dtype dtype)
{
    switch (dtype) {
    case ARCH_F32:
        return 4;
    case ARCH_BF16:
    case ARCH_F16:
        return 2;
    case ARCH_FP8:
        return 1 + 4.0 / (128 * 128);
    case ARCH_MXFP4:
        return (16 + 1) / 32.0;
    case ARCH_INT8:
        return (32 + 2) / 32.0;
    case ARCH_INT4:
        return (16 + 2) / 32.0;
    }
    return 0;
}

/* Values by how they are stored. */
struct count {
    int64_t linear; // matrices of arch.linear_dtype
    int64_t plain;  // norms, biases, routers: arch.dtype
};

static void add_latent(const struct arch *a, struct count *c)
{
    int64_t h = a->hidden, q = (int64_t)a->n_heads * a->head_dim;
    int64_t rank = a->latent.kv_rank, q_rank = a->latent.q_rank;
    c->linear += q_rank > 0 ? q_rank * (h + q) : h * q;
    c->linear += h * (rank + a->rope_dim);
    c->linear += rank * a->n_heads * (a->latent.nope_dim + a->v_dim);
    c->plain += q_rank + rank; // norms
}

static void add_attention(const struct arch *a, struct count *c)
{
    int64_t h = a->hidden, heads = a->n_heads;
    int64_t q = heads * a->head_dim, kv = (int64_t)a->n_kv_heads * a->head_dim;
    if (arch_is_latent(a)) {
        add_latent(a, c);
    } else {
        c->linear += h * (q + 2 * kv);
        c->plain += a->qkv_bias ? q + 2 * kv : 0;
    }
    c->linear += heads * a->v_dim * h; // o
    c->plain += (a->o_bias ? h : 0) + (a->attn_sinks ? heads : 0);
    c->plain += (a->post_norms ? 4 : 2) * h; // norms, the MLP's too
}

static void add_mlp(const struct arch *a, int layer, struct count *c)
{
    int64_t h = a->hidden;
    if (!arch_is_moe(a, layer)) {
        c->linear += 3 * h * a->intermediate;
        return;
    }
    int64_t experts = a->moe.n_experts;
    c->linear += 3 * h * a->moe.intermediate * a->moe.n_shared;
    c->plain += experts * h; // router
    c->plain += a->moe.bias || a->moe.router == ARCH_ROUTER_GROUPS ? experts : 0;
}

static int64_t expert_params(const struct arch *a, int64_t *bias)
{
    int64_t h = a->hidden, i = a->moe.intermediate;
    *bias = a->moe.bias ? 2 * i + h : 0;
    return 3 * h * i;
}

static double pair_flops(const struct arch *a)
{
    // A multiplication and an addition each for the score and for the sum of values. Latent attention
    // works on the cache as it is: one key of kv_rank + rope_dim, one value of kv_rank for all heads.
    double per_head =
        arch_is_latent(a) ? 2.0 * a->latent.kv_rank + a->rope_dim : (double)a->head_dim + a->v_dim;
    return 2.0 * a->n_heads * per_head;
}

struct sizes_layer sizes_layer(const struct arch *a, int layer)
{
    struct count c = {0};
    add_attention(a, &c);
    add_mlp(a, layer, &c);
    struct sizes_layer l = {
        .params = c.linear + c.plain,
        .active_params = c.linear + c.plain,
        .common_bytes = (double)c.linear * sizes_value_bytes(a->linear_dtype) +
                        (double)c.plain * sizes_value_bytes(a->dtype),
        .kv_values = arch_is_latent(a) ? a->latent.kv_rank + a->rope_dim
                                       : (int64_t)a->n_kv_heads * (a->head_dim + a->v_dim),
        .pair_flops = pair_flops(a),
    };
    l.bytes = l.common_bytes;
    if (arch_is_moe(a, layer)) {
        int64_t bias, params = expert_params(a, &bias);
        l.expert_bytes = (double)params * sizes_value_bytes(a->expert_dtype) +
                         (double)bias * sizes_value_bytes(a->dtype);
        l.params += a->moe.n_experts * (params + bias);
        l.active_params += a->moe.top_k * (params + bias);
        l.bytes += a->moe.n_experts * l.expert_bytes;
    }
    return l;
}

int64_t sizes_head_params(const struct arch *a)
{
    return ((int64_t)a->vocab + 1) * a->hidden;
}

double sizes_head_bytes(const struct arch *a)
{
    return (double)sizes_head_params(a) * sizes_value_bytes(a->dtype);
}

double sizes_embed_bytes(const struct arch *a)
{
    return (double)a->vocab * a->hidden * sizes_value_bytes(a->dtype);
}

int64_t sizes_params(const struct arch *a)
{
    int64_t n = sizes_head_params(a) + (a->tied_embedding ? 0 : (int64_t)a->vocab * a->hidden);
    for (int i = 0; i < a->n_layers; i++) {
        n += sizes_layer(a, i).params;
    }
    return n;
}

int64_t sizes_active_params(const struct arch *a)
{
    int64_t n = sizes_head_params(a);
    for (int i = 0; i < a->n_layers; i++) {
        n += sizes_layer(a, i).active_params;
    }
    return n;
}

double sizes_bytes(const struct arch *a)
{
    double n = sizes_head_bytes(a) + (a->tied_embedding ? 0 : sizes_embed_bytes(a));
    for (int i = 0; i < a->n_layers; i++) {
        n += sizes_layer(a, i).bytes;
    }
    return n;
}

double sizes_kv_bytes(const struct arch *a, double value_bytes)
{
    double n = 0;
    for (int i = 0; i < a->n_layers; i++) {
        n += (double)sizes_layer(a, i).kv_values;
    }
    return n * value_bytes;
}

double sizes_distinct_experts(const struct arch *a, double n_tokens)
{
    double n = a->moe.n_experts;
    return n > 0 ? n * (1 - pow(1 - a->moe.top_k / n, n_tokens)) : 0;
}

double sizes_read_bytes(const struct arch *a, const struct sizes_layer *l, double n_tokens)
{
    return l->common_bytes +
           (l->expert_bytes > 0 ? sizes_distinct_experts(a, n_tokens) * l->expert_bytes : 0);
}
