/* The progress line: its text, its width, and when there is none. */
#include "core/clock.h"
#include "loadgen/progress.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static struct progress begin(double rate_rps, uint32_t users)
{
    struct progress p = {.most_steps = 10, .step_ns = 12 * NS_PER_S, .drain_ns = 5 * NS_PER_S};
    struct wire_step step = {.index = 2,
                             .kind = users ? STEP_BASE : STEP_SWEEP,
                             .rate_rps = rate_rps,
                             .users = users,
                             .t_end_ns = 100 * NS_PER_S};
    progress_begin_step(&p, &step);
    return p;
}

static void expect(const struct progress *p, double now_s, const char *text)
{
    char line[PROGRESS_MAX_COLUMNS + 1];
    progress_format(p, (int64_t)(now_s * 1e9), PROGRESS_MAX_COLUMNS, line);
    assert_string_equal(line, text);
}

static void test_text(void **state)
{
    (void)state;
    struct progress p = begin(4.62375, 0);
    expect(&p, 88.0,
           "step 3/10 sweep  4.624 req/s  sent 0 in flight 0 done 0  12 s left, run <= 3 min");
    p.n_sent = 37;
    p.n_in_flight = 5;
    p.n_done = 32;
    p.ttft_p50_us = 8130;
    p.ttft_p99_us = 97400;
    expect(&p, 93.5,
           "step 3/10 sweep  4.624 req/s  sent 37 in flight 5 done 32  TTFT p50 8.13 ms p99 97 ms"
           "  7 s left, run <= 3 min");
    p.step = 10;
    p.ttft_p99_us = 12345678;
    expect(&p, 101.0,
           "step 10/10 sweep  4.624 req/s  sent 37 in flight 5 done 32  TTFT p50 8.13 ms p99 12 s"
           "  draining");
}

static void test_closed_loop_and_unknown_length(void **state)
{
    (void)state;
    struct progress p = begin(0.0, 32);
    p.most_steps = 0;
    expect(&p, 99.9, "step 3 base  32 users  sent 0 in flight 0 done 0  1 s left");
}

static void test_never_wider_than_asked(void **state)
{
    (void)state;
    struct progress p = begin(1e8, 0);
    p.n_sent = p.n_in_flight = p.n_done = UINT64_MAX;
    p.ttft_p50_us = p.ttft_p99_us = INT64_MAX;
    p.step_ns = p.drain_ns = INT64_MAX / 100;
    char whole[PROGRESS_MAX_COLUMNS + 1], line[PROGRESS_MAX_COLUMNS + 1];
    progress_format(&p, 0, PROGRESS_MAX_COLUMNS, whole);
    for (int columns = 0; columns <= PROGRESS_MAX_COLUMNS; columns++) {
        memset(line, 'x', sizeof line);
        progress_format(&p, 0, columns, line);
        assert_true(strlen(line) <= (size_t)columns);
        assert_true(strncmp(line, whole, strlen(line)) == 0);
    }
}

static void test_width_of_the_terminal(void **state)
{
    (void)state;
    assert_int_equal(setenv("TIDEMARK_TTY", "132", 1), 0);
    assert_int_equal(progress_columns(), 132);
    assert_int_equal(setenv("TIDEMARK_TTY", "100000", 1), 0);
    assert_int_equal(progress_columns(), PROGRESS_MAX_COLUMNS);
    const char *none[] = {"0", "-7", "", "wide", "3"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_int_equal(setenv("TIDEMARK_TTY", none[i], 1), 0);
        assert_int_equal(progress_columns(), 0);
    }
    assert_int_equal(unsetenv("TIDEMARK_TTY"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_closed_loop_and_unknown_length),
        cmocka_unit_test(test_never_wider_than_asked),
        cmocka_unit_test(test_width_of_the_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
