#include "workers/fabric_traffic.h"

#include <math.h>
#include <stdlib.h>

#include "core/mem.h"
#include "workers/sim/virtual.h"

#define LIVES      6.0 // of a request, one after the other
#define WARM_LIVES 2.0 // that do not count
#define GOLDEN     0.6180339887498949
#define SPREAD     0.5

/* Mean 1, evenly from 0.5 to 1.5 over any few in a row. */
static double spread(size_t i, double from)
{
    double unused;
    return 1 - SPREAD + 2 * SPREAD * modf((double)i * GOLDEN + from, &unused);
}

static uint32_t length(double mean, double by)
{
    const double n = floor(mean * by + 0.5);
    return n > 1 ? (uint32_t)n : 1;
}

static uint32_t longest(const struct fabric_traffic *t)
{
    return length(t->n_in, 1 + SPREAD) + length(t->n_out, 1 + SPREAD) + 1;
}

static struct virtual_config configure(const struct fabric_traffic *t, double request_ns)
{
    const uint32_t n = (uint32_t)ceil(t->n_requests);
    const uint32_t each = longest(t) / BATCH_KV_BLOCK + 2;
    return (struct virtual_config){
        .sched =
            {
                .lanes = (uint32_t)t->n_stages,
                .max_running = n,
                .max_waiting = n,
                .max_batch_tokens = n > FABRIC_TRAFFIC_TOKENS ? n : FABRIC_TRAFFIC_TOKENS,
                .max_context = longest(t),
                .n_kv_blocks = n * each,
                .vocab = (uint32_t)t->arch->vocab,
            },
        .arch = t->arch,
        .costs = t->stages,
        .stages = t->stages,
        .n_stages = t->n_stages,
        .first = t->first,
        .users = n,
        .t_until_ns = (int64_t)(LIVES * request_ns),
    };
}

/* Tokens between lo and hi, evenly from the first to the latest. */
static double tokens_in(const struct virtual_request *q, double lo, double hi)
{
    if (q->t_first_ns == VIRTUAL_NEVER) {
        return 0;
    }
    const double first = (double)q->t_first_ns, latest = (double)q->t_latest_ns;
    const double from = fmax(first, lo), to = fmin(latest, hi);
    const double share = latest > first && to > from ? (to - from) / (latest - first) : 0;
    return (first >= lo && first < hi) + (q->n_done - 1) * share;
}

static int play(const struct fabric_traffic *t, double request_ns, double *tokens_per_s,
                struct err *e)
{
    const struct virtual_config cfg = configure(t, request_ns);
    const size_t n = (size_t)cfg.users * (size_t)(4 * LIVES);
    struct virtual_request *requests = xcalloc(n, sizeof *requests);
    struct virtual_result result;
    for (size_t i = 0; i < n; i++) {
        requests[i] = (struct virtual_request){
            .t_due_ns = VIRTUAL_NEVER,
            .n_in = length(t->n_in, spread(i, 0)),
            .n_out = length(t->n_out, spread(i, GOLDEN / 2)),
        };
    }
    const int rc = virtual_run(&cfg, requests, n, &result, e);
    const double hi = (double)result.t_end_ns, lo = hi * WARM_LIVES / LIVES;
    double sum = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        sum += tokens_in(&requests[i], lo, hi);
    }
    *tokens_per_s = hi > lo ? sum / (hi - lo) * 1e9 : 0;
    free(requests);
    return rc;
}

int fabric_traffic_run(const struct fabric_traffic *t, double *tokens_per_s, struct err *e)
{
    CHECK(t->request_ns <= FABRIC_TRAFFIC_MAX_NS);
    const double expected = t->n_requests * t->n_out / t->request_ns * 1e9;
    if (play(t, t->request_ns, tokens_per_s, e)) {
        return -1;
    }
    // Much slower than thought: then too little of it was seen.
    const double request_ns = t->request_ns * fmin(expected / fmax(*tokens_per_s, 1e-300), 10);
    return *tokens_per_s > 0.8 * expected ? 0 : play(t, request_ns, tokens_per_s, e);
}
