/* Tokens over events: the sum is kept, each event has one where there are as many, running sums are close to their share. */
#include "core/rng.h"
#include "loadgen/spread.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

static void add(struct spread *s, const uint32_t *weights, size_t n)
{
    spread_clear(s);
    for (size_t i = 0; i < n; i++) {
        spread_add(s, weights[i]);
    }
}

static void assert_spread(struct spread *s, uint32_t n_tokens, const uint32_t *wanted)
{
    size_t n = s->n;
    const uint32_t *counts = spread_tokens(s, n_tokens);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(counts[i], wanted[i]);
    }
}

static void test_by_weight(void **state)
{
    (void)state;
    struct spread s = {0};
    add(&s, (uint32_t[]){10, 10, 20}, 3);
    assert_spread(&s, 8, (uint32_t[]){2, 2, 4});
    add(&s, (uint32_t[]){0, 0, 0}, 3); // nothing is known: alike
    assert_spread(&s, 6, (uint32_t[]){2, 2, 2});
    add(&s, (uint32_t[]){1}, 1);
    assert_spread(&s, 5, (uint32_t[]){5});
    spread_free(&s);
}

static void test_fewer_tokens_than_events(void **state)
{
    (void)state;
    struct spread s = {0};
    add(&s, (uint32_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 10);
    assert_spread(&s, 1, (uint32_t[]){1, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    add(&s, (uint32_t[]){1, 1, 1, 1, 100}, 5);
    assert_spread(&s, 2, (uint32_t[]){1, 0, 0, 0, 1});
    spread_free(&s);
}

/* One token more than events: an event of one byte has its token still, and its gap. */
static void test_each_event_has_a_token(void **state)
{
    (void)state;
    struct spread s = {0};
    add(&s, (uint32_t[]){20, 1, 20, 20}, 4);
    assert_spread(&s, 5, (uint32_t[]){2, 1, 1, 1});
    add(&s, (uint32_t[]){1, 1, 1, 100}, 4);
    assert_spread(&s, 6, (uint32_t[]){1, 1, 1, 3});
    add(&s, (uint32_t[]){100, 1, 1, 1}, 4);
    assert_spread(&s, 6, (uint32_t[]){3, 1, 1, 1});
    spread_free(&s);
}

static void test_any_weights(void **state)
{
    (void)state;
    struct spread s = {0};
    for (uint64_t round = 0; round < 2000; round++) {
        size_t n = 1 + (size_t)rng_below(40, round, RNG_SHUFFLE, 0, 0);
        uint32_t n_tokens = 1 + (uint32_t)rng_below(60, round, RNG_SHUFFLE, 1, 0);
        uint32_t weights[40];
        double total = 0.0, so_far = 0.0, given = 0.0;
        for (size_t i = 0; i < n; i++) {
            weights[i] = 1 + (uint32_t)rng_below(30, round, RNG_SHUFFLE, 2, i);
            total += weights[i];
        }
        add(&s, weights, n);
        const uint32_t *counts = spread_tokens(&s, n_tokens);
        assert_true(counts[0] >= 1);
        double before = 0.0;
        for (size_t i = 0; i < n; i++) {
            so_far += weights[i];
            given += counts[i];
            double share = fmax(n_tokens * so_far / total, 0.5);
            if (n_tokens >= n) { // as near as one token for each event allows
                assert_true(counts[i] >= 1);
                share = fmin(fmax(share, before + 1.0), n_tokens - (double)(n - 1 - i));
            }
            assert_true(fabs(given - share) <= 0.5 + 1e-9);
            before = given;
        }
        assert_true(given == n_tokens);
    }
    spread_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_weight),
        cmocka_unit_test(test_fewer_tokens_than_events),
        cmocka_unit_test(test_each_event_has_a_token),
        cmocka_unit_test(test_any_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
