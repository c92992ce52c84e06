/*
 * The published ShareGPT table as a sampler: with 100,000 draws min and max are exact and every
 * other figure is within 2 %, for each of the seeds 1 to 100; and what the curve promises at any u.
 */
#include "core/rng.h"
#include "datasets/quantile.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#define N_DRAWS   100000
#define N_SEEDS   100
#define MAX_VALUE 1024
#define TOLERANCE 0.02

static struct quantile_sampler make(const struct quantile_table *t)
{
    struct quantile_sampler q;
    struct err e = {0};
    if (quantile_init(&q, t, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return q;
}

/* Whole lengths, counted; order statistic k (0-based). */
static double order_statistic(const uint32_t *counts, uint64_t k)
{
    uint64_t below = 0;
    for (int v = 0; v <= MAX_VALUE; v++) {
        below += counts[v];
        if (below > k) {
            return v;
        }
    }
    fail();
    return 0;
}

static double quantile_of(const uint32_t *counts, double q)
{
    double at = q * (N_DRAWS - 1);
    uint64_t k = (uint64_t)at;
    double low = order_statistic(counts, k);
    return low + (order_statistic(counts, k + 1) - low) * (at - (double)k);
}

static void check_near(const char *what, int seed, double got, double want)
{
    if (!(fabs(got - want) <= TOLERANCE * want)) {
        fail_msg("seed %d: %s is %g instead of %g", seed, what, got, want);
    }
}

static void check_seed(const struct quantile_sampler *q, enum rng_stream stream, int seed)
{
    static uint32_t counts[MAX_VALUE + 1];
    memset(counts, 0, sizeof counts);
    double sum = 0;
    for (uint64_t i = 0; i < N_DRAWS; i++) {
        double x = quantile_at(q, rng_uniform((uint64_t)seed, stream, i, 0));
        assert_true(x >= q->table.min && x <= q->table.max && x == floor(x));
        counts[(int)x]++;
        sum += x;
    }
    assert_true(order_statistic(counts, 0) == q->table.min);
    assert_true(order_statistic(counts, N_DRAWS - 1) == q->table.max);
    check_near("median", seed, quantile_of(counts, 0.5), q->table.median);
    check_near("mean", seed, sum / N_DRAWS, q->table.mean);
    check_near("P90", seed, quantile_of(counts, 0.9), q->table.p90);
    check_near("P99", seed, quantile_of(counts, 0.99), q->table.p99);
}

static void test_published_input(void **state)
{
    (void)state;
    struct quantile_sampler q = make(&quantile_sharegpt_input);
    for (int seed = 1; seed <= N_SEEDS; seed++) {
        check_seed(&q, RNG_INPUT_LENGTH, seed);
    }
}

static void test_published_output(void **state)
{
    (void)state;
    struct quantile_sampler q = make(&quantile_sharegpt_output);
    for (int seed = 1; seed <= N_SEEDS; seed++) {
        check_seed(&q, RNG_OUTPUT_LENGTH, seed);
    }
}

/* The twelve published numbers, so that nobody edits the table unseen. */
static void test_table(void **state)
{
    (void)state;
    const double want[2][6] = {{4, 108, 226, 635, 887, 1024}, {1, 132, 195, 488, 778, 1024}};
    const struct quantile_table *t[] = {&quantile_sharegpt_input, &quantile_sharegpt_output};
    for (int i = 0; i < 2; i++) {
        const double got[6] = {t[i]->min, t[i]->median, t[i]->mean,
                               t[i]->p90, t[i]->p99,    t[i]->max};
        assert_memory_equal(got, want[i], sizeof got);
    }
}

/*
 * At the published quantiles the curve is exact; between them it is monotone and, unrounded,
 * convex.
 */
static void test_curve(void **state)
{
    (void)state;
    const struct quantile_table *tables[] = {&quantile_sharegpt_input, &quantile_sharegpt_output};
    for (int i = 0; i < 2; i++) {
        struct quantile_sampler q = make(tables[i]);
        assert_true(quantile_at(&q, 0.5) == tables[i]->median);
        assert_true(quantile_at(&q, 0.9) == tables[i]->p90);
        assert_true(quantile_at(&q, 0.99) == tables[i]->p99);
        assert_true(quantile_at(&q, 0x1p-53) == tables[i]->min);
        assert_true(quantile_at(&q, 1 - 0x1p-53) == tables[i]->max);
        double sum = 0, last = 0;
        for (int k = 0; k < 1000000; k++) {
            double x = quantile_at(&q, (k + 0.5) / 1e6);
            assert_true(x >= last);
            last = x;
            sum += x;
        }
        assert_true(fabs(sum / 1e6 - tables[i]->mean) < 0.1); // rounding to whole tokens
        for (int k = 0; k < q.n_pieces; k++) {
            assert_true(q.shape[k] >= 1.0);
        }
    }
}

static void check_refused(struct quantile_table t)
{
    struct quantile_sampler q;
    struct err e = {0};
    assert_int_equal(quantile_init(&q, &t, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "quantiles"));
}

static void test_contradictions(void **state)
{
    (void)state;
    check_refused((struct quantile_table){10, 5, 8, 20, 30, 40});      // median below min
    check_refused((struct quantile_table){1, 5, 8, 20, 50, 40});       // P99 above max
    check_refused((struct quantile_table){1, 5, 0.5, 20, 30, 40});     // mean below all
    check_refused((struct quantile_table){1, 5, 39, 20, 30, 40});      // mean above what P90 allows
    check_refused((struct quantile_table){-1, 5, 8, 20, 30, 40});      // negative lengths
    check_refused((struct quantile_table){1, 5, NAN, 20, 30, 40});     // no number
    check_refused((struct quantile_table){1, 5, 8, 20, 30, INFINITY}); // no bound
    check_refused((struct quantile_table){7, 7, 8, 7, 7, 7});          // constant with another mean
    struct quantile_sampler q = make(&(struct quantile_table){7, 7, 7, 7, 7, 7});
    assert_true(quantile_at(&q, 0.3) == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),           cmocka_unit_test(test_curve),
        cmocka_unit_test(test_published_input), cmocka_unit_test(test_published_output),
        cmocka_unit_test(test_contradictions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
