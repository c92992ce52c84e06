/*
 * The searches on simulated queues whose truth is known, through the same analysis as a real run: search ->
 * simulated step, stopped early where overload.h says so -> measure -> verdict -> search. The figures are
 * printed; with TIDEMARK_SOAK=1 they are of a hundred seeds.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/ladder.h"
#include "analysis/saturation.h"
#include "analysis/slo_decision.h"
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "loadgen/overload.h"
#include "loadgen/search.h"
#include "loadgen/search_ladder.h"
#include "tests/support/mmc_queue.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_STEPS 200

/* A target: a batch server of this scale, or (servers > 0) an M/M/c. */
struct target {
    double scale;
    struct mmc_queue mmc;
    double capacity_rps;
};

struct rig {
    struct load_config cfg;
    struct slo_config slo;
    struct target target;
    uint64_t seed;
    struct search search;
    size_t n_steps;
    struct measure *measure; // (MOST_STEPS)
    struct slo_sample *sample;
    double rate_rps[MOST_STEPS];
    uint32_t users[MOST_STEPS];
    double ttft_s;  // of the last good step
    double spent_s; // steps, without their drains
    int n_stopped;
};

static bool is_soak(void)
{
    return getenv("TIDEMARK_SOAK") != NULL;
}

/* Every step as it is offered: TIDEMARK_SHOW=1. */
static bool is_shown(void)
{
    return getenv("TIDEMARK_SHOW") != NULL;
}

static struct target batch_target(double scale)
{
    return (struct target){.scale = scale, .capacity_rps = batch_server_capacity_rps(scale)};
}

static struct target mmc_target(uint32_t servers, double mu_rps)
{
    return (struct target){.mmc = {servers, mu_rps}, .capacity_rps = servers * mu_rps};
}

static void rig_open(struct rig *r, struct target target, uint64_t seed)
{
    memset(r, 0, sizeof *r);
    opt_defaults(load_options, &r->cfg);
    r->target = target;
    r->seed = seed;
    r->slo.quantile = 0.9;
    r->measure = xcalloc(MOST_STEPS, sizeof *r->measure);
    r->sample = xcalloc(MOST_STEPS, sizeof *r->sample);
}

static void rig_close(struct rig *r)
{
    search_free(&r->search);
    opt_free(load_options, &r->cfg);
    free(r->measure);
    free(r->sample);
}

static void serve(const struct target *t, const struct batch_server_step *s,
                  struct batch_server_run *out)
{
    if (t->mmc.servers > 0) {
        mmc_queue_run(&t->mmc, s, out);
    } else {
        batch_server_run(s, out);
    }
}

/* When overload.h stops the step, or its end. */
static double stop_s(const struct search_step *step, const struct batch_server_run *run,
                     double ttft_s)
{
    struct overload o;
    double end_s = (double)step->duration_ns * 1e-9;
    size_t n_due = 0;
    overload_begin(&o, step->rate_rps, 1.0, ttft_s, 0, step->duration_ns);
    for (int64_t t_ns = 0; t_ns < step->duration_ns; t_ns += OVERLOAD_PERIOD_NS) {
        uint64_t waiting = 0;
        for (; n_due < run->data.n && run->data.records[n_due].t_sched_ns <= t_ns; n_due++) {
        }
        for (size_t i = 0; i < n_due && overload_is_due(&o, t_ns); i++) {
            int64_t first_ns = run->data.records[i].t_first_ns;
            waiting += first_ns == RECORD_NONE || first_ns > t_ns;
        }
        if (overload_is_due(&o, t_ns) && overload_look(&o, t_ns, waiting)) {
            return (double)t_ns * 1e-9;
        }
    }
    return end_s;
}

/* From the end of the load to the last token, or to the end of the drain. */
static double drained_s(const struct batch_server_run *run)
{
    int64_t end_ns = run->data.info.t_end_ns, last_ns = end_ns;
    for (size_t i = 0; i < run->data.n; i++) {
        const struct record *x = &run->data.records[i];
        int64_t t_ns = x->outcome == OUTCOME_OK ? x->t_last_ns : run->data.info.t_drain_ns;
        last_ns = t_ns > last_ns ? t_ns : last_ns;
    }
    return (double)(last_ns - end_ns) * 1e-9;
}

static void simulate(struct rig *r, const struct search_step *step, struct batch_server_run *run)
{
    double planned_s = (double)step->duration_ns * 1e-9, warm_s = r->cfg.warmup * planned_s;
    struct batch_server_step s = {
        .rate_rps = step->rate_rps,
        .users = step->users,
        .warm_s = warm_s,
        .window_s = planned_s - warm_s,
        .drain_s = (double)r->cfg.drain_ns * 1e-9,
        .scale = r->target.scale,
        .seed = rng_u64(r->seed, RNG_STEP, r->n_steps, 0),
        .index = (uint32_t)r->n_steps,
    };
    serve(&r->target, &s, run);
    double end_s = step->may_stop ? stop_s(step, run, r->ttft_s) : planned_s;
    if (end_s < planned_s) {
        batch_server_free(run);
        s.warm_s = fmin(warm_s, end_s / 2);
        s.window_s = end_s - s.warm_s;
        serve(&r->target, &s, run);
        run->data.info.stopped_early = true;
        r->n_stopped++;
    }
    run->data.info.t_planned_ns = step->duration_ns;
    run->data.info.kind = step->kind;
    r->spent_s += end_s + drained_s(run);
}

static void measure(struct rig *r, const struct batch_server_run *run)
{
    struct measure *m = &r->measure[r->n_steps];
    measure_begin(m, &run->data, &r->slo);
    for (size_t i = 0; i < run->data.n; i++) {
        measure_tokens(m, &run->data.records[i], run->dt_us + run->offsets[i],
                       run->offsets[i + 1] - run->offsets[i]);
    }
    measure_end(m);
    r->sample[r->n_steps] = slo_decision_sample(m);
}

/* All steps at the rate (with as many users) of the last one decide together. */
static struct slo_decision decide(const struct rig *r)
{
    struct slo_sample same[MOST_STEPS];
    struct slo_decision d;
    size_t n = 0;
    for (size_t i = 0; i <= r->n_steps; i++) {
        if (r->rate_rps[i] == r->rate_rps[r->n_steps] && r->users[i] == r->users[r->n_steps]) {
            same[n++] = r->sample[i];
        }
    }
    slo_decision(same, n, r->slo.quantile, &d);
    return d;
}

static void rig_run(struct rig *r)
{
    struct search_step step;
    search_init(&r->search, &r->cfg, 1, 0, 0);
    for (; search_next(&r->search, &step); r->n_steps++) {
        struct batch_server_run run;
        assert_true(r->n_steps < MOST_STEPS);
        simulate(r, &step, &run);
        r->rate_rps[r->n_steps] = step.rate_rps;
        r->users[r->n_steps] = step.users;
        measure(r, &run);
        batch_server_free(&run);
        const struct measure *m = &r->measure[r->n_steps];
        const struct slo_decision d = decide(r);
        if (m->verdict.verdict == VERDICT_STABLE) {
            r->ttft_s = m->latency[LATENCY_TTFT].mean * 1e-3;
        }
        if (is_shown()) {
            printf("%zu kind %d rate %.3g of capacity users %u, %.1f s: %s; slo %s %.3f\n",
                   r->n_steps, step.kind, step.rate_rps / r->target.capacity_rps, step.users,
                   r->spent_s, m->verdict.reason, slo_decision_holds_names[d.holds], d.share.value);
        }
        search_report(&r->search, &(struct search_result){
                                      .verdict = m->verdict.verdict,
                                      .output_tokens_per_s = measure_rate(m, m->served_out),
                                      .offered_output_tokens_per_s = measure_rate(m, m->due_out),
                                      .output_tokens_per_request = m->tokens_out / m->n_requests,
                                      .slo = (enum search_slo)d.holds,
                                      .meets = d.meets,
                                  });
    }
}

/* --- saturation --------------------------------------------------------------------------------- */

struct tally {
    int n, within, found, covered;
    double spent_s, most_s, sum, squares;
};

static void saturate(struct target target, int64_t step_s, uint64_t seed, struct tally *t)
{
    struct rig r;
    rig_open(&r, target, seed);
    r.cfg.step_ns = step_s * NS_PER_S;
    r.cfg.warmup = 0.25;
    r.cfg.drain_ns = 15 * NS_PER_S;
    rig_run(&r);
    struct saturation_step steps[MOST_STEPS];
    struct saturation sat;
    for (size_t i = 0; i < r.n_steps; i++) {
        steps[i] = (struct saturation_step){r.rate_rps[i], &r.measure[i]};
    }
    saturation_find(steps, r.n_steps, 1, &sat);
    double knee = sat.rate_rps.value / target.capacity_rps;
    t->n++;
    t->found += sat.verdict == SATURATION_FOUND;
    t->within += fabs(knee - 1) <= 0.05;
    t->covered += sat.rate_rps.lo <= target.capacity_rps && sat.rate_rps.hi >= target.capacity_rps;
    t->spent_s += r.spent_s;
    t->most_s = fmax(t->most_s, r.spent_s);
    t->sum += knee;
    t->squares += (knee - 1) * (knee - 1);
    if (is_shown()) {
        printf("knee %.4f: %s %s; %zu steps, %d stopped, %.0f s\n", knee,
               saturation_names[sat.verdict], sat.reason, r.n_steps, r.n_stopped, r.spent_s);
    }
    saturation_free(&sat);
    rig_close(&r);
}

static void show(const char *what, const struct tally *t)
{
    printf("%s: %d of %d within 5 %%, found %d, covered %d, mean %.4f, rms error %.4f, %.0f s on "
           "average, %.0f s at most\n",
           what, t->within, t->n, t->found, t->covered, t->sum / t->n, sqrt(t->squares / t->n),
           t->spent_s / t->n, t->most_s);
}

/* Ten rates from 0.2 to 1.25 of capacity, 150 s each (analysis-anchors.md, 2.3) take this long without
 * their drains. */
#define SWEEP_S 1500.0

static void the_knee_is_found_in_half_the_time_of_a_sweep(void **state)
{
    (void)state;
    struct tally batch = {0}, mmc = {0};
    int seeds = is_soak() ? 100 : 12;
    for (int seed = 1; seed <= seeds; seed++) {
        saturate(batch_target(0.25), 45, (uint64_t)seed, &batch);
        saturate(mmc_target(16, 4), 45, (uint64_t)seed, &mmc);
    }
    show("batch server, 45 s steps", &batch);
    show("M/M/16, 45 s steps", &mmc);
    assert_true(batch.within >= 0.95 * seeds && mmc.within >= 0.95 * seeds - 1);
    assert_true(batch.found >= 0.9 * seeds && mmc.found >= 0.9 * seeds);
    assert_true(batch.covered >= 0.85 * seeds && mmc.covered >= 0.85 * seeds);
    assert_true(batch.spent_s / seeds <= 0.5 * SWEEP_S && mmc.spent_s / seeds <= 0.5 * SWEEP_S);
}

/* --- early stop ----------------------------------------------------------------------------------- */

/* How many of `seeds` steps of a minute at this share of capacity stop; the sum of their lengths. */
static int stopped(struct target target, double share, int seeds, double ttft_s, double *sum_s)
{
    int n = 0;
    *sum_s = 0;
    for (int seed = 1; seed <= seeds; seed++) {
        struct rig r;
        struct batch_server_run run;
        rig_open(&r, target, (uint64_t)seed);
        r.ttft_s = ttft_s;
        const struct search_step step = {.kind = STEP_SWEEP,
                                         .rate_rps = share * target.capacity_rps,
                                         .duration_ns = 60 * NS_PER_S,
                                         .may_stop = true};
        simulate(&r, &step, &run);
        n += r.n_stopped;
        *sum_s += (double)run.data.info.t_end_ns * 1e-9;
        batch_server_free(&run);
        rig_close(&r);
    }
    return n;
}

static void no_step_stops_at_the_knee_or_below(void **state)
{
    (void)state;
    double sum_s;
    int seeds = is_soak() ? 2000 : 150;
    const struct target targets[] = {batch_target(1), batch_target(0.1), mmc_target(1, 20),
                                     mmc_target(16, 4)};
    const double ttft_s[] = {0.04, 0.004, 0.1, 0.3};
    int n[2] = {0};
    for (int i = 0; i < 4; i++) {
        n[0] += stopped(targets[i], 0.9, seeds, ttft_s[i], &sum_s);
        n[1] += stopped(targets[i], 1.0, seeds, ttft_s[i], &sum_s);
    }
    printf("stopped early of %d steps: %d at 0.9 and %d at 1.0 of capacity\n", 4 * seeds, n[0],
           n[1]);
    assert_true(n[0] == 0 && n[1] <= 0.005 * 4 * seeds);
}

static void overload_stops_soon(void **state)
{
    (void)state;
    double sum_s;
    int seeds = is_soak() ? 200 : 20;
    const struct target target = mmc_target(16, 4);
    for (double share = 1.5; share < 2.5; share *= 1.5) {
        int n = stopped(target, share, seeds, 0.3, &sum_s);
        printf("M/M/16 of 64/s at %.3g: %d of %d stopped, after %.1f s\n", share, n, seeds,
               sum_s / seeds);
        assert_int_equal(n, seeds);
        assert_true(sum_s / seeds <= 20.0);
    }
}

/* --- objectives ----------------------------------------------------------------------------------- */

/* All steps at each rate decide: the highest rate met, the lowest missed above it. */
static void decided(struct rig *r, double *met_rps, double *missed_rps)
{
    *met_rps = 0;
    *missed_rps = INFINITY;
    size_t n_steps = r->n_steps;
    for (size_t i = 0; i < n_steps; i++) {
        r->n_steps = i; // decide looks back from there: the last step at a rate has them all
        enum slo_holds holds = decide(r).holds;
        if (r->rate_rps[i] > 0 && holds == SLO_MET) {
            *met_rps = fmax(*met_rps, r->rate_rps[i]);
        }
        if (r->rate_rps[i] > 0 && holds == SLO_MISSED) {
            *missed_rps = fmin(*missed_rps, r->rate_rps[i]);
        }
    }
    r->n_steps = n_steps;
}

/* M/M/1: P(time <= L) = 1 - exp(-(mu - lambda) L), so that the rate with 90 % within L is known. */
static void the_objectives_rate_is_enclosed(void **state)
{
    (void)state;
    int seeds = is_soak() ? 200 : 15, enclosed = 0, held = 0;
    double mu_rps = 40, truth_rps = 28, met_rps, missed_rps, width = 0, spent_s = 0;
    for (int seed = 1; seed <= seeds; seed++) {
        struct rig r;
        rig_open(&r, mmc_target(1, mu_rps), (uint64_t)seed);
        r.cfg.step_ns = 30 * NS_PER_S;
        r.cfg.rates_slo = true;
        r.slo.ttft_ns = (int64_t)(log(10) / (mu_rps - truth_rps) * 1e9);
        rig_run(&r);
        decided(&r, &met_rps, &missed_rps);
        enclosed += met_rps <= truth_rps && missed_rps >= truth_rps;
        held += met_rps <= truth_rps;
        width += (fmin(missed_rps, 2 * truth_rps) - met_rps) / truth_rps;
        spent_s += r.spent_s;
        rig_close(&r);
    }
    printf(
        "objectives of M/M/1: %d of %d enclosed, the met rate holds in %d, %.1f %% wide, %.0f s\n",
        enclosed, seeds, held, 100 * width / seeds, spent_s / seeds);
    assert_true(enclosed >= 0.9 * seeds && held >= 0.93 * seeds);
    assert_true(width / seeds <= 0.6);
}

/* --- the best limit of requests in flight ------------------------------------------------------------ */

#define SERVED_RPS 480.0 // so that noise is below a percent, and SEARCH_ENOUGH can be told

struct limits {
    int n, near, best, covered;
    double wide, spent_s;
};

/* By the law, of the rungs that were run: the smallest with enough of the highest throughput. */
static uint32_t best_by_law(const struct rig *r)
{
    uint32_t best = UINT32_MAX, c = r->target.mmc.servers;
    for (size_t i = 0; i < r->n_steps; i++) {
        best = r->users[i] >= SEARCH_ENOUGH * c && r->users[i] < best ? r->users[i] : best;
    }
    return best;
}

static void climb(uint32_t servers, uint64_t seed, struct limits *t)
{
    struct rig r;
    struct step_info info[MOST_STEPS] = {{0}};
    struct ladder l;
    rig_open(&r, mmc_target(servers, SERVED_RPS / servers), seed);
    r.cfg.concurrency = LOAD_CONCURRENCY_BEST;
    r.cfg.step_ns = 30 * NS_PER_S;
    rig_run(&r);
    for (size_t i = 0; i < r.n_steps; i++) {
        info[i].users = r.users[i];
    }
    ladder_find(info, r.measure, r.n_steps, r.slo.quantile, seed, &l);
    assert_true(l.best < l.n);
    double found = l.rungs[l.best].users, truth = best_by_law(&r);
    t->n++;
    t->near += found >= servers / 1.15 && found <= servers * 1.15;
    t->best += found == truth;
    t->covered += l.lo95 <= truth && truth <= l.hi95;
    t->wide += (l.hi95 - l.lo95) / truth;
    t->spent_s += r.spent_s;
    if (is_shown()) {
        printf("M/M/%u: best %g [%g, %g], should be %g\n", servers, found, l.lo95, l.hi95, truth);
    }
    ladder_free(&l);
    rig_close(&r);
}

/* N users of c servers are served min(N, c) mu: fewer than c lose throughput, more only wait. */
static void the_best_limit_is_found(void **state)
{
    (void)state;
    int seeds = is_soak() ? 100 : 12;
    for (uint32_t servers = 6; servers <= 24; servers *= 2) {
        struct limits t = {0};
        for (int seed = 1; seed <= seeds; seed++) {
            climb(servers, (uint64_t)seed, &t);
        }
        printf("best limit of M/M/%u: %d of %d within 15 %%, %d the best rung, %d covered, %.1f %% "
               "wide, %.0f s\n",
               servers, t.near, t.n, t.best, t.covered, 100 * t.wide / t.n, t.spent_s / t.n);
        assert_true(t.near >= 0.9 * seeds && t.covered >= 0.9 * seeds);
        assert_true(t.wide / t.n <= 1.5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_knee_is_found_in_half_the_time_of_a_sweep),
        cmocka_unit_test(no_step_stops_at_the_knee_or_below),
        cmocka_unit_test(overload_stops_soon),
        cmocka_unit_test(the_objectives_rate_is_enclosed),
        cmocka_unit_test(the_best_limit_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
