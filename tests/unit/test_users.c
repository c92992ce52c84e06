/*
 * Closed-loop users: shared out over ranks without gap or overlap, served in order of due time, held
 * back for a while after a failure.
 */
#include "loadgen/users.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void test_each_user_has_one_owner(void **state)
{
    (void)state;
    for (uint32_t n_all = 1; n_all <= 9; n_all++) {
        for (int n_ranks = 1; n_ranks <= 5; n_ranks++) {
            int owners[9] = {0};
            for (int r = 0; r < n_ranks; r++) {
                struct users u;
                struct err e = {0};
                assert_int_equal(users_init(&u, n_all, r, n_ranks, 7, &e), 0);
                while (users_next_ns(&u) != INT64_MAX) {
                    uint64_t turn;
                    struct users_due due = users_pop(&u, &turn);
                    assert_true(due.t_ns == 7 && turn == 0);
                    owners[due.user]++;
                }
                users_free(&u);
            }
            for (uint32_t i = 0; i < n_all; i++) {
                assert_int_equal(owners[i], 1);
            }
        }
    }
}

static void test_next_is_the_one_due_first(void **state)
{
    (void)state;
    struct users u;
    struct err e = {0};
    uint64_t turn;
    assert_int_equal(users_init(&u, 3, 0, 1, 0, &e), 0);
    for (int i = 0; i < 3; i++) {
        (void)users_pop(&u, &turn);
    }
    users_done(&u, 0, 1000, true); // refused: due 0.1 s later
    users_done(&u, 2, 2000, false);
    users_done(&u, 1, 3000, false);
    const uint32_t order[] = {2, 1, 0};
    const int64_t due_ns[] = {2000, 3000, 1000 + USERS_RETRY_NS};
    for (int i = 0; i < 3; i++) {
        assert_true(users_next_ns(&u) == due_ns[i]);
        struct users_due due = users_pop(&u, &turn);
        assert_true(due.user == order[i] && due.t_ns == due_ns[i] && turn == 1);
    }
    assert_true(users_next_ns(&u) == INT64_MAX);
    users_free(&u);
}

static void test_turns_count_per_user(void **state)
{
    (void)state;
    struct users u;
    struct err e = {0};
    uint64_t turn, turns[2] = {0};
    assert_int_equal(users_init(&u, 4, 1, 2, 0, &e), 0); // users 1 and 3
    for (int64_t t_ns = 1; t_ns <= 1000; t_ns++) {
        struct users_due due = users_pop(&u, &turn);
        assert_true(due.user == 1 || due.user == 3);
        assert_true(turn == turns[due.user / 2]++);
        users_done(&u, due.user, t_ns, false);
    }
    assert_true(turns[0] == 500 && turns[1] == 500);
    users_free(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_user_has_one_owner),
        cmocka_unit_test(test_next_is_the_one_due_first),
        cmocka_unit_test(test_turns_count_per_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
