/*
 * What the scheduler costs per batch: building a batch and taking its ids back, in steady state, all
 * requests decoding. Inside the window: sched_build and sched_complete, and the submissions that
 * replace requests as they end. Prints ns per batch and per row.
 *
 *   sched_cost [RUNNING [LANES [BATCHES]]]
 */
#include "core/clock.h"
#include "core/mem.h"
#include "workers/sched.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    N_IN = 100,
    N_OUT = 200,
};

static struct sched *create(uint32_t running, uint32_t lanes, struct batch **b)
{
    struct err e;
    struct sched *s;
    struct sched_config cfg = {
        .lanes = lanes,
        .max_running = running,
        .max_waiting = 16,
        .max_batch_tokens = running + 256,
        .max_context = 2048,
        .n_kv_blocks = running * 128,
        .vocab = 1000,
    };
    struct batch_limits lim = sched_batch_limits(&cfg);
    lim.n_stages = lanes;
    if (sched_create(&s, &cfg, &e) != 0 || batch_create(b, &lim, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    sched_begin_step(s, 0);
    return s;
}

/* Keep as many running as may; lengths differ, so that ends are spread out. */
static void refill(struct sched *s, uint32_t running)
{
    static const int32_t ids[N_IN];
    static uint32_t n;
    while (sched_counts(s).running < running) {
        struct sched_request r = {
            .ticket = {.slot = n, .generation = n},
            .n_in = 1 + n % N_IN,
            .n_out = N_OUT / 2 + n * 37 % N_OUT,
            .ids = ids,
        };
        n++;
        CHECK(sched_submit(s, &r, 0));
    }
}

static uint64_t turn(struct sched *s, struct batch *b, int32_t *ids, uint32_t running)
{
    struct err e;
    CHECK(sched_build(s, b, 0));
    for (uint32_t i = 0; i < b->n_rows; i++) {
        ids[i] = (b->rows[i].flags & BATCH_SAMPLE) ? 5 : -1;
    }
    CHECK(sched_complete(s, b->lane, b->seq, ids, b->n_rows, 0, &e) == 0);
    refill(s, running);
    return b->n_rows;
}

int main(int argc, char **argv)
{
    uint32_t running = argc > 1 ? (uint32_t)atoi(argv[1]) : 256;
    uint32_t lanes = argc > 2 ? (uint32_t)atoi(argv[2]) : 1;
    uint32_t n_batches = argc > 3 ? (uint32_t)atoi(argv[3]) : 100000;
    CHECK(running > 0 && lanes > 0 && n_batches > 0);
    struct batch *b;
    struct sched *s = create(running, lanes, &b);
    int32_t *ids = xcalloc(running + 256, sizeof *ids);
    refill(s, running);
    for (uint32_t i = 0; i < 1000; i++) {
        turn(s, b, ids, running); // past the first prompts
    }
    uint64_t n_rows = 0;
    int64_t t_ns = clock_local_ns();
    for (uint32_t i = 0; i < n_batches; i++) {
        n_rows += turn(s, b, ids, running);
    }
    double ns = (double)(clock_local_ns() - t_ns);
    printf("%u running, %u lanes: %.0f ns per batch of %.1f rows, %.1f ns per row\n", running,
           lanes, ns / n_batches, (double)n_rows / n_batches, ns / (double)n_rows);
    free(ids);
    sched_destroy(s);
    batch_destroy(b);
    return 0;
}
