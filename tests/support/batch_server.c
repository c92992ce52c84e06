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

static size_t make_schedule(const struct batch_server_step *s, struct batch_server_run *run)
{
    double t = 0, end = s->warm_s + s->window_s;
    size_t n = 0, cap = 0;
    struct record *r = NULL;
    while ((t -= log(rng_uniform(s->seed, RNG_ARRIVAL, n, 0)) / s->rate_rps) < end) {
        if (n == cap) {
            cap = cap ? 2 * cap : 256;
            r = xrealloc(r, cap * sizeof *r);
        }
        record_init(&r[n]);
        r[n].id = n;
        r[n].t_sched_ns = r[n].t_send_ns = (int64_t)(t * 1e9);
        r[n].n_in = length_in(s->seed, n);
        r[n].n_out_req = length_out(s->seed, n);
        r[n].outcome = OUTCOME_CANCELLED;
        n++;
    }
    run->data.records = r;
    run->data.n = n;
    run->offsets = xcalloc(n + 1, sizeof *run->offsets);
    for (size_t i = 0; i < n; i++) {
        run->offsets[i + 1] = run->offsets[i] + r[i].n_out_req;
    }
    run->dt_us = xcalloc(run->offsets[n] + 1, sizeof *run->dt_us);
    return n;
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

static void simulate(const struct batch_server_step *s, struct batch_server_run *run,
                     int64_t end_ns)
{
    struct record *r = run->data.records, *running[MAX_BATCH];
    size_t next = 0, n = run->data.n, batch = 0;
    int64_t t_ns = 0;
    while (t_ns < end_ns && (batch > 0 || next < n)) {
        if (batch == 0 && r[next].t_sched_ns > t_ns) {
            t_ns = r[next].t_sched_ns;
        }
        double prompt = 0;
        for (; next < n && batch < MAX_BATCH && r[next].t_sched_ns <= t_ns; next++) {
            prompt += r[next].n_in;
            running[batch++] = &r[next];
        }
        t_ns += (int64_t)(1e9 * s->scale * (0.020 + 0.0003 * (double)batch + 30e-6 * prompt));
        for (size_t i = 0; i < batch && t_ns < end_ns;) {
            if (emit(run, running[i], t_ns)) {
                running[i]->outcome = OUTCOME_OK;
                running[i] = running[--batch];
            } else {
                i++;
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
    size_t n = make_schedule(s, run);
    struct step_info *info = &run->data.info;
    *info = (struct step_info){
        .index = s->index,
        .kind = STEP_SWEEP,
        .rate_rps = s->rate_rps,
        .seed = s->seed,
        .t_warm_ns = (int64_t)(s->warm_s * 1e9),
        .t_end_ns = (int64_t)((s->warm_s + s->window_s) * 1e9),
        .t_drain_ns = (int64_t)((s->warm_s + s->window_s + s->drain_s) * 1e9),
        .n_scheduled = n,
    };
    simulate(s, run, info->t_drain_ns);
    compact(run);
}

void batch_server_free(struct batch_server_run *run)
{
    free(run->data.records);
    free(run->offsets);
    free(run->dt_us);
}
