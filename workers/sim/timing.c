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
#include "workers/tp_group.h"
#include "workers/weights/bf16.h"

enum {
    PROMPT = 256,   // tokens of a batch that is bound by arithmetic
    CONTEXT = 1024, // positions before it, where the model has so many
    ROWS = 64,      // sampled at once
    APART = 16,     // slots with blocks of their own; others share theirs
    LEAST_ROUNDS = 10,
    MOST_ROUNDS = 200,
};
#define ROUNDS_NS   (1 * NS_PER_S)   // for so long, unless they are the least or the most
#define LOOK_NS     (50 * NS_PER_US) // as a waiting worker looks
#define LONGEST_NS  (600 * NS_PER_S) // of a batch: beyond, a rank hangs
#define TRIM        0.1              // share of the times at either end that do not count
#define STACK_BYTES 5e8              // of layers timed together: more than caches hold

static const int points[] = {1, 2, 4, 8, 16, 32, 64, 128, PROMPT}; // tokens of a batch
enum {
    N_POINTS = sizeof points / sizeof *points,
};

/* One of the ranks that share layers. */
struct rank {
    struct backend *backend;
    float *out; // (PROMPT, hidden)
    int32_t ids[ROWS];
};

/* Layers in backends of their own, with or without the ends of the model. */
struct part {
    const struct timing_config *cfg;
    int n_ranks;
    struct rank *ranks;      // (n_ranks)
    struct tp_group **group; // (n_ranks)
    struct kv_tables tables;
    struct batch *batch;
    void *in;         // (PROMPT, hidden) of arch_carried
    uint32_t context; // positions that a slot has blocks for
};

static uint32_t slot_blocks(const struct part *p)
{
    return (p->context + PROMPT + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
}

static void close_part(struct part *p)
{
    for (int i = 0; i < p->n_ranks; i++) {
        backend_destroy(p->ranks[i].backend);
        tp_group_destroy(p->group[i]);
        free(p->ranks[i].out);
    }
    free(p->ranks);
    free(p->group);
    batch_destroy(p->batch);
    kv_tables_free(&p->tables);
    free(p->in);
    *p = (struct part){0};
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

/* Which layers, and whether with the ends of the model. */
struct range {
    int first, n;
    bool has_embed, has_head;
};

static int open_rank(struct part *p, int i, struct range layers, struct err *e)
{
    const struct arch *a = p->cfg->arch;
    const struct backend_config backend = {
        .backend = "cpu",
        .model = p->cfg->model,
        .arch = a,
        .first_layer = layers.first,
        .n_layers = layers.n,
        .has_embed = layers.has_embed,
        .has_head = layers.has_head,
        .max_tokens = PROMPT,
        .max_rows = ROWS,
        .n_blocks = APART * slot_blocks(p),
        .n_threads = p->cfg->n_threads,
        .kernels = "auto",
        .kv_dtype =
            a->dtype == ARCH_F32 ? ARCH_F32 : ARCH_BF16, // as a run has it unless told otherwise
        .group = tp_group_shard(p->group[i]),
    };
    p->ranks[i].out = xcalloc((size_t)PROMPT * (size_t)a->hidden, sizeof *p->ranks[i].out);
    return backend_create(&p->ranks[i].backend, &backend, e);
}

static int open_ranks(struct part *p, struct range layers, struct err *e)
{
    const size_t most = (size_t)PROMPT * (size_t)(p->cfg->arch->hidden + BACKEND_ROW_PAD);
    if (tp_group_create_all(p->group, p->n_ranks, most, e)) {
        return -1;
    }
    for (int i = 0; i < p->n_ranks; i++) {
        if (open_rank(p, i, layers, e)) {
            return -1;
        }
    }
    return 0;
}

/* Between -1 and 1, no two rows alike: experts are to be chosen as in a run. */
static void fill_hidden(void *out, size_t n, enum arch_dtype dtype)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t h = (uint32_t)i * 2654435761u;
        h = (h ^ (h >> 16)) * 0x45d9f3bu;
        const float x = (float)((h ^ (h >> 16)) >> 8) * 0x1p-23f - 1;
        if (dtype == ARCH_BF16) {
            ((uint16_t *)out)[i] = bf16_from_f32(x);
        } else {
            ((float *)out)[i] = x;
        }
    }
}

static int open_part(struct part *p, const struct timing_config *cfg, struct range layers,
                     struct err *e)
{
    const struct arch *a = cfg->arch;
    const struct batch_limits limits = {.max_rows = ROWS, .max_tokens = PROMPT, .n_stages = 1};
    const uint32_t room = (uint32_t)a->max_context;
    const size_t n = (size_t)PROMPT * (size_t)a->hidden;
    *p = (struct part){.cfg = cfg};
    if (room < PROMPT) {
        return err_set(e, ERR_INPUT, "a context of %u tokens is too short: prompts of %d are timed",
                       room, PROMPT);
    }
    *p = (struct part){.cfg = cfg, .n_ranks = cfg->tensor > 1 ? cfg->tensor : 1};
    p->ranks = xcalloc((size_t)p->n_ranks, sizeof *p->ranks);
    p->group = xcalloc((size_t)p->n_ranks, sizeof *p->group);
    p->context = room > CONTEXT + PROMPT ? CONTEXT : room > PROMPT ? room - PROMPT : 0;
    p->in = xcalloc(n, sizeof(float));
    fill_hidden(p->in, n, arch_carried(a));
    if (fill_tables(p, e) || batch_create(&p->batch, &limits, e) || open_ranks(p, layers, e)) {
        close_part(p);
        return -1;
    }
    return 0;
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

/* From the first rank's begin to the last one's end. */
static double compute_ns(struct part *p)
{
    int64_t begin_ns = INT64_MAX, end_ns = 0;
    for (int i = 0; i < p->n_ranks; i++) {
        struct rank *r = &p->ranks[i];
        backend_submit(r->backend, p->batch, &p->tables, p->in, r->out, r->ids, NULL);
    }
    const int64_t until_ns = clock_local_ns() + LONGEST_NS;
    for (int i = 0; i < p->n_ranks; i++) {
        const struct rank *r = &p->ranks[i];
        int64_t its_begin_ns, its_end_ns;
        while (!backend_poll(r->backend)) {
            CHECK(clock_local_ns() < until_ns);
            clock_sleep_until_ns(clock_local_ns() + LOOK_NS);
        }
        backend_times(r->backend, &its_begin_ns, &its_end_ns);
        begin_ns = its_begin_ns < begin_ns ? its_begin_ns : begin_ns;
        end_ns = its_end_ns > end_ns ? its_end_ns : end_ns;
    }
    return (double)(end_ns - begin_ns);
}

/* Of the second of two in a row: in a run, too, a batch mostly comes behind one of its like. */
static double time_ns(struct part *p, uint32_t n_rows, uint32_t n_tokens, uint32_t pos)
{
    fill_batch(p, n_rows, n_tokens, pos);
    compute_ns(p);
    return compute_ns(p);
}

/* --- times, taken in rounds ----------------------------------------------------------------------- */

/* A batch that each round times once: a machine's speed wanders, and so all batches see the same of it. */
struct timed {
    struct part *part;
    uint32_t n_rows, n_tokens, pos;  // tokens of each row, behind pos others
    double took_ns[MOST_ROUNDS], ns; // ns: all rounds together
};

static struct timed timed_rows(struct part *p, int n_rows, int n_tokens, uint32_t pos)
{
    return (struct timed){
        .part = p, .n_rows = (uint32_t)n_rows, .n_tokens = (uint32_t)n_tokens, .pos = pos};
}

/* n tokens that see next to nothing but themselves, in as many rows as can be. */
static struct timed timed_point(struct part *p, int n)
{
    const int n_rows = n < ROWS ? n : ROWS;
    return timed_rows(p, n_rows, n / n_rows, 0);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The mean of those between the longest and the shortest; puts them in order. */
static double trimmed_mean(double *v, int n)
{
    const int trim = (int)(TRIM * n);
    double all = 0;
    qsort(v, (size_t)n, sizeof *v, by_size);
    for (int i = trim; i < n - trim; i++) {
        all += v[i];
    }
    return all / (n - 2 * trim);
}

/* How long all rounds took, and how long they would have without their longest and shortest times. */
struct taken {
    double all_ns, usual_ns;
};

static void run_rounds(struct timed *t, int n, struct taken *taken)
{
    const int64_t begin_ns = clock_local_ns();
    int rounds = 0;
    while (rounds < LEAST_ROUNDS ||
           (rounds < MOST_ROUNDS && clock_local_ns() - begin_ns < ROUNDS_NS)) {
        for (int i = 0; i < n; i++) {
            t[i].took_ns[rounds] = time_ns(t[i].part, t[i].n_rows, t[i].n_tokens, t[i].pos);
            taken->all_ns += t[i].took_ns[rounds];
        }
        rounds++;
    }
    for (int i = 0; i < n; i++) {
        t[i].ns = trimmed_mean(t[i].took_ns, rounds);
        taken->usual_ns += rounds * t[i].ns;
    }
}

/* What is left of `whole`, per unit; never below 0, as noise can make it. */
static double per(double whole, double n)
{
    return n > 0 && whole > 0 ? whole / n : 0;
}

/* --- layers --------------------------------------------------------------------------------------- */

enum { // times of a layer, behind those of the points
    FEW = N_POINTS,
    FEW_FAR,
    MANY,
    MANY_FAR,
    N_LAYER_TIMES,
};

struct layers {
    const struct timing_config *cfg;
    int first[COSTS_N_KINDS]; // layer of the kind, which is timed alone; -1: there is none
    int n_stacked;            // the first ones, behind each other; 1: there is no stack
    struct part alone[COSTS_N_KINDS], stack;
    struct timed *times, *of_kind[COSTS_N_KINDS], *of_stack;
};

static int stack_layers(const struct arch *a)
{
    double bytes = 0;
    int n = 0;
    while (n < a->n_layers && (n == 0 || bytes + sizes_layer(a, n).bytes <= STACK_BYTES)) {
        bytes += sizes_layer(a, n++).bytes;
    }
    return n;
}

static void close_layers(struct layers *l)
{
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        close_part(&l->alone[k]);
    }
    close_part(&l->stack);
    free(l->times);
}

static int open_layers(struct layers *l, const struct timing_config *cfg, struct err *e)
{
    *l = (struct layers){.cfg = cfg, .n_stacked = stack_layers(cfg->arch)};
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        l->first[k] = -1;
    }
    for (int i = 0; i < cfg->arch->n_layers; i++) {
        const enum costs_kind k = costs_kind_of(cfg->arch, i);
        if (l->first[k] < 0 &&
            open_part(&l->alone[k], cfg, (struct range){i, 1, false, false}, e)) {
            return -1;
        }
        l->first[k] = l->first[k] < 0 ? i : l->first[k];
    }
    return l->n_stacked > 1
               ? open_part(&l->stack, cfg, (struct range){0, l->n_stacked, false, false}, e)
               : 0;
}

/* The times of the kind's layer into t (N_LAYER_TIMES). */
static void plan_layer(struct part *p, struct timed *t)
{
    for (int i = 0; i < N_POINTS; i++) {
        t[i] = timed_point(p, points[i]);
    }
    t[FEW] = timed_rows(p, APART, 1, 0);
    t[FEW_FAR] = timed_rows(p, APART, 1, p->context);
    t[MANY] = timed_rows(p, 1, PROMPT, 0);
    t[MANY_FAR] = timed_rows(p, 1, PROMPT, p->context);
}

static void time_layers(struct layers *l, struct taken *taken)
{
    int n = 0;
    l->times = xcalloc(COSTS_N_KINDS * N_LAYER_TIMES + N_POINTS, sizeof *l->times);
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        if (l->first[k] >= 0) {
            l->of_kind[k] = &l->times[n];
            plan_layer(&l->alone[k], l->of_kind[k]);
            n += N_LAYER_TIMES;
        }
    }
    l->of_stack = &l->times[n];
    for (int i = 0; i < N_POINTS && l->n_stacked > 1; i++) {
        l->times[n++] = timed_point(&l->stack, points[i]);
    }
    run_rounds(l->times, n, taken);
}

static struct costs_load load_of(const struct timed *t)
{
    fill_batch(t->part, t->n_rows, t->n_tokens, t->pos);
    return costs_load_batch(t->part->cfg->arch, t->part->batch);
}

/* What is slower behind a context: by pairs in the prompt; in decoding rows, which read what they see, what pairs do not explain. */
static struct costs_part layer_costs(const struct layers *l, enum costs_kind k)
{
    const struct timed *t = l->of_kind[k];
    const int slides = arch_window(l->cfg->arch, l->first[k]) > 0;
    const struct costs_load few = load_of(&t[FEW]), few_far = load_of(&t[FEW_FAR]);
    const struct costs_load many = load_of(&t[MANY]), many_far = load_of(&t[MANY_FAR]);
    struct costs_part c = {.n_points = N_POINTS};
    for (int i = 0; i < N_POINTS; i++) {
        c.points[i] = (struct costs_point){points[i], t[i].ns};
    }
    c.pair_ns = per(t[MANY_FAR].ns - t[MANY].ns, many_far.n_seen[slides] - many.n_seen[slides]);
    const double pairs_ns = c.pair_ns * (few_far.n_seen[slides] - few.n_seen[slides]);
    c.kv_ns =
        per(t[FEW_FAR].ns - t[FEW].ns - pairs_ns, few_far.n_cached[slides] - few.n_cached[slides]);
    return c;
}

/* Layers behind each other displace each other's weights, and start together: each kind's points become what they
   are among others. */
static void place_among_others(const struct layers *l, struct costs *out)
{
    bool is_there[COSTS_N_KINDS] = {false}; // others stay as they are alone
    for (int i = 0; i < N_POINTS && l->n_stacked > 1; i++) {
        double alone_ns = 0;
        for (int layer = 0; layer < l->n_stacked; layer++) {
            const enum costs_kind k = costs_kind_of(l->cfg->arch, layer);
            alone_ns += l->of_kind[k][i].ns;
            is_there[k] = true;
        }
        for (int k = 0; k < COSTS_N_KINDS; k++) {
            out->kinds[k].points[i].ns *= is_there[k] ? l->of_stack[i].ns / alone_ns : 1;
        }
    }
}

static int measure_layers(const struct timing_config *cfg, struct costs *out, struct taken *taken,
                          struct err *e)
{
    struct layers l;
    if (open_layers(&l, cfg, e)) {
        close_layers(&l);
        return -1;
    }
    time_layers(&l, taken);
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        if (l.first[k] >= 0) {
            out->kinds[k] = layer_costs(&l, (enum costs_kind)k);
        }
    }
    place_among_others(&l, out);
    close_layers(&l);
    return 0;
}

/* --- the ends of the model -------------------------------------------------------------------------- */

/* The first layer with an end of the model, and alone: at `n` points from `first` on, by how much the end makes it slower. */
static int measure_end(const struct timing_config *cfg, bool has_embed, int first, int n,
                       double *ns, struct taken *taken, struct err *e)
{
    struct part layer = {0}, end = {0};
    if (open_part(&layer, cfg, (struct range){0, 1, false, false}, e) ||
        open_part(&end, cfg, (struct range){0, 1, has_embed, !has_embed}, e)) {
        close_part(&layer);
        return -1;
    }
    struct timed *t = xcalloc(2 * (size_t)n, sizeof *t);
    for (int i = 0; i < n; i++) {
        t[2 * i] = timed_point(&layer, points[first + i]);
        t[2 * i + 1] = timed_point(&end, points[first + i]);
    }
    run_rounds(t, 2 * n, taken);
    for (int i = 0; i < n; i++) {
        ns[i] = fmax(t[2 * i + 1].ns - t[2 * i].ns, 0);
    }
    free(t);
    close_part(&layer);
    close_part(&end);
    return 0;
}

static int measure_ends(const struct timing_config *cfg, struct costs *out, struct taken *taken,
                        struct err *e)
{
    double embed_ns, head_ns[N_POINTS];
    int n = 0;
    while (n < N_POINTS && points[n] <= ROWS) {
        n++;
    }
    if (measure_end(cfg, true, N_POINTS - 1, 1, &embed_ns, taken, e) ||
        measure_end(cfg, false, 0, n, head_ns, taken, e)) {
        return -1;
    }
    out->embed = (struct costs_part){.token_ns = embed_ns / PROMPT};
    out->head = (struct costs_part){.n_points = n};
    for (int i = 0; i < n; i++) {
        out->head.points[i] = (struct costs_point){points[i], head_ns[i]};
    }
    return 0;
}

int timing_measure(const struct timing_config *cfg, struct costs *out, struct err *e)
{
    *out = (struct costs){.tensor = cfg->tensor > 1 ? cfg->tensor : 1, .n_threads = cfg->n_threads};
    const int n = snprintf(out->source, sizeof out->source, "the cores of this host, %d threads",
                           cfg->n_threads);
    if (out->tensor > 1) {
        snprintf(out->source + n, sizeof out->source - (size_t)n,
                 " for each of %d ranks with their sums", out->tensor);
    }
    struct taken taken = {0};
    if (measure_layers(cfg, out, &taken, e) || measure_ends(cfg, out, &taken, e)) {
        return -1;
    }
    costs_scale(out, taken.all_ns / taken.usual_ns); // a machine's hiccups hit any batch
    return 0;
}
