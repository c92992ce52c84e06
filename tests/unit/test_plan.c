/*
 * A step's schedule is the same for any number of load ranks: their shares are disjoint, make up the
 * whole, and all ranks compute the same hash.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "loadgen/plan.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RATE_RPS 700.0
#define STEP_NS  (12 * NS_PER_S)
#define SEED     42

struct fixture {
    struct dataset *ds;
    struct dataset_config dataset;
    struct load_config load;
};

static struct fixture f;

static int open_all(void **state)
{
    (void)state;
    struct err e = {0};
    opt_defaults(dataset_options, &f.dataset);
    opt_defaults(load_options, &f.load);
    return dataset_open(&f.ds, &f.dataset, &(struct dataset_model){.vocab = 512, .context = 2048},
                        &e);
}

static int close_all(void **state)
{
    (void)state;
    dataset_close(f.ds);
    opt_free(dataset_options, &f.dataset);
    opt_free(load_options, &f.load);
    return 0;
}

static struct plan build(int rank, int n_ranks, uint64_t seed)
{
    struct plan p;
    struct err e = {0};
    assert_int_equal(plan_build(&p, &f.load, f.ds, RATE_RPS, STEP_NS, seed, rank, n_ranks, &e), 0);
    return p;
}

static bool same_event(const struct plan_event *a, const struct plan_event *b)
{
    return a->id == b->id && a->t_ns == b->t_ns && a->n_in == b->n_in && a->n_out == b->n_out &&
           a->n_turns == b->n_turns;
}

static void check_whole(const struct plan *p)
{
    double expected = load_expected(&f.load, RATE_RPS, STEP_NS);
    assert_true(p->n == p->n_total && fabs((double)p->n - expected) < 4.0 * sqrt(expected));
    uint64_t n_tokens = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct plan_event *ev = &p->events[i];
        assert_true(ev->id == i && ev->n_in >= 1 && ev->n_out >= 1);
        assert_true(ev->n_in + ev->n_out <= 2048);
        assert_true(ev->t_ns >= 0 && ev->t_ns < STEP_NS);
        assert_true(i == 0 || ev->t_ns >= p->events[i - 1].t_ns);
        n_tokens += ev->n_out;
    }
    assert_true(p->n_tokens == n_tokens);
}

static void check_shares(const struct plan *whole, int n_ranks)
{
    size_t n = 0;
    uint64_t n_tokens = 0, n_filtered = 0;
    for (int r = 0; r < n_ranks; r++) {
        struct plan p = build(r, n_ranks, SEED);
        assert_true(p.hash == whole->hash && p.n_total == whole->n_total);
        for (size_t i = 0; i < p.n; i++) {
            assert_true(p.events[i].id == (uint64_t)r + i * (uint64_t)n_ranks);
            assert_true(same_event(&p.events[i], &whole->events[p.events[i].id]));
        }
        n += p.n;
        n_tokens += p.n_tokens;
        n_filtered += p.n_filtered;
        plan_free(&p);
    }
    assert_true(n == whole->n && n_tokens == whole->n_tokens && n_filtered == whole->n_filtered);
}

static void test_any_number_of_ranks_offers_the_same(void **state)
{
    (void)state;
    const int n_ranks[] = {1, 2, 3, 8, 64};
    for (int k = 0; k < 3 * 3; k++) {
        f.load.arrival = (int[]){LOAD_POISSON, LOAD_CONSTANT, LOAD_GAMMA}[k / 3];
        f.load.arrival_cv = f.load.arrival == LOAD_GAMMA ? 0.7 : 1.0;
        f.load.ramp.kind = (int[]){RAMP_NONE, RAMP_LINEAR, RAMP_GEOMETRIC}[k % 3];
        struct plan whole = build(0, 1, SEED);
        check_whole(&whole);
        for (size_t i = 0; i < sizeof n_ranks / sizeof n_ranks[0]; i++) {
            check_shares(&whole, n_ranks[i]);
        }
        plan_free(&whole);
    }
    f.load.arrival = LOAD_POISSON;
    f.load.arrival_cv = 1.0;
    f.load.ramp.kind = RAMP_NONE;
}

/* Of several turns: the schedule has the first ones, and its hash knows how many follow. */
static void test_conversations_are_shared_out_too(void **state)
{
    (void)state;
    static const char talk[] = "{\"conversations\": [{\"from\": \"human\", \"value\": \"why\"}, "
                               "{\"from\": \"gpt\", \"value\": \"because\"}]}";
    static const char talks[] = "{\"conversations\": [{\"from\": \"human\", \"value\": \"why\"}, "
                                "{\"from\": \"gpt\", \"value\": \"because\"}, "
                                "{\"from\": \"human\", \"value\": \"then\"}, "
                                "{\"from\": \"gpt\", \"value\": \"now\"}]}";
    struct dataset *single = f.ds;
    uint64_t hash[2];
    for (int k = 0; k < 2; k++) {
        char path[] = "test_plan_talks.json";
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fprintf(file, "[%s,%s]", talk, k == 0 ? talk : talks);
        fclose(file);
        struct dataset_config cfg = f.dataset;
        struct dataset_model model = {.vocab = 512, .context = 2048, .may_estimate = true};
        struct err e = {0};
        cfg.source = path;
        cfg.turns = DATASET_TURNS_MULTI;
        cfg.use_cache = false;
        assert_int_equal(dataset_open(&f.ds, &cfg, &model, &e), 0);
        struct plan whole = build(0, 1, SEED);
        assert_true((whole.n_conversations > 0) == (k > 0));
        hash[k] = whole.hash;
        for (int n_ranks = 1; n_ranks <= 8; n_ranks++) {
            check_shares(&whole, n_ranks);
        }
        plan_free(&whole);
        dataset_close(f.ds);
        unlink(path);
    }
    assert_true(hash[0] != hash[1]);
    f.ds = single;
}

static void test_seeds_differ(void **state)
{
    (void)state;
    struct plan a = build(0, 1, SEED), b = build(0, 1, SEED), c = build(0, 1, SEED + 1);
    assert_true(a.hash == b.hash && a.hash != c.hash);
    plan_free(&a);
    plan_free(&b);
    plan_free(&c);
    uint64_t s0 = load_step_seed(&f.load, 0), s1 = load_step_seed(&f.load, 1);
    assert_true(s0 != s1 && s0 == load_step_seed(&f.load, 0));
    f.load.seed++;
    assert_true(s0 != load_step_seed(&f.load, 0));
    f.load.seed--;
}

/* A rate past what can be kept is refused, one that yields nothing is an empty schedule. */
static void test_extreme_rates(void **state)
{
    (void)state;
    struct plan p;
    struct err e = {0};
    assert_int_equal(plan_build(&p, &f.load, f.ds, 1e9, 100000 * NS_PER_S, 1, 0, 1, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_int_equal(plan_build(&p, &f.load, f.ds, 1e-6, NS_PER_S, 1, 0, 1, &e), 0);
    assert_true(p.n == 0 && p.n_total == 0 && p.n_tokens == 0);
    plan_free(&p);
}

static void test_trace_arrivals_need_a_trace(void **state)
{
    (void)state;
    struct plan p;
    struct err e = {0};
    f.load.arrival = LOAD_TRACE;
    assert_int_equal(plan_build(&p, &f.load, f.ds, 1.0, STEP_NS, 1, 0, 1, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "load.arrival"));
    f.load.arrival = LOAD_POISSON;
    assert_true(plan_trace_ns(f.ds) == 0);
}

/* Any event can be made at any time; the hash of a closed loop is over what its users begin with. */
static void test_closed_loop_events(void **state)
{
    (void)state;
    const uint32_t users = 5;
    struct plan_event ev, again;
    for (uint64_t i = 0; i < 100; i++) {
        assert_true(plan_turn(f.ds, SEED, i, 0, &ev) == plan_turn(f.ds, SEED, i, 0, &again));
        assert_true(ev.id == i && ev.t_ns == 0 && ev.n_turns == 0);
        assert_true(same_event(&ev, &again));
        assert_true(ev.n_in >= 1 && ev.n_out >= 1);
    }
    struct plan a, b;
    plan_build_closed(&a, f.ds, SEED, users);
    plan_build_closed(&b, f.ds, SEED + 1, users);
    assert_true(a.n == 0 && a.hash != b.hash);
    plan_free(&a);
    plan_free(&b);
}

static void expect_refused(const char *what)
{
    struct err e = {0};
    assert_int_equal(load_check(&f.load, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, what));
}

static void test_settings_are_checked_against_each_other(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(load_check(&f.load, &e), 0);
    f.load.arrival = LOAD_CLOSED;
    expect_refused("load.users");
    f.load.users = 20000;
    expect_refused("load.max_in_flight");
    f.load.users = 0;
    f.load.arrival = LOAD_POISSON;
    char *start = f.load.rates_start;
    f.load.rates_start = xstrdup("-3");
    expect_refused("load.rates.start");
    free(f.load.rates_start);
    f.load.rates_start = xstrdup("fast");
    expect_refused("load.rates.start");
    free(f.load.rates_start);
    f.load.rates_start = start;
    double rates[] = {1.0, 2.0, 2.0};
    f.load.rates_list = (struct opt_numbers){rates, 3};
    expect_refused("load.rates");
    f.load.rates_list.n = 2;
    assert_int_equal(load_check(&f.load, &e), 0);
    rates[1] = 2e9 / ((double)f.load.step_ns / 1e9);
    expect_refused("2e+09 requests (at most 1e+09)");
    rates[1] = 2.0;
    f.load.arrival = LOAD_TRACE;
    expect_refused("time_scale");
    f.load.rates_list = (struct opt_numbers){NULL, 0};
    f.load.arrival = LOAD_POISSON;
}

static void test_profiles_are_checked(void **state)
{
    (void)state;
    struct err e = {0};
    f.load.arrival_cv = 2.0;
    expect_refused("load.arrival.cv: 2 without load.arrival.kind=gamma");
    f.load.arrival = LOAD_GAMMA;
    assert_int_equal(load_check(&f.load, &e), 0);
    f.load.arrival_cv = 1.0;
    f.load.ramp = (struct ramp){RAMP_LINEAR, 0.0, 0.0};
    expect_refused("load.ramp: from 0 to 0");
    f.load.ramp.to = 1.0;
    assert_int_equal(load_check(&f.load, &e), 0);
    f.load.ramp.kind = RAMP_GEOMETRIC;
    expect_refused("load.ramp: from 0 to 1");
    f.load.ramp.from = 0.5;
    assert_int_equal(load_check(&f.load, &e), 0);
    f.load.arrival = LOAD_TRACE;
    expect_refused("load.ramp: not with load.arrival=trace");
    f.load.arrival = LOAD_POISSON;
    f.load.ramp = (struct ramp){RAMP_NONE, 0.5, 1.5};
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_ranks_offers_the_same),
        cmocka_unit_test(test_conversations_are_shared_out_too),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_extreme_rates),
        cmocka_unit_test(test_trace_arrivals_need_a_trace),
        cmocka_unit_test(test_closed_loop_events),
        cmocka_unit_test(test_settings_are_checked_against_each_other),
        cmocka_unit_test(test_profiles_are_checked),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
