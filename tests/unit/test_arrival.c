/*
 * Arrivals are what they are called: exponential and gamma gaps without correlation, a Poisson process's
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

static const struct load_config poisson = {.arrival = LOAD_POISSON};

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

/* D of n values of a distribution function, in place. */
static double ks_distance(double *f, size_t n)
{
    double d = 0.0;
    qsort(f, n, sizeof *f, compare_double);
    for (size_t i = 0; i < n; i++) {
        d = fmax(d, fmax(f[i] - (double)i / (double)n, (double)(i + 1) / (double)n - f[i]));
    }
    return d;
}

/* P(a, x), the gamma distribution function: series below a + 1, continued fraction above (Numerical
 * Recipes, 6.2). */
static double gamma_cdf(double a, double x)
{
    double front = exp(-x + a * log(x) - lgamma(a));
    if (x < a + 1.0) {
        double term = 1.0 / a, sum = term;
        for (double k = a + 1.0; term > sum * 1e-15; k += 1.0) {
            term *= x / k;
            sum += term;
        }
        return front * sum;
    }
    double b = x + 1.0 - a, c = 1e300, d = 1.0 / b, h = d, change = 0.0;
    for (int i = 1; i < 500 && fabs(change - 1.0) > 1e-15; i++) {
        double an = -i * (i - a);
        b += 2.0;
        d = 1.0 / (an * d + b);
        c = b + an / c;
        change = d * c;
        h *= change;
    }
    return 1.0 - front * h;
}

static double gap_cdf(const struct load_config *cfg, double gaps)
{
    if (cfg->arrival == LOAD_POISSON) {
        return 1.0 - exp(-gaps);
    }
    double shape = 1.0 / (cfg->arrival_cv * cfg->arrival_cv);
    return gaps > 0.0 ? gamma_cdf(shape, shape * gaps) : 0.0;
}

/* n gaps in units of the mean gap. */
static double *draw_gaps(const struct load_config *cfg, uint64_t seed, double rate_rps, size_t n)
{
    double *gap = xmalloc(n * sizeof *gap);
    struct arrival a;
    int64_t last_ns = 0, t_ns;
    arrival_init(&a, cfg, rate_rps, NS_PER_S, seed, NULL);
    for (size_t i = 0; i < n; i++) {
        assert_true(arrival_next(&a, &t_ns));
        assert_true(t_ns >= last_ns);
        gap[i] = (double)(t_ns - last_ns) / (double)NS_PER_S * rate_rps;
        last_ns = t_ns;
    }
    return gap;
}

/* Mean, variance and lag-1 correlation within 4 standard errors; KS p > 0.01. */
static void check_gaps(const struct load_config *cfg, double cv, uint64_t seed, double rate_rps)
{
    const size_t n = 20000;
    double *gap = draw_gaps(cfg, seed, rate_rps, n);
    double sum = 0.0, squares = 0.0, lag_1 = 0.0;
    for (size_t i = 0; i < n; i++) {
        double over = gap[i] - 1.0;
        sum += over;
        squares += over * over;
        lag_1 += i > 0 ? over * (gap[i - 1] - 1.0) : 0.0;
    }
    double variance = cv * cv, per_root = 1.0 / sqrt((double)n);
    double kurtosis = 3.0 + 6.0 * variance; // of a gamma distribution
    assert_true(fabs(sum / (double)n) < 4.0 * cv * per_root);
    assert_true(fabs(squares / (double)n / variance - 1.0) < 4.0 * sqrt(kurtosis - 1.0) * per_root);
    assert_true(fabs(lag_1 / (double)n) < 4.0 * variance * per_root);
    for (size_t i = 0; i < n; i++) {
        gap[i] = gap_cdf(cfg, gap[i]);
    }
    assert_true(ks_p(ks_distance(gap, n), (double)n) > 0.01);
    free(gap);
}

static void test_poisson_gaps_are_exponential(void **state)
{
    (void)state;
    const double rates[] = {0.5, 40.0, 10000.0};
    for (uint64_t seed = 1; seed <= 9; seed++) {
        check_gaps(&poisson, 1.0, seed, rates[seed % 3]);
    }
}

static void test_gamma_gaps_are_gamma(void **state)
{
    (void)state;
    const double cvs[] = {0.1, 0.5, 1.0, 1.5, 2.0};
    const double rate_rps = 1e-3; // the shortest gaps of a burst are far above the clock's 1 ns
    for (size_t i = 0; i < sizeof cvs / sizeof cvs[0]; i++) {
        struct load_config cfg = {.arrival = LOAD_GAMMA, .arrival_cv = cvs[i]};
        for (uint64_t seed = 1; seed <= 3; seed++) {
            check_gaps(&cfg, cvs[i], seed, rate_rps);
        }
    }
}

/*
 * The times of a ramped process, put through the expected count, are those of a steady one: its gaps
 * pass the same test.
 */
static void test_ramped_gaps_are_steady_in_expected_events(void **state)
{
    (void)state;
    const double rate_rps = 1000.0, from = 0.25, to = 1.75;
    for (int kind = RAMP_LINEAR; kind <= RAMP_GEOMETRIC; kind++) {
        struct load_config cfg = {.arrival = LOAD_POISSON, .ramp = {kind, from, to}};
        struct arrival a;
        double *f = xmalloc(50000 * sizeof *f), last = 0.0, k = log(to / from);
        size_t n = 0;
        int64_t t_ns;
        arrival_init(&a, &cfg, rate_rps, 20 * NS_PER_S, 3, NULL);
        for (; arrival_next(&a, &t_ns) && t_ns < 20 * NS_PER_S; n++) {
            double x = (double)t_ns / (20.0 * (double)NS_PER_S);
            double share = kind == RAMP_LINEAR ? from * x + 0.5 * (to - from) * x * x
                                               : from * expm1(k * x) / k;
            f[n] = 1.0 - exp(-20.0 * rate_rps * (share - last));
            last = share;
        }
        double expected = load_expected(&cfg, rate_rps, 20 * NS_PER_S);
        assert_true(fabs((double)n - expected) < 4.0 * sqrt(expected));
        assert_true(ks_p(ks_distance(f, n), (double)n) > 0.01);
        free(f);
    }
}

/* Variance over mean of the counts in windows of 10 ms over 120 s; the estimate's sd is 0.013. */
static void test_index_of_dispersion(void **state)
{
    (void)state;
    const int64_t n_windows = 12000, window_ns = 10 * NS_PER_MS;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct arrival a;
        int64_t t_ns, window = 0;
        double count = 0.0, sum = 0.0, squares = 0.0;
        arrival_init(&a, &poisson, 3000.0, NS_PER_S, seed, NULL);
        while (arrival_next(&a, &t_ns) && window < n_windows) {
            for (; window < t_ns / window_ns && window < n_windows; window++) {
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
        arrival_init(&a, &poisson, 10.0, NS_PER_S, (uint64_t)seed, NULL);
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
    const struct load_config cfg = {.arrival = LOAD_CONSTANT};
    arrival_init(&a, &cfg, rate_rps, NS_PER_S, 1, NULL);
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
    assert_int_equal(
        dataset_open(&ds, &cfg, &(struct dataset_model){.vocab = 512, .context = 2048}, &e), 0);
    struct arrival a;
    int64_t t_ns;
    const struct load_config load = {.arrival = LOAD_TRACE};
    arrival_init(&a, &load, 0.0, NS_PER_S, 1, ds);
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
        cmocka_unit_test(test_poisson_gaps_are_exponential),
        cmocka_unit_test(test_gamma_gaps_are_gamma),
        cmocka_unit_test(test_ramped_gaps_are_steady_in_expected_events),
        cmocka_unit_test(test_index_of_dispersion),
        cmocka_unit_test(test_counts_vary_over_seeds),
        cmocka_unit_test(test_constant_rate_does_not_drift),
        cmocka_unit_test(test_trace_keeps_its_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
