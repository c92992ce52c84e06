/*
 * The histogram against sorted samples: quantiles within 1 %, exact below 128, and no value of an
 * int64 outside of its buckets.
 */
#include "core/hist.h"
#include "core/mem.h"
#include "core/rng.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

static int compare_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Values over nine decades, so that all widths of buckets are met. */
static void test_quantiles_are_within_one_percent(void **state)
{
    (void)state;
    enum {
        N = 20000
    };
    static struct hist h;
    static int64_t v[N];
    const double q[] = {0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999};
    for (uint64_t seed = 1; seed <= 5; seed++) {
        hist_reset(&h);
        for (int i = 0; i < N; i++) {
            v[i] = (int64_t)pow(10.0, 9.0 * rng_uniform(seed, RNG_BOOTSTRAP, (uint64_t)i, 0));
            hist_record(&h, v[i]);
        }
        qsort(v, N, sizeof v[0], compare_i64);
        for (size_t k = 0; k < sizeof q / sizeof q[0]; k++) {
            double truth = (double)v[(int)ceil(q[k] * N) - 1];
            assert_true(fabs((double)hist_quantile(&h, q[k]) - truth) <= 0.01 * truth);
        }
        assert_true(hist_quantile(&h, 0.0) == v[0]);
        assert_true(hist_quantile(&h, 1.0) == v[N - 1]);
        assert_true(h.n == N && h.min == v[0] && h.max == v[N - 1]);
    }
}

static void test_small_values_are_exact(void **state)
{
    (void)state;
    static struct hist h;
    for (int64_t v = 0; v < 128; v++) {
        hist_reset(&h);
        hist_record(&h, 0);
        hist_record(&h, v);
        hist_record(&h, 1000);
        assert_true(hist_quantile(&h, 0.5) == v);
    }
}

static void test_extremes(void **state)
{
    (void)state;
    static struct hist h;
    hist_reset(&h);
    assert_true(hist_quantile(&h, 0.5) == 0);
    hist_record(&h, INT64_MAX);
    hist_record(&h, -5);
    assert_true(hist_quantile(&h, 0.0) == 0);
    assert_true(hist_quantile(&h, 1.0) == INT64_MAX);
    for (int e = 0; e < 63; e++) { // the edges of every power of two
        for (int64_t d = -1; d <= 1; d++) {
            int64_t v = ((int64_t)1 << e) + d;
            hist_reset(&h);
            hist_record(&h, v);
            assert_true(hist_quantile(&h, 0.5) == v); // held by min and max
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles_are_within_one_percent),
        cmocka_unit_test(test_small_values_are_exact),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
