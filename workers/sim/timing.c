#include "workers/sim/timing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/mem.h"
#include "model/sizes.h"
#include "workers/backend.h"
#include "workers/kv.h"

enum {
    PROMPT = 256,   // tokens of a batch that is bound by arithmetic
    CONTEXT = 1024, // positions before it, where the model has so many
    ROWS = 64,      // sampled at once
    ROUNDS = 7,     // of which the median counts
};

/* A layer in a backend of its own, with or without the ends of the model. */
struct part {
    const struct timing_config *cfg;
    struct backend *backend;
    struct kv_tables tables;
    struct batch *batch;
    float *in, *out; // (PROMPT, hidden)
    int32_t ids[ROWS];
    uint32_t context; // positions that a slot has blocks for
};

static uint32_t slot_blocks(const struct part *p)
{
    return (p->context + PROMPT + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
}

static void close_part(struct part *p)
{
    backend_destroy(p->backend);
    batch_destroy(p->batch);
    kv_tables_free(&p->tables);
    free(p->in);
    free(p->out);
}

/* All slots share blocks: what they hold does not matter. */
static int fill_tables(struct part *p, struct err *e)
{
    if (kv_tables_init(&p->tables, ROWS, slot_blocks(p), e) != 0) {
        return -1;
    }
    for (uint32_t s = 0; s < ROWS; s++) {
        p->tables.n[s] = slot_blocks(p);
        for (uint32_t i = 0; i < slot_blocks(p); i++) {
            p->tables.blocks[(size_t)s * slot_blocks(p) + i] = i;
        }
    }
    return 0;
}

static int open_part(struct part *p, const struct timing_config *cfg, int layer, bool has_embed,
                     bool has_head, struct err *e)
{
    const struct arch *a = cfg->arch;
    uint32_t room = (uint32_t)a->max_context;
    *p = (struct part){.cfg = cfg};
    p->context = room > CONTEXT + PROMPT ? CONTEXT : room > PROMPT ? room - PROMPT : 0;
    const struct backend_config backend = {
        .backend = "cpu",
        .model = cfg->model,
        .arch = a,
        .first_layer = layer,
        .n_layers = 1,
        .has_embed = has_embed,
        .has_head = has_head,
        .max_tokens = PROMPT,
        .max_rows = ROWS,
        .n_blocks = slot_blocks(p),
        .n_threads = cfg->n_threads,
        .kernels = "auto",
    };
    const struct batch_limits limits = {.max_rows = ROWS, .max_tokens = PROMPT, .n_stages = 1};
    const size_t n = (size_t)PROMPT * (size_t)a->hidden;
    p->in = xcalloc(n, sizeof *p->in);
    p->out = xcalloc(n, sizeof *p->out);
    for (size_t i = 0; i < n; i++) {
        p->in[i] = (float)(i * 2654435761u % 1000) / 500 - 1;
    }
    if (fill_tables(p, e) != 0 || batch_create(&p->batch, &limits, e) != 0 ||
        backend_create(&p->backend, &backend, e) != 0) {
        close_part(p);
        return -1;
    }
    return 0;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* n_rows of n_tokens each, at position pos. */
static void fill_batch(struct part *p, uint32_t n_rows, uint32_t n_tokens, uint32_t pos)
{
    struct batch *b = p->batch;
    b->n_rows = n_rows;
    b->n_tokens = n_rows * n_tokens;
    for (uint32_t i = 0; i < n_rows; i++) {
        b->rows[i] = (struct batch_row){.slot = i,
                                        .flags = BATCH_SAMPLE,
                                        .first = i * n_tokens,
                                        .n_tokens = n_tokens,
                                        .pos = pos};
    }
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        b->tokens[i] = (int32_t)(i * 7919u % (uint32_t)p->cfg->arch->vocab);
    }
}

static double time_ns(struct part *p, uint32_t n_rows, uint32_t n_tokens, uint32_t pos)
{
    double took[ROUNDS];
    fill_batch(p, n_rows, n_tokens, pos);
    for (int i = -1; i < ROUNDS; i++) { // the first one only warms up
        int64_t begin_ns, end_ns;
        backend_submit(p->backend, p->batch, &p->tables, p->in, p->out, p->ids, NULL);
        while (!backend_poll(p->backend)) {
            clock_sleep_until_ns(clock_local_ns() + 20 * NS_PER_US);
        }
        backend_times(p->backend, &begin_ns, &end_ns);
        took[i < 0 ? 0 : i] = (double)(end_ns - begin_ns);
    }
    qsort(took, ROUNDS, sizeof *took, by_size);
    return took[ROUNDS / 2];
}

/* What is left of `whole`, per unit; never below 0, as noise can make it. */
static double per(double whole, double n)
{
    return n > 0 && whole > 0 ? whole / n : 0;
}

/* One token reads the weights, and top_k experts beside: shared out by their bytes. */
static void share_reading(const struct arch *a, int layer, double ns, struct costs_part *out)
{
    struct sizes_layer l = sizes_layer(a, layer);
    double experts = l.expert_bytes > 0 ? a->moe.top_k * l.expert_bytes : 0;
    out->read_ns = ns * l.common_bytes / (l.common_bytes + experts);
    out->expert_ns = l.expert_bytes > 0 ? (ns - out->read_ns) / a->moe.top_k : 0;
}

static int measure_layer(const struct timing_config *cfg, int layer, struct costs_part *out,
                         struct err *e)
{
    const struct arch *a = cfg->arch;
    struct part p;
    if (open_part(&p, cfg, layer, false, false, e) != 0) {
        return -1;
    }
    double window = arch_window(a, layer), far = p.context, prompt = PROMPT;
    double seen = window > 0 && far + 1 > window ? window : far + 1; // by a token behind `far`
    double one = time_ns(&p, 1, 1, 0), behind = time_ns(&p, 1, 1, p.context);
    double many = time_ns(&p, 1, PROMPT, 0), far_many = time_ns(&p, 1, PROMPT, p.context);
    *out = (struct costs_part){.kv_ns = per(behind - one, seen - 1)};
    share_reading(a, layer, one - out->kv_ns, out);
    // Pairs: a token behind `far` sees `far` more, or what the window leaves of them.
    out->pair_ns = per(far_many - many, prompt * (window > 0 ? fmax(seen - prompt / 2, 1) : far));
    out->token_ns = per(many - out->pair_ns * prompt * (prompt + 1) / 2, prompt);
    close_part(&p);
    return 0;
}

/* The first layer with an end of the model, less the layer alone. */
static int measure_ends(const struct timing_config *cfg, struct costs *out, struct err *e)
{
    struct part layer, embed, head;
    if (open_part(&layer, cfg, 0, false, false, e) != 0) {
        return -1;
    }
    double one = time_ns(&layer, 1, 1, 0), rows = time_ns(&layer, ROWS, 1, 0);
    double many = time_ns(&layer, 1, PROMPT, 0);
    close_part(&layer);
    if (open_part(&embed, cfg, 0, true, false, e) != 0) {
        return -1;
    }
    out->embed = (struct costs_part){.token_ns = per(time_ns(&embed, 1, PROMPT, 0) - many, PROMPT)};
    close_part(&embed);
    if (open_part(&head, cfg, 0, false, true, e) != 0) {
        return -1;
    }
    out->head = (struct costs_part){
        .read_ns = per(time_ns(&head, 1, 1, 0) - one, 1),
        .token_ns = per(time_ns(&head, ROWS, 1, 0) - rows, ROWS),
    };
    close_part(&head);
    return 0;
}

int timing_measure(const struct timing_config *cfg, struct costs *out, struct err *e)
{
    bool done[COSTS_N_KINDS] = {false};
    *out = (struct costs){.hop_ns = 0};
    for (int i = 0; i < cfg->arch->n_layers; i++) {
        enum costs_kind k = costs_kind_of(cfg->arch, i);
        if (!done[k] && measure_layer(cfg, i, &out->kinds[k], e) != 0) {
            return -1;
        }
        done[k] = true;
    }
    snprintf(out->source, sizeof out->source, "the cores of this host, %d threads", cfg->n_threads);
    return measure_ends(cfg, out, e);
}
