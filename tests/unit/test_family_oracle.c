/*
 * Logits and greedy ids of every family against Hugging Face transformers, on the tiny models of
 * tests/golden (make_tiny_models.py), for every kernel set that this machine runs. float32: sums in another
 * order, so 1e-4 of the largest logit, and the same 128 ids. Weights in fewer bits: relative L2 distance
 * up to 2e-2 and cosine from 0.999.
 *
 * And bit by bit: pipeline stages, threads, the size of prompt chunks, other requests in the batch and
 * computing anew after a preemption change nothing. TIDEMARK_FULL=1 tries every combination, otherwise
 * each pair of stages and threads gets some of the rest in turn.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "tests/support/oracle.h"
#include "workers/cpu/kernels.h"
#include "workers/weights/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL_SETS 100

/* The variants 0 .. n - 1 to try: all, or the next `some` of them. */
struct turns {
    int at, n, some;
};

static bool is_full(void)
{
    return getenv("TIDEMARK_FULL") != NULL;
}

static bool is_due(const struct turns *t, int i)
{
    return is_full() || (i - t->at % t->n + t->n) % t->n < t->some;
}

static void expect_the_same_bits(const struct oracle *o, const struct oracle_way *first,
                                 const float *want)
{
    static const uint32_t chunks[] = {1, 3, 16, 256};
    static struct turns teams = {.n = 3, .some = 1}, variants = {.n = 8, .some = 2};
    float *got = xcalloc(o->n_logits, sizeof *got);
    for (int i = 0; i < 6; i++) {
        struct oracle_way way = *first;
        struct chain c;
        way.n_stages = 1 + i % 3;
        way.n_threads = 1 + i / 3;
        if (way.n_threads > 1 && !is_due(&teams, i % 3)) { // dear where cores are shared
            continue;
        }
        oracle_chain(&c, o, &way);
        for (int k = 0; k < 8; k++) {
            way.chunk = chunks[k % 4];
            way.strangers = k / 4;
            way.again = (i + k) % 3 == 0;
            if (is_due(&variants, k)) {
                oracle_compute(&c, o, &way, got);
                assert_memory_equal(got, want, o->n_logits * sizeof *got);
            }
        }
        variants.at += variants.some;
        chain_close(&c);
    }
    teams.at++;
    free(got);
}

static void check_way(const struct oracle *o, const struct oracle_way *way, double distance,
                      bool ids)
{
    struct chain c;
    float *logits = xcalloc(o->n_logits, sizeof *logits);
    oracle_chain(&c, o, way);
    oracle_compute(&c, o, way, logits);
    if (distance > 0) {
        oracle_expect_near(logits, o->logits, o->n_logits, distance);
    } else {
        oracle_expect_equal(logits, o->logits, o->n_logits);
    }
    if (ids) {
        oracle_expect_ids(&c, o, ORACLE_MAX_IDS);
    }
    chain_close(&c);
    expect_the_same_bits(o, way, logits);
    free(logits);
}

/* --- tests ------------------------------------------------------------------------------------ */

static const char *const families[] = {"llama", "qwen2", "gemma2", "gpt_oss", "deepseek_v3"};

static void check_model(const char *name, enum arch_dtype kv_dtype, int n_sets, double distance,
                        bool ids)
{
    struct oracle o;
    oracle_open(&o, name);
    const struct kernels *set;
    for (int s = 0; s < n_sets && (set = kernels_set(s)) != NULL; s++) {
        const struct oracle_way way = {.kernels = set->name,
                                       .kv_dtype = kv_dtype,
                                       .n_stages = 1,
                                       .n_threads = 1,
                                       .chunk = 256};
        print_message("%s, %s\n", name, set->name);
        check_way(&o, &way, distance, ids);
    }
    oracle_close(&o);
}

static void check_families(const char *stored, enum arch_dtype kv_dtype, double distance, bool ids)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_tiny_%s", families[i], stored);
        check_model(name, kv_dtype, ALL_SETS, distance, ids);
    }
}

static void float32_weights(void **state)
{
    (void)state;
    check_families("f32", ARCH_F32, 0, true);
}

static void bfloat16_weights(void **state)
{
    (void)state;
    check_families("bf16", ARCH_BF16, 2e-2, false);
}

/* Where a router's choice is close to call, rounding turns it: not everything is near in everything. */
static void weights_of_8_and_4_bits(void **state)
{
    (void)state;
    check_model("gpt_oss_tiny_mxfp4", ARCH_BF16, ALL_SETS, 2e-2, false);
    check_model("deepseek_v3_tiny_fp8", ARCH_F32, ALL_SETS, 2e-2, false);
}

static void caches_of_8_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_tiny_bf16", families[i]);
        const bool turns = strcmp(families[i], "deepseek_v3") == 0;
        check_model(name, ARCH_INT8, 1, turns ? 1 : 4e-2, false);
        check_model(name, ARCH_FP8, 1, turns ? 1 : 8e-2, false);
    }
}

/* Partial sums are added in another order, so bits differ from those of one rank, but not otherwise. */
static void check_sharded(const char *family, const char *kernels)
{
    static const struct {
        const char *stored;
        enum arch_dtype kv_dtype;
        double distance;
    } kinds[] = {{"f32", ARCH_F32, 0}, {"bf16", ARCH_BF16, 2e-2}};
    for (size_t i = 0; i < (is_full() ? 2 : 1); i++) {
        struct oracle_way way = {.kernels = kernels,
                                 .kv_dtype = kinds[i].kv_dtype,
                                 .n_stages = 1,
                                 .n_threads = 1,
                                 .n_tensor = 2,
                                 .chunk = 256};
        char name[64];
        struct oracle o;
        snprintf(name, sizeof name, "%s_tiny_%s", family, kinds[i].stored);
        oracle_open(&o, name);
        check_way(&o, &way, kinds[i].distance, i == 0);
        way.n_tensor = 4; // of 2 KV heads each is on two ranks
        if (strcmp(family, "gemma2") == 0 || strcmp(family, "deepseek_v3") == 0) {
            check_way(&o, &way, kinds[i].distance, i == 0);
        }
        oracle_close(&o);
    }
}

static void tensor_parallel_ranks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const struct kernels *set;
        for (int s = 0; is_full() && (set = kernels_set(s)) != NULL; s++) {
            check_sharded(families[i], set->name);
        }
        if (!is_full()) {
            check_sharded(families[i], "auto");
        }
    }
}

/*
 * T = 4 with 2 KV heads, in the families whose tiny models have 6 heads: presets of 4, against one rank. Their
 * weights are bfloat16 and fewer bits, products are in float32.
 */
static void four_ranks_of_presets_are_as_one(void **state)
{
    static const char *const presets[] = {"preset:tiny", "preset:tiny-qwen2",
                                          "preset:tiny-gpt-oss"};
    (void)state;
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        char *folder = xstrdup(presets[i]);
        struct oracle o = {.folder = folder, .n_prompt = 150, .n_positions = 30};
        struct oracle_way way = {.kernels = "portable",
                                 .kv_dtype = ARCH_F32,
                                 .n_stages = 1,
                                 .n_threads = 1,
                                 .chunk = 64};
        struct chain c;
        for (int k = 0; k < 150; k++) {
            o.prompt[k] = 3 + k * 7 % 900;
            o.positions[k / 5] = k;
        }
        oracle_chain(&c, &o, &way);
        o.n_logits = o.n_positions * (size_t)c.arch.vocab;
        float *want = xcalloc(o.n_logits, sizeof *want), *got = xcalloc(o.n_logits, sizeof *got);
        oracle_compute(&c, &o, &way, want);
        chain_close(&c);
        way.n_tensor = 4;
        oracle_chain(&c, &o, &way);
        oracle_compute(&c, &o, &way, got);
        chain_close(&c);
        oracle_expect_most_near(got, want, o.n_logits, o.n_positions, 2e-2);
        assert_memory_not_equal(got, want, o.n_logits * sizeof *got); // sums of parts
        free(want);
        free(got);
        free(folder);
    }
}

static void every_tensor_of_the_shards_is_found(void **state)
{
    (void)state;
    struct oracle o;
    oracle_open(&o, "llama_tiny_f32");
    struct arch a;
    struct err e = {0};
    assert_int_equal(arch_open(o.folder, &a, &e), 0);
    assert_int_equal(weights_check(o.folder, &a, &e), 0);
    a.intermediate++;
    assert_int_equal(weights_check(o.folder, &a, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "wrong shape of tensor model.layers.0.mlp.gate_proj.weight: "
                                  "found F32 (40, 24), config.json needs F32 (41, 24)"));
    oracle_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_weights),
        cmocka_unit_test(bfloat16_weights),
        cmocka_unit_test(weights_of_8_and_4_bits),
        cmocka_unit_test(caches_of_8_bits),
        cmocka_unit_test(tensor_parallel_ranks),
        cmocka_unit_test(four_ranks_of_presets_are_as_one),
        cmocka_unit_test(every_tensor_of_the_shards_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
