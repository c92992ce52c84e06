#include "workers/cuda/device_weights.h"

#include "core/mem.h"
#include "workers/cuda/device_encode.h"
#include "workers/cuda/device_fill.h"
#include "workers/weights/weights.h"

#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 256 // of matrices and vectors in the arena

typedef struct device_fill_source source;

/*
 * All that there is to load is walked through twice: first without `fill`, when sizes are only counted, then with
 * the arena that they need. Matrices are first in it, and then the vectors, which are put together on the host.
 */
struct loader {
    const struct device_weights_config *cfg;
    const struct arch *arch;
    struct weights *weights;
    struct device_weights *out;
    struct device_fill *fill;
    char *arena;                           // the device's
    char *vectors, *host_vectors;          // in it, and what they will hold
    size_t n_matrix_bytes, n_vector_bytes; // walked through by now
    struct err *e;
};

/* --- forms -------------------------------------------------------------------------------------- */

/* As workers/cpu/packed.c, but that FP8 and MXFP4 stay what they are and F16 becomes F32. */
static enum arch_dtype kept(const struct loader *l, enum arch_dtype stored)
{
    return l->cfg->weight_bits == 16 ? ARCH_BF16 : stored == ARCH_F16 ? ARCH_F32 : stored;
}

static bool makes_integers(const struct loader *l)
{
    return l->cfg->weight_bits == 8 || l->cfg->weight_bits == 4;
}

static enum arch_dtype kept_in_layer(const struct loader *l, enum arch_dtype stored)
{
    const int bits = l->cfg->weight_bits;
    return bits == 8 ? ARCH_INT8 : bits == 4 ? ARCH_INT4 : kept(l, stored);
}

/* Likewise, of a matrix that has columns `part` of n: codes are not parted from a factor that they share. */
static enum arch_dtype kept_in_columns(const struct loader *l, enum arch_dtype stored,
                                       struct shard_span part, int n)
{
    const enum arch_dtype dtype = kept_in_layer(l, stored);
    const int unit = dtype == ARCH_FP8     ? DEVICE_MATRIX_FP8_BLOCK
                     : dtype == ARCH_MXFP4 ? DEVICE_MATRIX_GROUP
                                           : 1;
    const bool whole = part.first % unit == 0 && (part.n % unit == 0 || part.first + part.n == n);
    return whole ? dtype : ARCH_BF16;
}

/* Logits want no less than 8 bits. */
static enum arch_dtype kept_in_head(const struct loader *l)
{
    return makes_integers(l) ? ARCH_INT8 : kept(l, l->arch->dtype);
}

/* Of a product whose inputs are parts of wider rows. */
static enum arch_dtype kept_as_floats(const struct loader *l, enum arch_dtype stored)
{
    return kept(l, stored) == ARCH_F32 ? ARCH_F32 : ARCH_BF16;
}

/* --- places in the arena -------------------------------------------------------------------------- */

static size_t reserve(size_t *used, size_t n_bytes)
{
    const size_t at = *used;
    *used += (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return at;
}

/* A matrix of so many rows, or n of them under each other. FP8: factor_rows rows share factors. */
static void new_matrices(struct loader *l, struct device_matrix *m, enum arch_dtype dtype,
                         int n_rows, int n_cols, int n, int factor_rows)
{
    const size_t rows = (size_t)n_rows * (size_t)n;
    const size_t each = dtype == ARCH_FP8 ? (size_t)factor_rows : 1,
                 lines = (rows + each - 1) / each;
    const size_t bytes = rows * device_matrix_row_bytes(dtype, n_cols);
    const size_t more = lines * device_matrix_factor_bytes(dtype, n_cols);
    const size_t at = reserve(&l->n_matrix_bytes, bytes);
    const size_t then = reserve(&l->n_matrix_bytes, more);
    *m = (struct device_matrix){.dtype = dtype, .n_rows = n_rows, .n_cols = n_cols};
    m->factor_rows = dtype == ARCH_FP8 ? factor_rows : 0;
    if (l->fill) {
        m->data = l->arena + at;
        m->factors = more > 0 ? l->arena + then : NULL;
        tally_add(&l->out->kept, dtype, (int64_t)(bytes + more));
    }
}

static void new_matrix(struct loader *l, struct device_matrix *m, enum arch_dtype dtype, int n_rows,
                       int n_cols)
{
    new_matrices(l, m, dtype, n_rows, n_cols, 1, 1);
}

/* Where its values are to be written; NULL while sizes are counted. */
static float *new_vector(struct loader *l, size_t n, const float **out)
{
    const size_t at = reserve(&l->n_vector_bytes, n * sizeof **out);
    if (!l->fill) {
        return NULL;
    }
    *out = (const float *)(const void *)(l->vectors + at);
    return (float *)(void *)(l->host_vectors + at);
}

/* --- tensors to their places ---------------------------------------------------------------------- */

static int find(struct loader *l, enum weights_id id, int layer, int expert,
                struct weights_tensor *t)
{
    return weights_find(l->weights, id, layer, expert, t, l->e);
}

/* Fill rows of a matrix from a tensor, as `s` says; its tensor is filled in. */
static int add(struct loader *l, const struct device_matrix *m, enum weights_id id, int layer,
               int expert, source s)
{
    if (!l->fill) {
        return 0;
    }
    if (find(l, id, layer, expert, &s.t)) {
        return -1;
    }
    if (s.making != DEVICE_FILL_KEYS_UP) { // whose tensor gives values_up, too
        tally_add(&l->out->stored, s.t.stored, weights_stored_bytes(&s.t));
    }
    l->out->n_weights += (int64_t)s.n * m->n_cols;
    s.head = l->arch->rope_interleaved ? s.head : 0;
    return device_fill_rows(l->fill, m, &s, l->e);
}

/* Values of a vector, as the rows of a matrix that `s` says, each plus `plus`, to `to`. */
static int put_values(struct loader *l, enum weights_id id, int layer, int expert, source s,
                      float plus, float *to)
{
    if (!l->fill) {
        return 0;
    }
    if (find(l, id, layer, expert, &s.t)) {
        return -1;
    }
    const struct arch *a = l->arch;
    float *values = xcalloc((size_t)s.t.n_cols, sizeof *values);
    weights_vector(&s.t, values);
    const bool turned = a->rope_interleaved && s.head > 0;
    for (int i = 0; i < s.n; i++) {
        const int from = s.first + (turned ? layers_rotary_source(i, s.head, a->rope_dim) : i);
        to[s.at + i] = plus != 0 ? values[from] + plus : values[from];
    }
    l->out->n_weights += s.n;
    free(values);
    return 0;
}

static int add_vector(struct loader *l, enum weights_id id, int layer, struct shard_span part,
                      const float **out)
{
    float *to = new_vector(l, (size_t)part.n, out);
    return put_values(l, id, layer, -1, (source){.first = part.first, .n = part.n}, 0, to);
}

static int add_whole_vector(struct loader *l, enum weights_id id, int layer, int n,
                            const float **out)
{
    return add_vector(l, id, layer, (struct shard_span){0, n}, out);
}

static int add_norm(struct loader *l, enum weights_id id, int layer, const float **out)
{
    const struct arch *a = l->arch;
    float *to = new_vector(l, (size_t)a->hidden, out);
    return put_values(l, id, layer, -1, (source){.n = a->hidden}, a->norm_plus_one ? 1 : 0, to);
}

static int add_norms(struct loader *l, int layer, struct device_layer *d)
{
    if (add_norm(l, WEIGHTS_ATTN_NORM, layer, &d->attn_norm) ||
        add_norm(l, WEIGHTS_MLP_NORM, layer, &d->mlp_norm)) {
        return -1;
    }
    return l->arch->post_norms && (add_norm(l, WEIGHTS_POST_ATTN_NORM, layer, &d->post_attn_norm) ||
                                   add_norm(l, WEIGHTS_POST_MLP_NORM, layer, &d->post_mlp_norm))
               ? -1
               : 0;
}

/* --- attention ---------------------------------------------------------------------------------- */

/* Rows of so many heads of `dim` rows each, which may rotate. */
static source heads_of(struct shard_span heads, int dim, int at, bool rotates)
{
    return (source){
        .at = at, .first = heads.first * dim, .n = heads.n * dim, .head = rotates ? dim : 0};
}

static int add_qkv(struct loader *l, int layer, struct device_layer *d)
{
    const struct arch *a = l->arch;
    const struct shard *shard = &l->cfg->shard;
    const source q = heads_of(shard->heads, a->head_dim, 0, true);
    const source k = heads_of(shard->kv_heads, a->head_dim, q.n, true);
    const source v = heads_of(shard->kv_heads, a->v_dim, q.n + k.n, false);
    const int n_rows = q.n + k.n + v.n;
    new_matrix(l, &d->qkv, kept_in_layer(l, a->linear_dtype), n_rows, a->hidden);
    if (add(l, &d->qkv, WEIGHTS_Q, layer, -1, q) || add(l, &d->qkv, WEIGHTS_K, layer, -1, k) ||
        add(l, &d->qkv, WEIGHTS_V, layer, -1, v)) {
        return -1;
    }
    if (!a->qkv_bias) {
        return 0;
    }
    float *bias = new_vector(l, (size_t)n_rows, &d->qkv_bias);
    return put_values(l, WEIGHTS_Q_BIAS, layer, -1, q, 0, bias) ||
                   put_values(l, WEIGHTS_K_BIAS, layer, -1, k, 0, bias) ||
                   put_values(l, WEIGHTS_V_BIAS, layer, -1, v, 0, bias)
               ? -1
               : 0;
}

/* q_a, and under it kv_a, whose last rows rotate. */
static int add_latent_down(struct loader *l, int layer, struct device_latent *d)
{
    const struct arch *a = l->arch;
    const int rank = a->latent.kv_rank, q_rank = a->latent.q_rank, n = rank + a->rope_dim;
    new_matrix(l, &d->down, kept_in_layer(l, a->linear_dtype), q_rank + n, a->hidden);
    if (q_rank > 0 && (add(l, &d->down, WEIGHTS_Q_A, layer, -1, (source){.n = q_rank}) ||
                       add_whole_vector(l, WEIGHTS_Q_A_NORM, layer, q_rank, &d->q_norm))) {
        return -1;
    }
    return add(l, &d->down, WEIGHTS_KV_A, layer, -1, (source){.at = q_rank, .n = n, .head = n}) ||
                   add_whole_vector(l, WEIGHTS_KV_A_NORM, layer, rank, &d->kv_norm)
               ? -1
               : 0;
}

static int add_latent(struct loader *l, int layer, struct device_latent *d)
{
    const struct arch *a = l->arch;
    const int rank = a->latent.kv_rank, q_rank = a->latent.q_rank;
    const struct shard_span heads = l->cfg->shard.heads;
    const enum arch_dtype floats = kept_as_floats(l, a->linear_dtype);
    const source keys = {.making = DEVICE_FILL_KEYS_UP, .first = heads.first, .n = heads.n * rank};
    const source values = {
        .making = DEVICE_FILL_VALUES_UP, .first = heads.first, .n = heads.n * a->v_dim};
    if (add_latent_down(l, layer, d)) {
        return -1;
    }
    new_matrix(l, &d->queries, kept_in_layer(l, a->linear_dtype), heads.n * a->head_dim,
               q_rank > 0 ? q_rank : a->hidden);
    new_matrix(l, &d->keys_up, floats, keys.n, a->latent.nope_dim);
    new_matrix(l, &d->values_up, floats, values.n, rank);
    return add(l, &d->queries, q_rank > 0 ? WEIGHTS_Q_B : WEIGHTS_Q, layer, -1,
               heads_of(heads, a->head_dim, 0, true)) ||
                   add(l, &d->keys_up, WEIGHTS_KV_B, layer, -1, keys) ||
                   add(l, &d->values_up, WEIGHTS_KV_B, layer, -1, values)
               ? -1
               : 0;
}

static int add_attention(struct loader *l, int layer, struct device_layer *d)
{
    const struct arch *a = l->arch;
    const struct shard_span heads = l->cfg->shard.heads;
    const struct shard_span part = {heads.first * a->v_dim, heads.n * a->v_dim};
    if (arch_is_latent(a) ? add_latent(l, layer, &d->latent) : add_qkv(l, layer, d)) {
        return -1;
    }
    const enum arch_dtype dtype = kept_in_columns(l, a->linear_dtype, part, a->n_heads * a->v_dim);
    new_matrices(l, &d->o, dtype, a->hidden, part.n, 1, DEVICE_MATRIX_FP8_BLOCK);
    if (add(l, &d->o, WEIGHTS_O, layer, -1, (source){.n = a->hidden, .first_col = part.first})) {
        return -1;
    }
    if ((a->attn_sinks && add_vector(l, WEIGHTS_SINKS, layer, heads, &d->sinks)) ||
        (a->o_bias && l->cfg->shard.rank == 0 &&
         add_whole_vector(l, WEIGHTS_O_BIAS, layer, a->hidden, &d->o_bias))) {
        return -1;
    }
    return 0;
}

/* --- MLPs --------------------------------------------------------------------------------------- */

struct mlp {
    enum weights_id gate, up, down;
    struct shard_span inner;
    int n_inner; // of all ranks
    enum arch_dtype stored;
};

/* One MLP, the `expert`-th in its matrices; -1: the only one. */
static int fill_mlp(struct loader *l, int layer, int expert, const struct mlp *mlp,
                    const struct device_matrix *gate_up, const struct device_matrix *down)
{
    const int n = mlp->inner.n, number = expert < 0 ? 0 : expert, hidden = l->arch->hidden;
    const source gate = {.at = number * 2 * n, .n = n, .first = mlp->inner.first};
    const source up = {.at = number * 2 * n + n, .n = n, .first = mlp->inner.first};
    const source out = {.at = number * hidden, .n = hidden, .first_col = mlp->inner.first};
    return add(l, gate_up, mlp->gate, layer, expert, gate) ||
                   add(l, gate_up, mlp->up, layer, expert, up) ||
                   add(l, down, mlp->down, layer, expert, out)
               ? -1
               : 0;
}

/* n of them. FP8's blocks keep one factor where what is stacked begins with whole ones. */
static void new_mlps(struct loader *l, const struct mlp *mlp, int n, struct device_matrix *gate_up,
                     struct device_matrix *down)
{
    const struct shard_span inner = mlp->inner;
    const int block = DEVICE_MATRIX_FP8_BLOCK, hidden = l->arch->hidden;
    const enum arch_dtype narrow = kept_in_columns(l, mlp->stored, inner, mlp->n_inner);
    new_matrices(l, gate_up, kept_in_layer(l, mlp->stored), 2 * inner.n, hidden, n,
                 inner.first % block == 0 && inner.n % block == 0 ? block : 1);
    new_matrices(l, down, narrow, hidden, inner.n, n, n == 1 || hidden % block == 0 ? block : 1);
}

/* Values `part` of each expert's bias to rows of `wide` values, from value `at` on. */
static int put_biases(struct loader *l, enum weights_id id, int layer, struct shard_span part,
                      int wide, int at, float *to)
{
    for (int x = 0; l->fill && x < l->arch->moe.n_experts; x++) {
        const source s = {.at = x * wide + at, .n = part.n, .first = part.first};
        if (put_values(l, id, layer, x, s, 0, to)) {
            return -1;
        }
    }
    return 0;
}

static int add_expert_biases(struct loader *l, int layer, struct device_experts *d)
{
    const struct arch *a = l->arch;
    const struct shard_span inner = l->cfg->shard.expert, all = {0, a->hidden};
    const int n = a->moe.n_experts, wide = 2 * inner.n;
    float *gate_up = new_vector(l, (size_t)n * (size_t)wide, &d->gate_up_bias);
    if (add_whole_vector(l, WEIGHTS_ROUTER_BIAS, layer, n, &d->router_bias) ||
        put_biases(l, WEIGHTS_EXPERT_GATE_BIAS, layer, inner, wide, 0, gate_up) ||
        put_biases(l, WEIGHTS_EXPERT_UP_BIAS, layer, inner, wide, inner.n, gate_up)) {
        return -1;
    }
    if (l->cfg->shard.rank != 0) {
        return 0;
    }
    float *down = new_vector(l, (size_t)n * (size_t)a->hidden, &d->down_bias);
    return put_biases(l, WEIGHTS_EXPERT_DOWN_BIAS, layer, all, a->hidden, 0, down);
}

static int add_experts(struct loader *l, int layer, struct device_experts *d)
{
    const struct arch *a = l->arch;
    const int n = a->moe.n_experts;
    const struct mlp mlp = {WEIGHTS_EXPERT_GATE,  WEIGHTS_EXPERT_UP,   WEIGHTS_EXPERT_DOWN,
                            l->cfg->shard.expert, a->moe.intermediate, a->expert_dtype};
    // float32: which experts a token takes must not hang on how its input is rounded
    new_matrix(l, &d->router, ARCH_F32, n, a->hidden);
    if (add(l, &d->router, WEIGHTS_ROUTER, layer, -1, (source){.n = n})) {
        return -1;
    }
    new_mlps(l, &mlp, n, &d->gate_up, &d->down);
    for (int x = 0; l->fill && x < n; x++) {
        if (fill_mlp(l, layer, x, &mlp, &d->gate_up, &d->down)) {
            return -1;
        }
    }
    if (a->moe.router == ARCH_ROUTER_GROUPS &&
        add_whole_vector(l, WEIGHTS_CORRECTION_BIAS, layer, n, &d->correction_bias)) {
        return -1;
    }
    return a->moe.bias ? add_expert_biases(l, layer, d) : 0;
}

static int add_feed_forward(struct loader *l, int layer, struct device_layer *d)
{
    const struct arch *a = l->arch;
    const struct shard *shard = &l->cfg->shard;
    const struct mlp dense = {WEIGHTS_GATE, WEIGHTS_UP,      WEIGHTS_DOWN,
                              shard->mlp,   a->intermediate, a->linear_dtype};
    const struct mlp shared = {WEIGHTS_SHARED_GATE,
                               WEIGHTS_SHARED_UP,
                               WEIGHTS_SHARED_DOWN,
                               shard->shared,
                               a->moe.n_shared * a->moe.intermediate,
                               a->linear_dtype};
    const bool moe = arch_is_moe(a, layer);
    const struct mlp *mlp = !moe ? &dense : a->moe.n_shared > 0 ? &shared : NULL;
    if (mlp) {
        new_mlps(l, mlp, 1, &d->gate_up, &d->down);
        if (fill_mlp(l, layer, -1, mlp, &d->gate_up, &d->down)) {
            return -1;
        }
    }
    return moe ? add_experts(l, layer, &d->experts) : 0;
}

/* --- the stage ---------------------------------------------------------------------------------- */

static int add_vocab(struct loader *l, enum weights_id id, enum arch_dtype dtype,
                     struct device_matrix *m)
{
    const struct shard_span vocab = l->cfg->shard.vocab;
    new_matrix(l, m, dtype, vocab.n, l->arch->hidden);
    return add(l, m, id, 0, -1, (source){.first = vocab.first, .n = vocab.n});
}

static int add_ends(struct loader *l)
{
    const struct arch *a = l->arch;
    const struct layers_part *part = &l->cfg->part;
    struct device_weights *w = l->out;
    // A table that the head shares is as the head's.
    const enum arch_dtype table = a->tied_embedding ? kept_in_head(l) : kept(l, a->dtype);
    if (part->has_embed && add_vocab(l, WEIGHTS_EMBED, table, &w->embed)) {
        return -1;
    }
    if (!part->has_head) {
        return 0;
    }
    if (add_norm(l, WEIGHTS_NORM, 0, &w->norm)) {
        return -1;
    }
    if (part->has_embed && a->tied_embedding) {
        w->head = w->embed;
        return 0;
    }
    return add_vocab(l, WEIGHTS_HEAD, kept_in_head(l), &w->head);
}

static int walk(struct loader *l)
{
    const struct layers_part *part = &l->cfg->part;
    l->n_matrix_bytes = l->n_vector_bytes = 0;
    for (int i = 0; i < part->n_layers; i++) {
        const int layer = part->first_layer + i;
        struct device_layer *d = &l->out->layers[i];
        if (add_norms(l, layer, d) || add_attention(l, layer, d) || add_feed_forward(l, layer, d)) {
            return -1;
        }
    }
    return add_ends(l);
}

/* Memory for all that the first walk counted, and the second one. */
static int fill(struct loader *l, struct gpu *g)
{
    const struct device_weights_config *cfg = l->cfg;
    const size_t n_vectors = l->n_vector_bytes, n = l->n_matrix_bytes + n_vectors;
    void *arena;
    if (gpu_take(g, n, "the weights", &arena, l->e) || gpu_clear(g, arena, n, l->e) ||
        device_fill_open(&l->fill, g, cfg->pool, cfg->model, cfg->arch, l->e)) {
        return -1;
    }
    l->arena = arena;
    l->vectors = l->arena + l->n_matrix_bytes;
    l->host_vectors = xcalloc(n_vectors, 1);
    l->out->n_bytes = (int64_t)n;
    l->out->vector_bytes = (int64_t)n_vectors;
    const int rc =
        walk(l) || device_fill_bytes(l->fill, l->vectors, l->host_vectors, n_vectors, l->e) ||
                device_fill_finish(l->fill, l->e)
            ? -1
            : 0;
    free(l->host_vectors);
    device_fill_close(l->fill);
    return rc;
}

int device_weights_load(struct device_weights *w, struct gpu *g,
                        const struct device_weights_config *cfg, struct err *e)
{
    struct weights *weights;
    if (weights_open(&weights, cfg->model, cfg->arch, e)) {
        return -1;
    }
    *w = (struct device_weights){.n_layers = cfg->part.n_layers};
    w->layers = xcalloc((size_t)cfg->part.n_layers, sizeof *w->layers);
    struct loader l = {.cfg = cfg, .arch = cfg->arch, .weights = weights, .out = w, .e = e};
    const int rc = walk(&l) || fill(&l, g) ? -1 : 0;
    weights_close(weights);
    if (rc) {
        device_weights_free(w);
    }
    return rc;
}

void device_weights_free(struct device_weights *w)
{
    free(w->layers);
    *w = (struct device_weights){0};
}
