/*
 * Turns that the run decides: due ones come in order of time, each user has one owner, what follows a turn
 * depends on nothing but the dataset and how it ended, and ids tell turns apart.
 */
#include "core/clock.h"
#include "core/rng.h"
#include "loadgen/turns.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static void test_the_first_due_comes_first(void **state)
{
    (void)state;
    enum {
        N = 500
    };
    struct turns t;
    struct err e = {0};
    assert_int_equal(turns_init(&t, N, &e), 0);
    assert_true(turns_next_ns(&t) == INT64_MAX);
    for (uint64_t round = 0; round < 3; round++) {
        int64_t last_ns = -1;
        uint64_t last_event = 0, n = 0;
        for (uint64_t i = 0; i < N; i++) {
            int64_t t_ns = (int64_t)rng_below(40, round, RNG_SHUFFLE, i, 0); // many at one time
            turns_push(&t, (struct turn){.t_ns = t_ns, .event = N - i});
        }
        while (turns_next_ns(&t) != INT64_MAX) {
            int64_t next_ns = turns_next_ns(&t);
            struct turn got = turns_pop(&t);
            assert_true(got.t_ns == next_ns && got.t_ns >= last_ns);
            assert_true(got.t_ns > last_ns || got.event > last_event);
            last_ns = got.t_ns;
            last_event = got.event;
            n++;
        }
        assert_true(n == N);
    }
    turns_free(&t);
}

static void test_each_user_has_one_owner(void **state)
{
    (void)state;
    for (uint32_t n_users = 1; n_users <= 9; n_users++) {
        for (int n_ranks = 1; n_ranks <= 5; n_ranks++) {
            int owners[9] = {0};
            for (int r = 0; r < n_ranks; r++) {
                struct turns t;
                struct err e = {0};
                assert_int_equal(turns_init_users(&t, n_users, r, n_ranks, 7, &e), 0);
                while (turns_next_ns(&t) != INT64_MAX) {
                    struct turn turn = turns_pop(&t);
                    assert_true(turn.t_ns == 7 && turn.turn == 0);
                    owners[turn.event]++;
                }
                turns_free(&t);
            }
            for (uint32_t i = 0; i < n_users; i++) {
                assert_int_equal(owners[i], 1);
            }
        }
    }
}

static void test_ids_tell_turns_apart(void **state)
{
    (void)state;
    const uint64_t events[] = {0, 1, 12345, 1000000000, (1ULL << 40) - 1};
    const uint32_t turns[] = {0, 1, 7, (1u << 24) - 1};
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < 4; k++) {
            uint64_t id = turns_id(events[i], turns[k]);
            struct turn t = turns_of_id(id);
            assert_true(t.event == events[i] && t.turn == turns[k]);
            assert_true(turns[k] > 0 || id == events[i]);
        }
    }
}

/* Without conversations a user goes on with its next event, and waits only after a failure. */
static void test_users_of_single_requests(void **state)
{
    (void)state;
    struct dataset_config cfg;
    struct dataset *ds;
    struct err e = {0};
    memset(&cfg, 0, sizeof cfg);
    opt_defaults(dataset_options, &cfg);
    assert_int_equal(
        dataset_open(&ds, &cfg, &(struct dataset_model){.vocab = 512, .context = 2048}, &e), 0);
    struct turn next, ended = {.event = 3};
    assert_false(turns_follow(ds, 1, 0, ended, 50, false, &next)); // open loop
    assert_true(turns_follow(ds, 1, 5, ended, 50, false, &next));
    assert_true(next.event == 8 && next.turn == 0 && next.t_ns == 50);
    assert_true(turns_follow(ds, 1, 5, ended, 50, true, &next));
    assert_true(next.event == 8 && next.turn == 0 && next.t_ns == 50 + TURNS_RETRY_NS);
    dataset_close(ds);
    opt_free(dataset_options, &cfg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_due_comes_first),
        cmocka_unit_test(test_each_user_has_one_owner),
        cmocka_unit_test(test_ids_tell_turns_apart),
        cmocka_unit_test(test_users_of_single_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
