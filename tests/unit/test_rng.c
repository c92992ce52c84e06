/*
 * Philox against its published answers, uniformity of what is made of it, and permutations. All
 * seeds are fixed: a chi-square bound is exceeded by a wrong generator, never by bad luck.
 */
#include "core/mem.h"
#include "core/rng.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN 0x9E3779B97F4A7C15ULL

static uint64_t join(const uint32_t *low_high)
{
    return (uint64_t)low_high[1] << 32 | low_high[0];
}

/* Counter (4) and key (2) to output (4), through the mapping that rng.c documents, inverted. */
static void check_answer(const uint32_t *counter, const uint32_t *key, const uint32_t *out)
{
    uint64_t seed = join(key) - RNG_ARRIVAL * GOLDEN;
    struct rng_bits r = rng_draw(seed, RNG_ARRIVAL, join(counter), join(counter + 2));
    assert_memory_equal(r.v, out, sizeof r.v);
    assert_true(rng_u64(seed, RNG_ARRIVAL, join(counter), join(counter + 2)) == join(out));
}

/* Random123 1.14, kat_vectors, "philox4x32 10" (Salmon et al., SC 2011). */
static void test_known_answers(void **state)
{
    (void)state;
    const uint32_t ones = 0xffffffff;
    check_answer((uint32_t[]){0, 0, 0, 0}, (uint32_t[]){0, 0},
                 (uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    check_answer((uint32_t[]){ones, ones, ones, ones}, (uint32_t[]){ones, ones},
                 (uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    check_answer((uint32_t[]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                 (uint32_t[]){0xa4093822, 0x299f31d0},
                 (uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* All of 10 seeds x 8 streams x 50 x 50: 200,000 draws of 64 bits, equal ones would be a bug. */
static void test_no_two_inputs_share_a_draw(void **state)
{
    (void)state;
    size_t n = 0, cap = 10 * 8 * 50 * 50;
    uint64_t *u = xmalloc(cap * sizeof *u);
    for (uint64_t seed = 0; seed < 10; seed++) {
        for (int stream = RNG_ARRIVAL; stream <= RNG_SHUFFLE; stream++) {
            for (uint64_t a = 0; a < 50; a++) {
                for (uint64_t b = 0; b < 50; b++) {
                    u[n++] = rng_u64(seed, (enum rng_stream)stream, a, b);
                }
            }
        }
    }
    assert_int_equal(n, cap);
    qsort(u, n, sizeof *u, compare_u64);
    for (size_t i = 1; i < n; i++) {
        assert_true(u[i] != u[i - 1]);
    }
    free(u);
}

static double chi_square(const uint64_t *counts, size_t n_bins, double expected)
{
    double x = 0;
    for (size_t i = 0; i < n_bins; i++) {
        double d = (double)counts[i] - expected;
        x += d * d / expected;
    }
    return x;
}

/* Mean dof, variance 2 dof: five standard deviations either way, too even is wrong as well. */
static void assert_chi_square(double x, double dof)
{
    if (fabs(x - dof) > 5 * sqrt(2 * dof)) {
        fail_msg("chi-square %.1f with %.0f degrees of freedom", x, dof);
    }
}

static void test_uniform(void **state)
{
    (void)state;
    enum {
        BINS = 256,
        N = 1 << 20
    };
    for (int along_b = 0; along_b < 2; along_b++) {
        uint64_t counts[BINS] = {0};
        double sum = 0, sum_of_products = 0, last = 0.5;
        for (uint64_t i = 0; i < N; i++) {
            double x =
                along_b ? rng_uniform(42, RNG_ARRIVAL, 7, i) : rng_uniform(42, RNG_ARRIVAL, i, 7);
            assert_true(x > 0.0 && x < 1.0);
            counts[(int)(x * BINS)]++;
            sum += x;
            sum_of_products += (x - 0.5) * (last - 0.5);
            last = x;
        }
        assert_chi_square(chi_square(counts, BINS, (double)N / BINS), BINS - 1);
        assert_true(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
        assert_true(fabs(sum_of_products / N) < 5 * (1.0 / 12) / sqrt(N)); // neighbours
    }
}

/* Pairs of draws that differ in one input only, on a 16 x 16 grid: independent if even. */
static void test_streams_and_seeds_are_independent(void **state)
{
    (void)state;
    enum {
        SIDE = 16,
        N = 1 << 18
    };
    for (int what = 0; what < 3; what++) {
        uint64_t counts[SIDE * SIDE] = {0};
        for (uint64_t i = 0; i < N; i++) {
            double x = rng_uniform(5, RNG_INPUT_LENGTH, i, 0);
            double y = what == 0   ? rng_uniform(5, RNG_OUTPUT_LENGTH, i, 0)
                       : what == 1 ? rng_uniform(6, RNG_INPUT_LENGTH, i, 0)
                                   : rng_uniform(5, RNG_INPUT_LENGTH, i, 1);
            counts[(int)(x * SIDE) * SIDE + (int)(y * SIDE)]++;
        }
        assert_chi_square(chi_square(counts, SIDE * SIDE, (double)N / SIDE / SIDE),
                          SIDE * SIDE - 1);
    }
}

static void test_below(void **state)
{
    (void)state;
    static const uint64_t ns[] = {1, 2, 3, 10, 97, 1000};
    for (size_t k = 0; k < sizeof ns / sizeof ns[0]; k++) {
        uint64_t n = ns[k], n_draws = 200000;
        uint64_t *counts = xcalloc(n, sizeof *counts);
        for (uint64_t i = 0; i < n_draws; i++) {
            uint64_t v = rng_below(n, 9, RNG_TOKENS, k, i);
            assert_true(v < n);
            counts[v]++;
        }
        double x = chi_square(counts, n, (double)n_draws / (double)n);
        if (n > 1) {
            assert_true(x < (double)n - 1 + 5 * sqrt(2 * (double)n));
        }
        free(counts);
    }
    uint64_t n = UINT64_MAX;
    assert_true(rng_below(n, 9, RNG_TOKENS, 0, 0) < n);
}

static void test_each_bit_is_fair(void **state)
{
    (void)state;
    enum {
        N = 1 << 17
    };
    int64_t ones[128] = {0};
    for (uint64_t i = 0; i < N; i++) {
        struct rng_bits r = rng_draw(1, RNG_BOOTSTRAP, i, i);
        for (int bit = 0; bit < 128; bit++) {
            ones[bit] += r.v[bit / 32] >> (bit % 32) & 1;
        }
    }
    for (int bit = 0; bit < 128; bit++) {
        assert_true(llabs(ones[bit] - N / 2) < 5 * (int64_t)(sqrt(N) / 2));
    }
}

static void check_bijection(uint64_t n, uint64_t seed, uint64_t a)
{
    unsigned char *seen = xcalloc(n, 1);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t p = rng_permute(i, n, seed, RNG_SHUFFLE, a);
        assert_true(p < n);
        assert_int_equal(seen[p], 0);
        seen[p] = 1;
    }
    free(seen);
}

static void test_permute_is_a_bijection(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 300; n++) {
        check_bijection(n, 1, n);
    }
    static const uint64_t large[] = {1000, 1023,  1024,  1025,  4096,
                                     4097, 65535, 65536, 65537, 94145};
    for (size_t k = 0; k < sizeof large / sizeof large[0]; k++) {
        check_bijection(large[k], 1, 0);
        check_bijection(large[k], 2, 1);
    }
    uint64_t n = UINT64_MAX;
    uint64_t p = rng_permute(0, n, 1, RNG_SHUFFLE, 0), q = rng_permute(n - 1, n, 1, RNG_SHUFFLE, 0);
    assert_true(p < n && q < n && p != q);
}

/* Over many seeds every element is equally likely at every place, and all orders of 4 occur. */
static void test_permute_is_even_over_seeds(void **state)
{
    (void)state;
    enum {
        N = 4,
        N_SEEDS = 24000
    };
    uint64_t places[N * N] = {0}, orders[256] = {0};
    for (uint64_t seed = 0; seed < N_SEEDS; seed++) {
        unsigned order = 0;
        for (uint64_t i = 0; i < N; i++) {
            uint64_t p = rng_permute(i, N, seed, RNG_SHUFFLE, 0);
            places[i * N + p]++;
            order = order << 2 | (unsigned)p;
        }
        orders[order]++;
    }
    for (int i = 0; i < N * N; i++) {
        assert_true(fabs((double)places[i] - N_SEEDS / 4) < 5 * sqrt(N_SEEDS * 0.25 * 0.75));
    }
    int n_orders = 0;
    for (int i = 0; i < 256; i++) {
        n_orders += orders[i] != 0;
    }
    assert_int_equal(n_orders, 24);
}

static void test_permute_mixes(void **state)
{
    (void)state;
    enum {
        N = 94145,
        BINS = 50
    };
    uint64_t counts[BINS] = {0};
    double moved = 0;
    for (uint64_t i = 0; i < N / 50; i++) { // where a contiguous piece goes
        uint64_t p = rng_permute(i, N, 1, RNG_SHUFFLE, 0);
        counts[p * BINS / N]++;
        moved += fabs((double)p - (double)i);
    }
    assert_true(chi_square(counts, BINS, N / 50.0 / BINS) < BINS + 5 * sqrt(2 * BINS));
    assert_true(moved / (N / 50.0) > N / 4.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_no_two_inputs_share_a_draw),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_streams_and_seeds_are_independent),
        cmocka_unit_test(test_below),
        cmocka_unit_test(test_each_bit_is_fair),
        cmocka_unit_test(test_permute_is_a_bijection),
        cmocka_unit_test(test_permute_is_even_over_seeds),
        cmocka_unit_test(test_permute_mixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
