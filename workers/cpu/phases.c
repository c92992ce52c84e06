#include "workers/cpu/phases.h"

#include "core/mem.h"
#include "workers/cpu/phases_impl.h"
#include "workers/weights/bf16.h"

#include <stdlib.h>
#include <string.h>

/* --- set-up ----------------------------------------------------------------------------------- */

static int least(int a, int b)
{
    return a < b ? a : b;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static int greatest_divisor(int a, int b)
{
    return b == 0 ? a : greatest_divisor(b, a % b);
}

static int take(void *out, size_t n, size_t each_bytes, struct err *e)
{
    if (n == 0) {
        return 0;
    }
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

static size_t padded(int n)
{
    return (size_t)matrix_padded(n);
}

/* Rows that stand apart in the caches. */
static size_t apart(int n)
{
    return (size_t)kernels_ld(n);
}

static struct phases_widths widths(const struct arch *a, const struct packed *weights)
{
    struct phases_widths ld = {.hidden = apart(a->hidden), .experts = padded(a->moe.n_experts)};
    for (int i = 0; i < weights->n_layers; i++) {
        const struct packed_layer *l = &weights->layers[i];
        ld.mlp = most(ld.mlp, apart(l->down.n_cols));
        ld.gate_up = most(ld.gate_up, apart(2 * matrix_padded(l->down.n_cols)));
        ld.expert = most(ld.expert, l->experts.down ? padded(l->experts.down[0].n_cols) : 0);
    }
    if (arch_is_latent(a)) {
        const size_t r = padded(a->latent.kv_rank), n = (size_t)a->n_heads;
        ld.qkv = padded(a->n_heads * a->head_dim);
        ld.latent = padded(a->latent.q_rank) + padded((int)r + a->rope_dim);
        ld.absorbed = n * padded((int)r + a->rope_dim);
        ld.attended = n * r;
        ld.heads = n * padded(a->v_dim);
    } else {
        ld.qkv = apart(a->n_heads * a->head_dim + a->n_kv_heads * (a->head_dim + a->v_dim));
        ld.attended = apart(a->n_heads * a->v_dim);
    }
    return ld;
}

static int take_activations(struct phases *p, struct err *e)
{
    const struct phases_widths *ld = &p->ld;
    const size_t n = p->cfg.max_tokens, rows = p->cfg.max_rows, f = sizeof(float);
    const struct {
        float **out;
        size_t width;
    } floats[] = {
        {&p->x, ld->hidden},          {&p->branch, ld->hidden}, {&p->normed, ld->hidden},
        {&p->qkv, ld->qkv},           {&p->latent, ld->latent}, {&p->absorbed, ld->absorbed},
        {&p->attended, ld->attended}, {&p->heads, ld->heads},   {&p->gate_up, ld->gate_up},
        {&p->act, ld->mlp},
    };
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        if (take(floats[i].out, n * floats[i].width, f, e)) {
            return -1;
        }
    }
    return take(&p->groups, n, sizeof *p->groups, e) ||
                   take(&p->sample_tokens, rows, sizeof *p->sample_tokens, e) ||
                   take(&p->sample_rows, rows, sizeof *p->sample_rows, e)
               ? -1
               : 0;
}

static size_t narrow_row_bytes(size_t n_floats)
{
    return most(kernels_row_bytes(KERNELS_INT8, (int)n_floats),
                kernels_row_bytes(KERNELS_BF16, (int)n_floats));
}

static int take_narrowed(struct phases *p, struct err *e)
{
    const struct phases_widths *ld = &p->ld;
    const size_t n = p->cfg.max_tokens, slots = n * (size_t)p->cfg.arch->moe.top_k;
    const size_t outputs = ld->heads ? ld->heads : ld->attended; // of attention, by heads
    const size_t widest = most(most(ld->hidden, outputs), most(ld->mlp, ld->latent));
    const size_t row = narrow_row_bytes(widest), of_expert = narrow_row_bytes(ld->expert);
    p->narrow_bytes = most(row, of_expert);
    return take(&p->narrowed, most(n * row, slots * of_expert), 1, e);
}

static int take_routes(struct phases *p, struct err *e)
{
    const struct arch *a = p->cfg.arch;
    const size_t n = p->cfg.max_tokens, slots = n * (size_t)a->moe.top_k, i = sizeof(int);
    const size_t n_experts = (size_t)a->moe.n_experts;
    if (n_experts == 0) {
        return 0;
    }
    return take(&p->router_logits, n * p->ld.experts, sizeof(float), e) ||
                   take(&p->chosen, slots, i, e) || take(&p->weights, slots, sizeof(float), e) ||
                   take(&p->sorted, slots, i, e) || take(&p->expert_first, n_experts + 1, i, e) ||
                   take(&p->busy, n_experts, i, e) ||
                   take(&p->expert_act, slots * p->ld.expert, sizeof(float), e)
               ? -1
               : 0;
}

/* Room for what the ranks of a group have of hidden states on their way. */
static int take_arrived(struct phases *p, struct err *e)
{
    const size_t n = (size_t)p->shard.size;
    const struct shard_slice s = shard_hidden(p->cfg.arch, p->cfg.max_tokens, 0, p->shard.size);
    return n > 1 && !p->cfg.part.has_embed ? take(&p->arrived, n, s.each_bytes, e) : 0;
}

/* Room for what the ranks of a group find in their parts of the vocabulary. */
static int take_found(struct phases *p, struct err *e)
{
    const size_t n = (size_t)p->shard.size, rows = p->cfg.max_rows;
    const size_t part = rows * (size_t)shard_most_vocab(p->cfg.arch, p->shard.size);
    if (take(&p->mine, rows, sizeof *p->mine, e)) {
        return -1;
    }
    if (n == 1 || !p->cfg.part.has_head) {
        return 0;
    }
    return take(&p->part_logits, part, sizeof(float), e) ||
                   take(&p->all_logits, n * part, sizeof(float), e) ||
                   take(&p->all, n * rows, sizeof *p->all, e)
               ? -1
               : 0;
}

static int take_cache(struct phases *p, struct err *e)
{
    const struct arch *a = p->cfg.arch;
    const int n_kv_heads = arch_is_latent(a) ? 1 : a->n_kv_heads;
    if (cache_init_for(&p->cache, a, p->cfg.kv_dtype, e)) {
        return -1;
    }
    p->kv_bytes = (size_t)n_kv_heads * p->cache.block_bytes;
    const size_t n_blocks = (size_t)p->cfg.part.n_layers * p->cfg.n_blocks;
    // No request reaches further than the context, or than the whole KV pool.
    size_t positions = (size_t)p->cfg.n_blocks * BATCH_KV_BLOCK, half = (size_t)a->rope_dim / 2;
    if (positions > (size_t)a->max_context) {
        positions = (size_t)a->max_context;
    }
    if (take(&p->kv, n_blocks * p->kv_bytes, 1, e) ||
        take(&p->cosines, positions * half, sizeof(float), e) ||
        take(&p->sines, positions * half, sizeof(float), e)) {
        return -1;
    }
    layers_rope_tables(a, (int)positions, p->cosines, p->sines);
    return 0;
}

static int take_members(struct phases *p, struct err *e)
{
    const size_t rows = p->cfg.max_rows, f = sizeof(float);
    const bool moe = p->cfg.arch->moe.n_experts > 0;
    const size_t gathered = moe ? PHASES_EXPERT_ROWS * p->ld.hidden * f : 0; // in any form
    const size_t made = moe ? PHASES_EXPERT_ROWS * PHASES_EXPERT_PANELS * MATRIX_PANEL : 0;
    p->members = xcalloc((size_t)p->cfg.n_members, sizeof *p->members);
    p->next = xcalloc((size_t)p->cfg.part.n_layers * PHASES_COUNTERS, sizeof *p->next);
    for (int i = 0; i < p->cfg.n_members; i++) {
        struct phases_member *m = &p->members[i];
        if (take(&m->normed, PHASES_SHARED_ROWS * p->ld.hidden, f, e) ||
            take(&m->narrowed, PHASES_SHARED_ROWS, p->narrow_bytes, e) ||
            take(&m->scratch, attention_scratch_values(&p->cache), f, e) ||
            take(&m->logits, rows * PHASES_HEAD_PANELS * MATRIX_PANEL, f, e) ||
            take(&m->best, rows, f, e) || take(&m->ids, rows, sizeof *m->ids, e) ||
            take(&m->gathered, gathered, 1, e) || take(&m->made, made, f, e)) {
            return -1;
        }
    }
    return 0;
}

int phases_create(struct phases **out, const struct phases_config *cfg, struct err *e)
{
    struct phases *p = xcalloc(1, sizeof *p);
    struct arch *a = &p->arch;
    p->cfg = *cfg;
    CHECK(!(cfg->arch->post_norms && cfg->arch->moe.n_experts > 0)); // no family has both
    if (shard_init(&p->shard, cfg->arch, cfg->group.rank, cfg->group.size, e)) {
        phases_destroy(p);
        return -1;
    }
    *a = *cfg->arch;
    a->n_heads = p->shard.heads.n;
    a->n_kv_heads = p->shard.kv_heads.n;
    p->cfg.arch = a;
    p->ld = widths(a, cfg->weights);
    p->unit_panels = a->head_dim / greatest_divisor(a->head_dim, MATRIX_PANEL);
    if (take_cache(p, e) || take_activations(p, e) || take_arrived(p, e) || take_narrowed(p, e) ||
        take_routes(p, e) || take_members(p, e) || take_found(p, e) ||
        (cfg->part.has_head && phases_head_create(p, e))) {
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
    phases_head_free(p);
    for (int i = 0; p->members && i < p->cfg.n_members; i++) {
        struct phases_member *m = &p->members[i];
        void *own[] = {m->normed, m->scratch,  m->logits, m->best,
                       m->ids,    m->gathered, m->made,   m->narrowed};
        for (size_t k = 0; k < sizeof own / sizeof *own; k++) {
            free(own[k]);
        }
    }
    void *buffers[] = {
        p->x,        p->branch,      p->normed,       p->qkv,           p->latent,
        p->absorbed, p->heads,       p->attended,     p->gate_up,       p->act,
        p->kv,       p->cosines,     p->sines,        p->router_logits, p->chosen,
        p->weights,  p->sorted,      p->expert_first, p->busy,          p->expert_act,
        p->narrowed, p->part_logits, p->all_logits,   p->mine,          p->arrived,
        p->all,      p->members,     p->next,         p->sample_tokens, p->sample_rows,
        p->groups};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        free(buffers[i]);
    }
    free(p);
}

/* --- a batch ---------------------------------------------------------------------------------- */

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
    for (uint32_t i = 0; p->cfg.part.has_embed && i < r->n_tokens; i++) {
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
    const int at_once = ATTENTION_MAX_QUERIES / phases_attn_heads(p->cfg.arch);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        check_row(p, io, i);
        int n = (int)r->n_tokens;
        for (int t = 0; t < n; t += at_once) {
            p->groups[p->n_groups++] =
                (struct phases_group){.row = i, .first = t, .n = least(n - t, at_once)};
        }
        if (p->cfg.part.has_head && (r->flags & BATCH_SAMPLE)) {
            p->sample_rows[p->n_samples] = i;
            p->sample_tokens[p->n_samples++] = r->first + r->n_tokens - 1;
        }
    }
    if (p->cfg.part.has_head) {
        phases_head_begin(p);
    }
    for (int i = 0; i < p->cfg.part.n_layers * PHASES_COUNTERS; i++) {
        atomic_store_explicit(&p->next[i], 0, memory_order_relaxed);
    }
}

/* --- what the operations have in common ------------------------------------------------------- */

struct phases_range phases_impl_share(const struct phases_walk *w, int n)
{
    int64_t members = w->p->cfg.n_members;
    return (struct phases_range){(int)(n * (int64_t)w->member / members),
                                 (int)(n * ((int64_t)w->member + 1) / members)};
}

void phases_impl_meet(const struct phases_walk *w)
{
    if (w->p->cfg.n_members > 1) {
        pool_barrier(w->pool);
    }
}

int phases_impl_next(const struct phases_walk *w, int layer, enum phases_counter counter)
{
    return atomic_fetch_add_explicit(&w->p->next[layer * PHASES_COUNTERS + (int)counter], 1,
                                     memory_order_relaxed);
}

struct kernels_norm phases_impl_norm(const struct phases *p, const float *w)
{
    const struct arch *a = p->cfg.arch;
    return (struct kernels_norm){.w = w, .eps = a->rms_eps, .rounds = a->norm_rounds};
}

static void norm_rows(const struct phases *p, float *out, const float *weight,
                      const uint32_t *tokens, struct phases_range r)
{
    const struct kernels_norm norm = phases_impl_norm(p, weight);
    for (int i = r.from; i < r.to; i++) {
        size_t token = tokens ? tokens[i] : (size_t)i;
        p->cfg.kernels->rmsnorm(out + (size_t)i * p->ld.hidden, p->x + token * p->ld.hidden, &norm,
                                p->cfg.arch->hidden);
    }
}

const float *phases_impl_normed(const struct phases_walk *w, const float *weight,
                                const uint32_t *tokens, int n)
{
    struct phases *p = w->p;
    if (p->cfg.n_members > 1 && n <= PHASES_SHARED_ROWS) {
        float *own = p->members[w->member].normed;
        norm_rows(p, own, weight, tokens, (struct phases_range){0, n});
        return own;
    }
    norm_rows(p, p->normed, weight, tokens, phases_impl_share(w, n));
    phases_impl_meet(w);
    return p->normed;
}

void phases_impl_norm_all(const struct phases_walk *w, const float *weight)
{
    norm_rows(w->p, w->p->normed, weight, NULL, phases_impl_share(w, w->p->n_tokens));
    phases_impl_meet(w);
}

struct kernels_rows phases_impl_input(const struct phases_walk *w, const struct matrix *m,
                                      const float *x, size_t ld, int n)
{
    struct phases *p = w->p;
    const enum kernels_input form = kernels_form(p->cfg.kernels, m->dtype);
    if (form == KERNELS_F32) {
        return (struct kernels_rows){form, x, ld * sizeof *x};
    }
    const bool own = p->cfg.n_members > 1 && n <= PHASES_SHARED_ROWS;
    char *out = own ? p->members[w->member].narrowed : p->narrowed;
    const size_t stride = kernels_row_bytes(form, m->n_cols);
    const struct phases_range r = own ? (struct phases_range){0, n} : phases_impl_share(w, n);
    for (int i = r.from; i < r.to; i++) {
        p->cfg.kernels->narrow(form, x + (size_t)i * ld, m->n_cols, out + (size_t)i * stride);
    }
    if (!own) {
        phases_impl_meet(w);
    }
    return (struct kernels_rows){form, out, stride};
}

void phases_impl_product(const struct phases *p, const struct matrix *w, struct phases_range panels,
                         const struct kernels_rows *x, int m, const float *bias, float *y,
                         size_t ldy)
{
    const size_t first = (size_t)panels.from * MATRIX_PANEL;
    const size_t n = (size_t)(panels.to - panels.from) * MATRIX_PANEL;
    for (size_t i = 0; bias && i < (size_t)m; i++) {
        memcpy(y + i * ldy + first, bias + first, n * sizeof *y);
    }
    kernels_matmul(p->cfg.kernels, w, panels.from, panels.to, x, m, y + first, ldy,
                   bias ? KERNELS_ADD : KERNELS_SET);
}

static void add_bias(const struct phases *p, float *to, const float *bias,
                     struct phases_range panels)
{
    const size_t first = (size_t)panels.from * MATRIX_PANEL;
    const size_t end = (size_t)panels.to * MATRIX_PANEL;
    for (size_t i = 0; i < (size_t)p->n_tokens; i++) {
        float *x = to + i * p->ld.hidden;
        for (size_t k = first; k < end; k++) {
            x[k] += bias[k];
        }
    }
}

bool phases_impl_apart(const struct phases *p, const float *norm)
{
    return norm || p->shard.size > 1;
}

/* One member puts the ranks' x (n_tokens, ld.hidden) together, the others wait. */
static void sum_ranks(const struct phases_walk *w, float *x)
{
    const struct phases *p = w->p;
    if (p->shard.size == 1) {
        return;
    }
    if (w->member == 0) {
        p->cfg.group.sum(p->cfg.group.ctx, x, (size_t)p->n_tokens * p->ld.hidden);
    }
    phases_impl_meet(w);
}

bool phases_impl_rounds(const struct phases *p)
{
    return arch_carried(p->cfg.arch) != ARCH_F32;
}

void phases_impl_round(const struct phases *p, struct phases_range panels)
{
    const size_t first = (size_t)panels.from * MATRIX_PANEL;
    const int n = (panels.to - panels.from) * MATRIX_PANEL;
    for (size_t i = 0; phases_impl_rounds(p) && i < (size_t)p->n_tokens; i++) {
        p->cfg.kernels->round(p->x + i * p->ld.hidden + first, n);
    }
}

void phases_impl_add_branch(const struct phases_walk *w, const float *norm, bool is_last)
{
    const struct phases *p = w->p;
    const struct kernels_norm how = phases_impl_norm(p, norm);
    phases_impl_meet(w);
    sum_ranks(w, p->branch);
    const struct phases_range r = phases_impl_share(w, p->n_tokens);
    for (int i = r.from; i < r.to; i++) {
        float *branch = p->branch + (size_t)i * p->ld.hidden, *x = p->x + (size_t)i * p->ld.hidden;
        if (norm) {
            p->cfg.kernels->rmsnorm(branch, branch, &how, p->cfg.arch->hidden);
        }
        for (size_t k = 0; k < p->ld.hidden; k++) {
            x[k] += branch[k];
        }
        if (is_last && phases_impl_rounds(p)) {
            p->cfg.kernels->round(x, (int)p->ld.hidden);
        }
    }
}

void phases_impl_residual(const struct phases_walk *w, const struct phases_residual *r,
                          const float *y, size_t ldy)
{
    struct phases *p = w->p;
    const struct kernels_rows rows = phases_impl_input(w, r->m, y, ldy, p->n_tokens);
    const struct phases_range panels = phases_impl_share(w, r->m->n_panels);
    const bool apart = phases_impl_apart(p, r->norm);
    float *to = (apart ? p->branch : p->x) + (size_t)panels.from * MATRIX_PANEL;
    kernels_matmul(p->cfg.kernels, r->m, panels.from, panels.to, &rows, p->n_tokens, to,
                   p->ld.hidden, apart && !r->onto ? KERNELS_SET : KERNELS_ADD);
    if (r->bias) {
        add_bias(p, apart ? p->branch : p->x, r->bias, panels);
    }
    if (apart) {
        phases_impl_add_branch(w, r->norm, r->is_last);
    } else if (r->is_last) {
        phases_impl_round(p, panels);
    }
    phases_impl_meet(w);
}

/* --- the ends of a stage ---------------------------------------------------------------------- */

/* A token's embedding; zeros where another rank has it. */
static void embed(const struct phases *p, int32_t id, float *x)
{
    const struct shard_span vocab = p->shard.vocab;
    const size_t hidden = (size_t)p->cfg.arch->hidden;
    if (id < vocab.first || id >= vocab.first + vocab.n) {
        memset(x, 0, hidden * sizeof *x);
        return;
    }
    const float scale = p->cfg.arch->embed_scale;
    matrix_row(&p->cfg.weights->embed, id - vocab.first, x);
    for (size_t k = 0; scale != 1 && k < hidden; k++) {
        x[k] *= scale;
    }
}

static struct shard_slice slice_of(const struct phases *p)
{
    return shard_hidden(p->cfg.arch, (size_t)p->n_tokens, p->shard.rank, p->shard.size);
}

/* The ranks' parts of what has arrived are put together by one member, the others wait. */
static void gather_in(const struct phases_walk *w)
{
    const struct phases *p = w->p;
    if (w->member == 0) {
        p->cfg.group.gather(p->cfg.group.ctx, p->io.in, slice_of(p).each_bytes, p->arrived);
    }
    phases_impl_meet(w);
}

/* A token's hidden state as it travels: float32 or bfloat16, whose values it has by now. */
static void take_in(const struct phases *p, size_t token, float *x)
{
    const size_t hidden = (size_t)p->cfg.arch->hidden;
    const char *all = p->arrived ? p->arrived : p->io.in;
    const char *in = all + arch_carried_bytes(p->cfg.arch, token);
    if (!phases_impl_rounds(p)) {
        memcpy(x, in, hidden * sizeof *x);
        return;
    }
    const uint16_t *halves = (const uint16_t *)(const void *)in;
    for (size_t k = 0; k < hidden; k++) {
        x[k] = bf16_to_f32(halves[k]);
    }
}

/* What of a token is in this rank's part. */
static void give_out(const struct phases *p, size_t token, const float *x)
{
    const struct shard_slice s = slice_of(p);
    const size_t hidden = (size_t)p->cfg.arch->hidden, at = token * hidden;
    const size_t from = most(at, s.first), end = s.first + s.n;
    const size_t to = at + hidden < end ? at + hidden : end;
    if (from >= to) {
        return;
    }
    if (!phases_impl_rounds(p)) {
        memcpy((float *)p->io.out + (from - s.first), x + (from - at), (to - from) * sizeof *x);
        return;
    }
    uint16_t *halves = p->io.out;
    for (size_t k = from; k < to; k++) {
        halves[k - s.first] = bf16_from_f32(x[k - at]);
    }
}

static void begin(void *ctx)
{
    const struct phases_walk *w = ctx;
    struct phases *p = w->p;
    const size_t hidden = (size_t)p->cfg.arch->hidden;
    const struct phases_range r = phases_impl_share(w, p->n_tokens);
    if (p->arrived) {
        gather_in(w);
    }
    for (int i = r.from; i < r.to; i++) {
        float *x = p->x + (size_t)i * p->ld.hidden;
        if (p->cfg.part.has_embed) {
            embed(p, p->io.batch->tokens[i], x);
        } else {
            take_in(p, (size_t)i, x);
        }
        memset(x + hidden, 0, (p->ld.hidden - hidden) * sizeof *x);
    }
    phases_impl_meet(w);
    if (p->cfg.part.has_embed) {
        sum_ranks(w, p->x);
    }
}

static void end(void *ctx)
{
    const struct phases_walk *w = ctx;
    const struct phases *p = w->p;
    const struct phases_range r = phases_impl_share(w, p->n_tokens);
    for (int i = r.from; i < r.to; i++) {
        give_out(p, (size_t)i, p->x + (size_t)i * p->ld.hidden);
    }
    phases_impl_meet(w);
}

double phases_kv_bytes_per_token(const struct phases *p)
{
    return (double)p->kv_bytes * p->cfg.part.n_layers / BATCH_KV_BLOCK;
}

void phases_run(struct phases *p, struct pool *pool, int member)
{
    static const struct layers_ops ops = {
        .begin = begin,
        .attn_in = phases_attn_in,
        .attend = phases_attn_attend,
        .attn_out = phases_attn_out,
        .mlp_in = phases_mlp_in,
        .mlp_out = phases_mlp_out,
        .route = phases_moe_route,
        .experts = phases_moe_experts,
        .end = end,
        .head = phases_head,
    };
    struct phases_walk w = {.p = p, .pool = pool, .member = member};
    layers_forward(&ops, &w, p->cfg.arch, &p->cfg.part);
}
