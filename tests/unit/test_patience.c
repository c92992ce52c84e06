#include "workers/patience.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/clock.h"

#define LEAST_NS (30 * NS_PER_S)

static struct patience p;
static struct patience_late late;

static int begin_anew(void **state)
{
    (void)state;
    patience_init(&p, LEAST_NS);
    return 0;
}

/* A piece of work from `from` on that takes `took`; checked ten times a second, and never over. */
static int64_t work(uint32_t n_tokens, int64_t from_ns, int64_t took_ns)
{
    patience_begin(&p, n_tokens, from_ns);
    for (int64_t t = from_ns; t < from_ns + took_ns; t += NS_PER_S / 10) {
        assert_false(patience_is_over(&p, t, 0, &late));
    }
    patience_end(&p, from_ns + took_ns);
    return from_ns + took_ns;
}

/* Checked ten times a second from `from` on: when it was over. */
static int64_t over_at(int64_t from_ns, int64_t beyond_ns)
{
    int64_t t = from_ns;
    while (!patience_is_over(&p, t, beyond_ns, &late)) {
        t += NS_PER_S / 10;
        assert_true(t < from_ns + 86400 * NS_PER_S);
    }
    return t;
}

static void nothing_under_way_is_never_over(void **state)
{
    (void)state;
    assert_false(patience_is_over(&p, 5, 0, &late));
    int64_t t = work(7, 0, NS_PER_S);
    for (int64_t end = t + 1000 * NS_PER_S; t < end; t += NS_PER_S / 10) {
        assert_false(patience_is_over(&p, t, 0, &late));
    }
}

static void the_first_of_a_size_has_four_times_the_least(void **state)
{
    (void)state;
    assert_int_equal(patience_limit_ns(&p, 1), 4 * LEAST_NS);
    int64_t t = work(1, 0, 100 * NS_PER_S); // cold
    assert_int_equal(patience_limit_ns(&p, 1), 20 * 100 * NS_PER_S);
    assert_int_equal(patience_limit_ns(&p, 2), 4 * LEAST_NS);
    patience_begin(&p, 2048, t);
    int64_t over = over_at(t, 0);
    assert_in_range(over - t, 4 * LEAST_NS, 4 * LEAST_NS + NS_PER_S / 5);
    assert_int_equal(late.limit_ns, 4 * LEAST_NS);
    assert_int_equal(late.n_tokens, 2048);
    assert_int_equal(late.waited_ns, over - t);
}

static void the_median_forgets_what_is_behind_its_window(void **state)
{
    (void)state;
    int64_t t = 0;
    const int64_t short_ns = NS_PER_S / 100, long_ns = 3 * NS_PER_S;
    for (int i = 0; i < PATIENCE_WINDOW; i++) {
        t = work(1, t, short_ns);
    }
    assert_int_equal(patience_limit_ns(&p, 1), LEAST_NS);
    for (int i = 0; i < PATIENCE_WINDOW / 2 - 1; i++) {
        t = work(1, t, long_ns);
    }
    assert_int_equal(patience_limit_ns(&p, 1), LEAST_NS); // most are short
    t = work(1, t, long_ns);
    t = work(1, t, long_ns);
    assert_int_equal(patience_limit_ns(&p, 1), 20 * long_ns);
    for (int i = 0; i < PATIENCE_WINDOW; i++) {
        t = work(1, t, 4 * NS_PER_S);
    }
    assert_int_equal(patience_limit_ns(&p, 1), 20 * 4 * NS_PER_S);
}

/* Prompts take a hundred times as long as single tokens: neither is judged by the other. */
static void sizes_are_apart(void **state)
{
    (void)state;
    int64_t t = 0;
    for (int i = 0; i < 5; i++) {
        t = work(1, t, NS_PER_S / 10);
        t = work(2048, t, 10 * NS_PER_S);
    }
    assert_int_equal(patience_limit_ns(&p, 1), LEAST_NS);
    assert_int_equal(patience_limit_ns(&p, 1025), 200 * NS_PER_S);
    assert_int_equal(patience_limit_ns(&p, 2048), 200 * NS_PER_S);
    assert_int_equal(patience_limit_ns(&p, 2049), 4 * LEAST_NS);
    assert_int_equal(patience_limit_ns(&p, 1024), 4 * LEAST_NS);
    assert_int_equal(patience_limit_ns(&p, 1 << 30),
                     4 * LEAST_NS); // one class for all that is larger
    assert_int_equal(patience_limit_ns(&p, UINT32_MAX), patience_limit_ns(&p, 1 << 30));
}

static void the_oldest_counts_from_the_end_of_the_one_before(void **state)
{
    (void)state;
    int64_t t = work(1, 0, NS_PER_S);
    for (int i = 0; i < 3; i++) {
        patience_begin(&p, 1, t); // a queue of three
    }
    for (int64_t end = t + 29 * NS_PER_S; t < end; t += NS_PER_S / 10) {
        assert_false(patience_is_over(&p, t, 0, &late));
    }
    patience_end(&p, t);
    int64_t over = over_at(t, 0);
    assert_int_equal(late.limit_ns, 20 * 29 * NS_PER_S); // of such work from begin to end
    assert_in_range(over - t, late.limit_ns, late.limit_ns + NS_PER_S / 5);
}

static void a_reason_to_wait_is_no_fault(void **state)
{
    (void)state;
    int64_t t = work(1, 0, NS_PER_S);
    patience_begin(&p, 1, t);
    for (int64_t end = t + 100 * NS_PER_S; t < end; t += NS_PER_S / 10) {
        patience_restart(&p, t);
        assert_false(patience_is_over(&p, t, 0, &late));
    }
    int64_t over = over_at(t, 0);
    assert_in_range(over - t, LEAST_NS - NS_PER_S / 5, LEAST_NS + NS_PER_S / 5);
}

static void hearsay_waits_longer(void **state)
{
    (void)state;
    int64_t t = work(1, 0, NS_PER_S);
    patience_begin(&p, 1, t);
    int64_t over = over_at(t, PATIENCE_HEARSAY_NS);
    assert_in_range(over - t, LEAST_NS + PATIENCE_HEARSAY_NS,
                    LEAST_NS + PATIENCE_HEARSAY_NS + NS_PER_S / 5);
    assert_int_equal(late.limit_ns, LEAST_NS);
}

static void who_was_away_accuses_nobody(void **state)
{
    (void)state;
    int64_t t = work(1, 0, NS_PER_S);
    patience_begin(&p, 1, t);
    assert_false(patience_is_over(&p, t, 0, &late));
    t += 1000 * NS_PER_S; // stopped, and back
    assert_false(patience_is_over(&p, t, 0, &late));
    int64_t over = over_at(t + NS_PER_S / 10, 0);
    assert_in_range(over - t, LEAST_NS, LEAST_NS + NS_PER_S / 5);
}

static void as_many_as_there_is_room_for(void **state)
{
    (void)state;
    int64_t t = work(1, 0, NS_PER_S);
    for (uint32_t i = 0; i < PATIENCE_MAX; i++) {
        patience_begin(&p, i, t);
    }
    for (uint32_t i = 0; i < PATIENCE_MAX; i++) {
        patience_end(&p, t + NS_PER_S);
    }
    assert_false(patience_is_over(&p, t + NS_PER_S, 0, &late));
    assert_int_equal(patience_limit_ns(&p, 3), LEAST_NS);
}

static void the_text_has_what_how_long_and_which_limit(void **state)
{
    (void)state;
    char buf[160];
    late = (struct patience_late){
        .waited_ns = 31 * NS_PER_S, .limit_ns = 30500 * NS_PER_MS, .n_tokens = 12};
    assert_string_equal(
        patience_text(&late, buf, sizeof buf),
        "a batch of 12 tokens for 31.0 s (limit 30.5 s: deadline.batch, or 20 x the "
        "median)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(nothing_under_way_is_never_over, begin_anew),
        cmocka_unit_test_setup(the_first_of_a_size_has_four_times_the_least, begin_anew),
        cmocka_unit_test_setup(the_median_forgets_what_is_behind_its_window, begin_anew),
        cmocka_unit_test_setup(sizes_are_apart, begin_anew),
        cmocka_unit_test_setup(the_oldest_counts_from_the_end_of_the_one_before, begin_anew),
        cmocka_unit_test_setup(a_reason_to_wait_is_no_fault, begin_anew),
        cmocka_unit_test_setup(hearsay_waits_longer, begin_anew),
        cmocka_unit_test_setup(who_was_away_accuses_nobody, begin_anew),
        cmocka_unit_test_setup(as_many_as_there_is_room_for, begin_anew),
        cmocka_unit_test_setup(the_text_has_what_how_long_and_which_limit, begin_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
