/* The best limit of a ladder: which rungs may be it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/ladder.h"

#include <string.h>

enum {
    RUNGS = 4 // 1, 2, 4, 8 users; each serves as many tokens as it has users
};

static struct step_info info[RUNGS];
static struct measure measured[RUNGS];

static int set_up(void **state)
{
    (void)state;
    memset(measured, 0, sizeof measured);
    for (size_t i = 0; i < RUNGS; i++) {
        info[i] = (struct step_info){.kind = STEP_BASE, .users = 1U << i};
        measured[i].closed_loop = true;
        measured[i].n_ok = 100;
        measured[i].window_s = 60;
        measured[i].objective[LATENCY_TTFT].limit_ms = 100;
        for (int b = 0; b < MEASURE_BINS; b++) {
            measured[i].served_out[b] = 100 << i;
        }
        for (int b = 0; b < LATENCY_BATCHES; b++) {
            measured[i].objective[LATENCY_TTFT].n_batch[b] = 100;
            measured[i].objective[LATENCY_TTFT].n_met_batch[b] = 100;
        }
    }
    return 0;
}

static void judge(size_t i, enum verdict v)
{
    measured[i].verdict.verdict = v;
}

/* Users of the best rung, 0: none. */
static uint32_t best(bool *is_short)
{
    struct ladder l;
    ladder_find(info, measured, RUNGS, 0.9, 1, &l);
    uint32_t users = l.best < l.n ? l.rungs[l.best].users : 0;
    assert_int_equal(l.n, RUNGS);
    assert_true(users == 0 || (l.lo95 <= users && l.hi95 >= users));
    *is_short = l.is_short;
    ladder_free(&l);
    return users;
}

static void the_highest_throughput_is_best(void **state)
{
    (void)state;
    bool is_short;
    assert_int_equal(best(&is_short), 8);
    assert_false(is_short);
}

static void failing_and_client_limited_rungs_are_not(void **state)
{
    (void)state;
    bool is_short;
    judge(3, VERDICT_ERRORS);
    assert_int_equal(best(&is_short), 4);
    judge(2, VERDICT_CLIENT_LIMITED);
    assert_int_equal(best(&is_short), 2);
    judge(0, VERDICT_ERRORS);
    judge(1, VERDICT_ERRORS);
    assert_int_equal(best(&is_short), 0);
}

static void a_short_rung_is_only_for_want_of_another(void **state)
{
    (void)state;
    bool is_short;
    judge(3, VERDICT_TOO_SHORT);
    assert_int_equal(best(&is_short), 4);
    assert_false(is_short);
    judge(2, VERDICT_ERRORS);
    judge(1, VERDICT_TOO_SHORT);
    judge(0, VERDICT_TOO_SHORT);
    assert_int_equal(best(&is_short), 8);
    assert_true(is_short);
}

/* One pass of two that failed spoils the rung. */
static void the_worst_pass_counts(void **state)
{
    (void)state;
    struct ladder l;
    info[3].users = info[2].users;
    judge(3, VERDICT_ERRORS);
    ladder_find(info, measured, RUNGS, 0.9, 1, &l);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.rungs[2].verdict, VERDICT_ERRORS);
    assert_int_equal(l.rungs[l.best].users, 2);
    ladder_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_highest_throughput_is_best, set_up),
        cmocka_unit_test_setup(failing_and_client_limited_rungs_are_not, set_up),
        cmocka_unit_test_setup(a_short_rung_is_only_for_want_of_another, set_up),
        cmocka_unit_test_setup(the_worst_pass_counts, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
