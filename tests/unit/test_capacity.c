/* What machines hold and reach, against numbers worked out by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "model/sizes.h"
#include "workers/capacity.h"

static struct arch llama_405b(void)
{
    return (struct arch){
        .n_layers = 126,
        .hidden = 16384,
        .intermediate = 53248,
        .n_heads = 128,
        .n_kv_heads = 8,
        .head_dim = 128,
        .v_dim = 128,
        .vocab = 128256,
        .max_context = 131072,
        .dtype = ARCH_BF16,
        .linear_dtype = ARCH_BF16,
        .expert_dtype = ARCH_BF16,
    };
}

/* 16 x 80e9 x 0.9 - 811.7e9 bytes of weights, over 516,096 bytes a token. */
static void a_405b_on_16_of_80_gb(void **state)
{
    (void)state;
    static struct arch a;
    a = llama_405b();
    assert_int_equal(sizes_params(&a), 405853388800);
    assert_true(sizes_kv_bytes(&a, 2) == 516096);
    const struct capacity_machine m = {80e9, 0.9};
    assert_int_equal(capacity_requests(&a, &m, 16, 2, 4096), 160);
    assert_int_equal(capacity_requests(&a, &m, 16, 2, 131072), 5);
    assert_int_equal(capacity_requests(&a, &m, 16, 1, 4096), 321);
    assert_int_equal(capacity_requests(&a, &m, 8, 2, 4096), 0); // not even the weights
}

static void each_stage_has_its_own_memory(void **state)
{
    (void)state;
    static struct arch a;
    a = llama_405b();
    struct hardware h;
    struct err e;
    struct costs costs;
    const struct costs_shares shares = {0.8, 0.6, 5000};
    const struct capacity_machine m = {80e9, 0.9};
    struct capacity_split s;
    assert_int_equal(hardware_find("h100-sxm", &h, &e), 0);
    costs_of_hardware(&h, &shares, 8, &a, &costs);
    capacity_find(&a, &costs, &m, 2, 8, 32, 4096, &s);
    assert_true(s.fits && s.imbalance < 1.02);
    int64_t n = capacity_requests_on(&a, &m, &s, 2, 4096);
    // 576 GB less the stage's weights, over its layers' cache
    double worst = (double)INFINITY;
    for (int k = 0; k < 2; k++) {
        double layers = s.first[k + 1] - s.first[k];
        double held = layers * 2 * 3187703808.0 + 2 * 128256 * 16384.0 + (k == 1 ? 2 * 16384 : 0);
        worst = fmin(worst, (576e9 - held) / (layers * 4096 * 4096));
    }
    assert_int_equal(n, (int64_t)worst);
    assert_true(n <= 160 && n > 120);
    // 16 stages of one device: weights of 8 layers leave 72 - 51 GB.
    costs_of_hardware(&h, &shares, 1, &a, &costs);
    capacity_find(&a, &costs, &m, 16, 1, 16, 4096, &s);
    assert_true(s.fits && s.tokens_per_s > 0);
    capacity_find(&a, &costs, &m, 8, 1, 16, 4096, &s);
    assert_false(s.fits);
    capacity_find(&a, &costs, NULL, 8, 1, 16, 4096, &s); // no memory asked for
    assert_true(s.fits);
}

static void the_steady_state(void **state)
{
    (void)state;
    static struct arch a;
    a = llama_405b();
    a.n_layers = 8;
    const struct costs costs = {.kinds[COSTS_DENSE] = {.fixed_ns = 1e6}, .head = {.fixed_ns = 2e6}};
    struct capacity_split s;
    // 3, 3, 2 + the head's 2: lanes of 4 requests, one done every 4 ms
    capacity_find(&a, &costs, NULL, 3, 1, 12, 100, &s);
    assert_true(s.slowest_ns == 4e6 && s.equal_ns == 4e6);
    assert_true(fabs(s.tpot_ns - 12e6) < 1 && fabs(s.tokens_per_s - 1000) < 1e-6);
    assert_true(fabs(s.imbalance - 1.2) < 1e-9);
    // Hops that are longer than the wait for the slowest stage.
    struct costs far = costs;
    far.hop_ns = 5e6;
    capacity_find(&a, &far, NULL, 3, 1, 12, 100, &s);
    assert_true(fabs(s.tpot_ns - 25e6) < 1 && fabs(s.tokens_per_s - 480) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_405b_on_16_of_80_gb),
        cmocka_unit_test(each_stage_has_its_own_memory),
        cmocka_unit_test(the_steady_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
