/*
 * The search: what is asked for is what comes; a bracket is halved and filled; objectives are bracketed
 * and undecided rates extended; ladders climb and refine; passes repeat; a resumed run goes on as the
 * unbroken one did. On simulated queues: test_search_queues.c.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "loadgen/search.h"
#include "loadgen/search_ladder.h"

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

/* The sweep alone. */
static int set_up_sweep(void **state)
{
    set_up(state);
    cfg.rates_bisect = 0.0;
    cfg.rates_fill.n = 0;
    cfg.rates_revisit = false;
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

static void report(struct search *s, enum verdict v)
{
    search_report(s, &(struct search_result){.verdict = v});
}

static void report_probe(struct search *s, double rps)
{
    struct search_result r = {.verdict = VERDICT_STABLE,
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
        report(&s, VERDICT_UNSTABLE); // what was asked for is done all the same
    }
    struct search_step step;
    assert_false(search_next(&s, &step));
    assert_string_equal(search_ending(&s), "all rates of the list are done");
    search_free(&s);
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
        report(&s, VERDICT_STABLE);
    }
    struct search_step step;
    assert_false(search_next(&s, &step));
    assert_string_equal(search_ending(&s), "load.rates.max_steps is reached");
    search_free(&s);
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
    report(&s, VERDICT_STABLE);
    assert_true(fabs(next(&s).rate_rps - 10.29) < 1e-12);

    cfg.users = 5;
    search_free(&s);
    search_init(&s, &cfg, 2, 0, 0);
    assert_true(next(&s).users == 5);
    search_free(&s);
}

static void test_a_probe_without_output_ends_the_search(void **state)
{
    (void)state;
    const struct search_result nothing[] = {
        {.output_tokens_per_s = 0.0},
        {.output_tokens_per_s = 1.0},
        {.output_tokens_per_s = (double)NAN, .output_tokens_per_request = 1.0},
    };
    for (int i = 0; i < 3; i++) {
        struct search s;
        struct search_step step;
        search_init(&s, &cfg, 1, 0, 0);
        search_report(&s, &nothing[i]);
        assert_false(search_next(&s, &step));
        assert_non_null(strstr(search_ending(&s), "probe"));
        search_free(&s);
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
        report(&s, verdict_of(verdicts[n]));
    }
    n = search_next(&s, &step) ? -1 : n;
    search_free(&s);
    return n;
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
    struct search_result r = {.verdict = VERDICT_UNSTABLE, .offered_output_tokens_per_s = 1000.0};
    set_start("1");
    search_init(&s, &cfg, 1, 0, 0);
    const double served[] = {990.0, 910.0, 880.0, 990.0, 500.0};
    for (int i = 0; i < 5; i++) {
        assert_true(search_next(&s, &step)); // 880 and 500 are the first two that fell behind
        r.output_tokens_per_s = served[i];
        search_report(&s, &r);
    }
    assert_false(search_next(&s, &step));
    search_free(&s);
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
    report(&s, VERDICT_UNSTABLE);
    assert_false(search_next(&s, &step));
    search_free(&s);

    cfg.arrival = LOAD_CLOSED;
    cfg.users = 12;
    search_init(&s, &cfg, 1, 0, 0);
    step = next(&s);
    assert_true(step.kind == STEP_BASE && step.users == 12 && step.rate_rps == 0.0);
    assert_true(step.duration_ns == 12 * NS_PER_S);
    report(&s, VERDICT_STABLE);
    assert_false(search_next(&s, &step));
    search_free(&s);
}

/* --- what refines the sweep ----------------------------------------------------------------------- */

static enum verdict beyond(double rate_rps, double capacity_rps)
{
    return rate_rps > capacity_rps ? VERDICT_UNSTABLE : VERDICT_STABLE;
}

static void test_a_bracket_is_halved_filled_and_revisited(void **state)
{
    (void)state;
    struct search s;
    struct search_step step;
    double low = 0.0, high = INFINITY, swept = 0.0;
    int n[STEP_KIND_N] = {0};
    set_start("1");
    search_init(&s, &cfg, 1, 0, 0);
    for (; search_next(&s, &step); n[step.kind]++) {
        assert_true(step.users == 0 && step.duration_ns == cfg.step_ns && step.may_stop);
        assert_true(step.kind != STEP_SWEEP || step.rate_rps > swept);
        assert_true(step.kind != STEP_BISECT || (step.rate_rps > low && step.rate_rps < high));
        swept = step.kind == STEP_SWEEP ? step.rate_rps : swept;
        low = step.rate_rps <= 6.0 && step.kind != STEP_FILL ? fmax(low, step.rate_rps) : low;
        high = step.rate_rps > 6.0 && step.kind != STEP_FILL ? fmin(high, step.rate_rps) : high;
        report(&s, beyond(step.rate_rps, 6.0));
    }
    assert_int_equal(n[STEP_SWEEP], 7); // 1 .. 5.06, 7.59 and 11.4
    assert_true(n[STEP_BISECT] == 4 && low < 6.0 && high > 6.0 && high <= 1.05 * low);
    assert_true(n[STEP_FILL] == 1 &&
                n[STEP_REVISIT] == 1); // near 0.85 and 0.95 of the knee: measured
    assert_true(s.past[s.n_past - 1].step.rate_rps == 1.0);
    assert_true((int64_t)s.n_past <= search_most_steps(&s));
    assert_string_equal(search_ending(&s), "two overloaded steps in a row");
    search_free(&s);
}

/* A burst just below capacity is the bracket's lower end, a real queue its upper one. */
static void test_the_bracket_stands_between_good_and_bad(void **state)
{
    (void)state;
    struct search s;
    struct search_result r = {.verdict = VERDICT_STABLE, .offered_output_tokens_per_s = 100.0};
    set_start("1");
    for (int i = 0; i < 2; i++) {
        search_init(&s, &cfg, 1, 0, 0);
        report(&s, VERDICT_STABLE);
        r.verdict = VERDICT_UNSTABLE;
        r.output_tokens_per_s = i == 0 ? 97.0 : 92.0;
        search_report(&s, &r); // 1.5
        report(&s, VERDICT_UNSTABLE);
        report(&s, VERDICT_ERRORS); // 2.25 and 3.375
        struct search_step step = next(&s);
        assert_int_equal(step.kind, STEP_BISECT);
        assert_true(fabs(step.rate_rps - (i == 0 ? 1.84 : 1.22)) < 1e-9);
        search_free(&s);
    }
}

/* A step too short to be judged, in which half of what was offered was served, is no lower end. */
static void test_too_short_and_behind_is_bad(void **state)
{
    (void)state;
    struct search s;
    const enum verdict verdicts[] = {VERDICT_STABLE, VERDICT_UNSTABLE, VERDICT_TOO_SHORT,
                                     VERDICT_UNSTABLE};
    const double served[] = {100.0, 70.0, 50.0, 40.0}; // of 100: at 1, 1.5, 2.25 and 3.375
    set_start("1");
    search_init(&s, &cfg, 1, 0, 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(next(&s).kind, STEP_SWEEP);
        search_report(&s, &(struct search_result){.verdict = verdicts[i],
                                                  .offered_output_tokens_per_s = 100.0,
                                                  .output_tokens_per_s = served[i]});
    }
    struct search_step step = next(&s);
    assert_int_equal(step.kind, STEP_BISECT);
    assert_true(fabs(step.rate_rps - 1.22) < 1e-9);
    search_free(&s);
}

static void test_lists_are_not_refined(void **state)
{
    (void)state;
    struct search s;
    struct search_step step;
    double rates[] = {2.0, 4.0, 8.0};
    cfg.rates_list.v = xmalloc(sizeof rates);
    memcpy(cfg.rates_list.v, rates, sizeof rates);
    cfg.rates_list.n = 3;
    search_init(&s, &cfg, 1, 0, 0);
    for (int i = 0; search_next(&s, &step); i++) {
        assert_true(step.kind == STEP_SWEEP && !step.may_stop);
        report(&s, i < 1 ? VERDICT_STABLE : VERDICT_UNSTABLE);
    }
    assert_int_equal(s.n_past, 3);
    search_free(&s);
}

/* --- objectives ----------------------------------------------------------------------------------- */

static void decide(struct search *s, enum search_slo slo)
{
    search_report(s, &(struct search_result){.verdict = VERDICT_STABLE, .slo = slo});
}

static void test_the_objectives_rate_is_bracketed(void **state)
{
    (void)state;
    struct search s;
    struct search_step step;
    double met = 0.0, missed = INFINITY;
    set_start("1");
    cfg.rates_slo = true;
    search_init(&s, &cfg, 1, 0, 0);
    while (search_next(&s, &step)) {
        bool is_met = step.rate_rps <= 4.0;
        met = is_met ? fmax(met, step.rate_rps) : met;
        missed = is_met ? missed : fmin(missed, step.rate_rps);
        decide(&s, is_met ? SEARCH_MET : SEARCH_MISSED);
    }
    assert_true(met <= 4.0 && missed > 4.0 && missed <= 1.05 * met);
    assert_int_equal(s.past[s.n_past - 1].step.kind, STEP_REVISIT);
    assert_true(s.past[s.n_past - 1].step.rate_rps == 1.0);
    assert_true((int64_t)s.n_past <= search_most_steps(&s));
    assert_non_null(strstr(search_ending(&s), "between"));
    search_free(&s);
}

static void test_an_undecided_rate_is_extended(void **state)
{
    (void)state;
    struct search s;
    set_start("1");
    cfg.rates_slo = true;
    cfg.rates_extend = 2;
    search_init(&s, &cfg, 1, 0, 0);
    decide(&s, SEARCH_UNDECIDED);
    for (int i = 1; i <= 2; i++) {
        struct search_step step = next(&s);
        assert_true(step.kind == STEP_REVISIT && step.rate_rps == 1.0);
        assert_true(step.duration_ns == cfg.step_ns << i);
        decide(&s, i < 2 ? SEARCH_UNDECIDED : SEARCH_MET);
    }
    assert_true(next(&s).kind == STEP_SWEEP && next(&s).rate_rps == 1.5);
    for (int i = 0; i < 3; i++) {
        assert_true(next(&s).rate_rps == 1.5);
        decide(&s, SEARCH_UNDECIDED); // to the end: counts as missed
    }
    assert_true(next(&s).kind == STEP_SWEEP && next(&s).rate_rps == 2.25);
    decide(&s, SEARCH_MISSED); // the second in a row
    assert_true(next(&s).kind == STEP_BISECT && next(&s).rate_rps < 1.5);
    search_free(&s);
}

static void test_objectives_missed_at_once_are_sought_below(void **state)
{
    (void)state;
    struct search s;
    set_start("8");
    cfg.rates_slo = true;
    search_init(&s, &cfg, 1, 0, 0);
    decide(&s, SEARCH_MISSED);
    search_report(&s, &(struct search_result){.verdict = VERDICT_UNSTABLE, .slo = SEARCH_MET});
    assert_true(next(&s).kind == STEP_BISECT && fabs(next(&s).rate_rps - 8.0 / 1.5) < 1e-9);
    decide(&s, SEARCH_MISSED);
    assert_true(fabs(next(&s).rate_rps - 8.0 / 1.5 / 1.5) < 1e-9);
    decide(&s, SEARCH_MET);
    double rate_rps = next(&s).rate_rps;
    assert_true(rate_rps > 8.0 / 1.5 / 1.5 && rate_rps < 8.0 / 1.5);
    search_free(&s);
}

/* A miss below a rate that was met later is none: the bracket stands above it. */
static void test_a_miss_below_a_met_rate_is_taken_back(void **state)
{
    (void)state;
    static const enum search_slo found[] = {SEARCH_MET, SEARCH_MISSED, SEARCH_MET};
    set_start("1");
    cfg.rates_slo = true;
    cfg.rates_revisit = false;
    for (int64_t n_rates = 3; n_rates <= 4; n_rates++) {
        struct search s;
        struct search_step step;
        cfg.rates_max_steps = n_rates;
        search_init(&s, &cfg, 1, 0, 0);
        for (int i = 0; i < 3; i++) {
            decide(&s, found[i]);
        }
        if (n_rates == 3) {
            assert_false(search_next(&s, &step));
            assert_non_null(strstr(search_ending(&s), "still hold"));
        } else {
            decide(&s, SEARCH_MISSED); // 3.375
            step = next(&s);
            assert_true(step.kind == STEP_BISECT && step.rate_rps > 2.25 && step.rate_rps < 3.375);
        }
        search_free(&s);
    }
}

/* Undecided, whatever the interval says; what lies beyond it is the client's too. */
static void test_the_search_stops_at_a_client_that_is_the_limit(void **state)
{
    (void)state;
    static const enum search_slo found[] = {SEARCH_MET, SEARCH_MISSED, SEARCH_UNDECIDED};
    set_start("1");
    cfg.rates_slo = true;
    for (int i = 0; i < 3; i++) {
        struct search s;
        struct search_step step;
        search_init(&s, &cfg, 1, 0, 0);
        decide(&s, SEARCH_MET);
        search_report(&s,
                      &(struct search_result){.verdict = VERDICT_CLIENT_LIMITED, .slo = found[i]});
        assert_false(search_next(&s, &step));
        assert_non_null(strstr(search_ending(&s), "the client, not the target"));
        search_free(&s);
    }
}

/* --- ladders -------------------------------------------------------------------------------------- */

static void test_a_ladder_is_climbed_as_given(void **state)
{
    (void)state;
    struct search s;
    struct search_step step;
    double users[] = {1.0, 4.0, 6.0};
    cfg.concurrency_list.v = xmalloc(sizeof users);
    memcpy(cfg.concurrency_list.v, users, sizeof users);
    cfg.concurrency_list.n = 3;
    search_init(&s, &cfg, 1, 0, 0);
    for (int i = 0; i < 3; i++) {
        step = next(&s);
        assert_true(step.kind == STEP_BASE && step.rate_rps == 0.0 && step.users == users[i]);
        report(&s, VERDICT_STABLE);
    }
    assert_false(search_next(&s, &step));
    assert_int_equal(search_most_steps(&s), 3);
    search_free(&s);
}

/* Throughput of N users min(N, c), objectives met up to `limit` of them: the rungs around both edges
 * are within 15 % or one user. */
static void climb(uint32_t c, uint32_t limit)
{
    struct search s;
    struct search_step step;
    uint32_t met = 0, missed = UINT32_MAX, enough = UINT32_MAX, below = 0;
    cfg.concurrency = LOAD_CONCURRENCY_BEST;
    search_init(&s, &cfg, 1, 0, 0);
    while (search_next(&s, &step)) {
        bool meets = step.users <= limit;
        met = meets && step.users > met ? step.users : met;
        missed = !meets && step.users < missed ? step.users : missed;
        search_report(&s, &(struct search_result){.verdict = VERDICT_STABLE,
                                                  .output_tokens_per_s = fmin(step.users, c),
                                                  .meets = meets});
    }
    for (size_t i = 0; i < s.n_past; i++) {
        uint32_t users = s.past[i].step.users;
        bool is_enough = users <= met && users >= SEARCH_ENOUGH * fmin(met, c);
        enough = is_enough && users < enough ? users : enough;
        below = users <= met && !is_enough && users > below ? users : below;
    }
    assert_true((int64_t)s.n_past <= search_most_steps(&s));
    assert_true(missed == UINT32_MAX || missed <= met + 1 || missed < 1.15 * met);
    assert_true(enough <= below + 1 || enough < 1.15 * below);
    search_free(&s);
}

static void test_the_best_limit_is_closed_in(void **state)
{
    (void)state;
    for (uint32_t c = 1; c < 500; c = c + 1 + c / 3) {
        climb(c, 100000);
        climb(c, 1 + c / 2);
        climb(c, 3 * c);
    }
}

/* Users from whom on every rung is this: the climb ends two rungs later and refines below. */
static void test_a_ladder_does_not_rest_on_bad_rungs(void **state)
{
    (void)state;
    static const struct {
        enum verdict verdict;
        const char *ending;
    } cases[] = {{VERDICT_ERRORS, "requests fail"}, {VERDICT_CLIENT_LIMITED, "the client"}};
    cfg.concurrency = LOAD_CONCURRENCY_BEST;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct search s;
        struct search_step step;
        uint32_t most = 0;
        search_init(&s, &cfg, 1, 0, 0);
        while (search_next(&s, &step)) {
            most = step.users > most ? step.users : most;
            enum verdict v = step.users >= 8 ? cases[i].verdict : VERDICT_STABLE;
            search_report(&s, &(struct search_result){
                                  .verdict = v, .output_tokens_per_s = step.users, .meets = true});
        }
        assert_int_equal(most, 16);
        assert_true(s.past[s.n_past - 1].step.users < 8);
        assert_non_null(strstr(search_ending(&s), cases[i].ending));
        search_free(&s);
    }
}

/* --- passes --------------------------------------------------------------------------------------- */

static void test_repeats_run_the_same_steps(void **state)
{
    (void)state;
    struct search s;
    struct search_step step;
    cfg.repeats = 3;
    search_init(&s, &cfg, 1, 0, 0);
    report_probe(&s, 30.0);
    for (; search_next(&s, &step) && step.repeat == 0;) {
        report(&s, beyond(step.rate_rps, 25.0));
    }
    size_t n = s.n_past - 1; // the probe is not repeated
    assert_true(n > 8);
    for (size_t i = 0; i < 2 * n; i++) {
        step = next(&s);
        const struct search_step *first = &s.past[1 + i % n].step;
        assert_int_equal(step.repeat, 1 + i / n);
        assert_true(step.rate_rps == first->rate_rps && step.kind == first->kind);
        report(&s, i % 2 ? VERDICT_UNSTABLE : VERDICT_STABLE); // says nothing any more
    }
    assert_false(search_next(&s, &step));
    assert_true((int64_t)s.n_past <= search_most_steps(&s));
    assert_string_equal(search_ending(&s), "two overloaded steps in a row");
    search_free(&s);
}

/* A run that is resumed after any number of steps goes on as the unbroken one did. */
static void resume(void)
{
    struct search whole, resumed;
    struct search_step step;
    search_init(&whole, &cfg, 1, 0, 0);
    while (search_next(&whole, &step)) {
        size_t n = whole.n_past;
        search_report(&whole, &(struct search_result){
                                  .verdict = beyond(step.rate_rps, 40.0),
                                  .output_tokens_per_s = 7800.0,
                                  .output_tokens_per_request = 195.0,
                                  .slo = n % 3 ? SEARCH_MET : SEARCH_UNDECIDED,
                                  .meets = step.users < 20,
                              });
    }
    assert_true(whole.n_past > 4);
    for (size_t k = 0; k <= whole.n_past; k++) {
        search_init(&resumed, &cfg, 1, 0, 0);
        for (size_t i = 0; i < k; i++) {
            search_report(&resumed, &whole.past[i].result);
        }
        assert_true(search_next(&resumed, &step) == (k < whole.n_past));
        const struct search_step *want = &whole.past[k].step;
        assert_true(k == whole.n_past ||
                    (step.kind == want->kind && step.rate_rps == want->rate_rps &&
                     step.users == want->users && step.repeat == want->repeat &&
                     step.duration_ns == want->duration_ns));
        search_free(&resumed);
    }
    search_free(&whole);
}

static void test_resume_replays_reports(void **state)
{
    (void)state;
    cfg.repeats = 2;
    resume();
    cfg.rates_slo = true;
    resume();
    cfg.rates_slo = false;
    cfg.concurrency = LOAD_CONCURRENCY_BEST;
    resume();
}

/* A typo in the bounds of --dry-run and of the progress line would show here. */
static void test_refinement_is_in_the_estimate(void **state)
{
    (void)state;
    struct search s;
    search_init(&s, &cfg, 1, 0, 0);
    assert_int_equal(search_most_steps(&s), 1 + 9 + 5 + 3 + 1);
    cfg.repeats = 2;
    assert_int_equal(search_most_steps(&s), 1 + 2 * (9 + 5 + 3 + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_list_is_done_as_given, set_up_sweep, tear_down),
        cmocka_unit_test_setup_teardown(test_start_times_factor, set_up_sweep, tear_down),
        cmocka_unit_test_setup_teardown(test_auto_probes_first, set_up_sweep, tear_down),
        cmocka_unit_test_setup_teardown(test_a_probe_without_output_ends_the_search, set_up_sweep,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_two_overloaded_in_a_row, set_up_sweep, tear_down),
        cmocka_unit_test_setup_teardown(test_a_burst_that_was_served_is_no_saturation, set_up_sweep,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_trace_and_closed_loop_are_one_step, set_up_sweep,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_bracket_is_halved_filled_and_revisited, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_bracket_stands_between_good_and_bad, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_too_short_and_behind_is_bad, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lists_are_not_refined, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_objectives_rate_is_bracketed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_undecided_rate_is_extended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_objectives_missed_at_once_are_sought_below, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_miss_below_a_met_rate_is_taken_back, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_the_search_stops_at_a_client_that_is_the_limit, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_ladder_is_climbed_as_given, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_best_limit_is_closed_in, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_ladder_does_not_rest_on_bad_rungs, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_repeats_run_the_same_steps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_resume_replays_reports, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refinement_is_in_the_estimate, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
