/* What a backend says of itself: every weight counted once, bytes as they are in memory. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "model/sizes.h"
#include "workers/backend.h"
#include "workers/sim/costs.h"
#include "workers/tally.h"

#define MAX_RANKS 8

struct wanted {
    const char *backend, *model;
    int pipeline, tensor, weight_bits;
    enum arch_dtype kv;
    struct moe_routing routing;
};

static struct arch arch_of(const char *model)
{
    struct arch a;
    struct err e;
    assert_int_equal(arch_open(model, &a, &e), 0);
    return a;
}

/* Of every rank of a replica into rows; the sums of their weights and bytes. */
static int ask(const struct wanted *x, struct engine *rows, double *n_weights, double *n_bytes)
{
    static struct arch a;
    struct err e;
    a = arch_of(x->model);
    struct hardware h;
    struct costs costs;
    const struct costs_shares shares = {0.8, 0.6, 5000};
    assert_int_equal(hardware_find("h100-sxm", &h, &e), 0);
    costs_of_hardware(&h, &shares, 1, &a, &costs);
    int n = 0;
    *n_weights = *n_bytes = 0;
    for (int s = 0; s < x->pipeline; s++) {
        for (int t = 0; t < x->tensor; t++) {
            struct backend *b;
            const struct backend_config cfg = {
                .backend = x->backend,
                .model = x->model,
                .arch = &a,
                .first_layer = a.n_layers * s / x->pipeline,
                .n_layers = a.n_layers * (s + 1) / x->pipeline - a.n_layers * s / x->pipeline,
                .has_embed = s == 0,
                .has_head = s == x->pipeline - 1,
                .max_tokens = 4,
                .max_rows = 1,
                .n_blocks = 8,
                .kv_dtype = x->kv,
                .routing = x->routing,
                .weight_bits = x->weight_bits,
                .group = {.rank = t, .size = x->tensor},
                .n_threads = 2,
                .kernels = "portable",
                .timing = &costs,
            };
            if (backend_create(&b, &cfg, &e)) {
                fail_msg("%s", e.msg);
            }
            backend_about(b, &rows[n]);
            *n_weights += (double)rows[n].n_weights;
            *n_bytes += (double)rows[n].weight_bytes;
            backend_destroy(b);
            n++;
        }
    }
    return n;
}

/* Where nothing is held twice, the ranks' weights are the model's. */
static void weights_are_counted_once(void **state)
{
    (void)state;
    static const char *const models[] = {"preset:tiny", "preset:tiny-qwen2", "preset:tiny-gemma2",
                                         "preset:tiny-gpt-oss", "preset:tiny-deepseek"};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        struct engine rows[MAX_RANKS];
        const struct wanted one = {"cpu", models[i], 1, 1, 0, ARCH_BF16, {0}};
        const struct wanted sim = {"sim", models[i], 1, 1, 0, ARCH_BF16, {0}};
        double n, n_sim, bytes, bytes_sim;
        const struct arch a = arch_of(models[i]);
        assert_int_equal(ask(&one, rows, &n, &bytes), 1);
        assert_true(n == (double)sizes_params(&a));
        assert_true(rows[0].bytes_per_weight == bytes / n);
        assert_int_equal(ask(&sim, rows, &n_sim, &bytes_sim), 1);
        assert_true(n_sim == n);
        assert_string_equal(rows[0].kernels, "sim");
        assert_string_equal(rows[0].device, "simulated: h100-sxm");
        assert_int_equal(rows[0].n_threads, 0);
    }
}

static void parts_make_up_the_whole(void **state)
{
    (void)state;
    struct engine rows[MAX_RANKS];
    double whole, parts, bytes, part_bytes;
    const struct wanted one = {"cpu", "preset:tiny", 1, 1, 0, ARCH_BF16, {0}};
    const struct wanted four = {"cpu", "preset:tiny", 2, 2, 0, ARCH_BF16, {0}};
    const struct arch a = arch_of("preset:tiny");
    ask(&one, rows, &whole, &bytes);
    assert_string_equal(rows[0].weights, "f32");
    assert_true(bytes == 4 * whole); // all its dimensions are whole panels
    assert_int_equal(ask(&four, rows, &parts, &part_bytes), 4);
    // Norms are on both tensor ranks: two a layer, and the last one.
    double twice = (2.0 * a.n_layers + 1) * a.hidden;
    twice += a.tied_embedding ? (double)a.vocab * a.hidden : 0;
    assert_true(parts == whole + twice);
    assert_true(part_bytes == 4 * parts);
    assert_true(rows[0].kv_bytes_per_token * 4 == sizes_kv_bytes(&a, 2));
}

static void made_integers_take_what_they_take(void **state)
{
    (void)state;
    struct engine rows[MAX_RANKS];
    const struct arch a = arch_of("preset:tiny");
    for (int bits = 4; bits <= 8; bits += 4) {
        double n, bytes;
        const struct wanted x = {"cpu", "preset:tiny", 1, 1, bits, ARCH_INT8, {0}};
        ask(&x, rows, &n, &bytes);
        // A float16 factor per 32 weights. The head has 8 bits, an embedding of its own stays.
        const double head = (double)a.vocab * a.hidden, norms = (2.0 * a.n_layers + 1) * a.hidden;
        const double embed = a.tied_embedding ? 0 : head;
        // Rows of down are whole spans of 64.
        const int pads = (64 - a.intermediate % 64) % 64;
        const double layers = n - head - embed - norms + (double)a.n_layers * a.hidden * pads;
        assert_true(bytes ==
                    layers * (bits / 8.0 + 2 / 32.0) + head * (1 + 2 / 32.0) + 4 * (embed + norms));
        assert_non_null(strstr(rows[0].weights, bits == 8 ? "int8" : "int4"));
        assert_string_equal(rows[0].weights_stored, "f32");
        assert_string_equal(rows[0].kv_cache, "int8");
    }
}

static void formats_that_no_kernel_reads(void **state)
{
    (void)state;
    struct engine rows[MAX_RANKS];
    double n, bytes;
    const struct wanted x = {"cpu", "preset:tiny-gpt-oss", 1, 1, 0, ARCH_BF16, {ROUTER_ZIPF, 1.2}};
    ask(&x, rows, &n, &bytes);
    assert_string_equal(rows[0].weights, "bf16+f32"); // float32: the routers
    assert_non_null(strstr(rows[0].weights_stored, "mxfp4"));
    assert_non_null(strstr(rows[0].weights_stored, "bf16"));
    assert_true(rows[0].bytes_per_weight >= 2);
    assert_string_equal(rows[0].moe_routing, "zipf");
    assert_true(rows[0].moe_zipf == 1.2);
    const struct wanted dense = {"cpu", "preset:tiny", 1, 1, 0, ARCH_BF16, {ROUTER_ZIPF, 1.2}};
    ask(&dense, rows, &n, &bytes);
    assert_string_equal(rows[0].moe_routing, "none");
    assert_true(isnan(rows[0].moe_zipf));
    const struct wanted sim = {"sim",     "preset:tiny-gpt-oss", 1, 1, 0,
                               ARCH_BF16, {ROUTER_ZIPF, 1.2}};
    ask(&sim, rows, &n, &bytes);
    assert_string_equal(rows[0].moe_routing, "uniform");
    assert_string_equal(rows[0].weights, rows[0].weights_stored);
}

static void formats_by_their_bytes(void **state)
{
    (void)state;
    char text[32], narrow[8];
    struct tally t = {0};
    assert_string_equal(tally_text(&t, text, sizeof text), "");
    tally_add(&t, ARCH_F32, 10);
    tally_add(&t, ARCH_MXFP4, 500);
    tally_add(&t, ARCH_BF16, 100);
    tally_add(&t, ARCH_F32, 100);
    assert_string_equal(tally_text(&t, text, sizeof text), "mxfp4+f32+bf16");
    assert_string_equal(tally_text(&t, narrow, sizeof narrow), "mxfp4");
    assert_int_equal(tally_bytes(&t), 710);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_counted_once),
        cmocka_unit_test(parts_make_up_the_whole),
        cmocka_unit_test(made_integers_take_what_they_take),
        cmocka_unit_test(formats_that_no_kernel_reads),
        cmocka_unit_test(formats_by_their_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
