#include "model/presets.h"

#include "core/str.h"

#include <stdlib.h>
#include <string.h>

#define JSON(...) #__VA_ARGS__

// clang-format off
static const struct preset {
    const char *name, *config;
} presets[] = {
    {"tiny", JSON({
        "model_type": "llama", "num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 352,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1024,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000,
        "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2})},
    {"tiny-16k", JSON({ // for traces with long prompts on small machines
        "model_type": "llama", "num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 352,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1024,
        "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "rope_theta": 10000,
        "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2})},
    {"tiny-qwen2", JSON({
        "model_type": "qwen2", "num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 352,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1024,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2})},
    {"tiny-gemma2", JSON({
        "model_type": "gemma2", "num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 352,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 48, "vocab_size": 1024,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "sliding_window": 64, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
        "torch_dtype": "bfloat16", "bos_token_id": 2, "eos_token_id": 1})},
    {"tiny-gpt-oss", JSON({
        "model_type": "gpt_oss", "num_hidden_layers": 4, "hidden_size": 128, "intermediate_size": 128,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 48, "vocab_size": 1024,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 150000,
        "rope_scaling": {"rope_type": "yarn", "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0,
                         "truncate": false, "original_max_position_embeddings": 256},
        "sliding_window": 64, "num_local_experts": 8, "num_experts_per_tok": 4,
        "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "mxfp4"},
        "bos_token_id": 1, "eos_token_id": 2})},
    {"tiny-deepseek", JSON({
        "model_type": "deepseek_v3", "num_hidden_layers": 4, "hidden_size": 144,
        "intermediate_size": 352, "moe_intermediate_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 4, "n_shared_experts": 1, "n_routed_experts": 16,
        "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5,
        "norm_topk_prob": true, "first_k_dense_replace": 1, "q_lora_rank": 96, "kv_lora_rank": 64,
        "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "vocab_size": 1024,
        "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
                         "mscale": 1.0, "mscale_all_dim": 1.0,
                         "original_max_position_embeddings": 256},
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "bos_token_id": 0, "eos_token_id": 1})},
    {"small", JSON({
        "model_type": "llama", "num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 1408,
        "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 8192,
        "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "rope_theta": 500000,
        "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2})},
    {"llama-1b", JSON({ // Llama 3.2 1B
        "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048,
        "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "rope_theta": 500000, "tie_word_embeddings": true,
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        "torch_dtype": "bfloat16", "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009]})},
    {"llama-3.1-8b", JSON({
        "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
        "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 500000,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        "torch_dtype": "bfloat16", "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009]})},
    {"llama-3.1-70b", JSON({
        "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192,
        "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 500000,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        "torch_dtype": "bfloat16", "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009]})},
    {"llama-3.1-405b", JSON({
        "model_type": "llama", "num_hidden_layers": 126, "hidden_size": 16384,
        "intermediate_size": 53248, "num_attention_heads": 128, "num_key_value_heads": 8,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 500000,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        "torch_dtype": "bfloat16", "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009]})},
    {"deepseek-r1-distill-qwen-7b", JSON({
        "model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 3584,
        "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4,
        "vocab_size": 152064, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
        "rope_theta": 10000, "use_sliding_window": false, "torch_dtype": "bfloat16",
        "bos_token_id": 151643, "eos_token_id": 151643})},
    {"gemma-2-9b", JSON({
        "model_type": "gemma2", "num_hidden_layers": 42, "hidden_size": 3584,
        "intermediate_size": 14336, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 256, "vocab_size": 256000, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6, "rope_theta": 10000, "sliding_window": 4096,
        "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
        "torch_dtype": "bfloat16", "bos_token_id": 2, "eos_token_id": 1})},
    {"gemma-2-27b", JSON({
        "model_type": "gemma2", "num_hidden_layers": 46, "hidden_size": 4608,
        "intermediate_size": 36864, "num_attention_heads": 32, "num_key_value_heads": 16,
        "head_dim": 128, "vocab_size": 256000, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6, "rope_theta": 10000, "sliding_window": 4096,
        "query_pre_attn_scalar": 144, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
        "torch_dtype": "bfloat16", "bos_token_id": 2, "eos_token_id": 1})},
    {"gpt-oss-20b", JSON({
        "model_type": "gpt_oss", "num_hidden_layers": 24, "hidden_size": 2880,
        "intermediate_size": 2880, "num_attention_heads": 64, "num_key_value_heads": 8,
        "head_dim": 64, "vocab_size": 201088, "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5, "rope_theta": 150000,
        "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                         "truncate": false, "original_max_position_embeddings": 4096},
        "sliding_window": 128, "num_local_experts": 32, "num_experts_per_tok": 4,
        "swiglu_limit": 7.0, "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "mxfp4"}, "eos_token_id": 200002})},
    {"deepseek-r1", JSON({
        "model_type": "deepseek_v3", "num_hidden_layers": 61, "hidden_size": 7168,
        "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_attention_heads": 128,
        "num_key_value_heads": 128, "n_shared_experts": 1, "n_routed_experts": 256,
        "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5,
        "norm_topk_prob": true, "first_k_dense_replace": 3, "moe_layer_freq": 1,
        "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "vocab_size": 129280, "max_position_embeddings": 163840,
        "rms_norm_eps": 1e-6, "rope_theta": 10000,
        "rope_scaling": {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
                         "mscale": 1.0, "mscale_all_dim": 1.0,
                         "original_max_position_embeddings": 4096},
        "torch_dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3",
                                "weight_block_size": [128, 128]},
        "bos_token_id": 0, "eos_token_id": 1})},
};
// clang-format on

#define N_PRESETS (sizeof presets / sizeof *presets)

const char *presets_name(size_t i)
{
    return i < N_PRESETS ? presets[i].name : NULL;
}

static const struct preset *find(const char *name, size_t len)
{
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (strlen(presets[i].name) == len && memcmp(presets[i].name, name, len) == 0) {
            return &presets[i];
        }
    }
    return NULL;
}

/* "...-12l" is 12, with the length of what is before it; else 0. */
static int layers_suffix(const char *name, size_t *len)
{
    const char *dash = strrchr(name, '-');
    if (!dash || dash[1] < '1' || dash[1] > '9') {
        return 0;
    }
    char *end;
    long n = strtol(dash + 1, &end, 10);
    if (strcmp(end, "l") != 0 || n > 9999) {
        return 0;
    }
    *len = (size_t)(dash - name);
    return (int)n;
}

int presets_find(const char *name, const char **config, int *n_layers, struct err *e)
{
    size_t len = strlen(name);
    const struct preset *p = find(name, len);
    int n = p ? 0 : layers_suffix(name, &len);
    p = p ? p : find(name, len);
    if (p) {
        *config = p->config;
        *n_layers = n;
        return 0;
    }
    struct str known = {0};
    for (size_t i = 0; i < N_PRESETS; i++) {
        str_printf(&known, "%s%s", i ? ", " : "", presets[i].name);
    }
    err_set(e, ERR_INPUT,
            "model preset:%.64s: no such preset; there are %s (NAME-Nl: its first N layers)", name,
            known.data);
    str_free(&known);
    return -1;
}
