/* Intervals over passes, drift between two visits of a rate, decisions about objectives. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/drift.h"
#include "analysis/repeats.h"
#include "analysis/slo_decision.h"
#include "core/rng.h"

#include <math.h>
#include <string.h>

static void near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) {
        fail_msg("%.17g is not within %g of %.17g", got, within, want);
    }
}

static void passes_make_a_student_interval(void **state)
{
    (void)state;
    const struct stats_interval pass[] = {{9, 8.9, 9.1}, {10, 9.9, 10.1}, {11, 10.9, 11.1}};
    struct repeats_mean m = repeats_mean(pass, 3);
    assert_int_equal(m.n, 3);
    near(m.of.value, 10, 1e-12);
    near(m.between_sd, 1, 1e-12);
    near(m.of.hi - 10, 4.302652729911275 / sqrt(3), 1e-6); // t(0.975, 2), scipy's
    near(10 - m.of.lo, m.of.hi - 10, 1e-12);
}

/* Two passes that happen to agree know no more than half of what each does not know. */
static void agreement_by_luck_is_not_certainty(void **state)
{
    (void)state;
    const struct stats_interval pass[] = {{10, 8, 12}, {10, 8, 12}};
    struct repeats_mean m = repeats_mean(pass, 2);
    near(m.of.hi - 10, 2 / sqrt(2), 1e-12);
    near(m.between_sd, 0, 0);
}

static void passes_without_a_value_are_left_out(void **state)
{
    (void)state;
    const struct stats_interval none = {STATS_NONE, STATS_NONE, STATS_NONE};
    const struct stats_interval one[] = {none, {5, 4, 7}, none};
    struct repeats_mean m = repeats_mean(one, 3);
    assert_int_equal(m.n, 1);
    near(m.of.lo, 4, 0);
    near(m.of.hi, 7, 0);
    assert_true(isnan(m.between_sd));
    m = repeats_mean(&none, 1);
    assert_true(m.n == 0 && isnan(m.of.value));
}

/* Four passes around 100: the interval holds the truth in about 95 %. */
static void the_interval_covers(void **state)
{
    (void)state;
    int covered = 0;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct stats_interval pass[4];
        for (uint64_t i = 0; i < 4; i++) {
            double between = 0, within = 0;
            for (uint64_t k = 0; k < 12; k++) { // sums of 12 uniforms: sd 1
                between += rng_uniform(seed, RNG_BOOTSTRAP, i, k) - 0.5;
                within += rng_uniform(seed, RNG_SHUFFLE, i, k) - 0.5;
            }
            double x = 100 + 3 * between + within;
            pass[i] = (struct stats_interval){x, x - STATS_Z95, x + STATS_Z95};
        }
        struct repeats_mean m = repeats_mean(pass, 4);
        covered += m.of.lo <= 100 && m.of.hi >= 100;
    }
    assert_true(covered >= 0.935 * 2000 && covered <= 0.985 * 2000);
}

/* --- drift ---------------------------------------------------------------------------------------- */

static void make_step(struct step_info *i, struct measure *m, enum step_kind kind, double ttft_ms)
{
    *i = (struct step_info){.kind = kind, .rate_rps = 5};
    memset(m, 0, sizeof *m);
    m->n_ok = 100;
    m->window_s = 60;
    m->latency[LATENCY_TTFT] = (struct latency){.mean = ttft_ms, .hi95 = 1.02 * ttft_ms};
    m->latency[LATENCY_TPOT] = (struct latency){.mean = 20, .hi95 = 20.1};
    for (int b = 0; b < MEASURE_BINS; b++) {
        m->due_out[b] = 100;
        m->served_out[b] = 100 + b % 2;
    }
}

static void drift_is_found_where_it_is(void **state)
{
    (void)state;
    static struct measure m[3];
    struct step_info info[3];
    struct drift d;
    make_step(&info[0], &m[0], STEP_SWEEP, 100);
    make_step(&info[1], &m[1], STEP_SWEEP, 500);
    info[1].rate_rps = 9;
    make_step(&info[2], &m[2], STEP_REVISIT, 101);
    drift_find(info, m, 3, &d);
    assert_true(d.is_known && d.first == 0 && d.last == 2 && !d.is_significant);
    make_step(&info[2], &m[2], STEP_REVISIT, 120);
    drift_find(info, m, 3, &d);
    assert_true(d.is_significant && d.metric[0].is_significant && !d.metric[1].is_significant);
    near(d.metric[0].change, 0.2, 1e-12);
    m[2].latency[LATENCY_TTFT].hi95 = 180; // as large, and as noisy
    drift_find(info, m, 3, &d);
    assert_false(d.is_significant);
    drift_find(info, m, 2, &d); // no revisit
    assert_false(d.is_known);
}

/* Rates 5, 9, and 9 again, longer, since its interval straddled the objective. */
static void an_extension_is_no_return(void **state)
{
    (void)state;
    static struct measure m[5];
    struct step_info info[5];
    struct drift d;
    for (size_t i = 0; i < 5; i++) {
        make_step(&info[i], &m[i], i < 2 ? STEP_SWEEP : STEP_REVISIT, 100 + 20 * (double)i);
        info[i].rate_rps = i == 0 || i > 2 ? 5 : 9;
    }
    drift_find(info, m, 3, &d);
    assert_false(d.is_known);
    drift_find(info, m, 4, &d);
    assert_true(d.is_known && d.first == 0 && d.last == 3);
    drift_find(info, m, 5, &d); // the return itself extended
    assert_true(d.is_known && d.first == 0 && d.last == 4);
    m[3].recovered = true; // cut short, and offered again
    drift_find(info, m, 5, &d);
    assert_true(d.is_known && d.first == 0 && d.last == 4);
}

/* --- objectives ----------------------------------------------------------------------------------- */

static struct slo_sample sample(double n, double met)
{
    struct slo_sample s = {0};
    s.metric[LATENCY_TTFT].limit_ms = 100;
    for (int b = 0; b < LATENCY_BATCHES; b++) {
        s.metric[LATENCY_TTFT].n[b] = n;
        s.metric[LATENCY_TTFT].n_met[b] = met + (b % 2 ? 1 : -1) * (met < n);
    }
    return s;
}

static enum slo_holds decide(const struct slo_sample *s, size_t n)
{
    struct slo_decision d;
    slo_decision(s, n, 0.9, &d);
    return d.holds;
}

static void clear_cases_are_decided_at_once(void **state)
{
    (void)state;
    struct slo_sample all = sample(100, 100), few = sample(100, 50), tiny = sample(2, 2);
    assert_int_equal(decide(&all, 1), SLO_MET);
    assert_int_equal(decide(&few, 1), SLO_MISSED);
    assert_int_equal(decide(&tiny, 1), SLO_UNDECIDED); // 20 of 20 is no proof of 90 %
}

static void close_cases_want_another_step(void **state)
{
    (void)state;
    struct slo_sample two[2] = {sample(100, 95), sample(200, 190)};
    assert_int_equal(decide(two, 1), SLO_UNDECIDED); // half of the misses allowed, seen once
    assert_int_equal(decide(two, 2), SLO_MET);
    struct slo_sample edge[2] = {sample(100, 90), sample(200, 180)};
    assert_int_equal(decide(edge, 1), SLO_UNDECIDED);
    assert_int_equal(decide(edge, 2), SLO_UNDECIDED);
}

static void every_objective_must_hold(void **state)
{
    (void)state;
    struct slo_decision d;
    struct slo_sample s = sample(100, 100);
    s.metric[LATENCY_E2E] = sample(100, 50).metric[LATENCY_TTFT];
    slo_decision(&s, 1, 0.9, &d);
    assert_true(d.holds == SLO_MISSED && !d.meets && d.worst == LATENCY_E2E);
    near(d.share.value, 0.5, 1e-12);
    struct slo_sample none = {0};
    slo_decision(&none, 1, 0.9, &d);
    assert_true(d.meets && isnan(d.share.value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_make_a_student_interval),
        cmocka_unit_test(agreement_by_luck_is_not_certainty),
        cmocka_unit_test(passes_without_a_value_are_left_out),
        cmocka_unit_test(the_interval_covers),
        cmocka_unit_test(drift_is_found_where_it_is),
        cmocka_unit_test(an_extension_is_no_return),
        cmocka_unit_test(clear_cases_are_decided_at_once),
        cmocka_unit_test(close_cases_want_another_step),
        cmocka_unit_test(every_objective_must_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
