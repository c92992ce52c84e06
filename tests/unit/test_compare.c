/* Two reports compared: a goodput is never shown without the share that failed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/compare.h"
#include "analysis/stats.h"

#include <jansson.h>
#include <string.h>

/* A report of one step of 2 requests/s. */
static json_t *report_of(double attainment, double failed_share)
{
    json_t *report = json_pack("{s:{s:s, s:b}, s:[{s:i, s:s, s:f, s:i, s:s, s:{s:f, s:f}}], s:{}}",
                               "run", "name", "r", "valid", 1, "steps", "index", 0, "kind", "sweep",
                               "rate_rps", 2.0, "users", 0, "verdict", "stable", "goodput",
                               "attainment", attainment, "failed_share", failed_share, "slo");
    assert_non_null(report);
    return report;
}

static void compare(json_t *a, json_t *b, struct str *out)
{
    const uint64_t hash = 0;
    const struct compare_run of_a = {.path = "a", .report = a, .schedule_hashes = &hash};
    const struct compare_run of_b = {.path = "b", .report = b, .schedule_hashes = &hash};
    const struct compare_gate gate = {.max_regression = STATS_NONE};
    json_t *comparison;
    struct err e;
    assert_int_equal(compare_build(&of_a, &of_b, &gate, &comparison, &e), 0);
    compare_text(comparison, out);
    json_decref(comparison);
    json_decref(a);
    json_decref(b);
}

static void goodput_with_failures_is_marked(void **state)
{
    (void)state;
    struct str text = {0};
    compare(report_of(0.9, 0.005), report_of(0.8, 0.2), &text);
    assert_non_null(strstr(text.data, "       0.9       0.8!"));
    const char *failed = strstr(text.data, "goodput.failed_share");
    assert_non_null(failed);
    assert_non_null(strstr(failed, "     0.005        0.2"));
    str_free(&text);
}

static void goodput_without_failures_stands_alone(void **state)
{
    (void)state;
    struct str text = {0};
    compare(report_of(0.9, 0), report_of(0.8, 0), &text);
    assert_non_null(strstr(text.data, "       0.9        0.8"));
    assert_null(strstr(text.data, "failed_share"));
    str_free(&text);
}

/* With an engine, the string of its JSON. */
static json_t *with_engine(json_t *report, const char *engine)
{
    json_t *o = json_loads(engine, 0, NULL);
    assert_non_null(o);
    json_object_set_new(json_object_get(report, "run"), "engine", o);
    return report;
}

static void engines_that_differ_are_said(void **state)
{
    (void)state;
    struct str text = {0};
    const char *a = "{\"kernels\": \"avx2\", \"bytes_per_weight\": 2.0, \"threads\": 2,"
                    " \"moe_zipf\": null, \"placement\": \"pinned\", \"hops_between_hosts\": 0}";
    const char *b =
        "{\"kernels\": \"amx\", \"bytes_per_weight\": 1.0625, \"threads\": 2,"
        " \"moe_zipf\": 1.2, \"placement\": \"not asked for\", \"hops_between_hosts\": 1}";
    compare(with_engine(report_of(1, 0), a), with_engine(report_of(1, 0), b), &text);
    assert_non_null(strstr(text.data, "engine kernels differs: avx2, amx"));
    assert_non_null(strstr(text.data, "engine bytes_per_weight differs: 2, 1.0625"));
    assert_non_null(strstr(text.data, "engine moe_zipf differs: none, 1.2"));
    assert_non_null(strstr(text.data, "engine placement differs: pinned, not asked for"));
    assert_non_null(strstr(text.data, "engine hops_between_hosts differs: 0, 1"));
    assert_null(strstr(text.data, "threads differs"));
    str_free(&text);
    compare(with_engine(report_of(1, 0), a), with_engine(report_of(1, 0), "{}"), &text);
    str_free(&text);
    compare(with_engine(report_of(1, 0), a), report_of(1, 0), &text); // not told: nothing to say
    assert_null(strstr(text.data, "engine"));
    str_free(&text);
}

/* A figure's interval, in a report's step. */
static void set_interval(json_t *report, const char *name, const char *key, double value, double lo,
                         double hi)
{
    json_t *step = json_array_get(json_object_get(report, "steps"), 0),
           *at = json_object_get(step, name);
    if (at == NULL) {
        at = json_object();
        json_object_set_new(step, name, at);
    }
    json_object_set_new(at, key,
                        json_pack("{s:f, s:f, s:f}", "value", value, "lo95", lo, "hi95", hi));
}

/* Whether the gate holds, over these metrics. */
static bool passes(json_t *a, json_t *b, const char *metrics)
{
    const uint64_t hash = 0;
    const struct compare_run of_a = {.path = "a", .report = a, .schedule_hashes = &hash};
    const struct compare_run of_b = {.path = "b", .report = b, .schedule_hashes = &hash};
    const struct compare_gate gate = {.max_regression = 0.05, .metrics = metrics};
    json_t *comparison;
    struct err e;
    assert_int_equal(compare_build(&of_a, &of_b, &gate, &comparison, &e), 0);
    bool failed = compare_gate_failed(comparison);
    json_decref(comparison);
    json_decref(a);
    json_decref(b);
    return !failed;
}

static json_t *serving(double tokens_per_s, int n_ok)
{
    json_t *report = report_of(n_ok > 0, n_ok == 0),
           *step = json_array_get(json_object_get(report, "steps"), 0);
    set_interval(report, "tokens_per_s", "output", tokens_per_s, 0.95 * tokens_per_s,
                 1.05 * tokens_per_s);
    json_object_set_new(step, "e2e_service_ms", json_pack("{s:i}", "n", n_ok));
    if (n_ok > 0) {
        json_object_set_new(
            step, "tpot_ms",
            json_pack("{s:f, s:f, s:f}", "p50", 10.0, "p50_lo95", 9.0, "p50_hi95", 11.0));
    }
    return report;
}

static void a_run_in_which_all_failed_does_not_pass(void **state)
{
    (void)state;
    assert_true(passes(serving(1000, 10), serving(1000, 10), COMPARE_DEFAULT_GATE));
    assert_false(passes(serving(1000, 10), serving(0, 0), "tokens_per_s.output"));
    assert_false(passes(serving(1000, 10), serving(0, 0), "tpot_ms.p50")); // B has none
    assert_true(passes(serving(0, 0), serving(1000, 10), "tokens_per_s.output"));
}

/* Shares have no interval: they count as they stand. */
static void a_gate_over_shares_can_fail(void **state)
{
    (void)state;
    assert_false(passes(report_of(0.9, 0), report_of(0.8, 0), "goodput.attainment"));
    assert_true(passes(report_of(0.9, 0), report_of(0.88, 0), "goodput.attainment"));
    assert_false(passes(report_of(0.9, 0), report_of(0.9, 0.01), "goodput.failed_share"));
    assert_true(passes(report_of(0.9, 0), report_of(0.9, 0), "goodput.failed_share"));
    assert_true(passes(report_of(0.9, 0.2), report_of(0.9, 0.1), "goodput.failed_share"));
}

/* A median that is 0 or a gap, for the same server: only an interval beyond doubt fails. */
static void a_figure_with_an_interval_may_leave_zero(void **state)
{
    (void)state;
    json_t *a = serving(1000, 10), *b = serving(1000, 10);
    json_object_set_new(
        json_array_get(json_object_get(a, "steps"), 0), "itl_ms",
        json_pack("{s:f, s:f, s:f}", "p50", 0.0, "p50_lo95", 0.0, "p50_hi95", 20.0));
    json_object_set_new(
        json_array_get(json_object_get(b, "steps"), 0), "itl_ms",
        json_pack("{s:f, s:f, s:f}", "p50", 20.0, "p50_lo95", 0.0, "p50_hi95", 21.0));
    assert_true(passes(a, b, "itl_ms.p50"));
}

/* An answer that B lacks: missed at its lowest rate, or not come to. */
static void answers_that_are_missing(void **state)
{
    (void)state;
    for (int is_low = 0; is_low < 2; is_low++) {
        json_t *a = serving(1000, 10), *b = serving(1000, 10);
        json_object_set_new(json_object_get(a, "slo"), "rate_rps", json_real(5));
        json_object_set_new(json_object_get(b, "slo"), "verdict",
                            json_string(is_low ? "first_step" : "not_reached"));
        json_object_set_new(a, "cost",
                            json_pack("{s:{s:{s:f}}}", "at_slo", "usd_per_m_output", "value", 2.0));
        const char *const metrics[] = {"slo.rate_rps,tpot_ms.p50",
                                       "cost.at_slo.usd_per_m_output,tpot_ms.p50"};
        for (int k = 0; k < 2; k++) {
            assert_int_equal(passes(json_deep_copy(a), json_deep_copy(b), metrics[k]), !is_low);
        }
        json_decref(a);
        json_decref(b);
    }
}

static void steps_of_one_side_are_named(void **state)
{
    (void)state;
    struct str text = {0};
    json_t *a = report_of(1, 0), *b = report_of(1, 0);
    json_object_set_new(json_array_get(json_object_get(b, "steps"), 0), "rate_rps", json_real(4));
    json_object_set_new(json_object_get(b, "run"), "complete", json_false());
    compare(a, b, &text);
    assert_non_null(strstr(text.data, "step 0 of A is compared with no step of B"));
    assert_non_null(strstr(text.data, "step 0 of B has no step of A"));
    assert_non_null(strstr(text.data, "B is not complete"));
    str_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goodput_with_failures_is_marked),
        cmocka_unit_test(goodput_without_failures_stands_alone),
        cmocka_unit_test(engines_that_differ_are_said),
        cmocka_unit_test(a_run_in_which_all_failed_does_not_pass),
        cmocka_unit_test(a_gate_over_shares_can_fail),
        cmocka_unit_test(a_figure_with_an_interval_may_leave_zero),
        cmocka_unit_test(answers_that_are_missing),
        cmocka_unit_test(steps_of_one_side_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
