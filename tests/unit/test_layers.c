/*
 * Rotary frequencies against values worked out from the formulas by hand and from transformers; the order
 * of the driver's operations.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/layers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void expect_near(float got, double want)
{
    if (!(fabs((double)got - want) <= 2e-6 * fabs(want))) {
        fail_msg("%.9g instead of %.9g", (double)got, want);
    }
}

/* gpt-oss: 64 dimensions, bounds at pairs 8.0928 and 17.3980, not rounded. */
static void yarn_of_gpt_oss(void **state)
{
    (void)state;
    struct arch a = {
        .rope = ARCH_ROPE_YARN,
        .rope_theta = 150000,
        .rope_dim = 64,
        .rope_yarn = {.factor = 32,
                      .beta_fast = 32,
                      .beta_slow = 1,
                      .attention_factor = 1.346574,
                      .original_context = 4096},
    };
    float f[32], cosines[64], sines[64];
    layers_rope_frequencies(&a, f);
    const double lo = 8.0928, hi = 17.3980;
    for (int j = 0; j < 32; j++) {
        const double plain = pow(150000, -2.0 * j / 64);
        const double slowed = fmin(fmax((j - lo) / (hi - lo), 0), 1);
        const double want = plain / 32 * slowed + plain * (1 - slowed);
        assert_true(fabs((double)f[j] - want) <= 2e-4 * want); // the bounds have four decimals
    }
    expect_near(f[8], pow(150000, -0.25));
    expect_near(f[18], pow(150000, -36.0 / 64) / 32);
    layers_rope_tables(&a, 2, cosines, sines);
    expect_near(cosines[0], 1.346574);
    expect_near(cosines[32], 1.346574 * cos(1));
    expect_near(sines[32], 1.346574 * sin(1));
    assert_true(sines[0] == 0);
}

/* DeepSeek-V3: 64 rotated dimensions of 192, bounds rounded to 10 and 23, no factor. */
static void yarn_of_deepseek(void **state)
{
    (void)state;
    struct arch a = {
        .rope = ARCH_ROPE_YARN,
        .rope_theta = 10000,
        .head_dim = 192,
        .rope_dim = 64,
        .rope_yarn = {.factor = 40,
                      .beta_fast = 32,
                      .beta_slow = 1,
                      .attention_factor = 1,
                      .original_context = 4096,
                      .truncate = true},
    };
    float f[32];
    layers_rope_frequencies(&a, f);
    for (int j = 0; j < 32; j++) {
        const double plain = pow(10000, -2.0 * j / 64);
        const double slowed = fmin(fmax((j - 10) / 13.0, 0), 1);
        expect_near(f[j], plain / 40 * slowed + plain * (1 - slowed));
    }
}

/* Llama 3.1: short waves kept, long ones slowed 8 times. */
static void llama3(void **state)
{
    (void)state;
    struct arch a = {
        .rope = ARCH_ROPE_LLAMA3,
        .rope_theta = 500000,
        .rope_dim = 128,
        .rope_llama3 = {.factor = 8, .low = 1, .high = 4, .original_context = 8192},
    };
    float f[64];
    layers_rope_frequencies(&a, f);
    expect_near(f[0], 1);
    expect_near(f[28], pow(500000, -56.0 / 128));     // a wave of 1,956 positions
    expect_near(f[36], pow(500000, -72.0 / 128) / 8); // of 10,090
    const double plain = pow(500000, -64.0 / 128), smooth = (8192 * plain / (2 * M_PI) - 1) / 3;
    expect_near(f[32], (1 - smooth) * plain / 8 + smooth * plain); // of 4,443
}

/* --- the order of operations ------------------------------------------------------------------ */

static char order[256];

static void note(const char *what, int layer)
{
    const size_t n = strlen(order);
    snprintf(order + n, sizeof order - n, "%s%.0d ", what, layer);
}

static void begin(void *ctx)
{
    (void)ctx;
    note("begin", 0);
}

static void attn_in(void *ctx, int layer)
{
    (void)ctx;
    note("in", layer + 1);
}

static void attend(void *ctx, int layer, const struct layers_attention *a)
{
    (void)ctx;
    assert_true(a->scale == 0.25f && a->softcap == 50);
    note(a->window == 7 ? "slide" : "attend", layer + 1);
}

static void attn_out(void *ctx, int layer)
{
    (void)ctx;
    note("out", layer + 1);
}

static void mlp_in(void *ctx, int layer)
{
    (void)ctx;
    note("up", layer + 1);
}

static void mlp_out(void *ctx, int layer)
{
    (void)ctx;
    note("down", layer + 1);
}

static void route(void *ctx, int layer)
{
    (void)ctx;
    note("route", layer + 1);
}

static void experts(void *ctx, int layer)
{
    (void)ctx;
    note("experts", layer + 1);
}

static void end(void *ctx)
{
    (void)ctx;
    note("end", 0);
}

static void head(void *ctx)
{
    (void)ctx;
    note("head", 0);
}

static const struct layers_ops ops = {begin,   attn_in, attend,  attn_out, mlp_in,
                                      mlp_out, route,   experts, end,      head};

static void operations_come_in_order(void **state)
{
    (void)state;
    struct arch a = {.n_layers = 3,
                     .attn_scale = 0.25f,
                     .attn_softcap = 50,
                     .window = 7,
                     .sliding = {true, false, true},
                     .moe = {.n_experts = 4, .n_shared = 1, .first_layer = 2}};
    struct layers_part part = {.first_layer = 1, .n_layers = 2, .has_head = true};
    order[0] = '\0';
    layers_forward(&ops, NULL, &a, &part);
    assert_string_equal(order, "begin in1 attend1 out1 up1 down1 "
                               "in2 slide2 out2 route2 up2 experts2 down2 head ");
    a.moe.n_shared = 0;
    part = (struct layers_part){.first_layer = 2, .n_layers = 1};
    order[0] = '\0';
    layers_forward(&ops, NULL, &a, &part);
    assert_string_equal(order, "begin in1 slide1 out1 route1 experts1 end ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yarn_of_gpt_oss),
        cmocka_unit_test(yarn_of_deepseek),
        cmocka_unit_test(llama3),
        cmocka_unit_test(operations_come_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
