/* The operations of layers.h, queued. */
#include "workers/cuda/forward_impl.h"

#include "workers/cuda/embed.h"
#include "workers/cuda/gate.h"
#include "workers/cuda/narrow.h"
#include "workers/cuda/norm.h"
#include "workers/cuda/route.h"

/* --- what they are made of ------------------------------------------------------------------------ */

static struct CUstream_st *stream(const struct forward *f)
{
    return gpu_stream(f->gpu);
}

static const struct device_layer *layer_of(const struct forward *f, int layer)
{
    return &f->cfg.weights->layers[layer];
}

void forward_ops_check(struct forward *f, const char *what)
{
    if (!f->failed) {
        f->failed = gpu_launched(f->gpu, what, f->e) != 0;
    }
}

/* As forward_ops_product, of any part of a product that the caller has filled in. */
static void product(struct forward *f, const struct matmul *p)
{
    if (!f->failed) {
        f->failed = gemm_queue(f->gemm, p, stream(f), f->e) != 0 && gpu_blame(f->gpu, f->e);
        forward_ops_check(f, "a product");
    }
}

void forward_ops_product(struct forward *f, const struct device_matrix *w, int m, const void *x,
                         float *y, bool add, const float *bias)
{
    const struct matmul p = {
        .w = *w,
        .m = m,
        .add = add,
        .x = x,
        .y = y,
        .bias = bias,
        .ldx = w->n_cols,
        .ldy = w->n_rows,
    };
    product(f, &p);
}

/*
 * normed = norm of the hidden states, as the product with `w` takes it. A layer's first norm has the hidden
 * states rounded, too (arch_carried).
 */
static void norm(struct forward *f, const float *weight, const struct device_matrix *w,
                 bool is_first)
{
    const struct norm_rows r = {
        .n = f->n,
        .hidden = f->arch->hidden,
        .eps = f->arch->rms_eps,
        .rounds = f->arch->norm_rounds,
        .x = f->room.x,
        .rounds_x = is_first && arch_carried(f->arch) != ARCH_F32,
        .norm = weight,
        .out = f->room.normed,
        .wide = forward_is_wide(w),
    };
    norm_queue(&r, stream(f));
    forward_ops_check(f, "a norm");
}

/* What is in the branch, of all ranks, is added to the hidden states; normed first where the family does that. */
static void add_branch(struct forward *f, const float *post_norm)
{
    const struct norm_rows r = {
        .n = f->n,
        .hidden = f->arch->hidden,
        .eps = f->arch->rms_eps,
        .rounds = f->arch->norm_rounds,
        .x = f->room.x,
        .branch = f->room.branch,
        .branch_norm = post_norm,
    };
    forward_group_sum(f, f->room.branch);
    norm_queue(&r, stream(f));
    forward_ops_check(f, "a residual");
}

/* Hidden states += y . w^T (+ bias); `onto`: ranks' sums so far are in the branch. */
static void residual(struct forward *f, const struct device_matrix *w, const void *y,
                     const float *bias, const float *post_norm, bool onto)
{
    if (!post_norm && !forward_is_shared(f)) {
        forward_ops_product(f, w, f->n, y, f->room.x, true, bias);
        return;
    }
    forward_ops_product(f, w, f->n, y, f->room.branch, onto && forward_is_shared(f), bias);
    add_branch(f, post_norm);
}

/* x (n), just computed, as the product with `w` takes it. */
static const void *narrowed(struct forward *f, const float *x, size_t n,
                            const struct device_matrix *w)
{
    if (forward_is_wide(w)) {
        return x;
    }
    const struct narrow_values v = {.n = (int64_t)n, .x = x, .out = f->room.narrowed};
    narrow_queue(&v, stream(f));
    forward_ops_check(f, "rounding to bfloat16");
    return f->room.narrowed;
}

static struct cache_tokens tokens(const struct forward *f)
{
    const struct forward_slate *s = f->slate;
    return (struct cache_tokens){
        .n = f->n,
        .row = forward_slate_part(s, s->row_at),
        .pos = forward_slate_part(s, s->pos_at),
        .tables = f->room.tables,
        .max_blocks = f->cfg.slot_blocks,
    };
}

static struct cache_rope rope(const struct forward *f)
{
    return (struct cache_rope){
        .cosines = f->room.cosines, .sines = f->room.sines, .dim = f->arch->rope_dim};
}

static char *layer_kv(const struct forward *f, int layer)
{
    return f->room.kv + (size_t)layer * f->n_blocks * f->layout.block_bytes;
}

/* --- embedding ------------------------------------------------------------------------------------ */

/* Hidden states of the stage before are there already. */
static void begin(void *ctx)
{
    struct forward *f = ctx;
    if (!f->cfg.part.has_embed) {
        return;
    }
    const struct embed_rows r = {
        .n = f->n,
        .ids = forward_slate_ids(f->slate),
        .first = f->shard.vocab.first,
        .table = f->cfg.weights->embed,
        .scale = f->arch->embed_scale,
        .x = f->room.x,
    };
    embed_queue(&r, stream(f));
    forward_ops_check(f, "the embedding");
    forward_group_sum(f, f->room.x);
}

static void end(void *ctx)
{
    (void)ctx; // they stay where they are
}

/* --- attention ------------------------------------------------------------------------------------ */

static void qkv_in(struct forward *f, int layer)
{
    const struct device_layer *l = layer_of(f, layer);
    norm(f, l->attn_norm, &l->qkv, layer > 0);
    forward_ops_product(f, &l->qkv, f->n, f->room.normed, f->room.qkv, false, NULL);
    const struct cache_place p = {
        .layout = f->layout,
        .tokens = tokens(f),
        .rope = rope(f),
        .kv = layer_kv(f, layer),
        .n_heads = f->arch->n_heads,
        .qkv = f->room.qkv,
        .bias = l->qkv_bias,
        .q = f->room.q,
    };
    cache_place_queue(&p, stream(f));
    forward_ops_check(f, "rotation and cache");
}

/* Each head's query meets W_UK: the part that is not rotated becomes latent. */
static void absorb(struct forward *f, const struct device_latent *l)
{
    const struct arch *a = f->arch;
    const size_t n_heads = (size_t)a->n_heads, rank = (size_t)a->latent.kv_rank;
    const size_t n = (size_t)f->n * n_heads * (size_t)a->head_dim;
    struct device_matrix one = l->keys_up;
    one.n_rows = a->latent.kv_rank;
    const struct matmul p = {
        .w = one,
        .m = f->n,
        .n_batch = a->n_heads,
        .x = narrowed(f, f->room.qkv, n, &l->keys_up),
        .y = f->room.absorbed,
        .ldx = (int64_t)a->n_heads * a->head_dim,
        .x_step = a->head_dim,
        .ldy = (int64_t)(n_heads * rank),
        .y_step = (int64_t)rank,
    };
    product(f, &p);
    const struct cache_queries q = {
        .tokens = tokens(f),
        .rope = rope(f),
        .n_heads = a->n_heads,
        .head_dim = a->head_dim,
        .rank = a->latent.kv_rank,
        .heads = f->room.qkv,
        .absorbed = f->room.absorbed,
        .absorbed_token = n_heads * rank,
        .absorbed_head = rank,
        .q = f->room.q,
        .wide = f->layout.dtype == ARCH_F32,
    };
    cache_queries_queue(&q, stream(f));
    forward_ops_check(f, "queries");
}

static void latent_in(struct forward *f, int layer)
{
    const struct device_layer *l = layer_of(f, layer);
    const struct device_latent *d = &l->latent;
    const struct arch *a = f->arch;
    norm(f, l->attn_norm, &d->down, layer > 0);
    forward_ops_product(f, &d->down, f->n, f->room.normed, f->room.latents, false, NULL);
    const struct cache_latents c = {
        .layout = f->layout,
        .tokens = tokens(f),
        .rope = rope(f),
        .kv = layer_kv(f, layer),
        .q_rank = a->latent.q_rank,
        .eps = a->rms_eps,
        .rounds = a->norm_rounds,
        .latents = f->room.latents,
        .q_norm = d->q_norm,
        .kv_norm = d->kv_norm,
        .q_latents = f->room.q_latents,
        .wide = forward_is_wide(&d->queries),
    };
    cache_latents_queue(&c, stream(f));
    forward_ops_check(f, "latents and cache");
    const void *x = a->latent.q_rank > 0 ? f->room.q_latents : f->room.normed;
    forward_ops_product(f, &d->queries, f->n, x, f->room.qkv, false, NULL);
    absorb(f, d);
}

static void attn_in(void *ctx, int layer)
{
    struct forward *f = ctx;
    if (arch_is_latent(f->arch)) {
        latent_in(f, layer);
    } else {
        qkv_in(f, layer);
    }
}

/* The work of a window, its arrays where they are on the device. */
static struct attention_work work_of(const struct forward *f, int window)
{
    const struct forward_slate *s = f->slate;
    int i = 0;
    while (f->windows[i] != window) {
        i++;
    }
    struct attention_work w = s->work[i];
    char *at = s->device + s->work_at[i];
    w.small = (struct attention_item *)(void *)at;
    w.large = (struct attention_item *)(void *)(at + s->limits.large_at);
    w.merges = (struct attention_merge *)(void *)(at + s->limits.merges_at);
    return w;
}

/* What reads the result of attention. */
static const struct device_matrix *after_attention(const struct device_layer *l)
{
    return l->latent.values_up.data ? &l->latent.values_up : &l->o;
}

static void attend(void *ctx, int layer, const struct layers_attention *a)
{
    struct forward *f = ctx;
    const struct device_layer *l = layer_of(f, layer);
    const struct attention_layer t = {
        .shape = f->shape,
        .scale = a->scale,
        .softcap = a->softcap,
        .window = a->window,
        .sinks = l->sinks,
        .kv = layer_kv(f, layer),
        .tables = f->room.tables,
        .max_blocks = f->cfg.slot_blocks,
        .q = f->room.q,
        .out = f->room.attended,
        .wide = forward_is_wide(after_attention(l)),
        .work = work_of(f, a->window),
        .partials = f->room.partials,
    };
    attention_queue(&t, stream(f));
    forward_ops_check(f, "attention");
}

/* Each head's weighted latents meet W_UV. */
static const void *values_of_latents(struct forward *f, const struct device_layer *l)
{
    const struct arch *a = f->arch;
    struct device_matrix one = l->latent.values_up;
    one.n_rows = a->v_dim;
    const struct matmul p = {
        .w = one,
        .m = f->n,
        .n_batch = a->n_heads,
        .x = f->room.attended,
        .y = f->room.heads,
        .ldx = (int64_t)a->n_heads * a->latent.kv_rank,
        .x_step = a->latent.kv_rank,
        .ldy = (int64_t)a->n_heads * a->v_dim,
        .y_step = a->v_dim,
    };
    product(f, &p);
    return narrowed(f, f->room.heads, (size_t)f->n * (size_t)(a->n_heads * a->v_dim), &l->o);
}

static void attn_out(void *ctx, int layer)
{
    struct forward *f = ctx;
    const struct device_layer *l = layer_of(f, layer);
    const void *y = l->latent.values_up.data ? values_of_latents(f, l) : f->room.attended;
    residual(f, &l->o, y, l->o_bias, l->post_attn_norm, false);
}

/* --- MLPs ----------------------------------------------------------------------------------------- */

static void mlp_in(void *ctx, int layer)
{
    struct forward *f = ctx;
    const struct device_layer *l = layer_of(f, layer);
    norm(f, l->mlp_norm, &l->gate_up, false);
    forward_ops_product(f, &l->gate_up, f->n, f->room.normed, f->room.gate_up, false, NULL);
    const struct gate_rows g = {
        .n = f->n,
        .inner = l->down.n_cols,
        .activation = f->arch->activation,
        .gate_up = f->room.gate_up,
        .out = f->room.act,
        .wide = forward_is_wide(&l->down),
    };
    gate_queue(&g, stream(f));
    forward_ops_check(f, "an activation");
}

static void mlp_out(void *ctx, int layer)
{
    struct forward *f = ctx;
    const struct device_layer *l = layer_of(f, layer);
    residual(f, &l->down, f->room.act, NULL, l->post_mlp_norm, l->experts.down.data != NULL);
}

/* --- experts -------------------------------------------------------------------------------------- */

static void route(void *ctx, int layer)
{
    struct forward *f = ctx;
    const struct device_layer *l = layer_of(f, layer);
    const struct device_experts *x = &l->experts;
    const struct arch *a = f->arch;
    const size_t each = (size_t)f->cfg.max_tokens * (size_t)a->moe.top_k;
    norm(f, l->mlp_norm, &x->router, false);
    forward_ops_product(f, &x->router, f->n, f->room.normed, f->room.router_logits, false,
                        x->router_bias);
    const struct route_tokens r = {
        .n = f->n,
        .n_experts = a->moe.n_experts,
        .top_k = a->moe.top_k,
        .router = a->moe.router,
        .n_groups = a->moe.n_groups,
        .top_groups = a->moe.top_groups,
        .normalise = a->moe.normalise,
        .scale = a->moe.scale,
        .logits = f->room.router_logits,
        .correction = x->correction_bias,
        .drawn = f->room.drawn ? f->room.drawn + (size_t)layer * each : NULL,
        .experts = f->room.chosen,
        .weights = f->room.weights,
    };
    route_queue(&r, stream(f));
    const struct route_slots s = {
        .n = f->n * a->moe.top_k,
        .n_experts = a->moe.n_experts,
        .experts = f->room.chosen,
        .first = f->room.first,
        .sorted = f->room.sorted,
    };
    route_sort_queue(&s, stream(f));
    forward_ops_check(f, "routing");
}

static void expert_products(struct forward *f, const struct device_matrix *w, const float *bias,
                            const void *x, int slots_per_row, float *y)
{
    const struct matmul_experts p = {
        .w = *w,
        .n_experts = f->arch->moe.n_experts,
        .n_tokens = f->n,
        .top_k = f->arch->moe.top_k,
        .slots_per_row = slots_per_row,
        .first = (const uint32_t *)f->room.first,
        .sorted = (const uint32_t *)f->room.sorted,
        .x = x,
        .y = y,
        .bias = bias,
        .ldx = w->n_cols,
        .ldy = w->n_rows,
    };
    matmul_experts_queue(&p, stream(f));
    forward_ops_check(f, "products of experts");
}

static void experts(void *ctx, int layer)
{
    struct forward *f = ctx;
    const struct device_layer *l = layer_of(f, layer);
    const struct device_experts *x = &l->experts;
    const struct arch *a = f->arch;
    if (!forward_is_wide(&x->gate_up)) { // routing had it in float32
        norm(f, l->mlp_norm, &x->gate_up, false);
    }
    expert_products(f, &x->gate_up, x->gate_up_bias, f->room.normed, a->moe.top_k, f->room.gate_up);
    const struct gate_rows g = {
        .n = f->n * a->moe.top_k,
        .inner = x->down.n_cols,
        .activation = a->activation,
        .gate_up = f->room.gate_up,
        .out = f->room.expert_act,
        .wide = forward_is_wide(&x->down),
    };
    gate_queue(&g, stream(f));
    expert_products(f, &x->down, x->down_bias, f->room.expert_act, 1, f->room.made);
    const struct matmul_mix m = {
        .n_tokens = f->n,
        .top_k = a->moe.top_k,
        .n_cols = a->hidden,
        .chosen = (const uint32_t *)f->room.chosen,
        .weights = f->room.weights,
        .y = f->room.made,
        .out = forward_is_shared(f) ? f->room.branch : f->room.x,
        .ldy = a->hidden,
        .ldout = a->hidden,
        .add = !forward_is_shared(f),
    };
    matmul_mix_queue(&m, stream(f));
    forward_ops_check(f, "experts");
    if (forward_is_shared(f) && a->moe.n_shared == 0) {
        add_branch(f, NULL);
    }
}

/* --- the list ------------------------------------------------------------------------------------- */

static void head(void *ctx)
{
    (void)ctx; // apart: how many rows there are changes from batch to batch (forward_head.c)
}

const struct layers_ops forward_ops = {
    .begin = begin,
    .attn_in = attn_in,
    .attend = attend,
    .attn_out = attn_out,
    .mlp_in = mlp_in,
    .mlp_out = mlp_out,
    .route = route,
    .experts = experts,
    .end = end,
    .head = head,
};
