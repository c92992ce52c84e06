/* The forward pass's memory: all of it is taken once, for the largest batch. */
#include "workers/cuda/forward_impl.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* --- widths --------------------------------------------------------------------------------------- */

/* Values per token, or per token and expert; bytes of one where they are a product's input. */
struct widths {
    size_t qkv, q, attended, latents, inner, expert;
    size_t normed_bytes, layer_bytes, head_bytes;
    bool has_branch;
};

static void look_at(struct widths *w, const struct device_matrix *m)
{
    if (m->data && forward_is_wide(m)) {
        w->layer_bytes = sizeof(float);
    }
}

static void look_at_layer(struct widths *w, const struct device_layer *l)
{
    const struct device_matrix *const all[] = {
        &l->qkv, &l->latent.down, &l->latent.queries, &l->latent.keys_up,  &l->latent.values_up,
        &l->o,   &l->gate_up,     &l->down,           &l->experts.gate_up, &l->experts.down,
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        look_at(w, all[i]);
    }
    w->qkv = most(w->qkv, (size_t)(l->qkv.data ? l->qkv.n_rows : l->latent.queries.n_rows));
    w->latents = most(w->latents, (size_t)l->latent.down.n_rows);
    w->inner = most(w->inner, (size_t)l->down.n_cols);
    w->expert = most(w->expert, (size_t)l->experts.down.n_cols);
    w->has_branch = w->has_branch || l->post_attn_norm;
    if (l->experts.router.data) {
        w->normed_bytes = sizeof(float);
    }
}

static struct widths widths_of(const struct forward *f)
{
    const struct device_weights *weights = f->cfg.weights;
    const size_t heads = (size_t)f->arch->n_heads, narrow = sizeof(uint16_t);
    struct widths w = {.normed_bytes = narrow, .layer_bytes = narrow, .head_bytes = narrow};
    for (int i = 0; i < weights->n_layers; i++) {
        look_at_layer(&w, &weights->layers[i]);
    }
    w.q = heads * (size_t)f->layout.key_dim;
    w.has_branch = w.has_branch || forward_is_shared(f);
    w.attended = heads * (size_t)f->layout.value_dim;
    w.normed_bytes = most(w.normed_bytes, w.layer_bytes);
    if (f->cfg.part.has_head && forward_is_wide(&weights->head)) {
        w.head_bytes = sizeof(float);
    }
    return w;
}

/* --- taking --------------------------------------------------------------------------------------- */

struct want {
    void *out; // where the pointer goes
    size_t n, each_bytes;
    const char *what;
};

static int take_all(struct forward *f, const struct want *wants, size_t n, bool on_host,
                    struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct want *w = &wants[i];
        void *p = NULL;
        const size_t bytes = w->n * w->each_bytes;
        if (bytes > 0 && (on_host ? gpu_take_host(f->gpu, bytes, w->what, &p, e)
                                  : gpu_take(f->gpu, bytes, w->what, &p, e))) {
            return -1;
        }
        memcpy(w->out, &p, sizeof p);
    }
    return 0;
}

#define TAKE(f_, wants_, on_host_, e_)                                                             \
    take_all((f_), (wants_), sizeof(wants_) / sizeof *(wants_), (on_host_), (e_))

static int take_layers(struct forward *f, const struct widths *w, struct err *e)
{
    struct forward_room *r = &f->room;
    const struct arch *a = f->arch;
    const size_t n = f->cfg.max_tokens, hidden = (size_t)a->hidden, x = sizeof(float);
    const size_t heads = (size_t)a->n_heads, is_latent = arch_is_latent(a) ? 1 : 0;
    const size_t q_bytes = f->layout.dtype == ARCH_F32 ? sizeof(float) : sizeof(uint16_t);
    const size_t of_head = most((size_t)a->head_dim, (size_t)a->v_dim);
    const char *what = "activations";
    const struct want wants[] = {
        {&r->x, n * hidden, x, what},
        {&r->branch, w->has_branch ? n * hidden : 0, x, what},
        {&r->normed, n * hidden, w->normed_bytes, what},
        {&r->qkv, n * w->qkv, x, what},
        {&r->q, n * w->q, q_bytes, what},
        {&r->attended, n * w->attended, w->layer_bytes, what},
        {&r->latents, n * w->latents, x, what},
        {&r->q_latents, n * (size_t)a->latent.q_rank, w->layer_bytes, what},
        {&r->absorbed, is_latent * n * heads * (size_t)a->latent.kv_rank, x, what},
        {&r->heads, is_latent * n * heads * (size_t)a->v_dim, x, what},
        {&r->narrowed, is_latent * n * heads * of_head, sizeof(uint16_t), what},
        {&r->act, n * w->inner, w->layer_bytes, what},
    };
    return TAKE(f, wants, false, e);
}

static int take_experts(struct forward *f, const struct widths *w, struct err *e)
{
    struct forward_room *r = &f->room;
    const struct arch *a = f->arch;
    const size_t n = f->cfg.max_tokens, experts = (size_t)a->moe.n_experts;
    const size_t slots = experts > 0 ? n * (size_t)a->moe.top_k : 0;
    const bool is_drawn = f->cfg.routing.kind != ROUTER_MODEL;
    const size_t n_drawn = is_drawn ? slots * (size_t)f->cfg.part.n_layers : 0;
    const char *what = "activations of experts";
    const struct want wants[] = {
        {&r->gate_up, most(n * 2 * w->inner, slots * 2 * w->expert), sizeof(float), what},
        {&r->router_logits, n * experts, sizeof(float), what},
        {&r->weights, slots, sizeof(float), what},
        {&r->chosen, slots, sizeof(int32_t), what},
        {&r->first, slots > 0 ? experts + 1 : 0, sizeof(int32_t), what},
        {&r->sorted, slots, sizeof(int32_t), what},
        {&r->expert_act, slots * w->expert, w->layer_bytes, what},
        {&r->made, slots * (size_t)a->hidden, sizeof(float), what},
        {&r->drawn, n_drawn, sizeof(int32_t), what},
    };
    const struct want staged[] = {{&f->staged.drawn, n_drawn, sizeof(int32_t), what}};
    return TAKE(f, wants, false, e) || TAKE(f, staged, true, e) ? -1 : 0;
}

static int take_head(struct forward *f, const struct widths *w, struct err *e)
{
    struct forward_room *r = &f->room;
    const bool has_head = f->cfg.part.has_head;
    const size_t rows = has_head ? f->cfg.max_rows : 0, vocab = (size_t)f->arch->vocab;
    const size_t at_once = rows < FORWARD_HEAD_ROWS ? rows : FORWARD_HEAD_ROWS;
    const size_t banned = rows * FORWARD_BANNED, ranks = (size_t)f->shard.size;
    const size_t part = (size_t)shard_most_vocab(f->arch, f->shard.size);
    const char *what = "logits";
    const struct want wants[] = {
        {&r->sampled, rows, sizeof *r->sampled, what},
        {&r->head_in, at_once * (size_t)f->arch->hidden, w->head_bytes, what},
        {&r->logits, at_once * vocab, sizeof(float), what},
        {&r->part_logits, forward_is_shared(f) ? at_once * part : 0, sizeof(float), what},
        {&r->all_parts, f->cfg.nccl ? ranks * at_once * part : 0, sizeof(float), what},
        {&r->parts, at_once * HEAD_PARTS, sizeof *r->parts, what},
        {&r->found, rows, sizeof *r->found, what},
        {&r->all_found, forward_is_shared(f) ? rows * ranks : 0, sizeof *r->found, what},
        {&r->jobs, rows, sizeof *r->jobs, what},
        {&r->banned, banned, sizeof *r->banned, what},
        {&r->job_weights, at_once * vocab, sizeof(float), what},
        {&r->job_found, rows, sizeof *r->job_found, what},
    };
    struct forward_staged *s = &f->staged;
    const struct want staged[] = {
        {&s->sampled, rows, sizeof *s->sampled, what},
        {&s->found, rows * ranks, sizeof *s->found, what},
        {&s->jobs, rows, sizeof *s->jobs, what},
        {&s->banned, banned, sizeof *s->banned, what},
        {&s->job_found, rows, sizeof *s->job_found, what},
    };
    return TAKE(f, wants, false, e) || TAKE(f, staged, true, e) ? -1 : 0;
}

/* Of hidden states that several ranks get parts of. */
static size_t arrived_bytes(const struct forward *f)
{
    const int size = f->shard.size;
    const size_t each = shard_hidden(f->arch, f->cfg.max_tokens, 0, size).each_bytes;
    return forward_is_shared(f) && !f->cfg.part.has_embed ? (size_t)size * each : 0;
}

/* Block tables, angles, and hidden states' way in and out. */
static int take_rest(struct forward *f, struct err *e)
{
    struct forward_room *r = &f->room;
    const struct layers_part *part = &f->cfg.part;
    const size_t half = (size_t)f->arch->rope_dim / 2, angles = f->positions * half;
    const bool travel = !part->has_embed || !part->has_head,
               is_wide = arch_carried(f->arch) == ARCH_F32;
    const size_t carried = travel ? arch_carried_bytes(f->arch, f->cfg.max_tokens) : 0;
    const size_t tables = (size_t)f->cfg.n_slots * f->cfg.slot_blocks;
    const struct want wants[] = {
        {&r->arrived, arrived_bytes(f), 1, "hidden states"},
        {&r->tables, tables, sizeof *r->tables, "block tables"},
        {&r->entries, f->max_entries, sizeof *r->entries, "block tables"},
        {&r->cosines, angles, sizeof(float), "rotary angles"},
        {&r->sines, angles, sizeof(float), "rotary angles"},
        {&r->partials, f->mixed.limits.partials_bytes, 1, "attention"},
        {&r->carried, is_wide ? 0 : carried, 1, "hidden states"},
    };
    const struct want staged[] = {
        {&f->staged.entries, f->max_entries, sizeof *r->entries, "block tables"},
        {&f->staged.hidden, carried, 1, "hidden states"},
    };
    return TAKE(f, wants, false, e) || TAKE(f, staged, true, e) ? -1 : 0;
}

static int fill_angles(struct forward *f, struct err *e)
{
    const size_t n = f->positions * ((size_t)f->arch->rope_dim / 2), bytes = n * sizeof(float);
    void *host;
    if (gpu_take_host(f->gpu, 2 * bytes, "rotary angles", &host, e)) {
        return -1;
    }
    float *cosines = host, *sines = cosines + n;
    layers_rope_tables(f->arch, (int)f->positions, cosines, sines);
    if (gpu_copy_in(f->gpu, f->room.cosines, cosines, bytes, e) ||
        gpu_copy_in(f->gpu, f->room.sines, sines, bytes, e) ||
        gpu_wait(f->gpu, clock_local_ns() + FORWARD_SETUP_NS, e)) {
        return -1;
    }
    gpu_give_host(f->gpu, host);
    return 0;
}

int forward_room_take(struct forward *f, struct err *e)
{
    const struct widths w = widths_of(f);
    if (take_layers(f, &w, e) || take_experts(f, &w, e) || take_head(f, &w, e) || take_rest(f, e) ||
        fill_angles(f, e)) {
        return -1;
    }
    // Rows that fill a graph up, and a batch before ranks have met, read what nobody wrote: it shall be numbers.
    const struct forward_room *r = &f->room;
    const size_t n = f->cfg.max_tokens;
    return (r->arrived && gpu_clear(f->gpu, r->arrived, arrived_bytes(f), e)) ||
                   gpu_clear(f->gpu, r->attended, n * w.attended * w.layer_bytes, e) ||
                   gpu_clear(f->gpu, r->tables,
                             (size_t)f->cfg.n_slots * f->cfg.slot_blocks * sizeof *r->tables, e)
               ? -1
               : 0;
}

int forward_room_take_logits(struct forward *f, struct err *e)
{
    const size_t rows = f->cfg.max_rows < FORWARD_HEAD_ROWS ? f->cfg.max_rows : FORWARD_HEAD_ROWS;
    void *p;
    if (f->staged.logits) {
        return 0;
    }
    if (gpu_take_host(f->gpu, rows * (size_t)f->arch->vocab * sizeof(float), "logits", &p, e)) {
        return -1;
    }
    f->staged.logits = p;
    return 0;
}
