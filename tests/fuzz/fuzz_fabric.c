/* Any bytes as a file of edges: what is accepted is a fabric on which splits have numbers. */
#include "workers/fabric_splits.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct arch arch = {
    .n_layers = 4,
    .hidden = 64,
    .intermediate = 128,
    .n_heads = 8,
    .n_kv_heads = 4,
    .head_dim = 8,
    .v_dim = 8,
    .vocab = 100,
    .max_context = 100,
};
static const struct costs costs = {.kinds[COSTS_DENSE] = {.fixed_ns = 1, .token_ns = 10}};

static void check_splits(const struct fabric *f)
{
    static struct fabric_split splits[FABRIC_SPLITS_MAX];
    const struct fabric_splits_ask ask = {
        .arch = &arch,
        .fabric = f,
        .costs = &costs,
        .n_costs = 1,
        .machine = {1e9, 1},
        .sum_bytes = 4,
        .kv_bytes = 4,
        .n_in = 10,
        .n_out = 10,
        .n_requests = 8,
    };
    struct err e = {0};
    int n;
    CHECK(fabric_splits_find(&ask, splits, &n, &e) == 0 && n > 0 && n <= FABRIC_SPLITS_MAX);
    for (int i = 0; i < n; i++) {
        const struct fabric_split *s = &splits[i];
        CHECK(s->n_ranks <= f->n_ranks && s->n_hosts <= f->n_hosts && s->fits);
        CHECK(isfinite(s->tokens_per_s) && s->tokens_per_s > 0 && isfinite(s->ttft_ns));
        CHECK(s->sum_share >= 0 && s->sum_share <= 1);
    }
}

static void check_fabric(const struct fabric *f)
{
    CHECK(f->n_ranks >= 2 && f->n_ranks <= FABRIC_MAX_RANKS);
    for (int a = 0; a < f->n_ranks; a++) {
        CHECK(f->host[a] >= 0 && f->host[a] < f->n_hosts);
        for (int b = 0; b < f->n_ranks; b++) {
            CHECK(fabric_ns(&f->edges[a][b], 1e6) >= 0);
        }
    }
    if (f->n_ranks <= 8) { // of more it takes its time
        check_splits(f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fabric f;
    struct err e = {0};
    if (fabric_parse(&f, false, (const char *)data, size, "input", &e)) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "input:", 6) == 0);
    } else {
        check_fabric(&f);
    }
    return 0;
}
