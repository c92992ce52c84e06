/*
 * The cap's places: shared out without loss, taken in the order in which they became free, and always as
 * many as there are.
 */
#include "loadgen/cap.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void test_shares_add_up(void **state)
{
    (void)state;
    struct err e = {0};
    for (int n_ranks = 1; n_ranks <= 9; n_ranks++) {
        for (int64_t n_all = n_ranks; n_all < 40; n_all++) {
            int64_t sum = 0;
            for (int rank = 0; rank < n_ranks; rank++) {
                struct cap c;
                assert_int_equal(cap_init(&c, n_all, rank, n_ranks, &e), 0);
                assert_true(c.n >= 1 && c.n >= n_all / n_ranks && c.n <= n_all / n_ranks + 1);
                sum += c.n;
                cap_free(&c);
            }
            assert_true(sum == n_all);
        }
    }
}

static void test_no_cap_is_never_full(void **state)
{
    (void)state;
    struct cap c;
    struct err e = {0};
    assert_int_equal(cap_init(&c, 0, 0, 1, &e), 0);
    for (int i = 0; i < 100; i++) {
        assert_false(cap_is_full(&c));
        assert_true(cap_take(&c) == INT64_MIN);
    }
    cap_give(&c, 5);
    assert_true(cap_take(&c) == INT64_MIN);
    cap_free(&c);
}

static void test_a_place_knows_since_when_it_is_free(void **state)
{
    (void)state;
    struct cap c;
    struct err e = {0};
    assert_int_equal(cap_init(&c, 3, 0, 1, &e), 0);
    for (int step = 0; step < 2; step++) {
        for (int i = 0; i < 3; i++) {
            assert_false(cap_is_full(&c));
            assert_true(cap_take(&c) == INT64_MIN);
        }
        assert_true(cap_is_full(&c));
        cap_give(&c, 10);
        cap_give(&c, 12);
        assert_true(cap_take(&c) == 10);
        cap_give(&c, 15);
        assert_true(cap_take(&c) == 12 && cap_take(&c) == 15);
        assert_true(cap_is_full(&c));
        cap_reset(&c);
    }
    cap_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares_add_up),
        cmocka_unit_test(test_no_cap_is_never_full),
        cmocka_unit_test(test_a_place_knows_since_when_it_is_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
