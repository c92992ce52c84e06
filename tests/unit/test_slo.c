#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/answers_search.h"
#include "analysis/slo.h"
#include "core/rng.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>

#define N_STEPS 6

static void near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) {
        fail_msg("%.17g is not within %g of %.17g", got, within, want);
    }
}

static void isotonic_fit_pools_violators(void **state)
{
    (void)state;
    double y[] = {1, 3, 2, 2, 5, 4, 6}; // scikit-learn's IsotonicRegression gives the same
    slo_isotonic(y, 7);
    const double want[] = {1, 7.0 / 3, 7.0 / 3, 7.0 / 3, 4.5, 4.5, 6};
    for (int i = 0; i < 7; i++) {
        near(y[i], want[i], 1e-12);
    }
    double falling[] = {3, 2, 1};
    slo_isotonic(falling, 3);
    near(falling[0], 2, 1e-12);
    near(falling[2], 2, 1e-12);
    slo_isotonic(y, 0);
}

static void crossing_is_linear_in_log_latency(void **state)
{
    (void)state;
    const double rate[] = {1, 2, 4};
    double y[] = {log(10), log(10), log(1000)};
    near(slo_crossing_rate(rate, y, 3, log(100)), 3, 1e-12);
    assert_true(isinf(slo_crossing_rate(rate, y, 3, log(2000))));
    near(slo_crossing_rate(rate, y, 3, log(5)), 0, 0);
}

/* Steps whose TTFT quantile is 20 ms * 2^rate, +-10 % from batch to batch. */
static void make(struct measure *m, struct slo_step *steps, double limit_ms)
{
    for (size_t i = 0; i < N_STEPS; i++) {
        m[i] = (struct measure){.n_due = 500};
        struct measure_objective *o = &m[i].objective[LATENCY_TTFT];
        o->limit_ms = limit_ms;
        o->quantile_ms = 20 * pow(2, (double)(i + 1));
        for (uint64_t b = 0; b < LATENCY_BATCHES; b++) {
            o->batch_ms[b] = o->quantile_ms * (0.9 + 0.2 * rng_uniform(1, RNG_SHUFFLE, i, b));
        }
        steps[i] = (struct slo_step){(double)(i + 1), &m[i]};
    }
}

static void the_rate_of_one_objective_is_found(void **state)
{
    (void)state;
    struct measure *m = calloc(N_STEPS, sizeof *m);
    struct slo_step steps[N_STEPS];
    struct slo_result *r = calloc(1, sizeof *r);
    make(m, steps, 20 * pow(2, 3.5));
    slo_find(steps, N_STEPS, 1, r);
    assert_int_equal(r->all.verdict, SLO_FOUND);
    near(r->all.rate_rps.value, 3.5, 1e-9);
    assert_true(r->all.rate_rps.lo < 3.5 && r->all.rate_rps.hi > 3.5);
    assert_true(r->all.rate_rps.hi - r->all.rate_rps.lo < 0.3);
    assert_int_equal(r->metric[LATENCY_E2E].verdict, SLO_NONE);
    make(m, steps, 1e6);
    slo_find(steps, N_STEPS, 1, r);
    assert_int_equal(r->all.verdict, SLO_NOT_REACHED);
    assert_true(isnan(r->all.rate_rps.value));
    make(m, steps, 1);
    slo_find(steps, N_STEPS, 1, r);
    assert_int_equal(r->all.verdict, SLO_FIRST_STEP);
    free(m);
    free(r);
}

static void the_tightest_objective_decides_and_failures_are_infinite(void **state)
{
    (void)state;
    struct measure *m = calloc(N_STEPS, sizeof *m);
    struct slo_step steps[N_STEPS];
    struct slo_result *r = calloc(1, sizeof *r);
    make(m, steps, 20 * pow(2, 4.5));
    for (size_t i = 0; i < N_STEPS; i++) {
        struct measure_objective *o = &m[i].objective[LATENCY_E2E];
        *o = (struct measure_objective){.limit_ms = 1000, .quantile_ms = 100};
        o->quantile_ms = i < 3 ? 100 : (double)INFINITY;
        for (int b = 0; b < LATENCY_BATCHES; b++) {
            o->batch_ms[b] = o->quantile_ms;
        }
    }
    slo_find(steps, N_STEPS, 1, r);
    near(r->metric[LATENCY_TTFT].rate_rps.value, 4.5, 1e-9);
    near(r->metric[LATENCY_E2E].rate_rps.value, 3.5, 1e-9); // halfway to the cap, in the logarithm
    near(r->all.rate_rps.value, 3.5, 1e-9);
    free(m);
    free(r);
}

/* A rate at which nothing finished has no gaps, which are not gaps of 0. */
static void no_gap_of_a_dead_server_is_short(void **state)
{
    (void)state;
    struct measure *m = calloc(4, sizeof *m);
    struct slo_result *r = calloc(1, sizeof *r);
    struct slo_step steps[4];
    const double ms[] = {40, 60, 120, STATS_NONE};
    for (int i = 0; i < 4; i++) {
        m[i] = (struct measure){.n_due = 100, .n_ok = i < 3 ? 100 : 0};
        m[i].objective[LATENCY_ITL] =
            (struct measure_objective){.limit_ms = 100, .quantile_ms = ms[i]};
        for (int b = 0; b < LATENCY_BATCHES; b++) {
            m[i].objective[LATENCY_ITL].batch_ms[b] = ms[i];
        }
        steps[i] = (struct slo_step){1 << i, &m[i]};
    }
    slo_find(steps, 4, 1, r);
    assert_int_equal(r->all.verdict, SLO_FOUND);
    near(r->all.rate_rps.value, 2 + 2 * log(100.0 / 60) / log(2), 1e-9);
    m[3].n_ok = 100; // one token each: there are no gaps, and none is late
    slo_find(steps, 4, 1, r);
    assert_int_equal(r->all.verdict, SLO_NOT_REACHED);
    free(m);
    free(r);
}

/* Two visits to one rate are one point, whichever was first. */
static void visits_to_one_rate_have_no_order(void **state)
{
    (void)state;
    struct measure *m = calloc(4, sizeof *m);
    struct slo_result *r = calloc(1, sizeof *r);
    double found[2];
    for (int swapped = 0; swapped < 2; swapped++) {
        const double rate[] = {8, 12, 12, 18};
        const double ms[] = {50, swapped ? 130 : 80, swapped ? 80 : 130, 300};
        struct slo_step steps[4];
        for (int i = 0; i < 4; i++) {
            m[i] = (struct measure){.n_due = 100, .n_ok = 100};
            m[i].objective[LATENCY_TTFT] =
                (struct measure_objective){.limit_ms = 100, .quantile_ms = ms[i]};
            steps[i] = (struct slo_step){rate[i], &m[i]};
        }
        slo_find(steps, 4, 1, r);
        found[swapped] = r->all.rate_rps.value;
    }
    near(found[0], found[1], 1e-12);
    near(found[0], 8 + 4 * log(100.0 / 50) / (log(sqrt(80.0 * 130)) - log(50)), 1e-9);
    free(m);
    free(r);
}

static void closed_loops_stay_out(void **state)
{
    (void)state;
    struct measure m = {.closed_loop = true, .n_due = 100};
    struct slo_result *r = calloc(1, sizeof *r);
    m.objective[LATENCY_TTFT].limit_ms = 5;
    slo_find(&(struct slo_step){0, &m}, 1, 1, r);
    assert_int_equal(r->all.verdict, SLO_NONE);
    free(r);
}

/* Half of the requests miss at every rate: whose fault that is, is known only where the client kept up. */
static void a_client_that_is_the_limit_decides_nothing(void **state)
{
    (void)state;
    static struct measure m[3];
    static struct slo_result r;
    struct step_info info[3] = {{.rate_rps = 1}, {.rate_rps = 2}, {.rate_rps = 4}};
    const enum verdict verdicts[] = {VERDICT_STABLE, VERDICT_CLIENT_LIMITED, VERDICT_UNSTABLE};
    const char *const wanted[] = {"missed", "undecided", "missed"};
    const struct report_config cfg = {.slo.quantile = 0.9};
    r.all.verdict = SLO_FOUND;
    for (int i = 0; i < 3; i++) {
        m[i].verdict.verdict = verdicts[i];
        m[i].objective[LATENCY_TTFT].limit_ms = 5;
        for (int b = 0; b < LATENCY_BATCHES; b++) {
            m[i].objective[LATENCY_TTFT].n_batch[b] = 100;
            m[i].objective[LATENCY_TTFT].n_met_batch[b] = 50;
        }
    }
    const struct answers a = {.cfg = &cfg, .n_steps = 3, .info = info, .measure = m, .slo = &r};
    json_t *o = answers_search_decided(&a);
    for (size_t i = 0; i < 3; i++) {
        const json_t *p = json_array_get(json_object_get(o, "probes"), i);
        assert_string_equal(json_string_value(json_object_get(p, "holds")), wanted[i]);
        assert_int_equal(json_is_true(json_object_get(p, "overloaded")), i == 2);
        assert_int_equal(json_is_true(json_object_get(p, "client_limited")), i == 1);
    }
    assert_true(json_number_value(json_object_get(o, "lowest_client_limited_rps")) == 2);
    json_decref(o);
    info[1].rate_rps = 1; // what another visit decided stands
    o = answers_search_decided(&a);
    const json_t *p = json_array_get(json_object_get(o, "probes"), 0);
    assert_string_equal(json_string_value(json_object_get(p, "holds")), "missed");
    assert_true(json_is_null(json_object_get(o, "lowest_client_limited_rps")));
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(isotonic_fit_pools_violators),
        cmocka_unit_test(crossing_is_linear_in_log_latency),
        cmocka_unit_test(the_rate_of_one_objective_is_found),
        cmocka_unit_test(the_tightest_objective_decides_and_failures_are_infinite),
        cmocka_unit_test(no_gap_of_a_dead_server_is_short),
        cmocka_unit_test(visits_to_one_rate_have_no_order),
        cmocka_unit_test(closed_loops_stay_out),
        cmocka_unit_test(a_client_that_is_the_limit_decides_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
