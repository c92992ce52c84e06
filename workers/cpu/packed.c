#include "workers/cpu/packed.h"

#include "core/clock.h"
#include "core/mem.h"
#include "workers/weights/weights.h"

#include <stdlib.h>
#include <string.h>

/* Which row of a tensor, or of several of its rows what, a matrix's row is made of. */
enum making {
    AS_IT_IS,
    ROTARY,    // the last rope_dim rows of each head: pairs brought to halves
    KEYS_UP,   // W_UK of each head, transposed
    VALUES_UP, // W_UV of each head
    PADDED_IN, // columns of each head padded to whole panels
};

/* Rows first .. first + n - 1 (n 0: all), in heads of so many rows. */
struct rows {
    int first, n, head;
};

/* Rows of so many heads of `dim` rows each. */
static struct rows head_rows(struct shard_span heads, int dim)
{
    return (struct rows){heads.first * dim, heads.n * dim, dim};
}

/*
 * Some rows of a tensor for rows `at` .. of a matrix; with stride 2 every second
 * panel is left free.
 */
struct job {
    struct weights_tensor t;
    struct matrix *m;
    struct rows rows;
    int first_col; // of the matrix's columns in the tensor
    int at, stride;
    enum making making;
};

struct loader {
    const struct weights *weights;
    const struct arch *arch;
    const struct shard *shard;
    struct packed *packed;
    int weight_bits; // 0: as stored
    size_t n_jobs, cap_jobs;
    struct job *jobs; // (n_jobs)
    size_t scratch_bytes;
    char **scratch; // (n_members) of scratch_bytes
    struct err *e;
};

/* --- what there is to load -------------------------------------------------------------------- */

/* What a matrix is kept in: a format that no kernel reads becomes bfloat16, as all do on request. */
static enum arch_dtype kept(const struct loader *l, enum arch_dtype stored)
{
    const bool is_read = stored != ARCH_FP8 && stored != ARCH_MXFP4;
    return is_read && l->weight_bits != 16 ? stored : ARCH_BF16;
}

/* Likewise, of a layer's matrix, where integers may have been asked for. */
static enum arch_dtype kept_in_layer(const struct loader *l, enum arch_dtype stored)
{
    return l->weight_bits == 8 ? ARCH_INT8 : l->weight_bits == 4 ? ARCH_INT4 : kept(l, stored);
}

/* Logits want no less than 8 bits. */
static enum arch_dtype kept_in_head(const struct loader *l)
{
    const bool as_integers = l->weight_bits == 8 || l->weight_bits == 4;
    return as_integers ? ARCH_INT8 : kept(l, l->arch->dtype);
}

/* Likewise, of a matrix whose inputs are parts of wider rows. */
static enum arch_dtype kept_as_floats(const struct loader *l, enum arch_dtype stored)
{
    return matrix_is_grouped(kept(l, stored)) ? ARCH_BF16 : kept(l, stored);
}

static int find(struct loader *l, enum weights_id id, int layer, int expert,
                struct weights_tensor *t)
{
    return weights_find(l->weights, id, layer, expert, t, l->e);
}

static int new_matrix(struct loader *l, struct matrix *m, int n_rows, int n_cols,
                      enum arch_dtype dtype)
{
    if (matrix_init(m, n_rows, n_cols, dtype, l->e)) {
        return -1;
    }
    tally_add(&l->packed->kept, dtype, (int64_t)m->n_panels * (int64_t)m->panel_bytes);
    return 0;
}

static void add_job(struct loader *l, const struct job *job)
{
    const size_t cols = (size_t)job->t.n_cols + (size_t)job->m->n_cols;
    // A panel's rows as stored; a few as float32; for W_UK nope_dim rows of a head.
    const size_t rows = MATRIX_PANEL + 4 + (size_t)l->arch->latent.nope_dim;
    const size_t bytes = rows * cols * sizeof(float);
    l->scratch_bytes = bytes > l->scratch_bytes ? bytes : l->scratch_bytes;
    if (l->n_jobs == l->cap_jobs) {
        l->cap_jobs = l->cap_jobs ? 2 * l->cap_jobs : 64;
        l->jobs = xrealloc(l->jobs, l->cap_jobs * sizeof *l->jobs);
    }
    l->jobs[l->n_jobs++] = *job;
}

/* A whole tensor goes to rows `at` .. of a matrix that is there. */
static int add_rows(struct loader *l, enum weights_id id, int layer, int expert, struct matrix *m,
                    int at, int stride)
{
    struct job job = {.m = m, .at = at, .stride = stride};
    if (find(l, id, layer, expert, &job.t)) {
        return -1;
    }
    tally_add(&l->packed->stored, job.t.stored, weights_stored_bytes(&job.t));
    job.rows.n = (int)job.t.n_rows;
    add_job(l, &job);
    return 0;
}

/* The job added last takes only so many rows, or its matrix's columns from `first` on. */
static void keep_rows(struct loader *l, struct shard_span s)
{
    l->jobs[l->n_jobs - 1].rows = (struct rows){s.first, s.n, 0};
}

static void keep_columns(struct loader *l, int first)
{
    struct job *job = &l->jobs[l->n_jobs - 1];
    job->first_col = first;
    // Values that share a factor are not taken apart.
    if (first % MATRIX_GROUP != 0 || job->m->n_cols % MATRIX_GROUP != 0) {
        job->t.dtype = matrix_is_grouped(job->t.dtype) ? ARCH_F32 : job->t.dtype;
    }
}

/* Likewise rows first .. first + n - 1, the last rope_dim of every head_rows of them rotated. */
static int add_part(struct loader *l, enum weights_id id, int layer, struct matrix *m, int at,
                    struct rows rows)
{
    if (add_rows(l, id, layer, -1, m, at, 1)) {
        return -1;
    }
    struct job *job = &l->jobs[l->n_jobs - 1];
    job->rows = rows.n > 0 ? rows : (struct rows){0, job->rows.n, rows.head};
    job->making = l->arch->rope_interleaved && rows.head > 0 ? ROTARY : AS_IT_IS;
    return 0;
}

static int new_vector(struct loader *l, size_t n, float **out)
{
    *out = mem_aligned(n * sizeof **out);
    l->packed->vector_bytes += (int64_t)(n * sizeof **out);
    return *out ? 0 : err_set(l->e, ERR_ENV, "no memory for a vector of %zu weights", n);
}

static int add_vector(struct loader *l, enum weights_id id, int layer, float **out)
{
    struct weights_tensor t;
    if (find(l, id, layer, -1, &t) || new_vector(l, (size_t)matrix_padded((int)t.n_cols), out)) {
        return -1;
    }
    weights_vector(&t, *out);
    l->packed->n_weights += t.n_cols;
    return 0;
}

/* The weights of a norm over hidden states. */
static int add_norm(struct loader *l, enum weights_id id, int layer, float **out)
{
    if (add_vector(l, id, layer, out)) {
        return -1;
    }
    for (int i = 0; l->arch->norm_plus_one && i < l->arch->hidden; i++) {
        (*out)[i] += 1;
    }
    return 0;
}

static int add_norms(struct loader *l, int layer, struct packed_layer *p)
{
    if (add_norm(l, WEIGHTS_ATTN_NORM, layer, &p->attn_norm) ||
        add_norm(l, WEIGHTS_MLP_NORM, layer, &p->mlp_norm)) {
        return -1;
    }
    return l->arch->post_norms && (add_norm(l, WEIGHTS_POST_ATTN_NORM, layer, &p->post_attn_norm) ||
                                   add_norm(l, WEIGHTS_POST_MLP_NORM, layer, &p->post_mlp_norm))
               ? -1
               : 0;
}

/* --- attention -------------------------------------------------------------------------------- */

/* A vector for rows of a matrix that add_part made alike; of v without rotation. */
static int put_bias(struct loader *l, enum weights_id id, int layer, float *bias, struct rows rows)
{
    struct weights_tensor t;
    if (find(l, id, layer, -1, &t)) {
        return -1;
    }
    float *values = xcalloc((size_t)t.n_cols, sizeof *values);
    weights_vector(&t, values);
    const bool turned = l->arch->rope_interleaved && id != WEIGHTS_V_BIAS;
    for (int i = 0; i < rows.n; i++) {
        const int from = turned ? layers_rotary_source(i, rows.head, l->arch->rope_dim) : i;
        bias[i] = values[rows.first + from];
    }
    l->packed->n_weights += rows.n;
    free(values);
    return 0;
}

static int add_qkv(struct loader *l, int layer, struct packed_layer *p)
{
    const struct arch *a = l->arch;
    const struct rows q = head_rows(l->shard->heads, a->head_dim);
    const struct rows k = head_rows(l->shard->kv_heads, a->head_dim);
    const struct rows v = head_rows(l->shard->kv_heads, a->v_dim);
    if (new_matrix(l, &p->qkv, q.n + k.n + v.n, a->hidden, kept_in_layer(l, a->linear_dtype)) ||
        add_part(l, WEIGHTS_Q, layer, &p->qkv, 0, q) ||
        add_part(l, WEIGHTS_K, layer, &p->qkv, q.n, k) ||
        add_rows(l, WEIGHTS_V, layer, -1, &p->qkv, q.n + k.n, 1)) {
        return -1;
    }
    keep_rows(l, (struct shard_span){v.first, v.n});
    if (!a->qkv_bias) {
        return 0;
    }
    if (new_vector(l, (size_t)matrix_padded(q.n + k.n + v.n), &p->qkv_bias) ||
        put_bias(l, WEIGHTS_Q_BIAS, layer, p->qkv_bias, q) ||
        put_bias(l, WEIGHTS_K_BIAS, layer, p->qkv_bias + q.n, k) ||
        put_bias(l, WEIGHTS_V_BIAS, layer, p->qkv_bias + q.n + k.n, v)) {
        return -1;
    }
    return 0;
}

static int add_latent(struct loader *l, int layer, struct packed_latent *p)
{
    const struct arch *a = l->arch;
    const int rank = a->latent.kv_rank, r = matrix_padded(rank), v = matrix_padded(a->v_dim);
    const int q_rank = a->latent.q_rank, q = matrix_padded(q_rank), n = l->shard->heads.n;
    const enum arch_dtype dtype = kept_in_layer(l, a->linear_dtype),
                          floats = kept_as_floats(l, a->linear_dtype);
    if (new_matrix(l, &p->down, q + r + a->rope_dim, a->hidden, dtype) ||
        new_matrix(l, &p->queries, n * a->head_dim, q_rank > 0 ? q_rank : a->hidden, dtype) ||
        new_matrix(l, &p->keys_up, n * r, a->latent.nope_dim, floats) ||
        new_matrix(l, &p->values_up, n * v, rank, floats)) {
        return -1;
    }
    if (q_rank > 0 && (add_rows(l, WEIGHTS_Q_A, layer, -1, &p->down, 0, 1) ||
                       add_vector(l, WEIGHTS_Q_A_NORM, layer, &p->q_norm))) {
        return -1;
    }
    const struct rows rotated = {.first = rank, .n = a->rope_dim, .head = a->rope_dim};
    if (add_part(l, WEIGHTS_KV_A, layer, &p->down, q, (struct rows){.n = rank}) ||
        add_part(l, WEIGHTS_KV_A, layer, &p->down, q + r, rotated) ||
        add_vector(l, WEIGHTS_KV_A_NORM, layer, &p->kv_norm) ||
        add_part(l, q_rank > 0 ? WEIGHTS_Q_B : WEIGHTS_Q, layer, &p->queries, 0,
                 head_rows(l->shard->heads, a->head_dim)) ||
        add_rows(l, WEIGHTS_KV_B, layer, -1, &p->keys_up, 0, 1)) {
        return -1;
    }
    struct job *keys = &l->jobs[l->n_jobs - 1], values = *keys;
    keys->making = KEYS_UP;
    keys->t.dtype = ARCH_F32;
    values.m = &p->values_up;
    values.making = VALUES_UP;
    add_job(l, &values);
    return 0;
}

static int add_attention(struct loader *l, int layer, struct packed_layer *p)
{
    const struct arch *a = l->arch;
    const bool latent = arch_is_latent(a);
    const struct shard_span heads = l->shard->heads;
    const int out = heads.n * (latent ? matrix_padded(a->v_dim) : a->v_dim);
    if ((latent ? add_latent(l, layer, &p->latent) : add_qkv(l, layer, p)) ||
        new_matrix(l, &p->o, a->hidden, out, kept_in_layer(l, a->linear_dtype)) ||
        add_rows(l, WEIGHTS_O, layer, -1, &p->o, 0, 1)) {
        return -1;
    }
    keep_columns(l, heads.first * a->v_dim);
    if (out != heads.n * a->v_dim) {
        l->jobs[l->n_jobs - 1].making = PADDED_IN;
        l->jobs[l->n_jobs - 1].t.dtype = ARCH_F32;
    }
    if ((a->attn_sinks && add_vector(l, WEIGHTS_SINKS, layer, &p->sinks)) ||
        (a->o_bias && l->shard->rank == 0 && add_vector(l, WEIGHTS_O_BIAS, layer, &p->o_bias))) {
        return -1;
    }
    return 0;
}

/* --- MLPs ------------------------------------------------------------------------------------- */

struct mlp {
    enum weights_id gate, up, down;
    int expert;
    struct shard_span inner;
    enum arch_dtype dtype;
};

static int add_mlp(struct loader *l, int layer, const struct mlp *mlp, struct matrix *gate_up,
                   struct matrix *down)
{
    const int hidden = l->arch->hidden, n = mlp->inner.n;
    const enum arch_dtype dtype = kept_in_layer(l, mlp->dtype);
    if (new_matrix(l, gate_up, 2 * matrix_padded(n), hidden, dtype) ||
        new_matrix(l, down, hidden, n, dtype) ||
        add_rows(l, mlp->gate, layer, mlp->expert, gate_up, 0, 2)) {
        return -1;
    }
    keep_rows(l, mlp->inner);
    if (add_rows(l, mlp->up, layer, mlp->expert, gate_up, MATRIX_PANEL, 2)) {
        return -1;
    }
    keep_rows(l, mlp->inner);
    if (add_rows(l, mlp->down, layer, mlp->expert, down, 0, 1)) {
        return -1;
    }
    keep_columns(l, mlp->inner.first);
    return 0;
}

/* Values `part` of a bias, in order, or where rows of gate or up stand in their matrix. */
static int put_expert_bias(struct loader *l, enum weights_id id, int layer, int expert,
                           struct shard_span part, float *out, int stride)
{
    struct weights_tensor t;
    if (find(l, id, layer, expert, &t)) {
        return -1;
    }
    float *values = xcalloc((size_t)t.n_cols, sizeof *values);
    weights_vector(&t, values);
    for (int i = 0; i < part.n; i++) {
        const int at = i / MATRIX_PANEL * MATRIX_PANEL * stride + i % MATRIX_PANEL;
        out[at] = values[part.first + i];
    }
    l->packed->n_weights += part.n;
    free(values);
    return 0;
}

static int add_expert_biases(struct loader *l, int layer, struct packed_experts *p)
{
    const struct arch *a = l->arch;
    const struct shard_span inner = l->shard->expert, all = {0, a->hidden};
    const size_t wide = 2 * (size_t)matrix_padded(inner.n), n = (size_t)a->moe.n_experts;
    const size_t hidden = (size_t)matrix_padded(a->hidden);
    const bool first = l->shard->rank == 0;
    if (add_vector(l, WEIGHTS_ROUTER_BIAS, layer, &p->router_bias) ||
        new_vector(l, n * wide, &p->gate_up_bias) ||
        (first && new_vector(l, n * hidden, &p->down_bias))) {
        return -1;
    }
    for (int i = 0; i < a->moe.n_experts; i++) {
        float *gate = p->gate_up_bias + (size_t)i * wide, *up = gate + MATRIX_PANEL;
        if (put_expert_bias(l, WEIGHTS_EXPERT_GATE_BIAS, layer, i, inner, gate, 2) ||
            put_expert_bias(l, WEIGHTS_EXPERT_UP_BIAS, layer, i, inner, up, 2) ||
            (first && put_expert_bias(l, WEIGHTS_EXPERT_DOWN_BIAS, layer, i, all,
                                      p->down_bias + (size_t)i * hidden, 1))) {
            return -1;
        }
    }
    return 0;
}

static int add_experts(struct loader *l, int layer, struct packed_experts *p)
{
    const struct arch *a = l->arch;
    const int n = a->moe.n_experts;
    p->gate_up = xcalloc((size_t)n, sizeof *p->gate_up);
    p->down = xcalloc((size_t)n, sizeof *p->down);
    // float32: which experts a token takes must not hang on how its input is rounded.
    if (new_matrix(l, &p->router, n, a->hidden, ARCH_F32) ||
        add_rows(l, WEIGHTS_ROUTER, layer, -1, &p->router, 0, 1)) {
        return -1;
    }
    struct mlp mlp = {WEIGHTS_EXPERT_GATE, WEIGHTS_EXPERT_UP, WEIGHTS_EXPERT_DOWN, 0,
                      l->shard->expert,    a->expert_dtype};
    for (; mlp.expert < n; mlp.expert++) {
        if (add_mlp(l, layer, &mlp, &p->gate_up[mlp.expert], &p->down[mlp.expert])) {
            return -1;
        }
    }
    if (a->moe.router == ARCH_ROUTER_GROUPS &&
        add_vector(l, WEIGHTS_CORRECTION_BIAS, layer, &p->correction_bias)) {
        return -1;
    }
    return a->moe.bias ? add_expert_biases(l, layer, p) : 0;
}

static int add_feed_forward(struct loader *l, int layer, struct packed_layer *p)
{
    const struct arch *a = l->arch;
    const struct mlp dense = {WEIGHTS_GATE, WEIGHTS_UP,    WEIGHTS_DOWN,
                              -1,           l->shard->mlp, a->linear_dtype};
    const struct mlp shared = {WEIGHTS_SHARED_GATE, WEIGHTS_SHARED_UP, WEIGHTS_SHARED_DOWN, -1,
                               l->shard->shared,    a->linear_dtype};
    if (!arch_is_moe(a, layer)) {
        return add_mlp(l, layer, &dense, &p->gate_up, &p->down);
    }
    if (a->moe.n_shared > 0 && add_mlp(l, layer, &shared, &p->gate_up, &p->down)) {
        return -1;
    }
    return add_experts(l, layer, &p->experts);
}

/* --- the stage -------------------------------------------------------------------------------- */

static int add_layer(struct loader *l, int layer, struct packed_layer *p)
{
    return add_norms(l, layer, p) || add_attention(l, layer, p) || add_feed_forward(l, layer, p)
               ? -1
               : 0;
}

/* The rank's part of the vocabulary. */
static int add_vocab(struct loader *l, enum weights_id id, enum arch_dtype dtype, struct matrix *m)
{
    const struct shard_span vocab = l->shard->vocab;
    if (new_matrix(l, m, vocab.n, l->arch->hidden, dtype) || add_rows(l, id, 0, -1, m, 0, 1)) {
        return -1;
    }
    keep_rows(l, vocab);
    return 0;
}

static int add_ends(struct loader *l, const struct layers_part *part)
{
    struct packed *p = l->packed;
    // A table that the head shares is as the head's.
    const enum arch_dtype embed =
        l->arch->tied_embedding ? kept_in_head(l) : kept(l, l->arch->dtype);
    if (part->has_embed && add_vocab(l, WEIGHTS_EMBED, embed, &p->embed)) {
        return -1;
    }
    if (!part->has_head) {
        return 0;
    }
    if (add_norm(l, WEIGHTS_NORM, 0, &p->norm)) {
        return -1;
    }
    if (part->has_embed && l->arch->tied_embedding) {
        return 0;
    }
    return add_vocab(l, WEIGHTS_HEAD, kept_in_head(l), &p->head);
}

static int add_all(struct loader *l, const struct layers_part *part)
{
    for (int i = 0; i < part->n_layers; i++) {
        if (add_layer(l, part->first_layer + i, &l->packed->layers[i])) {
            return -1;
        }
    }
    return add_ends(l, part);
}

/* Weights that a job brings into its matrix. */
static int64_t job_weights(const struct loader *l, const struct job *job)
{
    const int64_t n_heads = l->shard->heads.n, rank = l->arch->latent.kv_rank;
    switch (job->making) {
    case KEYS_UP:
        return n_heads * l->arch->latent.nope_dim * rank;
    case VALUES_UP:
        return n_heads * l->arch->v_dim * rank;
    case PADDED_IN:
        return job->rows.n * n_heads * l->arch->v_dim;
    default:
        return (int64_t)job->rows.n * job->m->n_cols;
    }
}

static void count_weights(struct loader *l)
{
    for (size_t i = 0; i < l->n_jobs; i++) {
        l->packed->n_weights += job_weights(l, &l->jobs[i]);
    }
}

/* --- packing ---------------------------------------------------------------------------------- */

/* Panels first .. end - 1 of the job's matrix, by one member. */
struct task {
    const struct job *job;
    const struct arch *arch;
    const struct shard *shard;
    char *scratch;
    int first, end;
};

/* The job's row for row `at` of the matrix; -1 where it has none. */
static int job_row(const struct task *t, int at)
{
    const struct job *job = t->job;
    const int from = at - job->at, panel = from / MATRIX_PANEL;
    if (from < 0 || panel % job->stride != 0) {
        return -1;
    }
    const int row = panel / job->stride * MATRIX_PANEL + from % MATRIX_PANEL;
    return row < job->rows.n ? row : -1;
}

static int tensor_row(const struct task *t, int row)
{
    const struct job *job = t->job;
    if (job->making == ROTARY) {
        row = layers_rotary_source(row, job->rows.head, t->arch->rope_dim);
    }
    return job->rows.first + row;
}

/* The matrix's columns of n rows. */
static const void *columns(const struct task *t, int first, int n)
{
    const struct job *job = t->job;
    const size_t all = (size_t)weights_row_bytes(job->t.dtype, job->t.n_cols);
    const size_t part = (size_t)weights_row_bytes(job->t.dtype, job->m->n_cols);
    const size_t cut = (size_t)weights_row_bytes(job->t.dtype, job->first_col);
    const char *rows = weights_rows(&job->t, first, n, t->scratch);
    if (all == part) {
        return rows;
    }
    char *out = t->scratch + (size_t)MATRIX_PANEL * (size_t)job->t.n_cols * sizeof(float);
    for (size_t i = 0; i < (size_t)n; i++) {
        memcpy(out + i * part, rows + i * all + cut, part);
    }
    return out;
}

/* Rows as they are, as many at a time as follow each other in tensor and panel. */
static void pack_rows(const struct task *t)
{
    const struct job *job = t->job;
    const int end = t->end * MATRIX_PANEL;
    for (int at = t->first * MATRIX_PANEL, n = 1; at < end; at += n) {
        const int row = job_row(t, at);
        n = 1;
        if (row < 0) {
            continue;
        }
        const int from = tensor_row(t, row);
        while ((at + n) % MATRIX_PANEL != 0 && job_row(t, at + n) == row + n &&
               tensor_row(t, row + n) == from + n) {
            n++;
        }
        matrix_pack(job->m, at, n, job->t.dtype, columns(t, from, n));
    }
}

/* W_UK of one head: row c of the matrix is column c of the head's first nope_dim rows. */
static void pack_keys_up(const struct task *t)
{
    const struct arch *a = t->arch;
    const int rank = a->latent.kv_rank, nope = a->latent.nope_dim, r = matrix_padded(rank);
    const size_t n_cols = (size_t)rank;
    float *rows = (float *)(void *)t->scratch, *row = rows + (size_t)nope * n_cols;
    int loaded = -1;
    for (int at = t->first * MATRIX_PANEL; at < t->end * MATRIX_PANEL; at++) {
        const int head = t->shard->heads.first + at / r, c = at % r;
        for (int d = 0; head != loaded && d < nope; d++) {
            float *to = rows + (size_t)d * n_cols;
            const int from = head * (nope + a->v_dim) + d;
            memmove(to, weights_rows(&t->job->t, from, 1, to), n_cols * sizeof *to);
        }
        loaded = head;
        for (int d = 0; d < nope && c < rank; d++) {
            row[d] = rows[(size_t)d * n_cols + (size_t)c];
        }
        if (c < rank) {
            matrix_pack(t->job->m, at, 1, ARCH_F32, row);
        }
    }
}

static void pack_values_up(const struct task *t)
{
    const struct arch *a = t->arch;
    const int nope = a->latent.nope_dim, v = matrix_padded(a->v_dim);
    for (int at = t->first * MATRIX_PANEL; at < t->end * MATRIX_PANEL; at++) {
        const int head = t->shard->heads.first + at / v;
        const int row = head * (nope + a->v_dim) + nope + at % v;
        if (at % v < a->v_dim) {
            matrix_pack(t->job->m, at, 1, t->job->t.dtype,
                        weights_rows(&t->job->t, row, 1, t->scratch));
        }
    }
}

/* Columns v_dim by v_dim to the beginnings of whole panels. */
static void pack_padded_in(const struct task *t)
{
    const struct arch *a = t->arch;
    const size_t n = (size_t)a->v_dim, v = (size_t)matrix_padded(a->v_dim);
    float *wide = (float *)(void *)t->scratch, *floats = wide + (size_t)t->job->m->n_cols;
    memset(wide, 0, (size_t)t->job->m->n_cols * sizeof *wide);
    const int end = t->end * MATRIX_PANEL;
    for (int at = t->first * MATRIX_PANEL; at < end && at < t->job->rows.n; at++) {
        const float *row = weights_rows(&t->job->t, at, 1, floats);
        for (size_t h = 0; h < (size_t)t->shard->heads.n; h++) {
            memcpy(wide + h * v, row + t->job->first_col + h * n, n * sizeof *row);
        }
        matrix_pack(t->job->m, at, 1, ARCH_F32, wide);
    }
}

static void pack(void *arg, int member, int n_members)
{
    const struct loader *l = arg;
    for (size_t i = 0; i < l->n_jobs; i++) {
        const int64_t n = l->jobs[i].m->n_panels;
        const struct task t = {
            .job = &l->jobs[i],
            .arch = l->arch,
            .shard = l->shard,
            .scratch = l->scratch[member],
            .first = (int)(n * member / n_members),
            .end = (int)(n * (member + 1) / n_members),
        };
        switch (l->jobs[i].making) {
        case AS_IT_IS:
        case ROTARY:
            pack_rows(&t);
            break;
        case KEYS_UP:
            pack_keys_up(&t);
            break;
        case VALUES_UP:
            pack_values_up(&t);
            break;
        case PADDED_IN:
            pack_padded_in(&t);
            break;
        }
    }
}

static int pack_all(struct loader *l, struct pool *pool)
{
    const int n_members = pool ? pool_size(pool) : 1;
    int rc = 0;
    l->scratch = xcalloc((size_t)n_members, sizeof *l->scratch);
    for (int i = 0; i < n_members && rc == 0; i++) {
        l->scratch[i] = mem_aligned(l->scratch_bytes);
        rc = l->scratch[i] ? 0 : err_set(l->e, ERR_ENV, "no memory for rows of weights");
    }
    if (rc == 0 && pool) {
        pool_submit(pool, pack, l);
        while (!pool_poll(pool)) {
            clock_sleep_until_ns(clock_local_ns() + NS_PER_MS);
        }
    } else if (rc == 0) {
        pack(l, 0, 1);
    }
    for (int i = 0; i < n_members; i++) {
        free(l->scratch[i]);
    }
    free(l->scratch);
    return rc;
}

int packed_load(struct packed *p, const char *model, const struct arch *a,
                const struct layers_part *part, const struct shard *shard, int weight_bits,
                struct pool *pool, struct err *e)
{
    CHECK(part->first_layer >= 0 && part->n_layers >= 1 &&
          part->first_layer + part->n_layers <= a->n_layers);
    struct weights *w;
    if (weights_open(&w, model, a, e)) {
        return -1;
    }
    *p = (struct packed){
        .n_layers = part->n_layers,
        .n_experts = a->moe.n_experts,
        .layers = xcalloc((size_t)part->n_layers, sizeof *p->layers),
    };
    struct loader l = {
        .weights = w, .arch = a, .shard = shard, .weight_bits = weight_bits, .packed = p, .e = e};
    int rc = add_all(&l, part) || pack_all(&l, pool) ? -1 : 0;
    count_weights(&l);
    free(l.jobs);
    weights_close(w);
    if (rc) {
        packed_free(p);
    }
    return rc;
}

static void free_layer(struct packed_layer *l, int n_experts)
{
    struct packed_experts *x = &l->experts;
    for (int i = 0; x->gate_up && i < n_experts; i++) {
        matrix_free(&x->gate_up[i]);
        matrix_free(&x->down[i]);
    }
    struct matrix *matrices[] = {&l->qkv,     &l->latent.down,    &l->latent.queries,
                                 &l->o,       &l->latent.keys_up, &l->latent.values_up,
                                 &l->gate_up, &l->down,           &x->router};
    for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) {
        matrix_free(matrices[i]);
    }
    void *rest[] = {l->attn_norm,    l->mlp_norm,  l->post_attn_norm, l->post_mlp_norm,
                    l->qkv_bias,     l->sinks,     l->latent.q_norm,  l->latent.kv_norm,
                    l->o_bias,       x->gate_up,   x->down,           x->router_bias,
                    x->gate_up_bias, x->down_bias, x->correction_bias};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        free(rest[i]);
    }
}

void packed_free(struct packed *p)
{
    for (int i = 0; i < p->n_layers; i++) {
        free_layer(&p->layers[i], p->n_experts);
    }
    free(p->layers);
    matrix_free(&p->embed);
    matrix_free(&p->head);
    free(p->norm);
    *p = (struct packed){0};
}

const struct matrix *packed_head(const struct packed *p)
{
    return p->head.data ? &p->head : &p->embed;
}
