/*
 * Arrivals are what they are called: exponential gaps without correlation, a Poisson process's
 * variance of counts, constant rates without drift, traces as recorded. Seeds are fixed.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "loadgen/arrival.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov-Smirnov: P(D >= d) for n points, Stephens' form (Numerical Recipes, 14.3.3). */
static double ks_p(double d, double n)
{
    double lambda = (sqrt(n) + 0.12 + 0.11 / sqrt(n)) * d;
    double p = 0.0;
    for (int k = 1; k <= 100; k++) {
        p += 2.0 * (k % 2 ? 1.0 : -1.0) * exp(-2.0 * k * k * lambda * lambda);
    }
    return fmin(fmax(p, 0.0), 1.0);
}

static double *draw_gaps(uint64_t seed, double rate_rps, size_t n)
{
    double *gap_s = xmalloc(n * sizeof *gap_s);
    struct arrival a;
    int64_t last_ns = 0, t_ns;
    arrival_init(&a, LOAD_POISSON, rate_rps, seed, NULL);
    for (size_t i = 0; i < n; i++) {
        assert_true(arrival_next(&a, &t_ns));
        assert_true(t_ns >= last_ns);
        gap_s[i] = (double)(t_ns - last_ns) / (double)NS_PER_S;
        last_ns = t_ns;
    }
    return gap_s;
}

static void test_gaps_are_exponential(void **state)
{
    (void)state;
    const size_t n = 20000;
    const double rates[] = {0.5, 40.0, 10000.0};
    for (uint64_t seed = 1; seed <= 9; seed++) {
        double rate_rps = rates[seed % 3];
        double *gap_s = draw_gaps(seed, rate_rps, n);
        double d = 0.0, lag_1 = 0.0;
        for (size_t i = 1; i < n; i++) {
            lag_1 += (gap_s[i] * rate_rps - 1.0) * (gap_s[i - 1] * rate_rps - 1.0);
        }
        assert_true(fabs(lag_1 / (double)n) < 3.0 / sqrt((double)n));
        qsort(gap_s, n, sizeof *gap_s, compare_double);
        for (size_t i = 0; i < n; i++) {
            double f = 1.0 - exp(-gap_s[i] * rate_rps);
            d = fmax(d, fmax(f - (double)i / (double)n, (double)(i + 1) / (double)n - f));
        }
        assert_true(ks_p(d, (double)n) > 0.01);
        free(gap_s);
    }
}

/* Variance over mean of the counts in windows of 1 s; sd of the estimate is 0.01. */
static void test_index_of_dispersion(void **state)
{
    (void)state;
    const int64_t n_windows = 20000;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct arrival a;
        int64_t t_ns, window = 0;
        double count = 0.0, sum = 0.0, squares = 0.0;
        arrival_init(&a, LOAD_POISSON, 30.0, seed, NULL);
        while (arrival_next(&a, &t_ns) && window < n_windows) {
            for (; window < t_ns / NS_PER_S && window < n_windows; window++) {
                sum += count;
                squares += count * count;
                count = 0.0;
            }
            count += 1.0;
        }
        double mean = sum / (double)n_windows;
        double index = (squares / (double)n_windows - mean * mean) / mean;
        assert_true(index > 0.95 && index < 1.05);
        assert_true(fabs(mean - 30.0) < 4.0 * sqrt(30.0 / (double)n_windows));
    }
}

/* The number of arrivals of a step varies from seed to seed as it must: nothing is rescaled. */
static void test_counts_vary_over_seeds(void **state)
{
    (void)state;
    const int n_seeds = 2000;
    double sum = 0.0, squares = 0.0;
    for (int seed = 0; seed < n_seeds; seed++) {
        struct arrival a;
        int64_t t_ns;
        double n = 0.0;
        arrival_init(&a, LOAD_POISSON, 10.0, (uint64_t)seed, NULL);
        while (arrival_next(&a, &t_ns) && t_ns < 10 * NS_PER_S) {
            n += 1.0;
        }
        sum += n;
        squares += n * n;
    }
    double mean = sum / n_seeds;
    double index = (squares / n_seeds - mean * mean) / mean;
    assert_true(index > 0.87 && index < 1.13); // 4 sd
    assert_true(fabs(mean - 100.0) < 1.0);
}

static void test_constant_rate_does_not_drift(void **state)
{
    (void)state;
    const double rate_rps = 3.0; // a period that is no whole number of ns
    struct arrival a;
    int64_t t_ns = -1;
    arrival_init(&a, LOAD_CONSTANT, rate_rps, 1, NULL);
    for (int64_t i = 0; i < 3000000; i++) {
        assert_true(arrival_next(&a, &t_ns));
        assert_true(llabs(t_ns - i * NS_PER_S / 3) <= 1);
    }
}

static void write_trace(char *path)
{
    int fd = mkstemps(path, 4);
    FILE *f = fdopen(fd, "w");
    assert_non_null(f);
    fprintf(f, "TIMESTAMP,ContextTokens,GeneratedTokens\n"
               "2023-11-16 18:17:03.0000000,10,5\n"
               "2023-11-16 18:17:03.5000000,20,6\n"
               "2023-11-16 18:17:05.0000000,30,7\n");
    fclose(f);
}

static void test_trace_keeps_its_times(void **state)
{
    (void)state;
    char path[] = "/tmp/tidemark-test-XXXXXX.csv";
    write_trace(path);
    struct dataset_config cfg;
    struct dataset *ds = NULL;
    struct err e = {0};
    memset(&cfg, 0, sizeof cfg);
    opt_defaults(dataset_options, &cfg);
    free(cfg.source);
    cfg.source = xstrdup(path);
    cfg.time_scale = 0.5;
    assert_int_equal(dataset_open(&ds, &cfg, NULL, 512, 2048, &e), 0);
    struct arrival a;
    int64_t t_ns;
    arrival_init(&a, LOAD_TRACE, 0.0, 1, ds);
    const int64_t expected_ns[] = {0, NS_PER_S / 4, NS_PER_S};
    for (int i = 0; i < 3; i++) {
        assert_true(arrival_next(&a, &t_ns));
        assert_true(t_ns == expected_ns[i]);
    }
    assert_false(arrival_next(&a, &t_ns));
    dataset_close(ds);
    opt_free(dataset_options, &cfg);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gaps_are_exponential),
        cmocka_unit_test(test_index_of_dispersion),
        cmocka_unit_test(test_counts_vary_over_seeds),
        cmocka_unit_test(test_constant_rate_does_not_drift),
        cmocka_unit_test(test_trace_keeps_its_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
