/* Attention: queries, keys and values, the cache, softmax(q . k) . v, the output projection. */
#include "workers/cpu/phases_impl.h"

#include <string.h>

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Where a KV head's part of the block of a row's position lies. */
static char *kv_at(const struct phases *p, int layer, const struct batch_row *r, int pos, int head)
{
    const struct kv_tables *t = p->io.tables;
    uint32_t block = t->blocks[(size_t)r->slot * t->max_blocks + (size_t)(pos / BATCH_KV_BLOCK)];
    size_t at = (size_t)layer * p->cfg.n_blocks + block;
    return p->kv + at * p->kv_bytes + (size_t)head * p->cache.block_bytes;
}

/* Rotate the last rope_dim of a head's values by its position's angles. */
static void rotate(const struct phases *p, float *head, int dim, int pos)
{
    const int rope_dim = p->cfg.arch->rope_dim;
    const size_t angles = (size_t)pos * (size_t)(rope_dim / 2);
    p->cfg.kernels->rope(head + dim - rope_dim, p->cosines + angles, p->sines + angles,
                         rope_dim / 2);
}

/* Do something for each token of the batch: position `pos` of row r, row `i` of the activations. */
typedef void (*token_fn)(const struct phases *p, int layer, const struct batch_row *r, int pos,
                         size_t i, struct phases_range heads);

static void each_token(const struct phases *p, int layer, struct phases_range tokens,
                       struct phases_range heads, token_fn fn)
{
    for (uint32_t i = 0; i < p->io.batch->n_rows; i++) {
        const struct batch_row *r = &p->io.batch->rows[i];
        for (uint32_t t = 0; t < r->n_tokens; t++) {
            const int at = (int)(r->first + t);
            if (at >= tokens.from && at < tokens.to) {
                fn(p, layer, r, (int)(r->pos + t), (size_t)at, heads);
            }
        }
    }
}

/* --- queries, keys and values ----------------------------------------------------------------- */

/* Rotate q and k, and put k and v into the cache: of the heads of q, then k, then v in a row. */
static void place_heads(const struct phases *p, int layer, const struct batch_row *r, int pos,
                        size_t i, struct phases_range heads)
{
    const struct arch *a = p->cfg.arch;
    const int dim = a->head_dim, at = pos % BATCH_KV_BLOCK,
              first_value = a->n_heads + a->n_kv_heads;
    float *row = p->qkv + i * p->ld.qkv;
    for (int h = heads.from; h < heads.to; h++) {
        float *v = row + (size_t)h * (size_t)dim;
        if (h < first_value) {
            rotate(p, v, dim, pos);
        }
        if (h >= first_value) {
            cache_store_value(&p->cache, kv_at(p, layer, r, pos, h - first_value), at, v);
        } else if (h >= a->n_heads) {
            cache_store_key(&p->cache, kv_at(p, layer, r, pos, h - a->n_heads), at, v);
        }
    }
}

/* This member's heads of `n_heads`, and the panels of their matrix: whole panels hold whole heads. */
static struct phases_range share_heads(const struct phases_walk *w, const struct matrix *m,
                                       int n_heads, struct phases_range *panels)
{
    const struct phases *p = w->p;
    const int n_units = (m->n_panels + p->unit_panels - 1) / p->unit_panels;
    const int unit_heads = p->unit_panels * MATRIX_PANEL / p->cfg.arch->head_dim;
    const struct phases_range units = phases_impl_share(w, n_units);
    *panels = (struct phases_range){units.from * p->unit_panels,
                                    least(units.to * p->unit_panels, m->n_panels)};
    return (struct phases_range){least(units.from * unit_heads, n_heads),
                                 least(units.to * unit_heads, n_heads)};
}

static void qkv_in(const struct phases_walk *w, int layer)
{
    struct phases *p = w->p;
    const struct arch *a = p->cfg.arch;
    const struct packed_layer *weights = &p->cfg.weights->layers[layer];
    const struct matrix *m = &weights->qkv;
    const float *x = phases_impl_normed(w, weights->attn_norm, NULL, p->n_tokens);
    const struct kernels_rows rows = phases_impl_input(w, m, x, p->ld.hidden, p->n_tokens);
    struct phases_range panels;
    const struct phases_range heads = share_heads(w, m, a->n_heads + 2 * a->n_kv_heads, &panels);
    phases_impl_product(p, m, panels, &rows, p->n_tokens, weights->qkv_bias, p->qkv, p->ld.qkv);
    each_token(p, layer, (struct phases_range){0, p->n_tokens}, heads, place_heads);
    phases_impl_meet(w);
}

/* --- latent attention ------------------------------------------------------------------------- */

/* Norms of the query's and the cache's latents; the latter and the rotated key into the cache. */
static void place_latent(const struct phases *p, int layer, const struct batch_row *r, int pos,
                         size_t i, struct phases_range heads)
{
    (void)heads;
    const struct arch *a = p->cfg.arch;
    const struct packed_latent *weights = &p->cfg.weights->layers[layer].latent;
    const int q_rank = a->latent.q_rank, rank = a->latent.kv_rank;
    float *q = p->latent + i * p->ld.latent, *c = q + matrix_padded(q_rank);
    if (q_rank > 0) {
        const struct kernels_norm norm = phases_impl_norm(p, weights->q_norm);
        p->cfg.kernels->rmsnorm(q, q, &norm, q_rank);
    }
    const struct kernels_norm norm = phases_impl_norm(p, weights->kv_norm);
    p->cfg.kernels->rmsnorm(c, c, &norm, rank);
    rotate(p, c, p->cache.key_dim, pos);
    cache_store_key(&p->cache, kv_at(p, layer, r, pos, 0), pos % BATCH_KV_BLOCK, c);
}

/* The rotated part of a head's query stands behind its absorbed part. */
static void place_queries(const struct phases *p, int layer, const struct batch_row *r, int pos,
                          size_t i, struct phases_range heads)
{
    (void)layer;
    (void)r;
    const struct arch *a = p->cfg.arch;
    const size_t dim = (size_t)a->head_dim, rope_dim = (size_t)a->rope_dim;
    const size_t step = p->ld.absorbed / (size_t)a->n_heads;
    for (size_t h = (size_t)heads.from; h < (size_t)heads.to; h++) {
        float *q = p->qkv + i * p->ld.qkv + h * dim;
        rotate(p, q, a->head_dim, pos);
        memcpy(p->absorbed + i * p->ld.absorbed + h * step + matrix_padded(a->latent.kv_rank),
               q + dim - rope_dim, rope_dim * sizeof *q);
    }
}

/* Head by head y = x . w^T: columns x_at + h * x_step of the rows, panels h * n of w. */
static void head_products(const struct phases *p, const struct matrix *w, struct phases_range heads,
                          const float *x, size_t ldx, size_t x_step, float *y, size_t ldy,
                          size_t y_step)
{
    const int n = w->n_panels / p->cfg.arch->n_heads;
    for (int h = heads.from; h < heads.to; h++) {
        const struct kernels_rows rows = {
            .form = KERNELS_F32, .data = x + (size_t)h * x_step, .stride = ldx * sizeof *x};
        kernels_matmul(p->cfg.kernels, w, h * n, (h + 1) * n, &rows, p->n_tokens,
                       y + (size_t)h * y_step, ldy, KERNELS_SET);
    }
}

static void latent_in(const struct phases_walk *w, int layer)
{
    struct phases *p = w->p;
    const struct arch *a = p->cfg.arch;
    const struct packed_layer *weights = &p->cfg.weights->layers[layer];
    const struct packed_latent *l = &weights->latent;
    const float *x = phases_impl_normed(w, weights->attn_norm, NULL, p->n_tokens);
    struct kernels_rows rows = phases_impl_input(w, &l->down, x, p->ld.hidden, p->n_tokens);
    phases_impl_product(p, &l->down, phases_impl_share(w, l->down.n_panels), &rows, p->n_tokens,
                        NULL, p->latent, p->ld.latent);
    phases_impl_meet(w);
    each_token(p, layer, phases_impl_share(w, p->n_tokens), (struct phases_range){0, 0},
               place_latent);
    phases_impl_meet(w);
    const bool low_rank = a->latent.q_rank > 0;
    rows = phases_impl_input(w, &l->queries, low_rank ? p->latent : x,
                             low_rank ? p->ld.latent : p->ld.hidden, p->n_tokens);
    struct phases_range panels;
    const struct phases_range heads = share_heads(w, &l->queries, a->n_heads, &panels);
    phases_impl_product(p, &l->queries, panels, &rows, p->n_tokens, NULL, p->qkv, p->ld.qkv);
    head_products(p, &l->keys_up, heads, p->qkv, p->ld.qkv, (size_t)a->head_dim, p->absorbed,
                  p->ld.absorbed, p->ld.absorbed / (size_t)a->n_heads);
    each_token(p, layer, (struct phases_range){0, p->n_tokens}, heads, place_queries);
    phases_impl_meet(w);
}

void phases_attn_in(void *ctx, int layer)
{
    const struct phases_walk *w = ctx;
    if (arch_is_latent(w->p->cfg.arch)) {
        latent_in(w, layer);
    } else {
        qkv_in(w, layer);
    }
}

/* --- softmax(q . k) . v ----------------------------------------------------------------------- */

/* Query heads of one KV head. */
static int shared_heads(const struct arch *a)
{
    return arch_is_latent(a) ? a->n_heads : a->n_heads / a->n_kv_heads;
}

int phases_attn_heads(const struct arch *a)
{
    const int shared = shared_heads(a);
    const int n_calls = (shared + ATTENTION_MAX_QUERIES - 1) / ATTENTION_MAX_QUERIES;
    return (shared + n_calls - 1) / n_calls;
}

/* Unit `unit` of a layer's attention: a group of tokens and the query heads of one KV head, or as many
 * of them as one call takes. False past the last one. */
static bool attention_unit(const struct phases *p, int layer, const struct layers_attention *flags,
                           int unit, struct attention *task)
{
    const struct arch *a = p->cfg.arch;
    const struct kv_tables *t = p->io.tables;
    const bool latent = arch_is_latent(a);
    const int shared = shared_heads(a), at_once = phases_attn_heads(a);
    const int n_slices = (shared + at_once - 1) / at_once;
    const int per_group = a->n_heads / shared * n_slices;
    if (unit >= p->n_groups * per_group) {
        return false;
    }
    const struct phases_group *g = &p->groups[unit / per_group];
    const struct batch_row *r = &p->io.batch->rows[g->row];
    const int kv_head = unit % per_group / n_slices, in_head = unit % n_slices * at_once;
    const size_t token = r->first + (size_t)g->first, head = (size_t)(kv_head * shared + in_head);
    const size_t q_ld = latent ? p->ld.absorbed : p->ld.qkv;
    const size_t q_step = latent ? q_ld / (size_t)a->n_heads : (size_t)a->head_dim;
    const size_t out_step = latent ? p->ld.attended / (size_t)a->n_heads : (size_t)a->v_dim;
    const float *sinks = p->cfg.weights->layers[layer].sinks;
    *task = (struct attention){
        .cache = &p->cache,
        .layer = *flags,
        .n_tokens = g->n,
        .n_heads = least(shared - in_head, at_once),
        .pos = (int)r->pos + g->first,
        .sinks = sinks ? sinks + p->shard.heads.first + head : NULL,
        .q = (latent ? p->absorbed : p->qkv) + token * q_ld + head * q_step,
        .q_ld = q_ld,
        .q_step = q_step,
        .out = p->attended + token * p->ld.attended + head * out_step,
        .out_ld = p->ld.attended,
        .out_step = out_step,
        .blocks = t->blocks + (size_t)r->slot * t->max_blocks,
        .kv = p->kv + (size_t)layer * p->cfg.n_blocks * p->kv_bytes +
              (size_t)kv_head * p->cache.block_bytes,
        .block_bytes = p->kv_bytes,
    };
    return true;
}

void phases_attn_attend(void *ctx, int layer, const struct layers_attention *flags)
{
    const struct phases_walk *w = ctx;
    struct phases *p = w->p;
    struct attention task, next;
    // Handed out one by one: contexts differ, and a member's core may be shared.
    for (;;) {
        const int unit = phases_impl_next(w, layer, PHASES_ATTEND);
        if (!attention_unit(p, layer, flags, unit, &task)) {
            break;
        }
        bool more = attention_unit(p, layer, flags, unit + p->cfg.n_members, &next);
        attention_run(p->cfg.kernels, &task, more ? &next : NULL, p->members[w->member].scratch);
    }
    phases_impl_meet(w);
}

/* --- output ----------------------------------------------------------------------------------- */

void phases_attn_out(void *ctx, int layer)
{
    const struct phases_walk *w = ctx;
    struct phases *p = w->p;
    const struct arch *a = p->cfg.arch;
    const struct packed_layer *weights = &p->cfg.weights->layers[layer];
    const float *y = p->attended;
    size_t ld = p->ld.attended;
    if (arch_is_latent(a)) {
        const size_t n = (size_t)a->n_heads;
        head_products(p, &weights->latent.values_up, phases_impl_share(w, a->n_heads), y, ld,
                      ld / n, p->heads, p->ld.heads, p->ld.heads / n);
        phases_impl_meet(w);
        y = p->heads;
        ld = p->ld.heads;
    }
    const struct phases_residual r = {
        .m = &weights->o,
        .bias = weights->o_bias,
        .norm = weights->post_attn_norm,
    };
    phases_impl_residual(w, &r, y, ld);
}
