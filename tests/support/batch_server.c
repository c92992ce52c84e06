#include "tests/support/batch_server.h"

#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BATCH 64
#define STREAM    RNG_ENTRY // any stream that the analysis does not draw from

static double normal(uint64_t seed, uint64_t a, uint64_t b)
{
    double u = rng_uniform(seed, STREAM, a, 2 * b), v = rng_uniform(seed, STREAM, a, 2 * b + 1);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

static uint32_t length(double median, double sigma, uint64_t seed, uint64_t i, uint64_t which)
{
    double n = median * exp(sigma * normal(seed, i, which));
    return n < 1 ? 1 : n > 1024 ? 1024 : (uint32_t)n;
}

static uint32_t length_in(uint64_t seed, uint64_t i)
{
    return length(108, 1.2, seed, i, 1);
}

static uint32_t length_out(uint64_t seed, uint64_t i)
{
    return length(132, 0.9, seed, i, 2);
}

double batch_server_capacity_rps(double scale)
{
    static double rps; // at scale 1
    if (rps == 0) {
        double in = 0, out = 0, n = 1000000;
        for (uint64_t i = 0; i < (uint64_t)n; i++) {
            in += length_in(77, i);
            out += length_out(77, i);
        }
        rps = 1 / (out / n * (0.020 + 0.0003 * MAX_BATCH) / MAX_BATCH + in / n * 30e-6);
    }
    return rps / scale;
}

/* Requests in the order in which they are due; room for their token times behind one another. */
struct requests {
    struct batch_server_run *run;
    size_t n_allocated;
    uint64_t tokens_allocated;
};

static void add_request(struct requests *q, const struct batch_server_step *s, int64_t t_ns)
{
    struct batch_server_run *run = q->run;
    size_t n = run->data.n++;
    if (run->data.n >= q->n_allocated) {
        q->n_allocated = 2 * run->data.n + 256;
        run->data.records = xrealloc(run->data.records, q->n_allocated * sizeof *run->data.records);
        run->offsets = xrealloc(run->offsets, (q->n_allocated + 1) * sizeof *run->offsets);
        run->offsets[0] = 0;
    }
    struct record *r = &run->data.records[n];
    record_init(r);
    r->id = n;
    r->t_sched_ns = r->t_send_ns = t_ns;
    r->n_in = length_in(s->seed, n);
    r->n_out_req = length_out(s->seed, n);
    r->outcome = OUTCOME_CANCELLED;
    run->offsets[n + 1] = run->offsets[n] + r->n_out_req;
    if (run->offsets[n + 1] >= q->tokens_allocated) {
        q->tokens_allocated = 2 * run->offsets[n + 1] + 4096;
        run->dt_us = xrealloc(run->dt_us, q->tokens_allocated * sizeof *run->dt_us);
    }
}

static void make_schedule(struct requests *q, const struct batch_server_step *s)
{
    double t = 0, end = s->warm_s + s->window_s;
    for (uint64_t n = 0; s->rate_rps > 0; n++) {
        t -= log(rng_uniform(s->seed, RNG_ARRIVAL, n, 0)) / s->rate_rps;
        if (t >= end) {
            return;
        }
        add_request(q, s, (int64_t)(t * 1e9));
    }
    for (uint32_t u = 0; u < s->users; u++) {
        add_request(q, s, 0);
    }
}

/* One token of r at t; true when it was the last. */
static bool emit(struct batch_server_run *run, struct record *r, int64_t t_ns)
{
    int64_t before_ns = r->n_out ? r->t_last_ns : r->t_send_ns;
    run->dt_us[run->offsets[r->id] + r->n_out++] = (uint32_t)((t_ns - before_ns) / NS_PER_US);
    if (r->n_out == 1) {
        r->t_byte_ns = r->t_first_ns = r->t_content_ns = t_ns;
    }
    r->t_last_ns = t_ns;
    return r->n_out == r->n_out_req;
}

static void simulate(struct requests *q, const struct batch_server_step *s, int64_t end_ns)
{
    struct step_data *d = &q->run->data;
    size_t running[MAX_BATCH], next = 0, batch = 0;
    int64_t t_ns = 0, load_end_ns = (int64_t)((s->warm_s + s->window_s) * 1e9);
    while (t_ns < end_ns && (batch > 0 || next < d->n)) {
        if (batch == 0 && d->records[next].t_sched_ns > t_ns) {
            t_ns = d->records[next].t_sched_ns;
        }
        double prompt = 0;
        for (; next < d->n && batch < MAX_BATCH && d->records[next].t_sched_ns <= t_ns; next++) {
            prompt += d->records[next].n_in;
            running[batch++] = next;
        }
        t_ns += (int64_t)(1e9 * s->scale * (0.020 + 0.0003 * (double)batch + 30e-6 * prompt));
        for (size_t i = 0; i < batch && t_ns < end_ns;) {
            if (!emit(q->run, &d->records[running[i]], t_ns)) {
                i++;
                continue;
            }
            d->records[running[i]].outcome = OUTCOME_OK;
            running[i] = running[--batch];
            if (s->users > 0 && t_ns < load_end_ns) {
                add_request(q, s, t_ns);
            }
        }
    }
}

/* What was cancelled has fewer tokens than asked: close the holes. */
static void compact(struct batch_server_run *run)
{
    uint64_t to = 0;
    for (size_t i = 0; i < run->data.n; i++) {
        uint64_t from = run->offsets[i];
        memmove(&run->dt_us[to], &run->dt_us[from],
                run->data.records[i].n_out * sizeof *run->dt_us);
        run->offsets[i] = to;
        to += run->data.records[i].n_out;
    }
    run->offsets[run->data.n] = to;
}

void batch_server_run(const struct batch_server_step *s, struct batch_server_run *run)
{
    *run = (struct batch_server_run){0};
    struct requests q = {.run = run};
    add_request(&q, s, 0); // makes room: even an empty step has arrays
    run->data.n = 0;
    make_schedule(&q, s);
    struct step_info *info = &run->data.info;
    *info = (struct step_info){
        .index = s->index,
        .kind = s->users > 0 ? STEP_BASE : STEP_SWEEP,
        .rate_rps = s->rate_rps,
        .users = s->users,
        .seed = s->seed,
        .t_warm_ns = (int64_t)(s->warm_s * 1e9),
        .t_end_ns = (int64_t)((s->warm_s + s->window_s) * 1e9),
        .t_drain_ns = (int64_t)((s->warm_s + s->window_s + s->drain_s) * 1e9),
    };
    simulate(&q, s, info->t_drain_ns);
    info->n_scheduled = run->data.n;
    compact(run);
}

void batch_server_free(struct batch_server_run *run)
{
    free(run->data.records);
    free(run->offsets);
    free(run->dt_us);
}
