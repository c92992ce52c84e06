#include "core/timers.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/rng.h"

enum {
    N = 300
};

static void nothing_is_never_due(void **state)
{
    (void)state;
    struct timers t = {0};
    struct timer x = {0};
    assert_int_equal(timers_next_ns(&t), INT64_MAX);
    assert_null(timers_pop(&t, INT64_MAX));
    timers_disarm(&t, &x); // not armed: nothing happens
    timers_arm(&t, &x, 5);
    assert_null(timers_pop(&t, 4));
    assert_ptr_equal(timers_pop(&t, 5), &x);
    assert_int_equal(x.place, 0);
    assert_null(timers_pop(&t, INT64_MAX));
    timers_free(&t);
}

/* Arm, move and disarm at random; what is due must be what a plain list says. */
static void agrees_with_a_list(void **state)
{
    (void)state;
    struct timers t = {0};
    struct timer x[N] = {{0}};
    int64_t at[N]; // -1: not armed
    memset(at, -1, sizeof at);
    for (uint64_t i = 0; i < 20000; i++) {
        size_t k = (size_t)rng_below(N, 1, RNG_SHUFFLE, i, 0);
        if (rng_below(4, 1, RNG_SHUFFLE, i, 1) == 0) {
            timers_disarm(&t, &x[k]);
            at[k] = -1;
        } else {
            at[k] = (int64_t)rng_below(1000, 1, RNG_SHUFFLE, i, 2);
            timers_arm(&t, &x[k], at[k]);
        }
        int64_t first = INT64_MAX;
        for (size_t m = 0; m < N; m++) {
            first = at[m] >= 0 && at[m] < first ? at[m] : first;
        }
        assert_int_equal(timers_next_ns(&t), first);
        if (i % 7 == 0 && first != INT64_MAX) {
            struct timer *due = timers_pop(&t, first);
            assert_int_equal(at[due - x], first);
            at[due - x] = -1;
        }
    }
    timers_free(&t);
}

static void pops_in_order(void **state)
{
    (void)state;
    struct timers t = {0};
    struct timer x[N] = {{0}};
    int64_t last = -1;
    for (uint64_t i = 0; i < N; i++) {
        timers_arm(&t, &x[i], (int64_t)rng_permute(i, N, 2, RNG_SHUFFLE, 0));
    }
    for (int i = 0; i < N; i++) {
        int64_t next = timers_next_ns(&t);
        assert_true(next > last);
        assert_non_null(timers_pop(&t, next));
        last = next;
    }
    assert_int_equal(t.n, 0);
    timers_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_never_due),
        cmocka_unit_test(agrees_with_a_list),
        cmocka_unit_test(pops_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
