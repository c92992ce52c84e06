/*
 * What the scheduler costs per batch: building a batch, taking its ids back, and the submissions that
 * replace requests as they end, in steady state, nearly all requests decoding. Once with blocks for all,
 * once with a prefix cache (prompts begin alike in groups), once with a pool that is too small for as many
 * as would run, so that some are preempted all the time. Prints CPU time per batch in us (and the median of
 * the wall clock's) and fails, exit 1, where it is above 50.
 *
 *   sched_cost [RUNNING [LANES [BATCHES]]]
 */
#include "core/clock.h"
#include "core/hist.h"
#include "core/mem.h"
#include "workers/sched.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    N_IN = 100,
    N_OUT = 200,
    N_WAITING = 16,
    N_GROUPS = 7,
    LIMIT_US = 50,
};

struct scene {
    const char *name;
    uint32_t max_running, n_kv_blocks;
    bool prefix_cache;
    bool talks; // short prompts, long answers of one length: all want their next block at one time
};

struct bench {
    bool talks;
    struct sched *s;
    struct batch *b;
    int32_t *ids; // (max_rows)
    uint32_t n_sent;
};

static void open_bench(struct bench *t, const struct scene *c, uint32_t lanes)
{
    struct err e;
    struct sched_config cfg = {
        .lanes = lanes,
        .max_running = c->max_running,
        .max_waiting = N_WAITING,
        .max_batch_tokens = c->max_running + 256,
        .max_context = 2048,
        .n_kv_blocks = c->n_kv_blocks,
        .prefix_cache = c->prefix_cache,
        .vocab = 1000,
    };
    struct batch_limits lim = sched_batch_limits(&cfg);
    lim.n_stages = lanes;
    if (sched_create(&t->s, &cfg, &e) != 0 || batch_create(&t->b, &lim, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    t->ids = xcalloc(lim.max_rows, sizeof *t->ids);
    sched_begin_step(t->s, 0);
}

static void close_bench(struct bench *t)
{
    sched_destroy(t->s);
    batch_destroy(t->b);
    free(t->ids);
}

/* Somebody waits always; lengths differ, so that ends are spread out. */
static void refill(struct bench *t)
{
    while (sched_counts(t->s).waiting < N_WAITING) {
        uint32_t n = t->n_sent++;
        int32_t ids[N_IN];
        for (uint32_t i = 0; i < N_IN; i++) {
            ids[i] = (int32_t)(n % N_GROUPS + i);
        }
        struct sched_request r = {
            .ticket = {.slot = n, .generation = n},
            .n_in = t->talks ? 20 + n % 10 : 1 + n % N_IN,
            .n_out = t->talks ? 4 * N_OUT : N_OUT / 2 + n * 37 % N_OUT,
            .ids = ids,
        };
        if (!sched_submit(t->s, &r, 0)) {
            return;
        }
    }
}

static uint32_t turn(struct bench *t)
{
    struct err e;
    struct batch *b = t->b;
    CHECK(sched_build(t->s, b, 0));
    for (uint32_t i = 0; i < b->n_rows; i++) {
        t->ids[i] = (b->rows[i].flags & BATCH_SAMPLE) ? (int32_t)(b->seq % 1000) : -1;
    }
    CHECK(sched_complete(t->s, b->lane, b->seq, t->ids, b->n_rows, 0, &e) == 0);
    refill(t);
    return b->n_rows;
}

static bool measure(const struct scene *c, uint32_t lanes, uint32_t n_batches)
{
    struct bench t = {.talks = c->talks};
    struct hist *h = xcalloc(1, sizeof *h);
    uint64_t n_rows = 0, n_running = 0;
    open_bench(&t, c, lanes);
    refill(&t);
    for (uint32_t i = 0; i < 2000; i++) {
        turn(&t); // past the first prompts
    }
    struct sched_counts before = sched_counts(t.s);
    int64_t cpu_ns = clock_process_cpu_ns();
    for (uint32_t i = 0; i < n_batches; i++) {
        int64_t t_ns = clock_local_ns();
        n_rows += turn(&t);
        t_ns = clock_local_ns() - t_ns;
        hist_record(h, t_ns);
        n_running += sched_counts(t.s).running;
    }
    cpu_ns = clock_process_cpu_ns() - cpu_ns;
    struct sched_counts after = sched_counts(t.s);
    double us = (double)cpu_ns / n_batches * 1e-3;
    printf(
        "%s: %.0f running, %u lanes: %.1f us per batch of %.1f rows (median %.1f), %.1f preemptions "
        "per 1000 batches, %.0f %% cached: %s\n",
        c->name, (double)n_running / n_batches, lanes, us, (double)n_rows / n_batches,
        (double)hist_quantile(h, 0.5) * 1e-3,
        (double)(after.n_preempted - before.n_preempted) * 1000 / n_batches,
        after.n_queried_tokens > 0
            ? 100 * (double)after.n_cached_tokens / (double)after.n_queried_tokens
            : 0,
        us <= LIMIT_US ? "PASS" : "FAIL");
    free(h);
    close_bench(&t);
    return us <= LIMIT_US;
}

int main(int argc, char **argv)
{
    uint32_t running = argc > 1 ? (uint32_t)atoi(argv[1]) : 256;
    uint32_t lanes = argc > 2 ? (uint32_t)atoi(argv[2]) : 1;
    uint32_t n_batches = argc > 3 ? (uint32_t)atoi(argv[3]) : 100000;
    CHECK(running > 0 && lanes > 0 && n_batches > 0);
    const struct scene scenes[] = {
        {"plain", running, running * 128, false, false},
        {"prefix cache", running, running * 128, true, false},
        {"scarce pool", 4 * running, running * 26, false, true},
        {"both", 4 * running, running * 26, true, true},
    };
    bool ok = true;
    for (size_t i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        ok &= measure(&scenes[i], lanes, n_batches);
    }
    return ok ? 0 : 1;
}
