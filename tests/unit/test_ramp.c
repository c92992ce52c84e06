/*
 * Ramps: the inverse undoes the expected count, and moved in time, steady events have the rate that the
 * ramp says.
 */
#include "core/clock.h"
#include "loadgen/arrival.h"
#include "loadgen/ramp.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

static const struct ramp ramps[] = {
    {RAMP_NONE, 0.5, 1.5},      {RAMP_LINEAR, 0.5, 1.5},    {RAMP_LINEAR, 0.0, 2.0},
    {RAMP_LINEAR, 3.0, 0.0},    {RAMP_LINEAR, 1.0, 1.0},    {RAMP_GEOMETRIC, 0.25, 4.0},
    {RAMP_GEOMETRIC, 8.0, 0.1}, {RAMP_GEOMETRIC, 2.0, 2.0}, {RAMP_GEOMETRIC, 1.0, 1.0 + 1e-12},
};
#define N_RAMPS (sizeof ramps / sizeof ramps[0])

/* g, the rate at the share x of the step, straight from its definition. */
static double rate_at(struct ramp r, double x)
{
    if (r.kind == RAMP_NONE) {
        return 1.0;
    }
    return r.kind == RAMP_LINEAR ? r.from + (r.to - r.from) * x : r.from * pow(r.to / r.from, x);
}

/* Its integral over [0, x], Simpson's rule. */
static double count_until(struct ramp r, double x)
{
    const int n = 200;
    double sum = 0.0, h = x / n;
    for (int i = 0; i <= n; i++) {
        sum += rate_at(r, i * h) * (i == 0 || i == n ? 1.0 : i % 2 ? 4.0 : 2.0);
    }
    return sum * h / 3.0;
}

static void test_inverse_undoes_the_count(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_RAMPS; k++) {
        struct ramp r = ramps[k];
        assert_true(fabs(ramp_mean(r) / count_until(r, 1.0) - 1.0) < 1e-7);
        assert_true(ramp_inverse(r, 0.0) == 0.0);
        double last = 0.0;
        for (double x = 0.05; x < 0.99; x += 0.05) {
            double got = ramp_inverse(r, count_until(r, x));
            assert_true(fabs(got - x) < 1e-6);
            assert_true(got > last);
            last = got;
        }
    }
}

/* Past the end nothing comes back into the step, also where the rate would have gone to zero. */
static void test_what_is_past_the_end_stays_there(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_RAMPS; k++) {
        for (double over = 1.0001; over < 50.0; over *= 1.5) {
            assert_true(ramp_inverse(ramps[k], over * ramp_mean(ramps[k])) >= 1.0);
        }
    }
}

/* With constant gaps the count up to any time is the expected one to within one event. */
static void test_ramped_constant_rate_follows_the_ramp(void **state)
{
    (void)state;
    const int64_t step_ns = 10 * NS_PER_S;
    const double rate_rps = 1000.0;
    for (size_t k = 0; k < N_RAMPS; k++) {
        struct load_config cfg = {.arrival = LOAD_CONSTANT, .ramp = ramps[k]};
        struct arrival a;
        int64_t t_ns;
        arrival_init(&a, &cfg, rate_rps, step_ns, 1, NULL);
        double n = 0.0;
        while (arrival_next(&a, &t_ns) && t_ns < step_ns) {
            double expected =
                rate_rps * 10.0 * count_until(ramps[k], (double)t_ns / (double)step_ns);
            assert_true(fabs(expected - n) < 0.01);
            n += 1.0;
        }
        assert_true(fabs(n - load_expected(&cfg, rate_rps, step_ns)) <= 1.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inverse_undoes_the_count),
        cmocka_unit_test(test_what_is_past_the_end_stays_there),
        cmocka_unit_test(test_ramped_constant_rate_follows_the_ramp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
