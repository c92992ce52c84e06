#include "core/beat.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/clock.h"

#define TIMEOUT_NS (8 * NS_PER_S)

/* Turns every 100 ms from *now to `until`, hearing of the ranks in `talking` (a bit mask). */
static int live(struct beat *b, int64_t *now, int64_t until, unsigned talking)
{
    for (; *now < until; *now += 100 * NS_PER_MS) {
        if (!beat_turn(b, *now)) {
            continue;
        }
        for (int r = 0; r < b->size; r++) {
            if (talking >> r & 1) {
                beat_heard(b, r, *now);
            }
        }
        int64_t age_ns;
        int silent = beat_silent(b, *now, &age_ns);
        if (silent >= 0) {
            assert_true(age_ns > b->timeout_ns);
            return silent;
        }
    }
    return -1;
}

static void not_armed_says_nothing(void **state)
{
    (void)state;
    struct beat b = {0};
    assert_false(beat_turn(&b, 5));
    beat_heard(&b, 0, 5);
    beat_free(&b);
}

static void names_the_silent_rank(void **state)
{
    (void)state;
    struct beat b = {0};
    int64_t now = 1000;
    beat_arm(&b, 0, 4, TIMEOUT_NS, now);
    assert_int_equal(live(&b, &now, 20 * NS_PER_S, 0xe), -1);
    int64_t quiet_since = now;
    assert_int_equal(live(&b, &now, 40 * NS_PER_S, 0xa), 2);
    assert_in_range(now - quiet_since, TIMEOUT_NS - NS_PER_S, TIMEOUT_NS + NS_PER_S);
    beat_free(&b);
}

static void others_watch_rank_0_only(void **state)
{
    (void)state;
    struct beat b = {0};
    int64_t now = 0;
    beat_arm(&b, 2, 4, TIMEOUT_NS, now);
    assert_int_equal(live(&b, &now, 100 * NS_PER_S, 0x1), -1);
    assert_int_equal(live(&b, &now, 200 * NS_PER_S, 0x8), 0);
    beat_free(&b);
}

static void a_rank_that_is_not_yet_up_gets_longer(void **state)
{
    (void)state;
    struct beat b = {0};
    int64_t now = 0;
    beat_arm(&b, 0, 3, TIMEOUT_NS, now);
    assert_int_equal(live(&b, &now, 59 * NS_PER_S, 0x2), -1);
    assert_int_equal(live(&b, &now, 70 * NS_PER_S, 0x2), 2);
    beat_free(&b);
}

static void one_that_was_stopped_itself_accuses_nobody(void **state)
{
    (void)state;
    struct beat b = {0};
    int64_t now = 0;
    beat_arm(&b, 0, 2, TIMEOUT_NS, now);
    assert_int_equal(live(&b, &now, 5 * NS_PER_S, 0x2), -1);
    now += 1000 * NS_PER_S;
    int64_t back_at = now;
    assert_int_equal(live(&b, &now, back_at + 7 * NS_PER_S, 0), -1);
    assert_int_equal(live(&b, &now, back_at + 20 * NS_PER_S, 0), 1);
    assert_in_range(now - back_at, TIMEOUT_NS, TIMEOUT_NS + NS_PER_S);
    beat_free(&b);
}

static void sends_eight_times_per_timeout(void **state)
{
    (void)state;
    struct beat b = {0};
    beat_arm(&b, 0, 2, TIMEOUT_NS, 0);
    int n_sent = 0;
    for (int64_t now = 0; now < TIMEOUT_NS; now += NS_PER_MS) {
        n_sent += beat_send_due(&b, now);
    }
    assert_int_equal(n_sent, 8);
    beat_arm(&b, 0, 2, 200 * NS_PER_MS, 0);
    assert_int_equal(b.send_every_ns, 100 * NS_PER_MS);
    beat_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(not_armed_says_nothing),
        cmocka_unit_test(names_the_silent_rank),
        cmocka_unit_test(others_watch_rank_0_only),
        cmocka_unit_test(a_rank_that_is_not_yet_up_gets_longer),
        cmocka_unit_test(one_that_was_stopped_itself_accuses_nobody),
        cmocka_unit_test(sends_eight_times_per_timeout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
