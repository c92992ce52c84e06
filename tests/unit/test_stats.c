#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "analysis/gaps.h"
#include "analysis/inflight.h"
#include "analysis/latency.h"
#include "analysis/stats.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>

#define SEED 11

static void near(double got, double want, double within)
{
    if (!(fabs(got - want) <= within)) {
        fail_msg("%.17g is not within %g of %.17g", got, within, want);
    }
}

static void percentiles_are_linear_between_order_statistics(void **state)
{
    (void)state;
    double v[] = {15, 20, 35, 40, 50}; // numpy.percentile's own example
    near(stats_percentile(v, 5, 0.4), 29, 1e-12);
    near(stats_percentile(v, 5, 0.5), 35, 0);
    near(stats_percentile(v, 5, 0), 15, 0);
    near(stats_percentile(v, 5, 1), 50, 0);
    near(stats_percentile(v, 1, 0.99), 15, 0);
    assert_true(isnan(stats_percentile(v, 0, 0.5)));
    double unsorted[] = {3, 1, 2, 10};
    near(stats_median(unsorted, 4), 2.5, 0);
    near(unsorted[0], 3, 0);
}

static void moments(void **state)
{
    (void)state;
    double v[] = {2, 4, 4, 4, 5, 5, 7, 9};
    near(stats_mean(v, 8), 5, 0);
    near(stats_sd(v, 8), sqrt(32.0 / 7), 1e-12);
    assert_true(isnan(stats_sd(v, 1)));
    assert_true(isnan(stats_mean(v, 0)));
}

static void t_quantiles_are_the_tabled_ones(void **state)
{
    (void)state;
    near(stats_t_quantile(0.975, 1), 12.706204736432095, 1e-9);
    near(stats_t_quantile(0.975, 9), 2.2621571627982462, 1e-11);
    near(stats_t_quantile(0.95, 4), 2.1318467863266495, 1e-11);
    near(stats_t_quantile(0.995, 30), 2.7499956535676162, 1e-10);
    near(stats_t_quantile(0.975, 1e7), STATS_Z95, 1e-6);
    near(stats_t_quantile(0.05, 4), -2.1318467863266495, 1e-11);
    near(stats_t_quantile(0.5, 3), 0, 1e-12);
    assert_true(isnan(stats_t_quantile(0.975, 0)));
}

static void quantile_ranks_cover(void **state)
{
    (void)state;
    struct stats_ranks r = stats_quantile_ranks(100, 0.5);
    assert_int_equal(r.lo, 40); // Conover 1999, table A3: P(B <= 39) = 0.0176, P(B <= 40) = 0.0284
    assert_int_equal(r.hi, 61);
    r = stats_quantile_ranks(17, 0.99); // P(B <= 15) = 0.0124, P(B <= 16) = 0.157
    assert_int_equal(r.lo, 16);
    assert_int_equal(r.hi, 0); // the upper bound is not in the sample
    r = stats_quantile_ranks(10000, 0.99);
    assert_in_range(r.lo, 9878, 9881);
    assert_in_range(r.hi, 9920, 9923);
    for (uint64_t n = 1; n <= 3000; n += 7) { // the sample percentile lies between
        double at = 1 + (double)(n - 1) * 0.99;
        r = stats_quantile_ranks(n, 0.99);
        assert_true(r.lo <= at && (r.hi == 0 || r.hi >= at));
    }
    r = stats_quantile_ranks(0, 0.5);
    assert_int_equal(r.lo, 0);
    assert_int_equal(r.hi, 0);
    int covered = 0; // the median of uniform draws is 1/2
    for (uint64_t k = 0; k < 2000; k++) {
        double v[101];
        for (uint64_t i = 0; i < 101; i++) {
            v[i] = rng_uniform(SEED, RNG_SHUFFLE, k, i);
        }
        stats_sort(v, 101);
        r = stats_quantile_ranks(101, 0.5);
        covered += v[r.lo - 1] <= 0.5 && v[r.hi - 1] >= 0.5;
    }
    assert_in_range(covered, 1860, 1960); // 93 to 98 %
}

static void batch_means_interval_covers_the_mean(void **state)
{
    (void)state;
    double ten[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    struct stats_interval v = stats_batch_means(ten, 10);
    near(v.value, 5.5, 0);
    near(v.hi - v.value, 2.2621571627982462 * sqrt(55.0 / 6 / 10), 1e-9);
    near(v.value - v.lo, v.hi - v.value, 1e-12);
    double one[] = {4};
    assert_true(isnan(stats_batch_means(one, 1).lo));
    int covered = 0;
    for (uint64_t k = 0; k < 2000; k++) {
        double sum[10] = {0}, count[10] = {0};
        for (uint64_t i = 0; i < 200; i++) { // exponential values, batches of unequal counts
            uint64_t b = rng_below(10, SEED, RNG_ENTRY, k, i);
            sum[b] += -log(rng_uniform(SEED, RNG_SHUFFLE, k, i));
            count[b]++;
        }
        v = stats_batch_ratio(sum, count, 10);
        covered += v.lo <= 1 && v.hi >= 1;
    }
    assert_in_range(covered, 1850, 1960); // 92.5 to 98 %
}

static void batch_ratio_weighs_what_batches_hold(void **state)
{
    (void)state;
    double sum[] = {10, 0, 30}, count[] = {1, 0, 3};
    struct stats_interval v = stats_batch_ratio(sum, count, 3);
    near(v.value, 10, 1e-12);
    near(v.hi - v.lo, 0, 1e-12); // every value is 10
    double none[] = {0, 0};
    assert_true(isnan(stats_batch_ratio(none, none, 2).value));
}

static void a_slope_is_found_under_autocorrelation(void **state)
{
    (void)state;
    int false_alarms = 0, found = 0;
    for (uint64_t k = 0; k < 400; k++) {
        double flat[60], rising[60], noise = 0;
        for (uint64_t i = 0; i < 60; i++) { // AR(1) with r = 0.6
            noise = 0.6 * noise + rng_uniform(SEED, RNG_SHUFFLE, k, i) - 0.5;
            flat[i] = 10 + noise;
            rising[i] = 10 + 0.1 * (double)i + noise;
        }
        false_alarms += stats_slope_ar1(flat, 60, 2.0).lower > 0;
        struct stats_slope s = stats_slope_ar1(rising, 60, 2.0);
        found += s.lower > 0;
        near(s.slope, 0.05, 0.02);
    }
    assert_in_range(false_alarms, 0, 40); // 5 % nominal, 10 % allowed
    assert_in_range(found, 396, 400);
}

static void gaps_agree_with_sorting(void **state)
{
    (void)state;
    enum {
        N = 5000
    };
    struct gaps *g = calloc(2, sizeof *g);
    double *v = calloc(N, sizeof *v);
    for (uint64_t i = 0; i < N; i++) {
        uint32_t us = i % 50 == 0 ? (uint32_t)rng_below(UINT32_MAX, SEED, RNG_SHUFFLE, i, 0)
                                  : (uint32_t)rng_below(60000, SEED, RNG_SHUFFLE, i, 0);
        v[i] = us;
        gaps_add(&g[i % 2], us);
    }
    gaps_merge(&g[0], &g[1]);
    gaps_seal(&g[0]);
    stats_sort(v, N);
    assert_int_equal(g[0].n, N);
    for (uint64_t k = 0; k < N; k++) {
        near(gaps_order(&g[0], k), v[k], 0);
    }
    gaps_free(&g[0]);
    gaps_free(&g[1]);
    free(g);
    free(v);
}

static struct record finished(int64_t q, int64_t s, int64_t f, int64_t l, uint32_t n)
{
    struct record r;
    record_init(&r);
    r.t_sched_ns = q * 1000000;
    r.t_send_ns = s * 1000000;
    r.t_first_ns = f * 1000000;
    r.t_last_ns = l * 1000000;
    r.n_out = n;
    r.outcome = OUTCOME_OK;
    return r;
}

static void metrics_follow_their_definitions(void **state)
{
    (void)state;
    struct record r = finished(100, 110, 150, 250, 6);
    near(latency_value_ms(&r, LATENCY_TTFT), 50, 1e-9);
    near(latency_value_ms(&r, LATENCY_TTFT_SERVICE), 40, 1e-9);
    near(latency_value_ms(&r, LATENCY_TPOT), 20, 1e-9);
    near(latency_value_ms(&r, LATENCY_NTPOT), 25, 1e-9);
    near(latency_value_ms(&r, LATENCY_NTPOT_SERVICE), 140.0 / 6, 1e-9);
    near(latency_value_ms(&r, LATENCY_E2E), 150, 1e-9);
    near(latency_value_ms(&r, LATENCY_E2E_SERVICE), 140, 1e-9);
    r.n_out_usage = 11; // what the server counted wins
    near(latency_value_ms(&r, LATENCY_TPOT), 10, 1e-9);
    r = finished(0, 0, 5, 5, 1);
    assert_true(isnan(latency_value_ms(&r, LATENCY_TPOT)));
    r.outcome = OUTCOME_TRUNCATED;
    assert_true(isnan(latency_value_ms(&r, LATENCY_TTFT)));
}

static void failures_are_infinite_in_adjusted_percentiles(void **state)
{
    (void)state;
    double ms[100];
    uint8_t batch[100];
    for (int i = 0; i < 100; i++) {
        ms[i] = i;
        batch[i] = (uint8_t)(i % LATENCY_BATCHES);
    }
    struct latency l;
    latency_of_sample(&(struct latency_sample){ms, batch, 100, 20}, &l);
    assert_int_equal(l.n, 100);
    near(l.p50, 49.5, 1e-12);
    near(l.p50_with_failed, 59.5, 1e-12);
    assert_true(isnan(l.p99_with_failed));
    near(l.max, 99, 0);
    assert_false(l.p99_supported);
    assert_true(isnan(l.p99_hi95));
    latency_of_sample(&(struct latency_sample){ms, batch, 0, 3}, &l);
    assert_int_equal(l.n, 0);
    assert_true(isnan(l.p50) && isnan(l.mean) && isnan(l.p50_with_failed));
}

static void in_flight_is_exact(void **state)
{
    (void)state;
    struct record r[3] = {finished(0, 0, 10, 30, 1), finished(0, 10, 20, 40, 1),
                          finished(0, 20, 30, 30, 1)};
    r[2].outcome = OUTCOME_CANCELLED; // counts until the drain ended
    double mean[4];
    inflight_means(r, 3, 0, 40000000, 100000000, mean, 4);
    near(mean[0], 1, 1e-9);
    near(mean[1], 2, 1e-9);
    near(mean[2], 3, 1e-9);
    near(mean[3], 2, 1e-9);
    inflight_means(r, 1, 15000000, 45000000, 100000000, mean, 2);
    near(mean[0], 1, 1e-9);
    near(mean[1], 0, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentiles_are_linear_between_order_statistics),
        cmocka_unit_test(moments),
        cmocka_unit_test(t_quantiles_are_the_tabled_ones),
        cmocka_unit_test(quantile_ranks_cover),
        cmocka_unit_test(batch_means_interval_covers_the_mean),
        cmocka_unit_test(batch_ratio_weighs_what_batches_hold),
        cmocka_unit_test(a_slope_is_found_under_autocorrelation),
        cmocka_unit_test(gaps_agree_with_sorting),
        cmocka_unit_test(metrics_follow_their_definitions),
        cmocka_unit_test(failures_are_infinite_in_adjusted_percentiles),
        cmocka_unit_test(in_flight_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
