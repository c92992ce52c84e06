#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/arch.h"
#include "model/presets.h"
#include "model/sizes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
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
    assert_int_equal(sizes_params(&a), 8030261248);
    assert_true(sizes_kv_bytes(&a, 2) == 131072);
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

/* --- families --------------------------------------------------------------------------------- */

#define SMALL                                                                                      \
    "\"num_hidden_layers\": 4, \"hidden_size\": 64, \"intermediate_size\": 96, "                   \
    "\"num_attention_heads\": 4, \"vocab_size\": 512, \"max_position_embeddings\": 512"
#define QWEN2  "{\"model_type\": \"qwen2\", " SMALL
#define GEMMA2 "{\"model_type\": \"gemma2\", " SMALL
#define GPT_OSS                                                                                    \
    "{\"model_type\": \"gpt_oss\", \"num_local_experts\": 8, \"num_experts_per_tok\": 2, "         \
    "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 32.0, \"truncate\": false, "          \
    "\"original_max_position_embeddings\": 4096}, " SMALL
#define DEEPSEEK                                                                                   \
    "{\"model_type\": \"deepseek_v3\", \"n_routed_experts\": 8, \"num_experts_per_tok\": 2, "      \
    "\"moe_intermediate_size\": 32, \"n_shared_experts\": 1, \"first_k_dense_replace\": 1, "       \
    "\"n_group\": 4, \"topk_group\": 2, \"routed_scaling_factor\": 2.5, \"q_lora_rank\": null, "   \
    "\"kv_lora_rank\": 16, \"qk_nope_head_dim\": 128, \"qk_rope_head_dim\": 64, "                  \
    "\"v_head_dim\": 24, " SMALL

static bool near(double got, double want)
{
    return fabs(got - want) <= 1e-5 * fabs(want);
}

static void qwen2_has_biases_and_may_slide(void **state)
{
    (void)state;
    struct arch a;
    struct err e;
    assert_int_equal(parse(QWEN2 "}", &a, &e), 0);
    assert_true(a.qkv_bias && !a.o_bias && !a.sliding[0] && !a.sliding[3]);
    assert_int_equal(parse(QWEN2 ", \"use_sliding_window\": true, \"sliding_window\": 9, "
                                 "\"max_window_layers\": 3}",
                           &a, &e),
                     0);
    assert_int_equal(arch_window(&a, 2), 0);
    assert_int_equal(arch_window(&a, 3), 9);
    assert_int_equal(parse(QWEN2 ", \"use_sliding_window\": true, \"sliding_window\": 9, "
                                 "\"layer_types\": [\"sliding_attention\", \"full_attention\", "
                                 "\"full_attention\", \"full_attention\"]}",
                           &a, &e),
                     0);
    assert_int_equal(arch_window(&a, 0), 9);
    assert_int_equal(arch_window(&a, 3), 0);
    // a window that is named but switched off
    assert_int_equal(parse(QWEN2 ", \"use_sliding_window\": false, \"sliding_window\": 9}", &a, &e),
                     0);
    assert_int_equal(arch_window(&a, 3), 0);
}

static void gemma2_caps_and_scales(void **state)
{
    (void)state;
    struct arch a;
    struct err e;
    assert_int_equal(parse(GEMMA2 ", \"query_pre_attn_scalar\": 144, \"torch_dtype\": "
                                  "\"bfloat16\", \"hidden_size\": 3584}",
                           &a, &e),
                     -1); // a key twice
    assert_int_equal(parse(GEMMA2 ", \"query_pre_attn_scalar\": 144}", &a, &e), 0);
    assert_true(a.norm_plus_one && a.post_norms && a.tied_embedding);
    assert_int_equal(a.activation, ARCH_GELU_TANH);
    assert_int_equal(a.head_dim, 256);
    assert_true(near((double)a.attn_scale, 1.0 / 12));
    assert_true(a.attn_softcap == 50 && a.logit_softcap == 30);
    assert_int_equal(arch_window(&a, 0), 4096);
    assert_int_equal(arch_window(&a, 1), 0);
    assert_true(a.embed_scale == 8);
    assert_int_equal(parse(GEMMA2 ", \"attn_logit_softcapping\": null, "
                                  "\"final_logit_softcapping\": null, \"sliding_window\": 7}",
                           &a, &e),
                     0);
    assert_true(a.attn_softcap == 0 && a.logit_softcap == 0);
    assert_int_equal(arch_window(&a, 2), 7);
}

static void gemma2_rounds_the_factor_of_embeddings(void **state)
{
    (void)state;
    const struct arch b9 = {.hidden = 3584, .dtype = ARCH_BF16};
    const struct arch b27 = {.hidden = 4608, .dtype = ARCH_BF16};
    const struct arch f32 = {.hidden = 3584, .dtype = ARCH_F32};
    assert_true(arch_embed_scale(&b9) == 59.75f);
    assert_true(arch_embed_scale(&b27) == 68.0f);
    assert_true(near((double)arch_embed_scale(&f32), 59.866518));
}

static void gpt_oss_has_sinks_experts_and_yarn(void **state)
{
    (void)state;
    struct arch a;
    struct err e;
    assert_int_equal(parse(GPT_OSS ", \"quantization_config\": {\"quant_method\": \"mxfp4\"}, "
                                   "\"torch_dtype\": \"bfloat16\"}",
                           &a, &e),
                     0);
    assert_true(a.attn_sinks && a.qkv_bias && a.o_bias && a.moe.bias);
    assert_true(arch_is_moe(&a, 0) && a.moe.intermediate == 96);
    assert_int_equal(a.activation, ARCH_SWIGLU_CLAMP);
    assert_int_equal(a.moe.router, ARCH_ROUTER_SOFTMAX);
    assert_int_equal(a.rope, ARCH_ROPE_YARN);
    assert_true(a.rope_theta == 150000 && !a.rope_yarn.truncate);
    assert_true(a.rope_yarn.beta_fast == 32 && a.rope_yarn.beta_slow == 1);
    assert_true(near(a.rope_yarn.attention_factor, 1.346574));
    assert_true(near((double)a.attn_scale, 0.125)); // heads of 64
    assert_int_equal(arch_window(&a, 2), 128);
    assert_int_equal(arch_window(&a, 3), 0);
    assert_int_equal(a.dtype, ARCH_BF16);
    assert_int_equal(a.linear_dtype, ARCH_BF16);
    assert_int_equal(a.expert_dtype, ARCH_MXFP4);
}

static void deepseek_has_latent_attention_and_groups(void **state)
{
    (void)state;
    struct arch a;
    struct err e;
    assert_int_equal(
        parse(DEEPSEEK ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 40, \"mscale\": 1.0, "
                       "\"mscale_all_dim\": 1.0, \"original_max_position_embeddings\": 4096}, "
                       "\"torch_dtype\": \"bfloat16\", \"quantization_config\": {\"quant_method\": "
                       "\"fp8\", \"weight_block_size\": [128, 128]}}",
              &a, &e),
        0);
    assert_true(arch_is_latent(&a) && a.latent.q_rank == 0 && a.latent.nope_dim == 128);
    assert_true(a.head_dim == 192 && a.v_dim == 24 && a.rope_dim == 64 && a.rope_interleaved);
    assert_true(a.rope_yarn.attention_factor == 1 && a.rope_yarn.truncate);
    assert_true(near((double)a.attn_scale, 0.135234)); // 192^-0.5 * 1.368888^2
    assert_true(!arch_is_moe(&a, 0) && arch_is_moe(&a, 1));
    assert_true(a.moe.n_groups == 4 && a.moe.top_groups == 2 && a.moe.normalise);
    assert_true(a.moe.scale == 2.5f && a.moe.n_shared == 1 && !a.moe.bias);
    assert_int_equal(a.linear_dtype, ARCH_FP8);
    assert_int_equal(a.expert_dtype, ARCH_FP8);
    assert_int_equal(a.dtype, ARCH_BF16);
    assert_int_equal(parse(DEEPSEEK "}", &a, &e), 0); // no yarn: the plain scale
    assert_true(near((double)a.attn_scale, 1 / sqrt(192.0)));
}

static void yarn_takes_its_factor_from_what_is_given(void **state)
{
    (void)state;
    const struct {
        const char *scaling;
        double attention_factor, factor;
    } cases[] = {
        {"\"type\": \"yarn\", \"factor\": 4", 0.1 * 1.3862943611198906 + 1, 4},
        {"\"rope_type\": \"yarn\", \"factor\": 4, \"attention_factor\": 1.5", 1.5, 4},
        {"\"rope_type\": \"yarn\", \"factor\": 4, \"mscale\": 0.707", 1.1386294, 4}, // one of two
        {"\"rope_type\": \"yarn\", \"factor\": 4, \"mscale\": 1.0, \"mscale_all_dim\": 0.5",
         1.1386294361 / 1.0693147181, 4},
        {"\"rope_type\": \"yarn\", \"factor\": 0.5", 1, 0.5},
        {"\"rope_type\": \"yarn\", \"factor\": null, \"original_max_position_embeddings\": 128",
         1.1386294361, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arch a;
        struct err e;
        char json[1024];
        snprintf(json, sizeof json, QWEN2 ", \"rope_scaling\": {%s}}", cases[i].scaling);
        assert_int_equal(parse(json, &a, &e), 0);
        assert_true(near(a.rope_yarn.attention_factor, cases[i].attention_factor));
        assert_true(near(a.rope_yarn.factor, cases[i].factor));
    }
}

/* --- what is wrong with a config -------------------------------------------------------------- */

#define YARN(more)  ", \"rope_scaling\": {\"rope_type\": \"yarn\", " more "}}"
#define QUANT(more) ", \"quantization_config\": {" more "}}"
#define TYPES(list) ", \"layer_types\": [" list "]}"

static const struct bad {
    const char *json, *says;
} bad[] = {
    {"", "not JSON"},
    {"[]", "not a JSON object"},
    {"\"llama\"", "not JSON"},
    {"{\"model_type\": \"llama\",}", "not JSON"},
    {"{}", "model_type is missing"},
    {"{\"model_type\": 3}", "model_type is missing"},
    {"{\"model_type\": null}", "model_type is missing"},
    {"{\"model_type\": \"mamba\"}",
     "unknown model_type \"mamba\"; known: llama, qwen2, gemma2, gpt_oss, deepseek_v3"},
    {"{\"model_type\": \"LLAMA\"}", "unknown model_type \"LLAMA\""},
    {"{\"model_type\": \"llama\"}", "num_hidden_layers is missing"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 0}", "from 1 to 1024"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 1025}", "from 1 to 1024"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2.5}", "whole number"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": \"2\"}", "whole number"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": [2]}", "whole number"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 99999999999999999999}", "not JSON"},
    {"{\"model_type\": \"llama\", \"model_type\": \"llama\"}", "not JSON"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2}", "hidden_size is missing"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 200000}",
     "hidden_size must be a whole number from 4 to 131072"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 8}",
     "intermediate_size is missing"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 8, "
     "\"intermediate_size\": 8}",
     "num_attention_heads is missing"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 8, "
     "\"intermediate_size\": 8, \"num_attention_heads\": 2}",
     "vocab_size is missing"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 8, "
     "\"intermediate_size\": 8, \"num_attention_heads\": 2, \"vocab_size\": 9}",
     "max_position_embeddings is missing"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 9, "
     "\"intermediate_size\": 8, \"num_attention_heads\": 2, \"vocab_size\": 9, "
     "\"max_position_embeddings\": 9}",
     "head_dim is missing"},
    {"{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 64, "
     "\"intermediate_size\": 172, \"num_attention_heads\": 8, \"num_key_value_heads\": 3, "
     "\"vocab_size\": 512, \"max_position_embeddings\": 512}",
     "8 is not a multiple of num_key_value_heads 3"},
    {LLAMA ", \"head_dim\": 7}", "head_dim 7 must be even"},
    {LLAMA ", \"head_dim\": 0}", "head_dim must be a whole number from 2 to 1024"},
    {LLAMA ", \"head_dim\": 1026}", "head_dim must be a whole number from 2 to 1024"},
    {LLAMA ", \"head_dim\": \"64\"}", "head_dim must be a whole number"},
    {LLAMA ", \"hidden_act\": \"gelu\"}", "hidden_act must be \"silu\""},
    {LLAMA ", \"hidden_act\": 4}", "hidden_act must be \"silu\""},
    {LLAMA ", \"attention_bias\": 1}", "attention_bias must be true or false"},
    {LLAMA ", \"mlp_bias\": true}", "mlp_bias true is not supported"},
    {LLAMA ", \"torch_dtype\": \"int8\"}", "float32, bfloat16 or float16 wanted"},
    {LLAMA ", \"dtype\": 32}", "torch_dtype \"(not text)\""},
    {LLAMA ", \"rms_norm_eps\": -1}", "rms_norm_eps must be a number above 0"},
    {LLAMA ", \"rms_norm_eps\": \"1e-5\"}", "rms_norm_eps must be a number above 0"},
    {LLAMA ", \"rms_norm_eps\": 2}", "up to 1"},
    {LLAMA ", \"rope_theta\": 0}", "rope_theta must be a number above 0"},
    {LLAMA ", \"rope_theta\": true}", "rope_theta must be a number above 0"},
    {LLAMA ", \"partial_rotary_factor\": 0.5}", "partial_rotary_factor must be 1"},
    {LLAMA ", \"rope_scaling\": 4}", "rope_scaling must be an object"},
    {LLAMA ", \"rope_parameters\": [1]}", "rope_parameters must be an object"},
    {LLAMA ", \"rope_parameters\": {\"full_attention\": {}}}", "per kind of layer"},
    {LLAMA ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}",
     "unknown rope_type \"linear\"; known: default, llama3, yarn"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"dynamic\"}}", "unknown rope_type \"dynamic\""},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": 7}}", "unknown rope_type \"(not text)\""},
    {LLAMA ", \"rope_scaling\": {\"partial_rotary_factor\": 0.25}}",
     "partial_rotary_factor must be 1"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}}",
     "low_freq_factor is missing"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
           "\"low_freq_factor\": 1}}",
     "high_freq_factor is missing"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": -8}}",
     "factor must be a number above 0"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
           "\"low_freq_factor\": 4, \"high_freq_factor\": 4}}",
     "high_freq_factor must be above low_freq_factor"},
    {LLAMA ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
           "\"low_freq_factor\": 1, \"high_freq_factor\": 4, "
           "\"original_max_position_embeddings\": 0}}",
     "original_max_position_embeddings must be a whole number from 1"},
    {LLAMA YARN("\"beta_fast\": 32"), "factor is missing"},
    {LLAMA YARN("\"factor\": 0"), "factor must be a number above 0"},
    {LLAMA YARN("\"factor\": 4, \"beta_fast\": 1, \"beta_slow\": 32"),
     "beta_fast must be above beta_slow"},
    {LLAMA YARN("\"factor\": 4, \"truncate\": 0"), "truncate must be true or false"},
    {LLAMA YARN("\"factor\": 4, \"attention_factor\": 0"),
     "attention_factor must be a number above 0"},
    {LLAMA YARN("\"factor\": 4, \"mscale\": \"1\""), "mscale must be a number"},
    {LLAMA YARN("\"factor\": 4, \"mscale_all_dim\": 1e9"), "mscale_all_dim must be a number"},
    {LLAMA YARN("\"factor\": 4, \"rope_theta\": 0.5"), "rope_theta must be above 1 with yarn"},
    {LLAMA YARN("\"factor\": 4, \"original_max_position_embeddings\": 1.5"),
     "original_max_position_embeddings must be a whole number"},
    {LLAMA ", \"eos_token_id\": [1,2,3,4,5,6,7,8,9]}", "at most 8"},
    {LLAMA ", \"eos_token_id\": [[1]]}", "eos_token_id must be a token id"},
    {LLAMA ", \"bos_token_id\": \"one\"}", "bos_token_id must be a token id"},
    {LLAMA ", \"tie_word_embeddings\": 1}", "tie_word_embeddings must be true or false"},
    {LLAMA QUANT(""), "quant_method \"(not text)\" is not supported for llama"},
    {LLAMA QUANT("\"quant_method\": \"awq\""), "quant_method \"awq\" is not supported"},
    {LLAMA QUANT("\"quant_method\": \"fp8\""), "fp8 is for deepseek_v3, mxfp4 for gpt_oss"},
    {QWEN2 ", \"use_sliding_window\": \"no\"}", "use_sliding_window must be true or false"},
    {QWEN2 ", \"use_sliding_window\": true, \"max_window_layers\": 0, \"sliding_window\": null}",
     "sliding_window is missing"},
    {QWEN2 ", \"use_sliding_window\": true, \"max_window_layers\": -1}",
     "max_window_layers must be a whole number from 0"},
    {QWEN2 TYPES("\"sliding_attention\", \"full_attention\", \"full_attention\", "
                 "\"full_attention\""),
     "layer_types has sliding layers, use_sliding_window is false"},
    {QWEN2 ", \"hidden_act\": \"relu\"}", "hidden_act must be \"silu\""},
    {GEMMA2 TYPES("\"full_attention\""), "layer_types must be a list of 4, one for each layer"},
    {GEMMA2 ", \"layer_types\": \"full_attention\"}", "layer_types must be a list of 4"},
    {GEMMA2 TYPES("\"full_attention\", \"full_attention\", \"chunked_attention\", "
                  "\"full_attention\""),
     "layer_types[2] is \"chunked_attention\"; full_attention or sliding_attention wanted"},
    {GEMMA2 TYPES("1, 2, 3, 4"), "layer_types[0] is \"(not text)\""},
    {GEMMA2 ", \"sliding_window\": null}", "sliding_window is missing"},
    {GEMMA2 ", \"sliding_window\": 0}", "sliding_window must be a whole number from 1"},
    {GEMMA2 ", \"hidden_activation\": \"gelu\"}",
     "hidden_activation must be \"gelu_pytorch_tanh\""},
    {GEMMA2 ", \"hidden_act\": \"gelu\"}", "hidden_act must be \"gelu_pytorch_tanh\""},
    {GEMMA2 ", \"query_pre_attn_scalar\": 0}", "query_pre_attn_scalar must be a number above 0"},
    {GEMMA2 ", \"attn_logit_softcapping\": -50}", "attn_logit_softcapping must be a number above"},
    {GEMMA2 ", \"final_logit_softcapping\": \"30\"}", "final_logit_softcapping must be a number"},
    {GEMMA2 ", \"use_bidirectional_attention\": true}",
     "use_bidirectional_attention true is not supported"},
    {"{\"model_type\": \"gpt_oss\", " SMALL "}", "rope_scaling is missing"},
    {"{\"model_type\": \"gpt_oss\", \"rope_scaling\": {}, " SMALL "}",
     "num_local_experts is missing"},
    {"{\"model_type\": \"gpt_oss\", \"rope_scaling\": {}, \"num_local_experts\": 8, " SMALL "}",
     "num_experts_per_tok is missing"},
    {"{\"model_type\": \"gpt_oss\", \"rope_scaling\": {}, \"num_local_experts\": 8, "
     "\"num_experts_per_tok\": 9, " SMALL "}",
     "num_experts_per_tok must be a whole number from 1 to 8"},
    {"{\"model_type\": \"gpt_oss\", \"rope_scaling\": {}, \"num_local_experts\": 5000, " SMALL "}",
     "num_local_experts must be a whole number from 1 to 1024"},
    {"{\"model_type\": \"gpt_oss\", \"rope_scaling\": {}, \"num_local_experts\": 512, "
     "\"num_experts_per_tok\": 65, " SMALL "}",
     "num_experts_per_tok must be a whole number from 1 to 64"},
    {GPT_OSS ", \"swiglu_limit\": 8.0}", "swiglu_limit must be 7"},
    {GPT_OSS ", \"swiglu_alpha\": \"1.702\"}", "swiglu_alpha must be 1.702"},
    {GPT_OSS ", \"hidden_act\": \"gelu\"}", "hidden_act must be \"silu\""},
    {GPT_OSS ", \"sliding_window\": null}", "sliding_window is missing"},
    {GPT_OSS QUANT("\"quant_method\": \"mxfp4\", \"modules_to_not_convert\": "
                   "[\"model.layers.0.mlp.experts\"]"),
     "\"model.layers.0.mlp.experts\" is not supported"},
    {GPT_OSS QUANT("\"quant_method\": \"mxfp4\", \"modules_to_not_convert\": \"lm_head\""),
     "modules_to_not_convert must be a list"},
    {GPT_OSS QUANT("\"quant_method\": \"fp8\""), "is not supported for gpt_oss"},
    {GPT_OSS ", \"head_dim\": 33}", "head_dim 33 must be even"},
    {DEEPSEEK ", \"attention_bias\": true}", "attention_bias true is not supported"},
    {DEEPSEEK ", \"moe_layer_freq\": 2}", "moe_layer_freq must be 1"},
    {DEEPSEEK ", \"scoring_func\": \"softmax\"}", "scoring_func must be \"sigmoid\""},
    {DEEPSEEK ", \"topk_method\": \"greedy\"}", "topk_method must be \"noaux_tc\""},
    {DEEPSEEK ", \"norm_topk_prob\": 1}", "norm_topk_prob must be true or false"},
    {DEEPSEEK ", \"rope_interleave\": 1}", "rope_interleave must be true or false"},
    {DEEPSEEK ", \"num_key_value_heads\": 2}",
     "num_key_value_heads must be num_attention_heads, 4"},
    {DEEPSEEK QUANT("\"quant_method\": \"fp8\""), "weight_block_size must be [128, 128]"},
    {DEEPSEEK QUANT("\"quant_method\": \"fp8\", \"weight_block_size\": [128, 64]"),
     "weight_block_size must be [128, 128]"},
    {DEEPSEEK QUANT("\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128], "
                    "\"fmt\": \"e5m2\""),
     "fmt must be \"e4m3\""},
    {DEEPSEEK QUANT("\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128], "
                    "\"modules_to_not_convert\": [\"model.layers.0.self_attn.o_proj\"]"),
     "\"model.layers.0.self_attn.o_proj\" is not supported"},
    {DEEPSEEK QUANT("\"quant_method\": \"mxfp4\""), "is not supported for deepseek_v3"},
};

/* One key of a sound DeepSeek config, with another value; NULL: without it. */
static const struct {
    const char *key, *value, *says;
} changed[] = {
    {"q_lora_rank", NULL, "q_lora_rank is missing"},
    {"q_lora_rank", "0", "q_lora_rank must be a whole number from 1"},
    {"kv_lora_rank", NULL, "kv_lora_rank is missing"},
    {"kv_lora_rank", "0", "kv_lora_rank must be a whole number from 1"},
    {"qk_nope_head_dim", NULL, "qk_nope_head_dim is missing"},
    {"qk_rope_head_dim", "9", "qk_rope_head_dim 9 must be even"},
    {"qk_rope_head_dim", "0", "qk_rope_head_dim must be a whole number from 2"},
    {"v_head_dim", NULL, "v_head_dim is missing"},
    {"n_routed_experts", NULL, "n_routed_experts is missing"},
    {"n_routed_experts", "6", "n_routed_experts 6 must be a multiple of n_group 4"},
    {"n_routed_experts", "4", "two or more each"},
    {"num_experts_per_tok", "5", "num_experts_per_tok 5 is more than topk_group 2 groups hold"},
    {"num_experts_per_tok", "9", "num_experts_per_tok must be a whole number from 1 to 8"},
    {"moe_intermediate_size", NULL, "moe_intermediate_size is missing"},
    {"n_shared_experts", "-1", "n_shared_experts must be a whole number from 0"},
    {"first_k_dense_replace", "5", "first_k_dense_replace must be a whole number from 0 to 4"},
    {"n_group", "0", "n_group must be a whole number from 1 to 8"},
    {"topk_group", "5", "topk_group must be a whole number from 1 to 4"},
    {"routed_scaling_factor", NULL, "routed_scaling_factor is missing"},
    {"routed_scaling_factor", "0", "routed_scaling_factor must be a number above 0"},
};

static void expect_bad(const char *json, const char *says)
{
    struct arch a;
    struct err e;
    assert_int_equal(parse(json, &a, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    if (!strstr(e.msg, says) || !strstr(e.msg, "dir/config.json") || strchr(e.msg, '\n')) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
}

static void bad_configs_say_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        expect_bad(bad[i].json, bad[i].says);
    }
}

/* What a model_type of its own would be: all keys but one, and that one anew. */
static void changed_keys_say_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof changed / sizeof *changed; i++) {
        char json[2048], key[64];
        snprintf(key, sizeof key, "\"%s\": ", changed[i].key);
        const char *at = strstr(DEEPSEEK, key);
        assert_non_null(at);
        const char *rest = strchr(at, ',') + 2; // behind ", "
        int n = snprintf(json, sizeof json, "%.*s", (int)(at - DEEPSEEK), DEEPSEEK);
        if (changed[i].value) {
            n += snprintf(json + n, sizeof json - (size_t)n, "%s%s, ", key, changed[i].value);
        }
        snprintf(json + n, sizeof json - (size_t)n, "%s}", rest);
        expect_bad(json, changed[i].says);
    }
}

/* --- presets ---------------------------------------------------------------------------------- */

static void presets_weigh_what_the_models_weigh(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t params;
        double active; // 0: all but the embedding's table
        double kv_bytes;
    } known[] = {
        {"preset:llama-1b", 1235814400, 0, 32768},
        {"preset:llama-3.1-8b", 8030261248, 0, 131072},
        {"preset:llama-3.1-70b", 70553706496, 0, 327680},
        {"preset:llama-3.1-405b", 405853388800, 0, 516096},
        {"preset:deepseek-r1-distill-qwen-7b", 7615616512, 0, 57344},
        {"preset:gemma-2-9b", 9241705984, 0, 344064},
        {"preset:gemma-2-27b", 27227128320, 0, 376832},
        {"preset:gpt-oss-20b", 20914757184, 3.6e9, 49152},
        {"preset:deepseek-r1", 671026419200, 36.6e9, 70272},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct arch a;
        struct err e = {0};
        assert_int_equal(arch_open(known[i].name, &a, &e), 0);
        int64_t params = sizes_params(&a);
        if (llabs(params - known[i].params) > known[i].params / 100000) {
            fail_msg("%s has %lld parameters", known[i].name, (long long)params);
        }
        assert_true(sizes_kv_bytes(&a, 2) == known[i].kv_bytes);
        double active = (double)sizes_active_params(&a);
        if (known[i].active > 0 && fabs(active / known[i].active - 1) > 0.01) {
            fail_msg("%s has %g active parameters", known[i].name, active);
        }
    }
}

static void presets_are_cut_to_layers(void **state)
{
    (void)state;
    struct arch a, whole;
    struct err e = {0};
    assert_int_equal(arch_open("preset:deepseek-r1", &whole, &e), 0);
    assert_int_equal(arch_open("preset:deepseek-r1-4l", &a, &e), 0);
    assert_int_equal(a.n_layers, 4);
    assert_true(a.hidden == whole.hidden && arch_is_moe(&a, 3) && !arch_is_moe(&a, 2));
    assert_int_equal(arch_open("preset:tiny-16k", &a, &e), 0); // a name, no cut
    assert_int_equal(a.n_layers, 4);
    assert_int_equal(arch_open("preset:tiny-16k-2l", &a, &e), 0);
    assert_true(a.n_layers == 2 && a.max_context == 16384);
    const char *const wrong[] = {"preset:tiny-5l",    "preset:tiny-0l",
                                 "preset:tiny-2",     "preset:-2l",
                                 "preset:tiny-2l-2l", "preset:tiny-99999999999999999999l"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(arch_open(wrong[i], &a, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_non_null(strstr(e.msg, i == 0 ? "the model has 4 layers" : "no such preset"));
    }
}

static void every_preset_is_sound(void **state)
{
    (void)state;
    const char *name;
    for (size_t i = 0; (name = presets_name(i)) != NULL; i++) {
        char model[128];
        struct arch a;
        struct err e = {0};
        snprintf(model, sizeof model, "preset:%s", name);
        assert_int_equal(arch_open(model, &a, &e), 0);
        assert_in_range(a.max_context, 2048, 1 << 20);
        assert_true(sizes_params(&a) > 0 && a.v_dim > 0 && a.rope_dim > 0);
    }
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
    assert_non_null(strstr(e.msg, "preset:huge: no such preset; there are tiny, tiny-16k, "));
    assert_int_equal(arch_open("/nowhere/at/all", &a, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "/nowhere/at/all/config.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_config_in_the_older_style),
        cmocka_unit_test(a_config_in_the_newer_style),
        cmocka_unit_test(what_is_absent_has_the_families_defaults),
        cmocka_unit_test(qwen2_has_biases_and_may_slide),
        cmocka_unit_test(gemma2_caps_and_scales),
        cmocka_unit_test(gemma2_rounds_the_factor_of_embeddings),
        cmocka_unit_test(gpt_oss_has_sinks_experts_and_yarn),
        cmocka_unit_test(deepseek_has_latent_attention_and_groups),
        cmocka_unit_test(yarn_takes_its_factor_from_what_is_given),
        cmocka_unit_test(bad_configs_say_what_is_wrong),
        cmocka_unit_test(changed_keys_say_what_is_wrong),
        cmocka_unit_test(presets_weigh_what_the_models_weigh),
        cmocka_unit_test(presets_are_cut_to_layers),
        cmocka_unit_test(every_preset_is_sound),
        cmocka_unit_test(presets_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
