#include "tests/support/mmc_queue.h"

#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>

/* The server that is free first, or the user whose reply ended first. */
static size_t earliest(const double *at_s, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        best = at_s[i] < at_s[best] ? i : best;
    }
    return best;
}

static void serve(struct batch_server_run *run, size_t i, double due_s, double done_s,
                  double drain_s)
{
    struct record *r = &run->data.records[i];
    record_init(r);
    r->id = i;
    r->n_in = r->n_out_req = 1;
    r->t_sched_ns = r->t_send_ns = (int64_t)(due_s * 1e9);
    r->outcome = OUTCOME_CANCELLED;
    run->offsets[i + 1] = run->offsets[i];
    if (done_s < drain_s) {
        r->t_byte_ns = r->t_first_ns = r->t_content_ns = r->t_last_ns = (int64_t)(done_s * 1e9);
        r->n_out = 1;
        r->outcome = OUTCOME_OK;
        run->dt_us[run->offsets[i + 1]++] = (uint32_t)((done_s - due_s) * 1e6);
    }
}

void mmc_queue_run(const struct mmc_queue *q, const struct batch_server_step *s,
                   struct batch_server_run *out)
{
    double free_s[MMC_MOST_SERVERS] = {0}, sends_s[MMC_MOST_USERS] = {0};
    double t = 0, end_s = s->warm_s + s->window_s;
    double most_rps = s->rate_rps + (double)q->servers * q->mu_rps;
    size_t most = (size_t)(most_rps * end_s + 10 * sqrt(most_rps * end_s)) + 64 + s->users;
    *out = (struct batch_server_run){.offsets = xcalloc(most + 1, sizeof *out->offsets),
                                     .dt_us = xcalloc(most + 1, sizeof *out->dt_us)};
    out->data.records = xcalloc(most, sizeof *out->data.records);
    CHECK(s->users <= MMC_MOST_USERS);
    for (size_t i = 0;; i++) {
        size_t k = earliest(free_s, q->servers), user = earliest(sends_s, s->users);
        t = s->users > 0 ? sends_s[user]
                         : t - log(rng_uniform(s->seed, RNG_ARRIVAL, i, 0)) / s->rate_rps;
        if (t >= end_s) {
            break;
        }
        CHECK(i < most);
        double begin_s = fmax(t, free_s[k]);
        free_s[k] = begin_s - log(rng_uniform(s->seed, RNG_ENTRY, i, 0)) / q->mu_rps;
        sends_s[user] = free_s[k];
        serve(out, i, t, free_s[k], end_s + s->drain_s);
        out->data.n++;
    }
    out->data.info = (struct step_info){
        .index = s->index,
        .kind = s->users > 0 ? STEP_BASE : STEP_SWEEP,
        .rate_rps = s->rate_rps,
        .users = s->users,
        .t_warm_ns = (int64_t)(s->warm_s * 1e9),
        .t_end_ns = (int64_t)(end_s * 1e9),
        .t_drain_ns = (int64_t)((end_s + s->drain_s) * 1e9),
        .n_scheduled = out->data.n,
    };
}
