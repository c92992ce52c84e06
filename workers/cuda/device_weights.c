#include "workers/cuda/device_weights.h"

#include "core/clock.h"
#include "core/mem.h"
#include "workers/cuda/device_encode.h"
#include "workers/weights/weights.h"

#include <stdlib.h>
#include <string.h>

#define STAGING_BYTES ((size_t)64 << 20)
#define DEADLINE_NS   (120 * NS_PER_S) // for one copy of that

/* What the rows of a matrix are made of. */
enum making {
    ROWS,      // rows of a tensor
    KEYS_UP,   // W_UK of each head, transposed
    VALUES_UP, // W_UV of each head
};

/* Rows of a tensor that become rows `at` .. of a matrix. */
struct source {
    struct weights_tensor t;
    enum making making;
    int at, first, n; // n 0: all of them; first counts heads in KEYS_UP and VALUES_UP
    int first_col;
    int head; // rows of a head whose rotary pairs are interleaved; 0: as they are
};

struct loader {
    const struct device_weights_config *cfg;
    const struct arch *arch;
    struct weights *weights;
    struct device_weights *out;
    struct gpu *g;
    char *staging; // (STAGING_BYTES)
    float **room;  // (members, n_room)
    struct err *e;
    // the piece that the members make: rows first .. first + n - 1 of the source's
    struct device_matrix piece;
    char *data, *factors;
    const struct source *source;
    int first, n;
};

/* --- forms -------------------------------------------------------------------------------------- */

static enum arch_dtype kept(enum arch_dtype stored)
{
    return stored == ARCH_F16 ? ARCH_F32 : stored;
}

static enum arch_dtype kept_in_layer(const struct loader *l, enum arch_dtype stored)
{
    const int bits = l->cfg->weight_bits;
    return bits == 8 ? ARCH_INT8 : bits == 4 ? ARCH_INT4 : kept(stored);
}

/* Of a product whose inputs are parts of wider rows. */
static enum arch_dtype kept_as_floats(enum arch_dtype stored)
{
    return stored == ARCH_F32 || stored == ARCH_F16 ? ARCH_F32 : ARCH_BF16;
}

static bool is_integers(enum arch_dtype dtype)
{
    return dtype == ARCH_INT8 || dtype == ARCH_INT4;
}

/* Blocks of integers that are taken as they are. */
static bool takes_blocks(const struct source *s, const struct device_matrix *m)
{
    return is_integers(m->dtype) && s->t.stored == m->dtype && s->making == ROWS && s->head == 0 &&
           s->first_col == 0 && s->t.n_cols == m->n_cols;
}

/* --- one piece of a matrix: rows to staging ------------------------------------------------------ */

static char *data_row(const struct loader *l, int i)
{
    return l->data + (size_t)i * device_matrix_row_bytes(l->piece.dtype, l->piece.n_cols);
}

static char *factors_row(const struct loader *l, int i)
{
    return l->factors + (size_t)i * device_matrix_factor_bytes(l->piece.dtype, l->piece.n_cols);
}

static int tensor_row(const struct loader *l, int row)
{
    const struct source *s = l->source;
    const struct arch *a = l->arch;
    if (s->making == VALUES_UP) {
        const int both = a->latent.nope_dim + a->v_dim;
        return (s->first + row / a->v_dim) * both + a->latent.nope_dim + row % a->v_dim;
    }
    return s->first + (s->head > 0 ? layers_rotary_source(row, s->head, a->rope_dim) : row);
}

/* The factors of a row's blocks in FP8. Generated values have one for all (workers/weights/fill.h). */
static void row_scales(const struct loader *l, int row, float *out)
{
    const struct source *s = l->source;
    const int block = DEVICE_MATRIX_FP8_BLOCK, wide = ((int)s->t.n_cols + block - 1) / block;
    for (int i = 0; i < (l->piece.n_cols + block - 1) / block; i++) {
        const size_t at = (size_t)(row / block * wide + s->first_col / block + i);
        out[i] = 0x1p-12f;
        if (s->t.scales) {
            memcpy(&out[i], (const char *)s->t.scales + at * sizeof *out, sizeof *out);
        }
    }
}

static void encode_row(const struct loader *l, int i, float *room)
{
    const struct source *s = l->source;
    const struct device_matrix *m = &l->piece;
    const int row = tensor_row(l, l->first + i);
    float *scales = room, *values = room + (m->n_cols / DEVICE_MATRIX_FP8_BLOCK + 1);
    const void *stored = weights_rows(&s->t, row, 1, values);
    if (takes_blocks(s, m)) {
        device_encode_blocks(m->dtype, stored, m->n_cols, data_row(l, i), factors_row(l, i));
        return;
    }
    if (m->dtype == ARCH_FP8) {
        row_scales(l, row, scales);
    }
    device_encode_row(m->dtype, (const float *)stored + s->first_col, m->n_cols, scales,
                      data_row(l, i), factors_row(l, i));
}

/* Rows of W_UK of one head, (nope_dim, kv_rank), become columns. */
static void encode_head(const struct loader *l, int i, float *room)
{
    const struct arch *a = l->arch;
    const int nope = a->latent.nope_dim, rank = a->latent.kv_rank;
    const int head = l->source->first + (l->first + i * rank) / rank;
    float *column = room, *wide = room + nope;
    const float *rows = weights_rows(&l->source->t, (int64_t)head * (nope + a->v_dim), nope, wide);
    for (int r = 0; r < rank; r++) {
        for (int k = 0; k < nope; k++) {
            column[k] = rows[(size_t)k * (size_t)rank + (size_t)r];
        }
        device_encode_row(l->piece.dtype, column, nope, NULL, data_row(l, i * rank + r),
                          factors_row(l, i * rank + r));
    }
}

static void encode(void *arg, int member, int n_members)
{
    const struct loader *l = arg;
    const bool by_head = l->source->making == KEYS_UP;
    const int64_t n = by_head ? l->n / l->arch->latent.kv_rank : l->n;
    for (int64_t i = n * member / n_members; i < n * (member + 1) / n_members; i++) {
        (by_head ? encode_head : encode_row)(l, (int)i, l->room[member]);
    }
}

/* Make rows first .. first + n - 1 of a source and copy them to their place in the matrix. */
static int move_piece(struct loader *l, const struct device_matrix *m, const struct source *s,
                      int first, int n)
{
    const size_t row_bytes = device_matrix_row_bytes(m->dtype, m->n_cols);
    const size_t factor_bytes = device_matrix_factor_bytes(m->dtype, m->n_cols);
    const size_t at = (size_t)(s->at + first);
    l->piece = *m;
    l->data = l->staging;
    l->factors = l->staging + (size_t)n * row_bytes;
    l->source = s;
    l->first = first;
    l->n = n;
    pool_submit(l->cfg->pool, encode, l);
    while (!pool_poll(l->cfg->pool)) {
        clock_sleep_until_ns(clock_local_ns() + 50 * NS_PER_US);
    }
    // the matrix' memory is ours to fill
    char *data = (char *)(uintptr_t)m->data, *factors = (char *)(uintptr_t)m->factors;
    if (gpu_copy_in(l->g, data + at * row_bytes, l->data, (size_t)n * row_bytes, l->e) ||
        gpu_copy_in(l->g, factors + at * factor_bytes, l->factors, (size_t)n * factor_bytes,
                    l->e)) {
        return -1;
    }
    return gpu_wait(l->g, clock_local_ns() + DEADLINE_NS, l->e);
}

static int move_rows(struct loader *l, const struct device_matrix *m, const struct source *s)
{
    const size_t bytes = device_matrix_row_bytes(m->dtype, m->n_cols) +
                         device_matrix_factor_bytes(m->dtype, m->n_cols);
    const int unit = s->making == KEYS_UP ? l->arch->latent.kv_rank : 1;
    const size_t units = STAGING_BYTES / bytes / (size_t)unit;
    if (units == 0) {
        return err_set(l->e, ERR_INPUT, "%s: rows of %zu bytes are too wide for the GPU backend",
                       s->t.name, bytes);
    }
    const int most = units * (size_t)unit < (size_t)s->n ? (int)units * unit : s->n;
    for (int i = 0; i < s->n; i += most) {
        if (move_piece(l, m, s, i, s->n - i < most ? s->n - i : most)) {
            return -1;
        }
    }
    return 0;
}

/* --- what there is to load ---------------------------------------------------------------------- */

static int find(struct loader *l, enum weights_id id, int layer, int expert,
                struct weights_tensor *t)
{
    if (weights_find(l->weights, id, layer, expert, t, l->e)) {
        return -1;
    }
    l->out->n_weights += t->n_rows * t->n_cols;
    return 0;
}

/* Memory for a matrix, or n of them under each other. */
static int new_matrices(struct loader *l, struct device_matrix *m, enum arch_dtype dtype,
                        int n_rows, int n_cols, int n)
{
    void *data, *factors = NULL;
    const size_t rows = (size_t)n_rows * (size_t)n;
    const size_t bytes = rows * device_matrix_row_bytes(dtype, n_cols);
    const size_t more = rows * device_matrix_factor_bytes(dtype, n_cols);
    if (gpu_take(l->g, bytes, "weights", &data, l->e) ||
        (more > 0 && gpu_take(l->g, more, "factors of weights", &factors, l->e))) {
        return -1;
    }
    *m = (struct device_matrix){
        .dtype = dtype,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .factor_rows = dtype == ARCH_FP8 ? 1 : 0,
        .data = data,
        .factors = factors,
    };
    l->out->n_bytes += (int64_t)(bytes + more);
    return 0;
}

static int new_matrix(struct loader *l, struct device_matrix *m, enum arch_dtype dtype, int n_rows,
                      int n_cols)
{
    return new_matrices(l, m, dtype, n_rows, n_cols, 1);
}

/* Fill rows of a matrix from a tensor, as `s` says; its tensor and, where it is 0, n are filled in. */
static int add(struct loader *l, const struct device_matrix *m, enum weights_id id, int layer,
               int expert, struct source s)
{
    if (find(l, id, layer, expert, &s.t)) {
        return -1;
    }
    s.n = s.n > 0 ? s.n : (int)s.t.n_rows;
    s.head = l->arch->rope_interleaved ? s.head : 0;
    if (!takes_blocks(&s, m)) {
        s.t.dtype = ARCH_F32;
    }
    return move_rows(l, m, &s);
}

static int put_vector(struct loader *l, const float *values, size_t n, const float **out)
{
    void *to;
    if (gpu_take(l->g, n * sizeof *values, "a vector of weights", &to, l->e)) {
        return -1;
    }
    CHECK(n * sizeof *values <= STAGING_BYTES);
    memcpy(l->staging, values, n * sizeof *values);
    *out = to;
    l->out->n_bytes += (int64_t)(n * sizeof *values);
    return gpu_copy_in(l->g, to, l->staging, n * sizeof *values, l->e) ||
                   gpu_wait(l->g, clock_local_ns() + DEADLINE_NS, l->e)
               ? -1
               : 0;
}

/* Values first .. first + n - 1 (n 0: all) of a vector, each plus `plus`. */
static int add_vector(struct loader *l, enum weights_id id, int layer, struct shard_span part,
                      float plus, const float **out)
{
    struct weights_tensor t;
    if (find(l, id, layer, -1, &t)) {
        return -1;
    }
    float *values = xcalloc((size_t)t.n_cols, sizeof *values);
    weights_vector(&t, values);
    for (int64_t i = 0; plus != 0 && i < t.n_cols; i++) {
        values[i] += plus;
    }
    const size_t n = part.n > 0 ? (size_t)part.n : (size_t)t.n_cols;
    const int rc = put_vector(l, values + part.first, n, out);
    free(values);
    return rc;
}

static int add_whole_vector(struct loader *l, enum weights_id id, int layer, const float **out)
{
    return add_vector(l, id, layer, (struct shard_span){0}, 0, out);
}

static int add_norm(struct loader *l, enum weights_id id, int layer, const float **out)
{
    const float plus = l->arch->norm_plus_one ? 1 : 0;
    return add_vector(l, id, layer, (struct shard_span){0}, plus, out);
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
static struct source heads_of(struct shard_span heads, int dim, int at, bool rotates)
{
    return (struct source){
        .at = at, .first = heads.first * dim, .n = heads.n * dim, .head = rotates ? dim : 0};
}

static int put_bias(struct loader *l, enum weights_id id, int layer, struct source s, float *bias)
{
    struct weights_tensor t;
    if (find(l, id, layer, -1, &t)) {
        return -1;
    }
    float *values = xcalloc((size_t)t.n_cols, sizeof *values);
    weights_vector(&t, values);
    const int head = l->arch->rope_interleaved ? s.head : 0;
    for (int i = 0; i < s.n; i++) {
        const int from = head > 0 ? layers_rotary_source(i, head, l->arch->rope_dim) : i;
        bias[s.at + i] = values[s.first + from];
    }
    free(values);
    return 0;
}

static int add_qkv(struct loader *l, int layer, struct device_layer *d)
{
    const struct arch *a = l->arch;
    const struct shard *shard = &l->cfg->shard;
    const struct source q = heads_of(shard->heads, a->head_dim, 0, true);
    const struct source k = heads_of(shard->kv_heads, a->head_dim, q.n, true);
    const struct source v = heads_of(shard->kv_heads, a->v_dim, q.n + k.n, false);
    const int n_rows = q.n + k.n + v.n;
    if (new_matrix(l, &d->qkv, kept_in_layer(l, a->linear_dtype), n_rows, a->hidden) ||
        add(l, &d->qkv, WEIGHTS_Q, layer, -1, q) || add(l, &d->qkv, WEIGHTS_K, layer, -1, k) ||
        add(l, &d->qkv, WEIGHTS_V, layer, -1, v)) {
        return -1;
    }
    if (!a->qkv_bias) {
        return 0;
    }
    float *bias = xcalloc((size_t)n_rows, sizeof *bias);
    const int rc = put_bias(l, WEIGHTS_Q_BIAS, layer, q, bias) ||
                           put_bias(l, WEIGHTS_K_BIAS, layer, k, bias) ||
                           put_bias(l, WEIGHTS_V_BIAS, layer, v, bias) ||
                           put_vector(l, bias, (size_t)n_rows, &d->qkv_bias)
                       ? -1
                       : 0;
    free(bias);
    return rc;
}

static int add_latent(struct loader *l, int layer, struct device_latent *d)
{
    const struct arch *a = l->arch;
    const int rank = a->latent.kv_rank, q_rank = a->latent.q_rank, nope = a->latent.nope_dim;
    const struct shard_span heads = l->cfg->shard.heads;
    const enum arch_dtype dtype = kept_in_layer(l, a->linear_dtype),
                          floats = kept_as_floats(a->linear_dtype);
    const int q_cols = q_rank > 0 ? q_rank : a->hidden;
    if (new_matrix(l, &d->down, dtype, q_rank + rank + a->rope_dim, a->hidden) ||
        new_matrix(l, &d->queries, dtype, heads.n * a->head_dim, q_cols) ||
        new_matrix(l, &d->keys_up, floats, heads.n * rank, nope) ||
        new_matrix(l, &d->values_up, floats, heads.n * a->v_dim, rank)) {
        return -1;
    }
    if (q_rank > 0 && (add(l, &d->down, WEIGHTS_Q_A, layer, -1, (struct source){0}) ||
                       add_whole_vector(l, WEIGHTS_Q_A_NORM, layer, &d->q_norm))) {
        return -1;
    }
    const struct source latents = {.at = q_rank, .n = rank};
    const struct source rotated = {
        .at = q_rank + rank, .first = rank, .n = a->rope_dim, .head = a->rope_dim};
    const struct source keys = {.making = KEYS_UP, .first = heads.first, .n = heads.n * rank};
    const struct source values = {
        .making = VALUES_UP, .first = heads.first, .n = heads.n * a->v_dim};
    return add(l, &d->down, WEIGHTS_KV_A, layer, -1, latents) ||
                   add(l, &d->down, WEIGHTS_KV_A, layer, -1, rotated) ||
                   add_whole_vector(l, WEIGHTS_KV_A_NORM, layer, &d->kv_norm) ||
                   add(l, &d->queries, q_rank > 0 ? WEIGHTS_Q_B : WEIGHTS_Q, layer, -1,
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
    const struct source columns = {.first_col = heads.first * a->v_dim};
    if ((arch_is_latent(a) ? add_latent(l, layer, &d->latent) : add_qkv(l, layer, d)) ||
        new_matrix(l, &d->o, kept_in_layer(l, a->linear_dtype), a->hidden, heads.n * a->v_dim) ||
        add(l, &d->o, WEIGHTS_O, layer, -1, columns)) {
        return -1;
    }
    if ((a->attn_sinks && add_vector(l, WEIGHTS_SINKS, layer, heads, 0, &d->sinks)) ||
        (a->o_bias && l->cfg->shard.rank == 0 &&
         add_whole_vector(l, WEIGHTS_O_BIAS, layer, &d->o_bias))) {
        return -1;
    }
    return 0;
}

/* --- MLPs --------------------------------------------------------------------------------------- */

struct mlp {
    enum weights_id gate, up, down;
    struct shard_span inner;
};

/* One MLP, the `number`-th in its matrices; `expert` -1: the only one. */
static int fill_mlp(struct loader *l, int layer, int expert, const struct mlp *mlp,
                    const struct device_matrix *gate_up, const struct device_matrix *down)
{
    const int n = mlp->inner.n, number = expert < 0 ? 0 : expert;
    const struct source gate = {.at = number * 2 * n, .first = mlp->inner.first, .n = n};
    const struct source up = {.at = number * 2 * n + n, .first = mlp->inner.first, .n = n};
    const struct source out = {.at = number * l->arch->hidden, .first_col = mlp->inner.first};
    return add(l, gate_up, mlp->gate, layer, expert, gate) ||
                   add(l, gate_up, mlp->up, layer, expert, up) ||
                   add(l, down, mlp->down, layer, expert, out)
               ? -1
               : 0;
}

static int new_mlps(struct loader *l, enum arch_dtype stored, int inner, int n,
                    struct device_matrix *gate_up, struct device_matrix *down)
{
    const enum arch_dtype dtype = kept_in_layer(l, stored);
    return new_matrices(l, gate_up, dtype, 2 * inner, l->arch->hidden, n) ||
                   new_matrices(l, down, dtype, l->arch->hidden, inner, n)
               ? -1
               : 0;
}

/* Part of each expert's bias to `at` of its row of `wide` values. */
static int put_biases(struct loader *l, enum weights_id id, int layer, struct shard_span part,
                      float *out, size_t wide)
{
    for (int x = 0; x < l->arch->moe.n_experts; x++) {
        struct weights_tensor t;
        if (find(l, id, layer, x, &t)) {
            return -1;
        }
        float *values = xcalloc((size_t)t.n_cols, sizeof *values);
        weights_vector(&t, values);
        memcpy(out + (size_t)x * wide, values + part.first, (size_t)part.n * sizeof *values);
        free(values);
    }
    return 0;
}

static int add_expert_biases(struct loader *l, int layer, struct device_experts *d)
{
    const struct arch *a = l->arch;
    const struct shard_span inner = l->cfg->shard.expert, all = {0, a->hidden};
    const size_t n = (size_t)a->moe.n_experts, wide = 2 * (size_t)inner.n;
    const size_t hidden = (size_t)a->hidden;
    float *gate_up = xcalloc(n * wide, sizeof *gate_up), *down = xcalloc(n * hidden, sizeof *down);
    int rc = put_biases(l, WEIGHTS_EXPERT_GATE_BIAS, layer, inner, gate_up, wide) ||
                     put_biases(l, WEIGHTS_EXPERT_UP_BIAS, layer, inner, gate_up + inner.n, wide) ||
                     put_vector(l, gate_up, n * wide, &d->gate_up_bias) ||
                     add_whole_vector(l, WEIGHTS_ROUTER_BIAS, layer, &d->router_bias)
                 ? -1
                 : 0;
    if (rc == 0 && l->cfg->shard.rank == 0) {
        rc = put_biases(l, WEIGHTS_EXPERT_DOWN_BIAS, layer, all, down, hidden) ||
                     put_vector(l, down, n * hidden, &d->down_bias)
                 ? -1
                 : 0;
    }
    free(gate_up);
    free(down);
    return rc;
}

static int add_experts(struct loader *l, int layer, struct device_experts *d)
{
    const struct arch *a = l->arch;
    const struct mlp mlp = {WEIGHTS_EXPERT_GATE, WEIGHTS_EXPERT_UP, WEIGHTS_EXPERT_DOWN,
                            l->cfg->shard.expert};
    // float32: which experts a token takes must not hang on how its input is rounded
    if (new_matrix(l, &d->router, ARCH_F32, a->moe.n_experts, a->hidden) ||
        add(l, &d->router, WEIGHTS_ROUTER, layer, -1, (struct source){0}) ||
        new_mlps(l, a->expert_dtype, mlp.inner.n, a->moe.n_experts, &d->gate_up, &d->down)) {
        return -1;
    }
    for (int x = 0; x < a->moe.n_experts; x++) {
        if (fill_mlp(l, layer, x, &mlp, &d->gate_up, &d->down)) {
            return -1;
        }
    }
    if (a->moe.router == ARCH_ROUTER_GROUPS &&
        add_whole_vector(l, WEIGHTS_CORRECTION_BIAS, layer, &d->correction_bias)) {
        return -1;
    }
    return a->moe.bias ? add_expert_biases(l, layer, d) : 0;
}

static int add_feed_forward(struct loader *l, int layer, struct device_layer *d)
{
    const struct arch *a = l->arch;
    const struct mlp dense = {WEIGHTS_GATE, WEIGHTS_UP, WEIGHTS_DOWN, l->cfg->shard.mlp};
    const struct mlp shared = {WEIGHTS_SHARED_GATE, WEIGHTS_SHARED_UP, WEIGHTS_SHARED_DOWN,
                               l->cfg->shard.shared};
    const bool moe = arch_is_moe(a, layer);
    const struct mlp *mlp = !moe ? &dense : a->moe.n_shared > 0 ? &shared : NULL;
    if (mlp && (new_mlps(l, a->linear_dtype, mlp->inner.n, 1, &d->gate_up, &d->down) ||
                fill_mlp(l, layer, -1, mlp, &d->gate_up, &d->down))) {
        return -1;
    }
    return moe ? add_experts(l, layer, &d->experts) : 0;
}

/* --- the stage ---------------------------------------------------------------------------------- */

static int add_vocab(struct loader *l, enum weights_id id, enum arch_dtype dtype,
                     struct device_matrix *m)
{
    const struct shard_span vocab = l->cfg->shard.vocab;
    const struct source s = {.first = vocab.first, .n = vocab.n};
    return new_matrix(l, m, dtype, vocab.n, l->arch->hidden) || add(l, m, id, 0, -1, s) ? -1 : 0;
}

/* Logits want no less than 8 bits. A tied table is kept once, but where the head's integers are made. */
static int add_ends(struct loader *l)
{
    const struct arch *a = l->arch;
    const struct layers_part *part = &l->cfg->part;
    struct device_weights *w = l->out;
    const enum arch_dtype table = kept(a->dtype), head = l->cfg->weight_bits ? ARCH_INT8 : table;
    const bool share = a->tied_embedding && head == table;
    if (part->has_embed && add_vocab(l, WEIGHTS_EMBED, table, &w->embed)) {
        return -1;
    }
    if (!part->has_head) {
        return 0;
    }
    if (add_norm(l, WEIGHTS_NORM, 0, &w->norm)) {
        return -1;
    }
    if (share && part->has_embed) {
        w->head = w->embed;
        return 0;
    }
    return add_vocab(l, WEIGHTS_HEAD, head, &w->head);
}

/* Room of one member: the widest row that any tensor has, W_UK of one head, FP8's factors. */
static size_t room_floats(const struct loader *l)
{
    const struct arch *a = l->arch;
    const size_t rank = (size_t)a->latent.kv_rank, nope = (size_t)a->latent.nope_dim;
    const size_t inner = (size_t)a->moe.intermediate * (size_t)(a->moe.n_shared + 1);
    const size_t widths[] = {(size_t)a->hidden,
                             (size_t)a->intermediate,
                             inner,
                             (size_t)a->n_heads * (size_t)a->v_dim,
                             (size_t)a->latent.q_rank,
                             nope * rank + nope};
    size_t most = 0;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        most = widths[i] > most ? widths[i] : most;
    }
    return most + most / DEVICE_MATRIX_FP8_BLOCK + 64;
}

static int load_all(struct loader *l)
{
    const struct layers_part *part = &l->cfg->part;
    if (add_ends(l)) {
        return -1;
    }
    for (int i = 0; i < part->n_layers; i++) {
        const int layer = part->first_layer + i;
        struct device_layer *d = &l->out->layers[i];
        if (add_norms(l, layer, d) || add_attention(l, layer, d) || add_feed_forward(l, layer, d)) {
            return -1;
        }
    }
    return 0;
}

int device_weights_load(struct device_weights *w, struct gpu *g,
                        const struct device_weights_config *cfg, struct err *e)
{
    const int n_members = pool_size(cfg->pool);
    void *staging;
    *w = (struct device_weights){.n_layers = cfg->part.n_layers};
    if (cfg->arch->hidden % 8 != 0) {
        return err_set(e, ERR_INPUT, "%s: hidden_size %d; the GPU backend takes multiples of 8",
                       cfg->model, cfg->arch->hidden);
    }
    struct loader l = {.cfg = cfg, .arch = cfg->arch, .out = w, .g = g, .e = e};
    if (gpu_take_host(g, STAGING_BYTES, "weights on their way", &staging, e) ||
        weights_open(&l.weights, cfg->model, cfg->arch, e)) {
        return -1;
    }
    l.staging = staging;
    w->layers = xcalloc((size_t)cfg->part.n_layers, sizeof *w->layers);
    l.room = xcalloc((size_t)n_members, sizeof *l.room);
    for (int i = 0; i < n_members; i++) {
        l.room[i] = xcalloc(room_floats(&l), sizeof **l.room);
    }
    const int rc = load_all(&l);
    for (int i = 0; i < n_members; i++) {
        free(l.room[i]);
    }
    free(l.room);
    weights_close(l.weights);
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
