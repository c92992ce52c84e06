#include "workers/sim/timing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "model/sizes.h"
#include "workers/backend.h"
#include "workers/kv.h"

enum {
    PROMPT = 256,   // tokens of a batch that is bound by arithmetic
    CONTEXT = 1024, // positions before it, where the model has so many
    ROWS = 64,      // sampled at once
    APART = 16,     // slots with blocks of their own; others share theirs
    ROUNDS = 7,     // of which the median counts
};
#define STACK_BYTES 5e8 // of layers timed together: more than caches hold

static const int points[] = {1, 2, 4, 8, 16, 32, 64, 128, PROMPT}; // tokens of a batch
enum {
    N_POINTS = sizeof points / sizeof *points,
};

/* Layers in a backend of their own, with or without the ends of the model. */
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

/* What blocks hold does not matter, but whether they come from memory does. */
static int fill_tables(struct part *p, struct err *e)
{
    if (kv_tables_init(&p->tables, ROWS, slot_blocks(p), e) != 0) {
        return -1;
    }
    for (uint32_t s = 0; s < ROWS; s++) {
        p->tables.n[s] = slot_blocks(p);
        for (uint32_t i = 0; i < slot_blocks(p); i++) {
            p->tables.blocks[(size_t)s * slot_blocks(p) + i] = s % APART * slot_blocks(p) + i;
        }
    }
    return 0;
}

/* One of cfg->tensor ranks computes its part; that nobody adds the others' changes no time. */
static void sum_nothing(void *ctx, float *x, size_t n)
{
    (void)ctx, (void)x, (void)n;
}

static void gather_own(void *ctx, const void *mine, size_t n_bytes, void *all)
{
    const struct part *p = ctx;
    for (int i = 0; i < p->cfg->tensor; i++) {
        memcpy((char *)all + (size_t)i * n_bytes, mine, n_bytes);
    }
}

static int open_part(struct part *p, const struct timing_config *cfg, int first, int n_layers,
                     bool has_embed, bool has_head, struct err *e)
{
    const struct arch *a = cfg->arch;
    uint32_t room = (uint32_t)a->max_context;
    *p = (struct part){.cfg = cfg};
    p->context = room > CONTEXT + PROMPT ? CONTEXT : room > PROMPT ? room - PROMPT : 0;
    const struct backend_config backend = {
        .backend = "cpu",
        .model = cfg->model,
        .arch = a,
        .first_layer = first,
        .n_layers = n_layers,
        .has_embed = has_embed,
        .has_head = has_head,
        .max_tokens = PROMPT,
        .max_rows = ROWS,
        .n_blocks = APART * slot_blocks(p),
        .n_threads = cfg->n_threads,
        .kernels = "auto",
        .kv_dtype =
            a->dtype == ARCH_F32 ? ARCH_F32 : ARCH_BF16, // as a run has it unless told otherwise
        .group = {.size = cfg->tensor > 1 ? cfg->tensor : 0,
                  .ctx = p,
                  .sum = sum_nothing,
                  .gather = gather_own},
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

/* n tokens that see next to nothing but themselves, in as many rows as can be. */
static double point_ns(struct part *p, int n)
{
    const int n_rows = n < ROWS ? n : ROWS;
    return time_ns(p, (uint32_t)n_rows, (uint32_t)(n / n_rows), 0);
}

/* What is left of `whole`, per unit; never below 0, as noise can make it. */
static double per(double whole, double n)
{
    return n > 0 && whole > 0 ? whole / n : 0;
}

/* Of a layer alone; its weights may stay in caches. */
static int measure_layer(const struct timing_config *cfg, int layer, struct costs_part *out,
                         struct err *e)
{
    const struct arch *a = cfg->arch;
    struct part p;
    if (open_part(&p, cfg, layer, 1, false, false, e) != 0) {
        return -1;
    }
    const double window = arch_window(a, layer), far = p.context, prompt = PROMPT;
    const double seen =
        window > 0 && far + 1 > window ? window : far + 1; // by a token behind `far`
    *out = (struct costs_part){.n_points = N_POINTS};
    for (int i = 0; i < N_POINTS; i++) {
        out->points[i] = (struct costs_point){points[i], point_ns(&p, points[i])};
    }
    // A token behind `far` sees `far` more, or what the window leaves of them.
    const double few = time_ns(&p, APART, 1, 0), far_few = time_ns(&p, APART, 1, p.context);
    const double many = time_ns(&p, 1, PROMPT, 0), far_many = time_ns(&p, 1, PROMPT, p.context);
    out->pair_ns = per(far_many - many, prompt * (window > 0 ? fmax(seen - prompt / 2, 1) : far));
    // A decoding row reads as many positions as it sees: what its pairs do not explain.
    out->kv_ns = fmax(per(far_few - few, APART * (seen - 1)) - out->pair_ns, 0);
    close_part(&p);
    return 0;
}

static int stack_layers(const struct arch *a)
{
    double bytes = 0;
    int n = 0;
    while (n < a->n_layers && (n == 0 || bytes + sizes_layer(a, n).bytes <= STACK_BYTES)) {
        bytes += sizes_layer(a, n++).bytes;
    }
    return n;
}

/* Layers behind each other displace each other's weights, and start together: each kind's points become what they
   are among others. */
static int measure_stack(const struct timing_config *cfg, struct costs *out, struct err *e)
{
    const int n = stack_layers(cfg->arch);
    bool is_there[COSTS_N_KINDS] = {false}; // others stay as they are alone
    double by[N_POINTS];
    struct part p;
    if (open_part(&p, cfg, 0, n, false, false, e) != 0) {
        return -1;
    }
    for (int i = 0; i < N_POINTS; i++) {
        double alone_ns = 0;
        for (int l = 0; l < n; l++) {
            const enum costs_kind k = costs_kind_of(cfg->arch, l);
            alone_ns += out->kinds[k].points[i].ns;
            is_there[k] = true;
        }
        by[i] = alone_ns > 0 ? point_ns(&p, points[i]) / alone_ns : 1;
    }
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        for (int i = 0; is_there[k] && i < out->kinds[k].n_points; i++) {
            out->kinds[k].points[i].ns *= by[i];
        }
    }
    close_part(&p);
    return 0;
}

/* The first layer with an end of the model, less the layer alone. */
static int measure_ends(const struct timing_config *cfg, struct costs *out, struct err *e)
{
    struct part layer, end;
    struct costs_part *head = &out->head;
    if (open_part(&layer, cfg, 0, 1, false, false, e) != 0) {
        return -1;
    }
    *head = (struct costs_part){.n_points = 0};
    for (int i = 0; points[i] <= ROWS; i++, head->n_points++) {
        head->points[i] = (struct costs_point){points[i], -point_ns(&layer, points[i])};
    }
    const double many = point_ns(&layer, PROMPT);
    close_part(&layer);
    if (open_part(&end, cfg, 0, 1, true, false, e) != 0) {
        return -1;
    }
    out->embed = (struct costs_part){.token_ns = per(point_ns(&end, PROMPT) - many, PROMPT)};
    close_part(&end);
    if (open_part(&end, cfg, 0, 1, false, true, e) != 0) {
        return -1;
    }
    for (int i = 0; i < head->n_points; i++) {
        head->points[i].ns = fmax(head->points[i].ns + point_ns(&end, points[i]), 0);
    }
    close_part(&end);
    return 0;
}

int timing_measure(const struct timing_config *cfg, struct costs *out, struct err *e)
{
    bool done[COSTS_N_KINDS] = {false};
    *out = (struct costs){.tensor = cfg->tensor > 1 ? cfg->tensor : 1};
    for (int i = 0; i < cfg->arch->n_layers; i++) {
        enum costs_kind k = costs_kind_of(cfg->arch, i);
        if (!done[k] && measure_layer(cfg, i, &out->kinds[k], e) != 0) {
            return -1;
        }
        done[k] = true;
    }
    const int n = snprintf(out->source, sizeof out->source, "the cores of this host, %d threads",
                           cfg->n_threads);
    if (out->tensor > 1) {
        snprintf(out->source + n, sizeof out->source - (size_t)n, ", one of %d ranks without sums",
                 out->tensor);
    }
    return measure_stack(cfg, out, e) != 0 || measure_ends(cfg, out, e) != 0 ? -1 : 0;
}
