#include "workers/cpu/phases.h"

#include "core/mem.h"
#include "workers/cpu/attention.h"
#include "workers/layers.h"

#include <float.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SHARED_NORM_ROWS 16 // from here on a barrier is cheaper than normalising on every member
#define HEAD_PANELS      16 // logits made between two looks for the largest

/* Consecutive tokens of one row that attend together. */
struct group {
    uint32_t row;
    int first, n; // tokens of the row
};

struct member {
    float *normed;  // (SHARED_NORM_ROWS, ld_hidden)
    char *narrowed; // (SHARED_NORM_ROWS, narrow_bytes)
    float *scratch; // (attention_scratch_values)
    float *logits;  // (max_rows, HEAD_PANELS * 16)
    float *best;    // (max_rows)
    int32_t *ids;   // (max_rows)
};

struct phases {
    struct phases_config cfg;
    size_t ld_hidden, ld_qkv, ld_heads, ld_mlp; // floats from row to row
    size_t narrow_bytes;                        // of the widest input row in a narrow form
    int unit_panels;                            // of qkv: whole panels that hold whole heads
    float *x;                                   // (max_tokens, ld_hidden) hidden states
    float *normed;                              // (max_tokens, ld_hidden)
    float *qkv;                                 // (max_tokens, ld_qkv)
    float *attended;                            // (max_tokens, ld_heads)
    float *gate_up;                             // (max_tokens, 2 * ld_mlp)
    float *act;                                 // (max_tokens, ld_mlp)
    char *narrowed;                             // (max_tokens, narrow_bytes) inputs to a product
    float *kv;              // (n_layers, n_blocks, n_kv_heads, attention_block_values)
    float *cosines, *sines; // (positions, head_dim / 2)
    struct member *members; // (n_members)
    atomic_int *next;       // (n_layers) attention units handed out

    // of the batch at hand
    struct phases_io io;
    int n_tokens, n_groups, n_samples;
    struct group *groups;    // (n_groups)
    uint32_t *sample_tokens; // (n_samples) index in the batch
    uint32_t *sample_rows;   // (n_samples)
};

/* What one member carries through the operations. */
struct walk {
    struct phases *p;
    struct pool *pool;
    int member;
};

/* --- set-up ----------------------------------------------------------------------------------- */

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int greatest_divisor(int a, int b)
{
    return b == 0 ? a : greatest_divisor(b, a % b);
}

static int take(void *out, size_t n, size_t each_bytes, struct err *e)
{
    void *p = mem_aligned(n * each_bytes);
    if (!p) {
        return err_set(e, ERR_ENV,
                       "no memory: %zu bytes of activations or KV cache; lower target.kv_tokens, "
                       "target.max_running or target.max_batch_tokens",
                       n * each_bytes);
    }
    memcpy(out, &p, sizeof p);
    return 0;
}

static size_t kv_block_values(const struct phases *p)
{
    const struct arch *a = p->cfg.arch;
    return (size_t)a->n_kv_heads * attention_block_values(a->head_dim);
}

static int take_buffers(struct phases *p, struct err *e)
{
    const struct arch *a = p->cfg.arch;
    const size_t n = p->cfg.max_tokens, rows = p->cfg.max_rows, f = sizeof(float);
    const size_t n_layers = (size_t)p->cfg.weights->n_layers;
    if (take(&p->x, n * p->ld_hidden, f, e) || take(&p->normed, n * p->ld_hidden, f, e) ||
        take(&p->qkv, n * p->ld_qkv, f, e) || take(&p->attended, n * p->ld_heads, f, e) ||
        take(&p->gate_up, n * p->ld_mlp * 2, f, e) || take(&p->act, n * p->ld_mlp, f, e) ||
        take(&p->narrowed, n, p->narrow_bytes, e) ||
        take(&p->kv, n_layers * p->cfg.n_blocks * kv_block_values(p), f, e) ||
        take(&p->groups, n, sizeof *p->groups, e) ||
        take(&p->sample_tokens, rows, sizeof *p->sample_tokens, e) ||
        take(&p->sample_rows, rows, sizeof *p->sample_rows, e)) {
        return -1;
    }
    // No request reaches further than the context, or than the whole KV pool.
    size_t positions = (size_t)p->cfg.n_blocks * BATCH_KV_BLOCK;
    if (positions > (size_t)a->max_context) {
        positions = (size_t)a->max_context;
    }
    size_t half = (size_t)a->head_dim / 2;
    if (take(&p->cosines, positions * half, f, e) || take(&p->sines, positions * half, f, e)) {
        return -1;
    }
    layers_rope_tables(a, (int)positions, p->cosines, p->sines);
    return 0;
}

static int take_members(struct phases *p, struct err *e)
{
    const size_t rows = p->cfg.max_rows, f = sizeof(float);
    p->members = xcalloc((size_t)p->cfg.n_members, sizeof *p->members);
    p->next = xcalloc((size_t)p->cfg.weights->n_layers, sizeof *p->next);
    for (int i = 0; i < p->cfg.n_members; i++) {
        struct member *m = &p->members[i];
        if (take(&m->normed, SHARED_NORM_ROWS * p->ld_hidden, f, e) ||
            take(&m->narrowed, SHARED_NORM_ROWS, p->narrow_bytes, e) ||
            take(&m->scratch, attention_scratch_values(p->cfg.arch->head_dim), f, e) ||
            take(&m->logits, rows * HEAD_PANELS * MATRIX_PANEL, f, e) ||
            take(&m->best, rows, f, e) || take(&m->ids, rows, sizeof *m->ids, e)) {
            return -1;
        }
    }
    return 0;
}

static size_t narrow_bytes(const struct phases *p)
{
    size_t widest = p->ld_hidden > p->ld_heads ? p->ld_hidden : p->ld_heads;
    widest = widest > p->ld_mlp ? widest : p->ld_mlp;
    const size_t ints = kernels_row_bytes(KERNELS_INT8, (int)widest);
    const size_t words = kernels_row_bytes(KERNELS_BF16, (int)widest);
    return ints > words ? ints : words;
}

int phases_create(struct phases **out, const struct phases_config *cfg, struct err *e)
{
    const struct arch *a = cfg->arch;
    struct phases *p = xcalloc(1, sizeof *p);
    p->cfg = *cfg;
    p->ld_hidden = (size_t)matrix_padded(a->hidden);
    p->ld_qkv = (size_t)matrix_padded((a->n_heads + 2 * a->n_kv_heads) * a->head_dim);
    p->ld_heads = (size_t)matrix_padded(a->n_heads * a->head_dim);
    p->ld_mlp = (size_t)matrix_padded(a->intermediate);
    p->narrow_bytes = narrow_bytes(p);
    p->unit_panels = a->head_dim / greatest_divisor(a->head_dim, MATRIX_PANEL);
    if (take_buffers(p, e) || take_members(p, e)) {
        phases_destroy(p);
        return -1;
    }
    *out = p;
    return 0;
}

void phases_destroy(struct phases *p)
{
    if (!p) {
        return;
    }
    for (int i = 0; p->members && i < p->cfg.n_members; i++) {
        struct member *m = &p->members[i];
        free(m->normed);
        free(m->narrowed);
        free(m->scratch);
        free(m->logits);
        free(m->best);
        free(m->ids);
    }
    void *buffers[] = {p->x,      p->normed, p->qkv,           p->attended,    p->gate_up,
                       p->act,    p->kv,     p->cosines,       p->sines,       p->members,
                       p->groups, p->next,   p->sample_tokens, p->sample_rows, p->narrowed};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        free(buffers[i]);
    }
    free(p);
}

/* --- a batch ---------------------------------------------------------------------------------- */

/* Query heads that share a KV head attend together, as many as one call takes. */
static int heads_at_once(const struct arch *a)
{
    int shared = a->n_heads / a->n_kv_heads;
    return shared < ATTENTION_MAX_QUERIES ? shared : ATTENTION_MAX_QUERIES;
}

static void check_row(const struct phases *p, const struct phases_io *io, uint32_t row)
{
    const struct batch *b = io->batch;
    const struct batch_row *r = &b->rows[row];
    const uint64_t end = (uint64_t)r->pos + r->n_tokens;
    CHECK(r->n_tokens >= 1 && (uint64_t)r->first + r->n_tokens <= b->n_tokens);
    CHECK(end <= (uint64_t)p->cfg.arch->max_context && r->slot < io->tables->n_slots);
    CHECK(end <= (uint64_t)io->tables->n[r->slot] * BATCH_KV_BLOCK);
    for (uint32_t i = 0; i < r->n_blocks; i++) {
        CHECK(b->blocks[r->first_block + i] < p->cfg.n_blocks);
    }
    for (uint32_t i = 0; p->cfg.has_embed && i < r->n_tokens; i++) {
        int32_t id = b->tokens[r->first + i];
        CHECK(id >= 0 && id < p->cfg.arch->vocab);
    }
}

void phases_begin(struct phases *p, const struct phases_io *io)
{
    const struct batch *b = io->batch;
    CHECK(b->n_tokens <= p->cfg.max_tokens && b->n_rows <= p->cfg.max_rows);
    p->io = *io;
    p->n_tokens = (int)b->n_tokens;
    p->n_groups = 0;
    p->n_samples = 0;
    const int at_once = ATTENTION_MAX_QUERIES / heads_at_once(p->cfg.arch);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        check_row(p, io, i);
        int n = (int)r->n_tokens;
        for (int t = 0; t < n; t += at_once) {
            p->groups[p->n_groups++] =
                (struct group){.row = i, .first = t, .n = least(n - t, at_once)};
        }
        if (p->cfg.has_head && (r->flags & BATCH_SAMPLE)) {
            p->sample_rows[p->n_samples] = i;
            p->sample_tokens[p->n_samples++] = r->first + r->n_tokens - 1;
        }
    }
    for (int layer = 0; layer < p->cfg.weights->n_layers; layer++) {
        atomic_store_explicit(&p->next[layer], 0, memory_order_relaxed);
    }
}

/* --- splitting work --------------------------------------------------------------------------- */

struct range {
    int from, to;
};

/* This member's part of 0 .. n - 1. */
static struct range share(const struct walk *w, int n)
{
    int64_t members = w->p->cfg.n_members;
    return (struct range){(int)(n * (int64_t)w->member / members),
                          (int)(n * ((int64_t)w->member + 1) / members)};
}

static void meet(const struct walk *w)
{
    if (w->p->cfg.n_members > 1) {
        pool_barrier(w->pool);
    }
}

/*
 * Normalised hidden states of `n` tokens (all, or those in `tokens`), row by row. Few of them every
 * member makes for itself; many are shared out, for one more barrier.
 */
static const float *normalise(const struct walk *w, const float *weight, const uint32_t *tokens,
                              int n)
{
    struct phases *p = w->p;
    bool own = p->cfg.n_members > 1 && n <= SHARED_NORM_ROWS;
    float *out = own ? p->members[w->member].normed : p->normed;
    struct range r = own ? (struct range){0, n} : share(w, n);
    for (int i = r.from; i < r.to; i++) {
        size_t token = tokens ? tokens[i] : (size_t)i;
        p->cfg.kernels->rmsnorm(out + (size_t)i * p->ld_hidden, p->x + token * p->ld_hidden, weight,
                                p->cfg.arch->hidden, p->cfg.arch->rms_eps);
    }
    if (!own) {
        meet(w);
    }
    return out;
}

/* Rows (n, m->n_cols) in the form that products with `m` take: as they are, or narrowed likewise. */
static struct kernels_rows inputs(const struct walk *w, const struct matrix *m, const float *x,
                                  size_t ldx, int n)
{
    struct phases *p = w->p;
    const enum kernels_input form = kernels_form(p->cfg.kernels, m->dtype);
    if (form == KERNELS_F32) {
        return (struct kernels_rows){form, x, ldx * sizeof *x};
    }
    bool own = p->cfg.n_members > 1 && n <= SHARED_NORM_ROWS;
    char *out = own ? p->members[w->member].narrowed : p->narrowed;
    const size_t stride = kernels_row_bytes(form, m->n_cols);
    struct range r = own ? (struct range){0, n} : share(w, n);
    for (int i = r.from; i < r.to; i++) {
        p->cfg.kernels->narrow(form, x + (size_t)i * ldx, m->n_cols, out + (size_t)i * stride);
    }
    if (!own) {
        meet(w);
    }
    return (struct kernels_rows){form, out, stride};
}

/* --- the operations --------------------------------------------------------------------------- */

static void begin(void *ctx)
{
    const struct walk *w = ctx;
    struct phases *p = w->p;
    const size_t hidden = (size_t)p->cfg.arch->hidden;
    struct range r = share(w, p->n_tokens);
    for (int i = r.from; i < r.to; i++) {
        float *x = p->x + (size_t)i * p->ld_hidden;
        if (p->cfg.has_embed) {
            matrix_row(&p->cfg.weights->embed, p->io.batch->tokens[i], x);
        } else {
            memcpy(x, p->io.in + (size_t)i * hidden, hidden * sizeof *x);
        }
        memset(x + hidden, 0, (p->ld_hidden - hidden) * sizeof *x);
    }
    meet(w);
}

/* Where a KV head's part of the block of a row's position lies. */
static float *kv_at(const struct phases *p, int layer, const struct batch_row *r, int pos, int head)
{
    const struct kv_tables *t = p->io.tables;
    uint32_t block = t->blocks[(size_t)r->slot * t->max_blocks + (size_t)(pos / BATCH_KV_BLOCK)];
    size_t at = (size_t)layer * p->cfg.n_blocks + block;
    return p->kv + at * kv_block_values(p) +
           (size_t)head * attention_block_values(p->cfg.arch->head_dim);
}

/* Rotate q and k, and put k and v into the cache: heads first .. end - 1 of q, k, v in a row. */
static void place_heads(const struct phases *p, int layer, const struct batch_row *r, uint32_t i,
                        struct range heads)
{
    const struct arch *a = p->cfg.arch;
    const int dim = a->head_dim, pos = (int)(r->pos + i), at = pos % BATCH_KV_BLOCK;
    const size_t angles = (size_t)pos * (size_t)(dim / 2);
    float *row = p->qkv + (size_t)(r->first + i) * p->ld_qkv;
    for (int h = heads.from; h < heads.to; h++) {
        float *v = row + (size_t)h * (size_t)dim;
        int kv_head = (h - a->n_heads) % a->n_kv_heads;
        bool is_query = h < a->n_heads, is_value = h >= a->n_heads + a->n_kv_heads;
        if (!is_value) {
            p->cfg.kernels->rope(v, p->cosines + angles, p->sines + angles, dim / 2);
        }
        if (is_query) {
            continue;
        }
        float *block = kv_at(p, layer, r, pos, kv_head);
        if (is_value) {
            attention_store_value(block, at, dim, v);
        } else {
            attention_store_key(block, at, dim, v);
        }
    }
}

static void attn_in(void *ctx, int layer)
{
    const struct walk *w = ctx;
    struct phases *p = w->p;
    const struct arch *a = p->cfg.arch;
    const struct packed_layer *weights = &p->cfg.weights->layers[layer];
    const float *x = normalise(w, weights->attn_norm, NULL, p->n_tokens);
    const int n_panels = weights->qkv.n_panels, n_heads = a->n_heads + 2 * a->n_kv_heads;
    struct range units = share(w, (n_panels + p->unit_panels - 1) / p->unit_panels);
    const int first = units.from * p->unit_panels;
    const int end = least(units.to * p->unit_panels, n_panels);
    const struct kernels_rows in = inputs(w, &weights->qkv, x, p->ld_hidden, p->n_tokens);
    kernels_matmul(p->cfg.kernels, &weights->qkv, first, end, &in, p->n_tokens,
                   p->qkv + (size_t)first * MATRIX_PANEL, p->ld_qkv, KERNELS_SET);
    const int unit_heads = p->unit_panels * MATRIX_PANEL / a->head_dim;
    const struct range heads = {least(units.from * unit_heads, n_heads),
                                least(units.to * unit_heads, n_heads)};
    for (uint32_t i = 0; i < p->io.batch->n_rows; i++) {
        const struct batch_row *r = &p->io.batch->rows[i];
        for (uint32_t t = 0; t < r->n_tokens; t++) {
            place_heads(p, layer, r, t, heads);
        }
    }
    meet(w);
}

/* Unit `unit` of a layer's attention: a group of tokens and the query heads of one KV head, or as many
 * of them as one call takes. False past the last one. */
static bool attention_unit(const struct phases *p, int layer, float scale, int unit,
                           struct attention *task)
{
    const struct arch *a = p->cfg.arch;
    const struct kv_tables *t = p->io.tables;
    const int shared = a->n_heads / a->n_kv_heads, at_once = heads_at_once(a);
    const int n_slices = (shared + at_once - 1) / at_once, per_group = a->n_kv_heads * n_slices;
    if (unit >= p->n_groups * per_group) {
        return false;
    }
    const struct group *g = &p->groups[unit / per_group];
    const struct batch_row *r = &p->io.batch->rows[g->row];
    const int kv_head = unit % per_group / n_slices, in_head = unit % n_slices * at_once;
    const size_t token = r->first + (size_t)g->first;
    const size_t column = (size_t)(kv_head * shared + in_head) * (size_t)a->head_dim;
    *task = (struct attention){
        .n_tokens = g->n,
        .n_heads = least(shared - in_head, at_once),
        .head_dim = a->head_dim,
        .pos = (int)r->pos + g->first,
        .scale = scale,
        .q = p->qkv + token * p->ld_qkv + column,
        .q_ld = p->ld_qkv,
        .out = p->attended + token * p->ld_heads + column,
        .out_ld = p->ld_heads,
        .blocks = t->blocks + (size_t)r->slot * t->max_blocks,
        .kv = p->kv + (size_t)layer * p->cfg.n_blocks * kv_block_values(p) +
              (size_t)kv_head * attention_block_values(a->head_dim),
        .block_values = kv_block_values(p),
    };
    return true;
}

static void attend(void *ctx, int layer, float scale)
{
    const struct walk *w = ctx;
    struct phases *p = w->p;
    struct attention task, next;
    // Handed out one by one: contexts differ, and a member's core may be shared.
    for (;;) {
        int unit = atomic_fetch_add_explicit(&p->next[layer], 1, memory_order_relaxed);
        if (!attention_unit(p, layer, scale, unit, &task)) {
            break;
        }
        bool more = attention_unit(p, layer, scale, unit + p->cfg.n_members, &next);
        attention_run(p->cfg.kernels, &task, more ? &next : NULL, p->members[w->member].scratch);
    }
    meet(w);
}

/* x += y . w^T, split by panels. */
static void add_product(const struct walk *w, const struct matrix *m, const float *y, size_t ldy)
{
    struct phases *p = w->p;
    struct range r = share(w, m->n_panels);
    const struct kernels_rows in = inputs(w, m, y, ldy, p->n_tokens);
    kernels_matmul(p->cfg.kernels, m, r.from, r.to, &in, p->n_tokens,
                   p->x + (size_t)r.from * MATRIX_PANEL, p->ld_hidden, KERNELS_ADD);
    meet(w);
}

static void attn_out(void *ctx, int layer)
{
    const struct walk *w = ctx;
    add_product(w, &w->p->cfg.weights->layers[layer].o, w->p->attended, w->p->ld_heads);
}

static void mlp_in(void *ctx, int layer)
{
    const struct walk *w = ctx;
    struct phases *p = w->p;
    const struct packed_layer *weights = &p->cfg.weights->layers[layer];
    const float *x = normalise(w, weights->mlp_norm, NULL, p->n_tokens);
    struct range r = share(w, weights->gate_up.n_panels / 2);
    const size_t column = (size_t)r.from * MATRIX_PANEL;
    const struct kernels_rows in = inputs(w, &weights->gate_up, x, p->ld_hidden, p->n_tokens);
    kernels_matmul(p->cfg.kernels, &weights->gate_up, 2 * r.from, 2 * r.to, &in, p->n_tokens,
                   p->gate_up + 2 * column, 2 * p->ld_mlp, KERNELS_SET);
    for (int i = 0; i < p->n_tokens; i++) {
        size_t at = (size_t)i * p->ld_mlp + column;
        p->cfg.kernels->gate(ARCH_SILU, p->act + at, p->gate_up + 2 * at, r.to - r.from);
    }
    meet(w);
}

static void mlp_out(void *ctx, int layer)
{
    const struct walk *w = ctx;
    add_product(w, &w->p->cfg.weights->layers[layer].down, w->p->act, w->p->ld_mlp);
}

static void end(void *ctx)
{
    const struct walk *w = ctx;
    struct phases *p = w->p;
    const size_t hidden = (size_t)p->cfg.arch->hidden;
    struct range r = share(w, p->n_tokens);
    for (int i = r.from; i < r.to; i++) {
        memcpy(p->io.out + (size_t)i * hidden, p->x + (size_t)i * p->ld_hidden,
               hidden * sizeof *p->x);
    }
    meet(w);
}

/* --- logits and greedy ids -------------------------------------------------------------------- */

/* Look for a value above the best so far; the first of equals stays. */
static void look(const struct kernels *k, const float *logits, int n, int first_id, float *best,
                 int32_t *id)
{
    float largest = k->max(logits, n);
    if (!(largest > *best)) {
        return;
    }
    int i = 0;
    while (logits[i] != largest && i < n - 1) {
        i++;
    }
    *best = largest;
    *id = first_id + i;
}

static void head_panels(const struct walk *w, const struct kernels_rows *x, int first, int end)
{
    struct phases *p = w->p;
    const struct matrix *m = packed_head(p->cfg.weights);
    const struct member *me = &p->members[w->member];
    const size_t ld = HEAD_PANELS * MATRIX_PANEL, vocab = (size_t)p->cfg.arch->vocab;
    kernels_matmul(p->cfg.kernels, m, first, end, x, p->n_samples, me->logits, ld, KERNELS_SET);
    const int first_id = first * MATRIX_PANEL;
    const int n = least((end - first) * MATRIX_PANEL, m->n_rows - first_id);
    for (size_t i = 0; i < (size_t)p->n_samples; i++) {
        const float *logits = me->logits + i * ld;
        look(p->cfg.kernels, logits, n, first_id, &me->best[i], &me->ids[i]);
        if (p->io.logits) {
            memcpy(p->io.logits + i * vocab + (size_t)first_id, logits, (size_t)n * sizeof *logits);
        }
    }
}

/* Members hold ascending ranges of ids, so the first of equals is the lowest id. */
static void merge_ids(const struct phases *p)
{
    for (uint32_t i = 0; i < p->io.batch->n_rows; i++) {
        p->io.ids[i] = -1;
    }
    for (int i = 0; i < p->n_samples; i++) {
        float best = -FLT_MAX;
        int32_t id = 0;
        for (int m = 0; m < p->cfg.n_members; m++) {
            if (p->members[m].best[i] > best) {
                best = p->members[m].best[i];
                id = p->members[m].ids[i];
            }
        }
        p->io.ids[p->sample_rows[i]] = id;
    }
}

static void head(void *ctx)
{
    const struct walk *w = ctx;
    struct phases *p = w->p;
    const struct member *me = &p->members[w->member];
    const float *x = normalise(w, p->cfg.weights->norm, p->sample_tokens, p->n_samples);
    for (int i = 0; i < p->n_samples; i++) {
        me->best[i] = -FLT_MAX;
        me->ids[i] = 0;
    }
    const struct kernels_rows in =
        inputs(w, packed_head(p->cfg.weights), x, p->ld_hidden, p->n_samples);
    struct range r = share(w, packed_head(p->cfg.weights)->n_panels);
    for (int panel = r.from; panel < r.to && p->n_samples > 0; panel += HEAD_PANELS) {
        head_panels(w, &in, panel, least(panel + HEAD_PANELS, r.to));
    }
    meet(w);
    if (w->member == 0) {
        merge_ids(p);
    }
    meet(w);
}

void phases_run(struct phases *p, struct pool *pool, int member)
{
    static const struct layers_ops ops = {
        .begin = begin,
        .attn_in = attn_in,
        .attend = attend,
        .attn_out = attn_out,
        .mlp_in = mlp_in,
        .mlp_out = mlp_out,
        .end = end,
        .head = head,
    };
    struct walk w = {.p = p, .pool = pool, .member = member};
    layers_forward(&ops, &w, p->cfg.arch, p->cfg.weights->n_layers, p->cfg.has_head);
}
