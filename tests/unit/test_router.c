/* Experts and weights of single tokens, worked out by hand; how drawn choices are spread. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct moe_routing by_model = {.kind = ROUTER_MODEL};
static const struct router_place here = {.layer = 3, .token = 7, .pos = 11};

static void expect_weights(const float *got, const double *want, int n)
{
    for (int i = 0; i < n; i++) {
        if (!(fabs((double)got[i] - want[i]) <= 1e-6)) {
            fail_msg("weight %d is %g instead of %g", i, (double)got[i], want[i]);
        }
    }
}

static void the_largest_logits_share_a_softmax(void **state)
{
    (void)state;
    const struct arch a = {.moe = {.n_experts = 5, .top_k = 2, .router = ARCH_ROUTER_SOFTMAX}};
    const float logits[5] = {1, 3, -2, 3.5f, 3};
    int experts[2];
    float weights[2];
    router_choose(&a, &by_model, logits, NULL, &here, experts, weights);
    assert_int_equal(experts[0], 1); // the first of equals
    assert_int_equal(experts[1], 3);
    const double e = exp(0.5);
    expect_weights(weights, (const double[]){1 / (1 + e), e / (1 + e)}, 2);
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* 3 groups of 2, the best 2 groups: the largest single score is in the group that is dropped. */
static void groups_come_first(void **state)
{
    (void)state;
    struct arch a = {.moe = {.n_experts = 6,
                             .top_k = 2,
                             .router = ARCH_ROUTER_GROUPS,
                             .n_groups = 3,
                             .top_groups = 2,
                             .normalise = true,
                             .scale = 2.5f}};
    const float logits[6] = {3, -9, 1, 0.5f, 0, 2};
    const float correction[6] = {0, 0, 0, 0.5f, 0.3f, 0};
    int experts[2];
    float weights[2];
    router_choose(&a, &by_model, logits, correction, &here, experts, weights);
    // Choices .953 0 | .731 1.122 | .8 .881: the pairs sum to .953, 1.854, 1.681.
    assert_int_equal(experts[0], 3);
    assert_int_equal(experts[1], 5);
    const double s3 = sigmoid(0.5), s5 = sigmoid(2);
    expect_weights(weights, (const double[]){2.5 * s3 / (s3 + s5), 2.5 * s5 / (s3 + s5)}, 2);
    a.moe.normalise = false;
    router_choose(&a, &by_model, logits, correction, &here, experts, weights);
    expect_weights(weights, (const double[]){2.5 * s3, 2.5 * s5}, 2);
}

/* What is dropped counts 0, so it beats what a correction made negative. */
static void dropped_groups_count_as_zero(void **state)
{
    (void)state;
    const struct arch a = {.moe = {.n_experts = 4,
                                   .top_k = 2,
                                   .router = ARCH_ROUTER_GROUPS,
                                   .n_groups = 2,
                                   .top_groups = 1,
                                   .scale = 1}};
    const float logits[4] = {0, 0, 0, 0}, correction[4] = {2, -0.6f, 0, 0};
    int experts[2];
    float weights[2];
    router_choose(&a, &by_model, logits, correction, &here, experts, weights);
    assert_int_equal(experts[0], 0);
    assert_int_equal(experts[1], 2);
}

/* --- drawn ------------------------------------------------------------------------------------ */

enum {
    N = 16,
    TOP = 3,
    TOKENS = 8000
};

static void count(const struct moe_routing *routing, int layer, int *counts)
{
    const struct arch a = {.moe = {.n_experts = N, .top_k = TOP, .router = ARCH_ROUTER_SOFTMAX}};
    const float logits[N] = {9, 8, 7};
    memset(counts, 0, N * sizeof *counts);
    for (int i = 0; i < TOKENS; i++) {
        const struct router_place place = {.layer = layer, .token = i % 97, .pos = (uint32_t)i};
        int experts[TOP], again[TOP];
        float weights[TOP];
        router_choose(&a, routing, logits, NULL, &place, experts, weights);
        router_choose(&a, routing, logits, NULL, &place, again, weights);
        assert_memory_equal(experts, again, sizeof again);
        for (int k = 0; k < TOP; k++) {
            assert_true(k == 0 || experts[k] > experts[k - 1]);
            counts[experts[k]]++;
        }
    }
}

static void uniform_draws_take_all_alike(void **state)
{
    (void)state;
    int counts[N];
    count(&(struct moe_routing){.kind = ROUTER_UNIFORM}, 0, counts);
    for (int i = 0; i < N; i++) { // 1,500 with a standard deviation of 35
        assert_in_range(counts[i], 1500 - 180, 1500 + 180);
    }
}

static int descending(const void *a, const void *b)
{
    return *(const int *)b - *(const int *)a;
}

static void zipf_draws_prefer_some(void **state)
{
    (void)state;
    int counts[N], other[N];
    count(&(struct moe_routing){.kind = ROUTER_ZIPF, .s = 1}, 0, counts);
    count(&(struct moe_routing){.kind = ROUTER_ZIPF, .s = 1}, 1, other);
    assert_memory_not_equal(counts, other, sizeof other); // ranks are each layer's own
    qsort(counts, N, sizeof *counts, descending);
    qsort(other, N, sizeof *other, descending);
    // Three of 16 without repetition: the first in rank is in 0.69 of the draws, the last in 0.07.
    assert_in_range(counts[0], (int)(0.66 * TOKENS), (int)(0.72 * TOKENS));
    assert_in_range(other[0], (int)(0.66 * TOKENS), (int)(0.72 * TOKENS));
    assert_in_range(counts[N - 1], (int)(0.05 * TOKENS), (int)(0.09 * TOKENS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_logits_share_a_softmax),
        cmocka_unit_test(groups_come_first),
        cmocka_unit_test(dropped_groups_count_as_zero),
        cmocka_unit_test(uniform_draws_take_all_alike),
        cmocka_unit_test(zipf_draws_prefer_some),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
