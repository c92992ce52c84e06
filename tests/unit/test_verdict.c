#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/measure.h"
#include "analysis/verdict.h"
#include "tests/support/batch_server.h"

#include <string.h>

/* A step without any symptom. */
static struct verdict_evidence healthy(void)
{
    return (struct verdict_evidence){
        .n_scheduled = 1000,
        .n_due = 800,
        .n_sent = 800,
        .n_finished = 800,
        .window_s = 60,
        .offered_rps = 13,
        .offered_tokens_per_s = 2600,
        .served_tokens_per_s = 2590,
        .lag_p99_lo_ms = 0.2,
        .ttft_p50_ms = 40,
        .ttft_first_ms = 40,
        .ttft_last_ms = 42,
        .e2e_p50_ms = 3000,
        .in_flight = {.slope = 0.01, .lower = -0.02, .n_effective = 20},
    };
}

static void overload(struct verdict_evidence *v)
{
    v->in_flight = (struct stats_slope){.slope = 3, .lower = 2.5, .n_effective = 6};
    v->ttft_last_ms = 4000;
    v->served_tokens_per_s = 1800;
}

static enum verdict judge(const struct verdict_evidence *v)
{
    struct verdict_result r;
    verdict_judge(v, &r);
    assert_true(strlen(r.reason) > 0 && strlen(r.reason) < sizeof r.reason - 1);
    return r.verdict;
}

static void a_healthy_step_is_stable(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy();
    assert_int_equal(judge(&v), VERDICT_STABLE);
}

static void more_than_one_percent_failed_is_errors(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy();
    v.n_failed = 10;
    assert_int_equal(judge(&v), VERDICT_STABLE);
    v.n_failed = 11;
    assert_int_equal(judge(&v), VERDICT_ERRORS);
    overload(&v);
    v.lag_p99_lo_ms = 100;
    assert_int_equal(judge(&v), VERDICT_ERRORS); // before everything else
}

static void lag_and_missing_sends_are_client_limited(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy();
    v.n_sent = 791;
    assert_int_equal(judge(&v), VERDICT_CLIENT_LIMITED);
    v.n_held = 9; // the rest could not go for the user's own cap
    assert_int_equal(judge(&v), VERDICT_STABLE);
    v = healthy();
    v.lag_p99_lo_ms = 1.1;
    assert_int_equal(judge(&v), VERDICT_CLIENT_LIMITED);
    v.ttft_p50_ms = 120; // 1 % of it is more than 1.1 ms
    assert_int_equal(judge(&v), VERDICT_STABLE);
}

static void too_few_or_too_long_requests_are_too_short(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy();
    v.n_finished = 29;
    assert_int_equal(judge(&v), VERDICT_TOO_SHORT);
    v = healthy();
    v.e2e_p50_ms = 31000;
    assert_int_equal(judge(&v), VERDICT_TOO_SHORT);
    v = healthy();
    v.n_unfinished = 60; // no queue grew: the drain was short
    assert_int_equal(judge(&v), VERDICT_TOO_SHORT);
}

static void growth_and_drift_together_are_unstable(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy();
    v.in_flight = (struct stats_slope){.slope = 0.5, .lower = 0.2, .n_effective = 10};
    assert_int_equal(judge(&v), VERDICT_STABLE); // more in flight, but nobody waits longer
    v.ttft_last_ms = 61;
    assert_int_equal(judge(&v), VERDICT_UNSTABLE);
    v.in_flight.lower = 0.1; // below 1 % of the rate
    assert_int_equal(judge(&v), VERDICT_STABLE);
}

static void clear_overload_beats_too_short(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy();
    overload(&v);
    v.e2e_p50_ms = 40000;
    v.n_finished = 12;
    assert_int_equal(judge(&v), VERDICT_UNSTABLE);
    v.served_tokens_per_s = v.offered_tokens_per_s;
    assert_int_equal(judge(&v), VERDICT_TOO_SHORT); // everything was served, so it was only short
    v.n_starved = 41;
    assert_int_equal(judge(&v), VERDICT_UNSTABLE);
}

static void a_median_without_first_token_is_drift(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy();
    overload(&v);
    v.ttft_first_ms = 3900; // a lower bound that looks like no drift at all
    assert_int_equal(judge(&v), VERDICT_STABLE);
    v.ttft_last_unknown = true;
    assert_int_equal(judge(&v), VERDICT_UNSTABLE);
}

static struct verdict_evidence healthy_users(void)
{
    struct verdict_evidence v = healthy();
    v.closed_loop = true;
    return v;
}

static void unfinished_is_no_error(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy_users();
    v.n_unfinished = 30;
    assert_int_equal(judge(&v), VERDICT_STABLE);
    v.n_failed = 50;
    assert_int_equal(judge(&v), VERDICT_ERRORS);
}

static void a_closed_loop_is_never_unstable(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy_users();
    overload(&v);
    assert_int_equal(judge(&v), VERDICT_STABLE);
}

static void a_late_client_limits_a_closed_loop(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy_users();
    v.lag_p99_lo_ms = 1.1;
    assert_int_equal(judge(&v), VERDICT_CLIENT_LIMITED);
    v = healthy_users();
    v.late_share = 0.009;
    assert_int_equal(judge(&v), VERDICT_STABLE);
    v.late_share = 0.011;
    assert_int_equal(judge(&v), VERDICT_CLIENT_LIMITED);
}

static void a_closed_loop_can_be_too_short(void **state)
{
    (void)state;
    struct verdict_evidence v = healthy_users();
    v.n_finished = 2;
    assert_int_equal(judge(&v), VERDICT_TOO_SHORT);
    v = healthy_users();
    v.e2e_p50_ms = 31000;
    assert_int_equal(judge(&v), VERDICT_TOO_SHORT);
    v = healthy_users();
    v.n_unfinished = 60;
    assert_int_equal(judge(&v), VERDICT_TOO_SHORT);
}

/* --- on the simulated server -------------------------------------------------------------------- */

static enum verdict judge_run(struct batch_server_run *run)
{
    struct slo_config slo = {.quantile = 0.5};
    struct measure m;
    measure_begin(&m, &run->data, &slo);
    for (size_t i = 0; i < run->data.n; i++) {
        measure_tokens(&m, &run->data.records[i], &run->dt_us[run->offsets[i]],
                       run->offsets[i + 1] - run->offsets[i]);
    }
    measure_end(&m);
    return m.verdict.verdict;
}

static enum verdict simulated(double load, double window_s, double scale, uint64_t seed)
{
    struct batch_server_run run;
    batch_server_run(
        &(struct batch_server_step){
            .rate_rps = load * batch_server_capacity_rps(scale),
            .warm_s = window_s / 4,
            .window_s = window_s,
            .drain_s = 5,
            .scale = scale,
            .seed = seed,
        },
        &run);
    enum verdict v = judge_run(&run);
    batch_server_free(&run);
    return v;
}

/* Short steps of a server that answers in about a second. */
static void overload_is_never_called_stable_or_short(void **state)
{
    (void)state;
    static const double loads[] = {1.5, 2.3, 3.4, 6, 10};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
            assert_int_equal(simulated(loads[i], 9.6, 0.1, 100 * seed + i), VERDICT_UNSTABLE);
        }
    }
}

static void low_load_is_never_called_unstable(void **state)
{
    (void)state;
    static const double loads[] = {0.2, 0.35, 0.5, 0.7};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
            assert_int_equal(simulated(loads[i], 9.6, 0.1, 100 * seed + i), VERDICT_STABLE);
        }
    }
}

/* Where a request takes longer than the drain, a short step must not look overloaded. */
static void long_requests_in_a_short_step_are_too_short(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        assert_int_equal(simulated(0.45, 9.6, 1, seed), VERDICT_TOO_SHORT);
    }
}

/* A client that stood still for 0.9 s of 60: one late request of each user, fewer than 1 %. */
static void users_who_wait_for_the_client_are_seen(void **state)
{
    (void)state;
    const struct batch_server_step step = {
        .users = 32, .warm_s = 5, .window_s = 60, .drain_s = 5, .scale = 0.1, .seed = 1};
    struct batch_server_run run;
    batch_server_run(&step, &run);
    assert_int_equal(judge_run(&run), VERDICT_STABLE);
    assert_true(run.data.n > 3200);
    for (size_t i = 0; i < step.users; i++) {
        run.data.records[run.data.n / 2 + i].t_sched_ns -= 900000000;
    }
    assert_int_equal(judge_run(&run), VERDICT_CLIENT_LIMITED);
    batch_server_free(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_healthy_step_is_stable),
        cmocka_unit_test(more_than_one_percent_failed_is_errors),
        cmocka_unit_test(lag_and_missing_sends_are_client_limited),
        cmocka_unit_test(too_few_or_too_long_requests_are_too_short),
        cmocka_unit_test(growth_and_drift_together_are_unstable),
        cmocka_unit_test(clear_overload_beats_too_short),
        cmocka_unit_test(a_median_without_first_token_is_drift),
        cmocka_unit_test(unfinished_is_no_error),
        cmocka_unit_test(a_closed_loop_is_never_unstable),
        cmocka_unit_test(a_late_client_limits_a_closed_loop),
        cmocka_unit_test(a_closed_loop_can_be_too_short),
        cmocka_unit_test(users_who_wait_for_the_client_are_seen),
        cmocka_unit_test(overload_is_never_called_stable_or_short),
        cmocka_unit_test(low_load_is_never_called_unstable),
        cmocka_unit_test(long_requests_in_a_short_step_are_too_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
