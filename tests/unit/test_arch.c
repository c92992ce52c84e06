#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SIZES                                                                                      \
    "\"num_hidden_layers\": 32, \"hidden_size\": 4096, \"intermediate_size\": 14336, "             \
    "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"vocab_size\": 128256, "            \
    "\"max_position_embeddings\": 131072"
#define LLAMA "{\"model_type\": \"llama\", " SIZES

static int parse(const char *json, struct arch *a, struct err *e)
{
    *e = (struct err){0};
    return arch_parse(json, strlen(json), "dir/config.json", a, e);
}

/* --- config.json ------------------------------------------------------------------------------ */

static void a_config_in_the_older_style(void **state)
{
    (void)state;
    struct arch a;
    struct err e;
    assert_int_equal(parse(LLAMA
                           ", \"rope_theta\": 500000.0, \"rms_norm_eps\": 1e-05, "
                           "\"torch_dtype\": \"bfloat16\", \"bos_token_id\": 128000, "
                           "\"eos_token_id\": [128001, 128008, 128009], \"head_dim\": null, "
                           "\"rope_scaling\": {\"factor\": 8.0, \"low_freq_factor\": 1.0, "
                           "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 8192, "
                           "\"rope_type\": \"llama3\"}}",
                           &a, &e),
                     0);
    assert_string_equal(a.family, "llama");
    assert_int_equal(a.n_layers, 32);
    assert_int_equal(a.head_dim, 128);
    assert_int_equal(a.n_kv_heads, 8);
    assert_int_equal(a.dtype, ARCH_BF16);
    assert_int_equal(a.rope, ARCH_ROPE_LLAMA3);
    assert_true(a.rope_theta == 500000);
    assert_true(a.rope_llama3.factor == 8 && a.rope_llama3.low == 1 && a.rope_llama3.high == 4);
    assert_int_equal(a.rope_llama3.original_context, 8192);
    assert_int_equal(a.bos_id, 128000);
    assert_int_equal(a.n_eos, 3);
    assert_int_equal(a.eos_ids[2], 128009);
    assert_false(a.tied_embedding);
    assert_true(a.rms_eps == 1e-5f);
    // 8.03 B parameters; 64 Ki values of KV cache per token = 128 KiB in bfloat16
    assert_int_equal(arch_params(&a), 8030261248);
    assert_int_equal(arch_kv_values_per_token(&a), 65536);
}

static void a_config_in_the_newer_style(void **state)
{
    (void)state;
    struct arch a;
    struct err e;
    assert_int_equal(
        parse(LLAMA ", \"dtype\": \"float32\", \"tie_word_embeddings\": true, \"head_dim\": 64, "
                    "\"rope_parameters\": {\"rope_theta\": 5000, \"rope_type\": \"llama3\", "
                    "\"factor\": 32, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
                    "\"original_max_position_embeddings\": 8192}}",
              &a, &e),
        0);
    assert_int_equal(a.head_dim, 64);
    assert_int_equal(a.dtype, ARCH_F32);
    assert_true(a.tied_embedding);
    assert_true(a.rope_theta == 5000 && a.rope_llama3.factor == 32);
    assert_int_equal(a.bos_id, -1);
    assert_int_equal(a.n_eos, 0);
}

static void what_is_absent_has_the_families_defaults(void **state)
{
    (void)state;
    struct arch a;
    struct err e;
    assert_int_equal(parse("{\"model_type\": \"llama\", \"num_hidden_layers\": 2, "
                           "\"hidden_size\": 64, \"intermediate_size\": 172, "
                           "\"num_attention_heads\": 8, \"vocab_size\": 512, "
                           "\"max_position_embeddings\": 512, \"rope_scaling\": null, "
                           "\"eos_token_id\": 600}",
                           &a, &e),
                     0);
    assert_int_equal(a.n_kv_heads, 8);
    assert_int_equal(a.head_dim, 8);
    assert_int_equal(a.dtype, ARCH_F32);
    assert_int_equal(a.rope, ARCH_ROPE_DEFAULT);
    assert_true(a.rope_theta == 10000);
    assert_true(a.rms_eps == 1e-6f);
    assert_int_equal(a.n_eos, 0); // an id outside of the vocabulary ends nothing
}

static void bad_configs_say_what_is_wrong(void **state)
{
    (void)state;
    const struct {
        const char *json, *says;
    } bad[] = {
        {"", "not JSON"},
        {"[]", "not a JSON object"},
        {"{}", "model_type is missing"},
        {"{\"model_type\": \"mamba\"}", "unknown model_type \"mamba\"; known: llama"},
        {"{\"model_type\": \"llama\"}", "num_hidden_layers is missing"},
        {"{\"model_type\": \"llama\", \"num_hidden_layers\": 0}", "from 1 to 1024"},
        {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2.5}", "whole number"},
        {"{\"model_type\": \"llama\", \"model_type\": \"llama\"}", "not JSON"},
        {LLAMA ", \"head_dim\": 7}", "head_dim 7 must be even"},
        {LLAMA ", \"head_dim\": \"64\"}", "head_dim must be a whole number"},
        {LLAMA ", \"hidden_act\": \"gelu\"}", "hidden_act must be \"silu\""},
        {LLAMA ", \"attention_bias\": true}", "attention_bias true is not supported"},
        {LLAMA ", \"quantization_config\": {}}", "quantised weights are not supported"},
        {LLAMA ", \"torch_dtype\": \"float16\"}", "float32 or bfloat16 wanted"},
        {LLAMA ", \"rms_norm_eps\": -1}", "rms_norm_eps must be a number above 0"},
        {LLAMA ", \"rope_scaling\": {\"type\": \"yarn\"}}", "unknown rope_type \"yarn\""},
        {LLAMA ", \"rope_scaling\": 4}", "rope_scaling must be an object"},
        {LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}}",
         "low_freq_factor is missing"},
        {LLAMA ", \"eos_token_id\": [1,2,3,4,5,6,7,8,9]}", "at most 8"},
        {LLAMA ", \"bos_token_id\": \"one\"}", "bos_token_id must be a token id"},
        {LLAMA ", \"tie_word_embeddings\": 1}", "tie_word_embeddings must be true or false"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct arch a;
        struct err e;
        assert_int_equal(parse(bad[i].json, &a, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        if (!strstr(e.msg, bad[i].says) || !strstr(e.msg, "dir/config.json")) {
            fail_msg("\"%s\" does not say \"%s\"", e.msg, bad[i].says);
        }
    }
}

static void heads_must_share_evenly(void **state)
{
    (void)state;
    struct arch a;
    struct err e;
    assert_int_equal(parse("{\"model_type\": \"llama\", \"num_hidden_layers\": 2, "
                           "\"hidden_size\": 64, \"intermediate_size\": 172, "
                           "\"num_attention_heads\": 8, \"num_key_value_heads\": 3, "
                           "\"vocab_size\": 512, \"max_position_embeddings\": 512}",
                           &a, &e),
                     -1);
    assert_non_null(strstr(e.msg, "8 is not a multiple of num_key_value_heads 3"));
}

/* --- names ------------------------------------------------------------------------------------ */

static void presets_have_names(void **state)
{
    (void)state;
    struct arch a;
    struct err e = {0};
    assert_int_equal(arch_open("preset:tiny", &a, &e), 0);
    assert_int_equal(a.hidden, 128);
    assert_in_range(a.max_context, 2048, 1 << 20);
    assert_int_equal(arch_open("preset:small", &a, &e), 0);
    assert_int_equal(a.dtype, ARCH_BF16);
    assert_true(arch_is_preset("preset:x") && !arch_is_preset("models/preset:x"));
    assert_int_equal(arch_open("preset:huge", &a, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "preset:huge: no such preset; there are tiny, tiny-16k, small"));
    assert_int_equal(arch_open("/nowhere/at/all", &a, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "/nowhere/at/all/config.json"));
}

/* --- splits ----------------------------------------------------------------------------------- */

/* Published dimensions. Only sizes matter to the split, so any model may be written as this struct. */
static const struct shape {
    const char *name;
    struct arch arch;
    double head_layers; // the head's cost in layers
    int pp4[4];
    double slowest; // of that split, in layers
} shapes[] = {
    {"Llama-3.1-8B",
     {.n_layers = 32,
      .hidden = 4096,
      .intermediate = 14336,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .vocab = 128256,
      .dtype = ARCH_BF16},
     2.41,
     {8, 9, 9, 6},
     9.00},
    {"R1-Distill-Qwen-7B",
     {.n_layers = 28,
      .hidden = 3584,
      .intermediate = 18944,
      .n_heads = 28,
      .n_kv_heads = 4,
      .head_dim = 128,
      .vocab = 152064,
      .dtype = ARCH_BF16},
     2.34,
     {7, 8, 8, 5},
     8.00},
    {"gemma-2-9b",
     {.n_layers = 42,
      .hidden = 3584,
      .intermediate = 14336,
      .n_heads = 16,
      .n_kv_heads = 8,
      .head_dim = 256,
      .vocab = 256000,
      .dtype = ARCH_BF16},
     4.63,
     {11, 12, 12, 7},
     12.00},
    {"gemma-2-27b",
     {.n_layers = 46,
      .hidden = 4608,
      .intermediate = 36864,
      .n_heads = 32,
      .n_kv_heads = 16,
      .head_dim = 128,
      .vocab = 256000,
      .dtype = ARCH_BF16},
     2.08,
     {12, 12, 12, 10},
     12.08},
};

static double slowest_stage(const struct arch *a, int n_stages, const int *first)
{
    struct arch_costs c = arch_costs(a);
    double slowest = 0;
    for (int s = 0; s < n_stages; s++) {
        double cost = (first[s + 1] - first[s]) * c.layer + (s == 0 ? c.embed : 0) +
                      (s == n_stages - 1 ? c.head : 0);
        slowest = fmax(slowest, cost);
    }
    return slowest / c.layer;
}

static void four_stages_of_four_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *m = &shapes[i];
        struct arch_costs c = arch_costs(&m->arch);
        assert_true(fabs(c.head / c.layer - m->head_layers) < 0.01);
        int first[5];
        arch_split(&m->arch, 4, first);
        assert_int_equal(first[0], 0);
        for (int s = 0; s < 4; s++) {
            assert_int_equal(first[s + 1] - first[s], m->pp4[s]);
        }
        assert_true(fabs(slowest_stage(&m->arch, 4, first) - m->slowest) < 0.01);
    }
}

/* The slowest stage that the best of all splits has, by trying every one. */
static double by_force(const struct arch *a, int n_stages, int stage, int *first)
{
    if (stage == n_stages) {
        return first[stage] == a->n_layers ? slowest_stage(a, n_stages, first) : (double)INFINITY;
    }
    double best = (double)INFINITY;
    for (int n = 1; first[stage] + n <= a->n_layers; n++) {
        first[stage + 1] = first[stage] + n;
        best = fmin(best, by_force(a, n_stages, stage + 1, first));
    }
    return best;
}

static void no_split_is_faster(void **state)
{
    (void)state;
    struct arch a = {
        .hidden = 64, .intermediate = 172, .n_heads = 8, .n_kv_heads = 4, .head_dim = 8};
    const int vocabs[] = {16, 512, 2048, 4096};
    for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) {
        a.vocab = vocabs[v];
        for (a.n_layers = 1; a.n_layers <= 9; a.n_layers++) {
            for (int n = 1; n <= a.n_layers; n++) {
                int first[10], trial[10] = {0};
                arch_split(&a, n, first);
                assert_int_equal(first[0], 0);
                assert_int_equal(first[n], a.n_layers);
                for (int s = 0; s < n; s++) {
                    assert_true(first[s + 1] > first[s]);
                }
                double best = by_force(&a, n, 0, trial);
                assert_true(slowest_stage(&a, n, first) <= best * (1 + 1e-12));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_config_in_the_older_style),
        cmocka_unit_test(a_config_in_the_newer_style),
        cmocka_unit_test(what_is_absent_has_the_families_defaults),
        cmocka_unit_test(bad_configs_say_what_is_wrong),
        cmocka_unit_test(heads_must_share_evenly),
        cmocka_unit_test(presets_have_names),
        cmocka_unit_test(four_stages_of_four_models),
        cmocka_unit_test(no_split_is_faster),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
