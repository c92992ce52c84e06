/*
 * The search of rates: what is asked for is what comes, and on a model of a queue the sweep brackets
 * the true capacity, for any capacity, with two rates beyond it and none wasted.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "loadgen/search.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct load_config cfg;

static int set_up(void **state)
{
    (void)state;
    memset(&cfg, 0, sizeof cfg);
    opt_defaults(load_options, &cfg);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    opt_free(load_options, &cfg);
    return 0;
}

static void set_start(const char *text)
{
    free(cfg.rates_start);
    cfg.rates_start = xstrdup(text);
}

static void report(struct search *s, const struct search_step *step, enum verdict v)
{
    struct search_result r = {.kind = step->kind, .rate_rps = step->rate_rps, .verdict = v};
    search_report(s, &r);
}

static void report_probe(struct search *s, double rps)
{
    struct search_result r = {.kind = STEP_BASE,
                              .verdict = VERDICT_STABLE,
                              .output_tokens_per_s = rps * 195.0,
                              .output_tokens_per_request = 195.0};
    search_report(s, &r);
}

static struct search_step next(const struct search *s)
{
    struct search_step step, again;
    assert_true(search_next(s, &step));
    assert_true(search_next(s, &again)); // asking changes nothing
    assert_true(step.rate_rps == again.rate_rps && step.kind == again.kind);
    return step;
}

static void test_a_list_is_done_as_given(void **state)
{
    (void)state;
    double rates[] = {2.0, 4.0, 8.0, 16.0};
    cfg.rates_list.v = xmalloc(sizeof rates);
    memcpy(cfg.rates_list.v, rates, sizeof rates);
    cfg.rates_list.n = 4;
    struct search s;
    search_init(&s, &cfg, 1, 0, 0);
    assert_true(search_most_steps(&s) == 4);
    for (int i = 0; i < 4; i++) {
        struct search_step step = next(&s);
        assert_true(step.kind == STEP_SWEEP && step.rate_rps == rates[i] && step.users == 0);
        assert_true(step.duration_ns == 12 * NS_PER_S);
        report(&s, &step, VERDICT_UNSTABLE); // what was asked for is done all the same
    }
    struct search_step step;
    assert_false(search_next(&s, &step));
    assert_string_equal(search_ending(&s), "all rates of the list are done");
}

static void test_start_times_factor(void **state)
{
    (void)state;
    set_start("2");
    struct search s;
    search_init(&s, &cfg, 1, 0, 0);
    assert_true(search_most_steps(&s) == 9);
    const double rates[] = {2.0, 3.0, 4.5, 6.75, 10.125, 15.1875, 22.78125, 34.171875, 51.2578125};
    for (int i = 0; i < 9; i++) {
        struct search_step step = next(&s);
        assert_true(step.rate_rps == rates[i]);
        report(&s, &step, VERDICT_STABLE);
    }
    struct search_step step;
    assert_false(search_next(&s, &step));
    assert_string_equal(search_ending(&s), "load.rates.max_steps is reached");
}

static void test_auto_probes_first(void **state)
{
    (void)state;
    struct search s;
    search_init(&s, &cfg, 2, 0, 0);
    assert_true(search_most_steps(&s) == 10);
    struct search_step step = next(&s);
    assert_true(step.kind == STEP_BASE && step.rate_rps == 0.0);
    assert_true(step.users == 2 * SEARCH_PROBE_USERS && step.duration_ns == 5 * NS_PER_S);
    report_probe(&s, 34.2867);
    step = next(&s);
    assert_true(step.kind == STEP_SWEEP && step.rate_rps == 6.86); // 0.2 of it, to three digits
    report(&s, &step, VERDICT_STABLE);
    assert_true(fabs(next(&s).rate_rps - 10.29) < 1e-12);

    cfg.users = 5;
    search_init(&s, &cfg, 2, 0, 0);
    assert_true(next(&s).users == 5);
}

static void test_a_probe_without_output_ends_the_search(void **state)
{
    (void)state;
    const struct search_result nothing[] = {
        {.kind = STEP_BASE},
        {.kind = STEP_BASE, .output_tokens_per_s = 1.0},
        {.kind = STEP_BASE, .output_tokens_per_s = (double)NAN, .output_tokens_per_request = 1.0},
    };
    for (int i = 0; i < 3; i++) {
        struct search s;
        struct search_step step;
        search_init(&s, &cfg, 1, 0, 0);
        search_report(&s, &nothing[i]);
        assert_false(search_next(&s, &step));
        assert_non_null(strstr(search_ending(&s), "probe"));
    }
}

static enum verdict verdict_of(char c)
{
    switch (c) {
    case 'S':
        return VERDICT_STABLE;
    case 'U':
        return VERDICT_UNSTABLE;
    case 'T':
        return VERDICT_TOO_SHORT;
    case 'C':
        return VERDICT_CLIENT_LIMITED;
    default:
        return VERDICT_ERRORS;
    }
}

/* How many of these steps are run: all of them and -1 when the search would go on. */
static int steps_until_end(const char *verdicts)
{
    struct search s;
    struct search_step step;
    int n = 0;
    search_init(&s, &cfg, 1, 0, 0);
    for (; verdicts[n] && search_next(&s, &step); n++) {
        report(&s, &step, verdict_of(verdicts[n]));
    }
    return search_next(&s, &step) ? -1 : n;
}

static void test_two_overloaded_in_a_row(void **state)
{
    (void)state;
    set_start("1");
    assert_int_equal(steps_until_end("SSUUSS"), 4);
    assert_int_equal(steps_until_end("SUSUSU"), -1); // one bad step is luck
    assert_int_equal(steps_until_end("TTTT"), -1);
    assert_int_equal(steps_until_end("SUTU"), 4);
    assert_int_equal(steps_until_end("SEUS"), 3);
    assert_int_equal(steps_until_end("CCS"), 2);
    cfg.rates_until = LOAD_UNTIL_MAX_STEPS;
    assert_int_equal(steps_until_end("UUUUU"), -1);
    assert_int_equal(steps_until_end("UUUUUUUUU"), 9);
}

static void test_a_burst_that_was_served_is_no_saturation(void **state)
{
    (void)state;
    struct search s;
    struct search_step step;
    struct search_result r = {
        .kind = STEP_SWEEP, .verdict = VERDICT_UNSTABLE, .offered_output_tokens_per_s = 1000.0};
    set_start("1");
    search_init(&s, &cfg, 1, 0, 0);
    const double served[] = {990.0, 910.0, 880.0, 990.0, 500.0};
    for (int i = 0; i < 5; i++) {
        assert_true(search_next(&s, &step)); // 880 and 500 are the first two that fell behind
        r.output_tokens_per_s = served[i];
        search_report(&s, &r);
    }
    assert_false(search_next(&s, &step));
}

static void test_trace_and_closed_loop_are_one_step(void **state)
{
    (void)state;
    struct search s;
    struct search_step step;
    cfg.arrival = LOAD_TRACE;
    search_init(&s, &cfg, 1, 300 * NS_PER_S, 1500);
    step = next(&s);
    assert_true(step.kind == STEP_SWEEP && step.rate_rps == 5.0);
    assert_true(step.duration_ns == 300 * NS_PER_S && search_most_steps(&s) == 1);
    report(&s, &step, VERDICT_UNSTABLE);
    assert_false(search_next(&s, &step));

    cfg.arrival = LOAD_CLOSED;
    cfg.users = 12;
    search_init(&s, &cfg, 1, 0, 0);
    step = next(&s);
    assert_true(step.kind == STEP_BASE && step.users == 12 && step.rate_rps == 0.0);
    assert_true(step.duration_ns == 12 * NS_PER_S);
    report(&s, &step, VERDICT_STABLE);
    assert_false(search_next(&s, &step));
}

/* A run that is resumed after any number of steps goes on as the unbroken one did. */
static void test_resume_replays_reports(void **state)
{
    (void)state;
    enum {
        MAX = 16
    };
    struct search whole;
    struct search_step steps[MAX], step;
    struct search_result results[MAX];
    int n = 0;
    search_init(&whole, &cfg, 1, 0, 0);
    for (; search_next(&whole, &steps[n]); n++) {
        results[n] = (struct search_result){.kind = steps[n].kind,
                                            .rate_rps = steps[n].rate_rps,
                                            .verdict = steps[n].rate_rps > 40.0 ? VERDICT_UNSTABLE
                                                                                : VERDICT_STABLE,
                                            .output_tokens_per_s = 7800.0,
                                            .output_tokens_per_request = 195.0};
        search_report(&whole, &results[n]);
    }
    assert_true(n > 4);
    for (int k = 0; k <= n; k++) {
        struct search resumed;
        search_init(&resumed, &cfg, 1, 0, 0);
        for (int i = 0; i < k; i++) {
            search_report(&resumed, &results[i]);
        }
        assert_true(search_next(&resumed, &step) == (k < n));
        assert_true(k == n || (step.kind == steps[k].kind && step.rate_rps == steps[k].rate_rps));
    }
}

/*
 * M/M/c in rough: c servers of rate mu. The probe with N users finds min(N, c) mu within 10 %; a step
 * is unstable beyond the capacity, and by chance between 90 and 100 % of it.
 */
struct queue {
    double mu_rps, servers;
    uint64_t seed;
};

static double capacity_rps(const struct queue *q)
{
    return q->mu_rps * q->servers;
}

static double probe_rps(const struct queue *q, uint32_t users)
{
    double noise = 0.9 + 0.2 * rng_uniform(q->seed, RNG_BOOTSTRAP, 1, 0);
    return fmin(users, q->servers) * q->mu_rps * noise;
}

static enum verdict judge(const struct queue *q, double rate_rps, uint64_t step)
{
    double rho = rate_rps / capacity_rps(q);
    bool is_unlucky = rng_uniform(q->seed, RNG_BOOTSTRAP, 2, step) < (rho - 0.9) * 10.0;
    return rho > 0.9 && (rho >= 1.0 || is_unlucky) ? VERDICT_UNSTABLE : VERDICT_STABLE;
}

static void test_a_queue_is_bracketed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct queue q = {.seed = seed};
        q.mu_rps = pow(10.0, -2.0 + 5.0 * rng_uniform(seed, RNG_BOOTSTRAP, 3, 0));
        q.servers = 1.0 + (double)rng_below(64, seed, RNG_BOOTSTRAP, 4, 0);
        struct search s;
        struct search_step step;
        search_init(&s, &cfg, 1, 0, 0);
        report_probe(&s, probe_rps(&q, next(&s).users));
        double last_stable = 0.0;
        int n = 0, n_beyond = 0;
        for (double before = 0.0; search_next(&s, &step); n++, before = step.rate_rps) {
            assert_true(step.rate_rps > before);
            enum verdict v = judge(&q, step.rate_rps, (uint64_t)n);
            last_stable = v == VERDICT_STABLE ? step.rate_rps : last_stable;
            n_beyond += v == VERDICT_UNSTABLE;
            report(&s, &step, v);
        }
        assert_true(last_stable > 0.59 * capacity_rps(&q) && last_stable < capacity_rps(&q));
        assert_true(n_beyond >= 2 && n <= 9);
        assert_string_equal(search_ending(&s), "two overloaded steps in a row");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_list_is_done_as_given, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_start_times_factor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_auto_probes_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_probe_without_output_ends_the_search, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_two_overloaded_in_a_row, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_burst_that_was_served_is_no_saturation, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_trace_and_closed_loop_are_one_step, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_resume_replays_reports, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_queue_is_bracketed, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
