/*
 * Logits and greedy ids of every family against Hugging Face transformers with backend cuda, as
 * unit.family_oracle has them of the CPU's. On the stand-in for CUDA, or on a GPU where there is one
 * (TIDEMARK_CUDA_PLUGIN says which shared object).
 *
 * float32: 1e-4 of the largest logit and the same ids. bfloat16 and fewer bits: relative L2 distance up to
 * 2e-2. Pipeline stages and a second time change no bit of equal batches; chunks of the prompt, other requests
 * and computing anew stay within the same tolerances: products of other sizes add up in another order.
 * TIDEMARK_FULL=1 tries every combination, otherwise each model gets the next one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "tests/support/oracle.h"
#include "workers/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOME_IDS 32

static bool is_full(void)
{
    return getenv("TIDEMARK_FULL") != NULL;
}

/* One way of all, by as many stages: out (n_logits). */
static void compute(const struct oracle *o, const struct oracle_way *way, int n_stages, float *out)
{
    struct oracle_way split = *way;
    struct chain c;
    split.n_stages = n_stages;
    oracle_chain(&c, o, &split);
    oracle_compute(&c, o, &split, out);
    chain_close(&c);
}

/* All ways, or the next one of them, and the next number of stages. */
static void check_variants(const struct oracle *o, const struct oracle_way *first, double distance)
{
    static const uint32_t chunks[] = {16, 256, 3, 1};
    static int turn;
    float *got = xcalloc(o->n_logits, sizeof *got), *split = xcalloc(o->n_logits, sizeof *split);
    for (int k = 0; k < 8; k++) {
        if (!is_full() && k != turn % 5) { // small chunks are dear
            continue;
        }
        struct oracle_way way = *first;
        way.chunk = chunks[k / 2];
        way.strangers = k % 2;
        way.again = k % 3 == 0;
        compute(o, &way, 1, got);
        oracle_expect_logits(o, got, distance);
        for (int n_stages = 2; n_stages <= 3; n_stages++) {
            if (is_full() || n_stages == 2 + turn % 2) {
                compute(o, &way, n_stages, split);
                assert_memory_equal(split, got, o->n_logits * sizeof *got);
            }
        }
    }
    turn++;
    free(got);
    free(split);
}

static void check_model(const char *name, enum arch_dtype kv_dtype, double distance)
{
    struct oracle o;
    struct chain c;
    const struct oracle_way way = {
        .backend = "cuda", .kv_dtype = kv_dtype, .n_stages = 1, .n_threads = 2, .chunk = 256};
    print_message("%s, cache %s\n", name, arch_dtype_name(kv_dtype));
    oracle_open(&o, name);
    float *logits = xcalloc(o.n_logits, sizeof *logits);
    oracle_chain(&c, &o, &way);
    oracle_compute(&c, &o, &way, logits);
    oracle_expect_logits(&o, logits, distance);
    if (distance == 0) {
        o.n_ids = is_full() ? o.n_ids : SOME_IDS;
        oracle_expect_ids(&c, &o, ORACLE_MAX_IDS);
    }
    chain_close(&c);
    static int n_models;
    if (is_full() || n_models++ % 3 == 0) {
        check_variants(&o, &way, distance);
    }
    free(logits);
    oracle_close(&o);
}

/* --- tests ------------------------------------------------------------------------------------ */

static const char *const families[] = {"llama", "qwen2", "gemma2", "gpt_oss", "deepseek_v3"};

static void check_families(const char *stored, enum arch_dtype kv_dtype, double distance)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_even_%s", families[i], stored);
        check_model(name, kv_dtype, distance);
    }
}

static void float32_weights(void **state)
{
    (void)state;
    check_families("f32", ARCH_F32, 0);
}

static void bfloat16_weights(void **state)
{
    (void)state;
    check_families("bf16", ARCH_BF16, 2e-2);
}

static void weights_of_8_and_4_bits(void **state)
{
    (void)state;
    check_model("gpt_oss_even_mxfp4", ARCH_BF16, 2e-2);
    check_model("deepseek_v3_even_fp8", ARCH_F32, 2e-2);
}

static void caches_of_8_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_even_bf16", families[i]);
        if (!is_full() && i % 4 != 0) {
            continue;
        }
        check_model(name, ARCH_INT8, 4e-2);
        check_model(name, ARCH_FP8, 8e-2);
    }
}

int main(void)
{
    char why[128] = "";
    if (strcmp(backend_auto(why, sizeof why), "cuda") != 0) {
        printf("skipped: %s\n", why);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_weights),
        cmocka_unit_test(bfloat16_weights),
        cmocka_unit_test(weights_of_8_and_4_bits),
        cmocka_unit_test(caches_of_8_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
