/*
 * Distributions are what they are called: quantiles against published values, mean and standard
 * deviation over a fine grid of the unit interval.
 */
#include "core/dist.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#define N_GRID 1000000

/* Abramowitz and Stegun, table 26.5 (and 26.1 for one standard deviation). */
static void test_normal_quantiles(void **state)
{
    (void)state;
    static const double known[][2] = {
        {0.5, 0.0},
        {0.841344746068543, 1.0},
        {0.975, 1.959963984540054},
        {0.99, 2.326347874040841},
        {0.999, 3.090232306167813},
        {0.999999, 4.753424308822899},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_true(fabs(dist_normal_at(known[i][0]) - known[i][1]) < 1e-9);
        assert_true(fabs(dist_normal_at(1.0 - known[i][0]) + known[i][1]) < 1e-9);
    }
}

static void check_moments(struct dist d, double mean, double sd, double tolerance)
{
    double sum = 0.0, squares = 0.0, last = -INFINITY;
    for (int i = 0; i < N_GRID; i++) {
        double x = dist_at(&d, (i + 0.5) / N_GRID);
        assert_true(x >= last); // an inverse distribution function rises
        last = x;
        sum += x;
        squares += (x - mean) * (x - mean);
    }
    assert_true(fabs(sum / N_GRID - mean) <= tolerance * mean);
    assert_true(fabs(sqrt(squares / N_GRID) - sd) <= tolerance * mean);
}

static void test_moments(void **state)
{
    (void)state;
    check_moments((struct dist){.kind = DIST_CONSTANT, .mean = 512}, 512, 0, 0);
    check_moments((struct dist){.kind = DIST_UNIFORM, .min = 100, .max = 300}, 200,
                  200 / sqrt(12.0), 1e-9);
    check_moments((struct dist){.kind = DIST_NORMAL, .mean = 1000, .sd = 50}, 1000, 50, 1e-5);
    check_moments((struct dist){.kind = DIST_EXPONENTIAL, .mean = 40}, 40, 40, 1e-4);
    check_moments((struct dist){.kind = DIST_LOGNORMAL, .mean = 500, .sd = 200}, 500, 200, 1e-4);
}

static void test_bounds(void **state)
{
    (void)state;
    struct dist d = {.kind = DIST_NORMAL, .mean = 100, .sd = 50, .min = 60, .max = 150};
    assert_true(dist_at(&d, 1e-9) == 60.0);
    assert_true(dist_at(&d, 0.5) == 100.0);
    assert_true(dist_at(&d, 1.0 - 1e-9) == 150.0);
}

static void check_refused(struct dist d, const char *says)
{
    struct err e = {0};
    assert_int_equal(dist_check(&d, "key", &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, says));
}

static void test_checks(void **state)
{
    (void)state;
    struct err e = {0};
    struct dist good = {.kind = DIST_LOGNORMAL, .mean = 1, .sd = 1, .min = 1};
    assert_int_equal(dist_check(&good, "key", &e), 0);
    check_refused((struct dist){.kind = DIST_NORMAL, .mean = 1}, "key: kinds normal and lognormal");
    check_refused((struct dist){.kind = DIST_UNIFORM, .min = 1}, "key: kind uniform needs");
    check_refused((struct dist){.kind = DIST_EXPONENTIAL}, "key: needs a mean");
    check_refused((struct dist){.mean = 1, .min = 3, .max = 2}, "key: min 3 is above max 2");
    assert_false(dist_is_set(&(struct dist){.min = 1}));
    assert_true(dist_is_set(&(struct dist){.kind = DIST_UNIFORM, .max = 2}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normal_quantiles),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
