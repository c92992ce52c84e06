/* Divergences and their errors against closed forms; positions at the edges of what floats hold. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "core/rng.h"
#include "workers/quality.h"

#define NEAR(a, b, by) assert_true(fabs((a) - (b)) <= (by))

static void equal_rows_are_exactly_equal(void **state)
{
    (void)state;
    float logits[1001];
    for (int i = 0; i < 1001; i++) {
        logits[i] = (float)(rng_u64(1, RNG_SHUFFLE, (uint64_t)i, 0) % 40000) / 1000 - 20;
    }
    const struct quality_position p = quality_compare(logits, logits, 1001, 17);
    assert_true(p.kl == 0 && p.surprise == p.base_surprise && p.top == p.base_top);
}

/* p = (1/2, 1/2), q = (3/4, 1/4): KL = ln 2 / sqrt 3 ... by the sum of two terms. */
static void two_tokens(void **state)
{
    (void)state;
    const float base[] = {-700, -700}, logits[] = {logf(3), 0};
    const struct quality_position p = quality_compare(base, logits, 2, 1);
    NEAR(p.kl, 0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25), 1e-7);
    NEAR(p.base_surprise, log(2), 1e-12);
    NEAR(p.surprise, log(4), 1e-7);
    assert_int_equal(p.base_top, 0); // of equals the lowest id
    assert_int_equal(p.top, 0);
    assert_true(quality_compare(logits, base, 2, 0).kl != p.kl); // no symmetry
}

/* A shift of all logits changes nothing, however far; a tiny one of one logit is seen: KL = p (1 - p) d^2 / 2. */
static void small_divergences(void **state)
{
    (void)state;
    enum {
        N = 1024
    };
    float base[N] = {0}, far[N], bent[N] = {0};
    for (int i = 0; i < N; i++) {
        far[i] = base[i] + 65536;
    }
    bent[5] = 0x1p-10f;
    assert_true(quality_compare(base, far, N, 0).kl < 1e-15);
    const double p = 1.0 / N, expected = p * (1 - p) * 0x1p-20 / 2;
    NEAR(quality_compare(base, bent, N, 0).kl, expected, 1e-3 * expected);
}

static void certainty_and_impossibility(void **state)
{
    (void)state;
    const float sure[] = {0, -2000, -2000}, even[] = {0, 0, 0}, other[] = {-2000, 0, -2000};
    NEAR(quality_compare(sure, even, 3, 0).kl, log(3), 1e-12);
    assert_true(quality_compare(sure, sure, 3, 0).surprise == 0);
    NEAR(quality_compare(sure, other, 3, 0).kl, 2000, 1e-9);
    const float never[] = {0, -INFINITY, 0}, broken[] = {0, NAN, 1};
    assert_true(isinf(quality_compare(even, never, 3, 1).kl));
    NEAR(quality_compare(never, even, 3, 0).kl, log(1.5), 1e-12);
    assert_true(isnan(quality_compare(even, broken, 3, 0).kl));
    assert_true(isnan(quality_compare(broken, even, 3, 0).kl));
}

static void check_summary(void)
{
    struct quality_position v[5];
    for (int i = 0; i < 5; i++) { // surprises 0 .. 4, the baseline's 1 less at every second
        v[i] = (struct quality_position){.base_surprise = i - i % 2,
                                         .surprise = i,
                                         .kl = 4 - i,
                                         .base_top = 7,
                                         .top = i < 3 ? 7 : 8};
    }
    struct quality_summary s;
    struct err e = {0};
    assert_int_equal(quality_summarise(v, 5, &s, &e), 0);
    assert_int_equal(s.n, 5);
    NEAR(s.perplexity.value, exp(2), 1e-12);
    NEAR(s.perplexity.se, exp(2) * sqrt(2.5 / 5), 1e-12);
    NEAR(s.ratio.value, exp(0.4), 1e-12);
    NEAR(s.ratio.se, exp(0.4) * sqrt(0.3 / 5), 1e-12);
    NEAR(s.kl.value, 2, 1e-12);
    NEAR(s.kl.se, sqrt(0.5), 1e-12);
    NEAR(s.kl_p99, 3.96, 1e-12);
    NEAR(s.kl_max, 4, 0);
    NEAR(s.same_top.value, 0.6, 1e-12);
    NEAR(s.same_top.se, sqrt(0.6 * 0.4 / 4), 1e-12);
}

static void summaries(void **state)
{
    (void)state;
    check_summary();
    struct quality_summary s;
    struct err e = {0};
    const struct quality_position one = {.base_surprise = 1, .surprise = 2, .kl = 3};
    assert_int_equal(quality_summarise(&one, 1, &s, &e), 0);
    assert_true(s.kl_p99 == 3 && s.same_top.value == 1);
    assert_true(isnan(s.perplexity.se) && isnan(s.kl.se) && isnan(s.same_top.se));
    const struct quality_position broken[] = {one, {.kl = (double)NAN}, one};
    assert_int_equal(quality_summarise(broken, 3, &s, &e), 0);
    assert_true(isnan(s.kl.value) && isnan(s.kl_p99) && isfinite(s.perplexity.value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_rows_are_exactly_equal),
        cmocka_unit_test(two_tokens),
        cmocka_unit_test(small_divergences),
        cmocka_unit_test(certainty_and_impossibility),
        cmocka_unit_test(summaries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
