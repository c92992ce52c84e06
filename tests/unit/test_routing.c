/* The replica for the next request, against a model that looks at all of them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/rng.h"
#include "model/routing.h"

enum {
    N_REPLICAS = 4,
    N_LIVE = 50,
};

static uint64_t draw(uint64_t n, uint64_t i, uint64_t k)
{
    return rng_below(n, 9, RNG_SHUFFLE, i, k);
}

static void test_in_turn(void **state)
{
    (void)state;
    struct routing r;
    routing_init(&r, ROUTING_ROUND_ROBIN, N_REPLICAS, 0);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(routing_pick(&r, i == 0 ? 1000000 : 1), i % N_REPLICAS);
    }
    routing_free(&r);
}

static void test_ties_go_in_turn(void **state)
{
    (void)state;
    struct routing r;
    routing_init(&r, ROUTING_LEAST_TOKENS, N_REPLICAS, 0);
    for (int i = 0; i < 20; i++) {
        int replica = routing_pick(&r, 10);
        assert_int_equal(replica, i % N_REPLICAS);
        routing_done(&r, replica, 10);
    }
    routing_free(&r);
}

static void test_least_tokens(void **state)
{
    (void)state;
    struct routing r;
    uint64_t load[N_REPLICAS] = {0}, left[N_LIVE] = {0}, most = 0;
    int where[N_LIVE] = {0};
    routing_init(&r, ROUTING_LEAST_TOKENS, N_REPLICAS, 0);
    for (uint64_t i = 0; i < 10000; i++) {
        size_t k = draw(N_LIVE, i, 0);
        if (left[k] > 0) { // some of its tokens have come, or all
            uint64_t n = 1 + draw(left[k], i, 1);
            routing_done(&r, where[k], n);
            load[where[k]] -= n;
            left[k] -= n;
            continue;
        }
        left[k] = 1 + draw(900, i, 2);
        where[k] = routing_pick(&r, left[k]);
        uint64_t lo = UINT64_MAX, hi = 0;
        for (int j = 0; j < N_REPLICAS; j++) {
            lo = load[j] < lo ? load[j] : lo;
            hi = load[j] > hi ? load[j] : hi;
        }
        assert_int_equal(load[where[k]], lo);
        most = hi - lo > most ? hi - lo : most;
        load[where[k]] += left[k];
    }
    assert_true(most > 0);
    routing_free(&r);
}

/* What others have there counts, until it is said anew. */
static void test_others_count(void **state)
{
    (void)state;
    struct routing r;
    routing_init(&r, ROUTING_LEAST_TOKENS, N_REPLICAS, 6);
    assert_int_equal(routing_pick(&r, 10), 2); // turns begin there
    routing_tell(&r, 3, 5);
    routing_tell(&r, 0, 20);
    assert_int_equal(routing_pick(&r, 10), 1);
    assert_int_equal(routing_pick(&r, 10), 3); // 5 against 10, 10 and 20
    routing_tell(&r, 0, 4);
    assert_int_equal(routing_pick(&r, 10), 0);
    routing_done(&r, 2, 10);
    routing_tell(&r, 2, 100);
    assert_int_equal(routing_pick(&r, 1), 1);
    routing_tell_none(&r);
    assert_int_equal(routing_pick(&r, 1), 2);
    routing_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_turn),
        cmocka_unit_test(test_ties_go_in_turn),
        cmocka_unit_test(test_least_tokens),
        cmocka_unit_test(test_others_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
