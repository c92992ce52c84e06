#include "tests/support/chain.h"

#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "model/split.h"
#include "workers/batch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_NS (600 * NS_PER_S) // of a stage's batch

static void must(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "%s\n", e->msg);
        abort();
    }
}

/* --- a group of ranks in one process ---------------------------------------------------------- */

struct chain_group {
    int size;
    pthread_barrier_t barrier;
    const void **parts; // (size) what each rank brings
};

struct chain_place {
    struct chain_group *group;
    int rank;
};

static void group_sum(void *ctx, float *x, size_t n)
{
    const struct chain_place *place = ctx;
    struct chain_group *g = place->group;
    float *sum = xcalloc(n, sizeof *sum);
    g->parts[place->rank] = x;
    pthread_barrier_wait(&g->barrier);
    for (int r = 0; r < g->size; r++) {
        for (size_t i = 0; i < n; i++) {
            sum[i] += ((const float *)g->parts[r])[i];
        }
    }
    pthread_barrier_wait(&g->barrier);
    memcpy(x, sum, n * sizeof *x);
    free(sum);
}

static void group_gather(void *ctx, const void *mine, size_t n_bytes, void *all)
{
    const struct chain_place *place = ctx;
    struct chain_group *g = place->group;
    g->parts[place->rank] = mine;
    pthread_barrier_wait(&g->barrier);
    for (int r = 0; r < g->size; r++) {
        memcpy((char *)all + (size_t)r * n_bytes, g->parts[r], n_bytes);
    }
    pthread_barrier_wait(&g->barrier);
}

static struct chain_group *open_group(int size)
{
    struct chain_group *g = xcalloc(1, sizeof *g);
    g->size = size;
    g->parts = xcalloc((size_t)size, sizeof *g->parts);
    pthread_barrier_init(&g->barrier, NULL, (unsigned)size);
    return g;
}

static void close_group(struct chain_group *g)
{
    pthread_barrier_destroy(&g->barrier);
    free(g->parts);
    free(g);
}

/* --- stages ----------------------------------------------------------------------------------- */

static uint32_t blocks_for(uint32_t n_tokens)
{
    return (n_tokens + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
}

static void open_stage(struct chain *c, int s, uint32_t n_blocks)
{
    struct err e = {0};
    struct chain_stage *stage = &c->stages[s];
    struct backend_config cfg = {
        .backend = c->cfg.backend,
        .model = c->cfg.model,
        .arch = &c->arch,
        .first_layer = c->first[s],
        .n_layers = c->first[s + 1] - c->first[s],
        .has_embed = s == 0,
        .has_head = s == c->cfg.n_stages - 1,
        .max_tokens = c->cfg.max_tokens,
        .max_rows = c->cfg.max_rows,
        .n_slots = c->cfg.n_slots,
        .slot_blocks = blocks_for(c->cfg.context),
        .n_blocks = n_blocks,
        .n_threads = c->cfg.n_threads,
        .kernels = c->cfg.kernels,
        .sums = c->cfg.sums,
        .index = c->cfg.index,
        .n_neighbours = c->cfg.n_neighbours,
        .kv_dtype = c->cfg.kv_dtype,
        .routing = c->cfg.routing,
    };
    const size_t n = (size_t)c->cfg.n_tensor;
    stage->group = open_group(c->cfg.n_tensor);
    stage->ranks = xcalloc(n, sizeof *stage->ranks);
    stage->places = xcalloc(n, sizeof *stage->places);
    for (int r = 0; r < c->cfg.n_tensor; r++) {
        stage->places[r] = (struct chain_place){stage->group, r};
        cfg.group = (struct shard_group){.rank = r,
                                         .size = c->cfg.n_tensor,
                                         .ctx = &stage->places[r],
                                         .sum = group_sum,
                                         .gather = group_gather};
        if (c->cfg.group) {
            cfg.group = *c->cfg.group;
        }
        must(backend_create(&stage->ranks[r], &cfg, &e), &e);
    }
    must(kv_tables_init(&stage->tables, c->cfg.n_slots, blocks_for(c->cfg.context), &e), &e);
    stage->out = xcalloc(n, arch_carried_bytes(&c->arch, c->cfg.max_tokens));
}

void chain_open(struct chain *c, const struct chain_config *cfg)
{
    struct err e = {0};
    *c = (struct chain){.cfg = *cfg};
    c->cfg.n_tensor = cfg->n_tensor > 0 ? cfg->n_tensor : 1;
    const size_t n_ranks = (size_t)c->cfg.n_tensor;
    must(arch_open(cfg->model, &c->arch, &e), &e);
    c->first = xcalloc((size_t)cfg->n_stages + 1, sizeof *c->first);
    split_by_bytes(&c->arch, 1, cfg->n_stages, c->first);
    const uint32_t n_blocks = cfg->n_slots * blocks_for(cfg->context);
    c->free = xcalloc(n_blocks, sizeof *c->free);
    for (; c->n_free < n_blocks; c->n_free++) {
        c->free[c->n_free] = (uint32_t)rng_permute(c->n_free, n_blocks, 1, RNG_SHUFFLE, 0);
    }
    const struct batch_limits limits = {
        .max_rows = cfg->max_rows,
        .max_tokens = cfg->max_tokens,
        .max_blocks = n_blocks,
        .n_stages = (uint32_t)cfg->n_stages,
    };
    must(batch_create(&c->batch, &limits, &e), &e);
    c->ids = xcalloc(n_ranks * cfg->max_rows, sizeof *c->ids);
    c->logits = xcalloc(n_ranks * cfg->max_rows * (size_t)c->arch.vocab, sizeof *c->logits);
    c->stages = xcalloc((size_t)cfg->n_stages, sizeof *c->stages);
    c->from = cfg->ends ? cfg->ends->stage : 0;
    c->to = cfg->ends ? c->from + 1 : cfg->n_stages;
    for (int s = c->from; s < c->to; s++) {
        open_stage(c, s, n_blocks);
    }
    for (size_t r = 0; c->to == cfg->n_stages && r < n_ranks; r++) {
        backend_logits(c->stages[cfg->n_stages - 1].ranks[r],
                       c->logits + r * cfg->max_rows * (size_t)c->arch.vocab);
    }
}

void chain_close(struct chain *c)
{
    for (int s = c->from; s < c->to; s++) {
        for (int r = 0; r < c->cfg.n_tensor; r++) {
            backend_destroy(c->stages[s].ranks[r]);
        }
        close_group(c->stages[s].group);
        free(c->stages[s].ranks);
        free(c->stages[s].places);
        kv_tables_free(&c->stages[s].tables);
        free(c->stages[s].out);
    }
    free(c->stages);
    batch_destroy(c->batch);
    free(c->first);
    free(c->free);
    free(c->ids);
    free(c->logits);
}

static void add_row(struct chain *c, const struct chain_row *row)
{
    struct batch *b = c->batch;
    const struct kv_tables *t = &c->stages[c->from].tables;
    struct batch_row *r = &b->rows[b->n_rows++];
    uint32_t had = t->n[row->slot];
    if (row->pos == 0) {
        for (uint32_t i = 0; i < had; i++) {
            c->free[c->n_free++] = t->blocks[(size_t)row->slot * t->max_blocks + i];
        }
        had = 0;
    }
    const uint32_t need = blocks_for(row->pos + row->n);
    *r = (struct batch_row){
        .slot = row->slot,
        .flags = (row->sample ? BATCH_SAMPLE : 0u) | (row->pos == 0 ? BATCH_BEGIN : 0u),
        .first = b->n_tokens,
        .n_tokens = row->n,
        .pos = row->pos,
        .first_block = b->n_blocks,
        .n_blocks = need > had ? need - had : 0, // an earlier position may be computed again
    };
    for (uint32_t i = 0; i < r->n_blocks; i++) {
        b->blocks[b->n_blocks++] = c->free[--c->n_free];
    }
    memcpy(b->tokens + b->n_tokens, row->tokens, row->n * sizeof *row->tokens);
    b->n_tokens += row->n;
}

/* What the backends of a stage read and write; (rank) parts. */
struct chain_flow {
    const char *in;
    char *out;
    size_t rank_bytes; // from a rank's part to the next one's
};

static struct chain_flow flow_of(const struct chain *c, int s)
{
    const struct chain_ends *ends = c->cfg.ends;
    const size_t rank_bytes = arch_carried_bytes(&c->arch, c->cfg.max_tokens);
    const bool is_first = s == 0, is_last = s == c->cfg.n_stages - 1;
    if (!ends) {
        return (struct chain_flow){is_first ? NULL : c->stages[s - 1].out, c->stages[s].out,
                                   rank_bytes};
    }
    const void *in = is_first ? NULL : ends->take(ends->ctx, c->batch->n_tokens);
    return (struct chain_flow){in, is_last ? NULL : ends->room(ends->ctx), 0};
}

static void wait_for(const struct chain *c, struct backend *b)
{
    struct err e;
    const int64_t deadline_ns = clock_local_ns() + LONGEST_NS;
    while (!backend_poll(b)) {
        must(clock_local_ns() > deadline_ns
                 ? err_set(&e, ERR_ENV, "%s: a batch is not done", backend_name(b))
                 : 0,
             &e);
        if (c->cfg.ends) {
            c->cfg.ends->turn(c->cfg.ends->ctx);
        } else {
            clock_sleep_until_ns(clock_local_ns() + 20 * NS_PER_US);
        }
    }
}

static void run_stage(struct chain *c, int s)
{
    struct chain_stage *stage = &c->stages[s];
    const size_t n = (size_t)c->cfg.n_tensor;
    const struct chain_flow f = flow_of(c, s);
    kv_tables_apply(&stage->tables, c->batch);
    for (size_t r = 0; r < n; r++) {
        backend_submit(
            stage->ranks[r], c->batch, &stage->tables, f.in ? f.in + r * f.rank_bytes : NULL,
            f.out ? f.out + r * f.rank_bytes : NULL, c->ids + r * c->cfg.max_rows, &c->jobs);
    }
    for (size_t r = 0; r < n; r++) {
        wait_for(c, stage->ranks[r]);
    }
    struct err e = {0};
    must(backend_error(stage->ranks[0], &e), &e);
    int64_t begin_ns, end_ns;
    backend_times(stage->ranks[0], &begin_ns, &end_ns);
    c->busy_ns += end_ns - begin_ns;
    if (c->cfg.ends) {
        c->cfg.ends->give(c->cfg.ends->ctx, c->batch->n_tokens);
    }
}

void chain_step(struct chain *c, const struct chain_row *rows, uint32_t n_rows)
{
    c->batch->n_rows = c->batch->n_tokens = c->batch->n_blocks = 0;
    for (uint32_t i = 0; i < n_rows; i++) {
        add_row(c, &rows[i]);
    }
    c->busy_ns = 0;
    for (int s = c->from; s < c->to; s++) {
        run_stage(c, s);
    }
}

void chain_generate(struct chain *c, const int32_t *prompt, uint32_t n_prompt, uint32_t chunk,
                    int32_t *out, uint32_t n_out)
{
    for (uint32_t at = 0; at < n_prompt; at += chunk) {
        uint32_t n = n_prompt - at < chunk ? n_prompt - at : chunk;
        const struct chain_row row = {
            .pos = at, .tokens = prompt + at, .n = n, .sample = at + n == n_prompt};
        chain_step(c, &row, 1);
    }
    for (uint32_t i = 0; i < n_out; i++) {
        out[i] = c->ids[0];
        const struct chain_row row = {
            .pos = n_prompt + i, .tokens = &out[i], .n = 1, .sample = true};
        if (i + 1 < n_out) {
            chain_step(c, &row, 1);
        }
    }
}
