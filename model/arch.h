/*
 * What a model is, as data: one struct of dimensions and flags read from a Hugging Face config.json
 * or from a preset's table. There is one layer driver for all families (workers/layers.h); a family
 * is a way to fill this struct, never code of its own. Formulas: the families' config classes in
 * huggingface/transformers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define ARCH_MAX_LAYERS 1024
#define ARCH_N_DTYPES   7

/* How values are stored. */
enum arch_dtype {
    ARCH_F32,
    ARCH_BF16,
    ARCH_F16,
    ARCH_FP8,   // e4m3 with a float32 factor per block of 128 x 128 (DeepSeek-V3)
    ARCH_MXFP4, // e2m1 with a power of two per 32 values of a row (OCP MX 1.0, gpt-oss)
    ARCH_INT8,  // 32 values of a row share a float16 factor: GGUF's Q8_0, and int8 made at load
    ARCH_INT4,  // likewise, values - 8: GGUF's Q4_0, and int4 made at load
};

enum arch_rope {
    ARCH_ROPE_DEFAULT,
    ARCH_ROPE_LLAMA3, // wavelength-dependent scaling (Llama 3.1)
    ARCH_ROPE_YARN,   // Peng et al. 2023 (gpt-oss, DeepSeek-V3)
};

enum arch_activation {
    ARCH_SILU,         // silu(gate) * up
    ARCH_GELU_TANH,    // gelu_tanh(gate) * up
    ARCH_SWIGLU_CLAMP, // gate, up clamped; (up + 1) * gate * sigmoid(1.702 gate) (gpt-oss)
};

#define ARCH_MAX_EXPERTS     1024
#define ARCH_MAX_TOP_EXPERTS 64 // that a token takes

/* How a router turns its scores into experts and their weights. */
enum arch_router {
    ARCH_ROUTER_SOFTMAX, // the top_k largest logits, softmax over those (gpt-oss)
    ARCH_ROUTER_GROUPS,  // sigmoid, correction bias, best groups first (DeepSeek-V3)
};

struct arch {
    char family[32]; // "llama", "qwen2", "gemma2", "gpt_oss", "deepseek_v3"
    int n_layers;
    int hidden;       // H
    int intermediate; // I, of dense MLPs
    int n_heads;      // query heads
    int n_kv_heads;   // n_heads % n_kv_heads == 0
    int head_dim;     // D of queries and keys; with latent attention nope_dim + rope_dim
    int v_dim;        // of values; head_dim but with latent attention
    int vocab;        // V
    int max_context;  // positions: prompt + output of one request

    float rms_eps;
    bool norm_plus_one; // norms multiply by 1 + w (Gemma-2)
    bool norm_rounds; // x / rms is rounded to bfloat16 before it meets w; not of F32 models (Llama)
    bool post_norms;  // attention and MLP outputs are normed before they are added (Gemma-2)
    float embed_scale; // of embeddings; 1 but with Gemma-2
    enum arch_activation activation;
    float logit_softcap; // c tanh(z / c) on logits; 0: none

    float attn_scale;              // of scores
    float attn_softcap;            // c tanh(s / c) on scaled scores, before the mask; 0: none
    bool attn_sinks;               // one more logit per head in the softmax's denominator
    bool qkv_bias, o_bias;         //
    int window;                    // a sliding layer's token sees this many, itself included
    bool sliding[ARCH_MAX_LAYERS]; // which layers slide

    enum arch_rope rope;
    double rope_theta;
    int rope_dim;          // rotated dimensions: the last of a head
    bool rope_interleaved; // pairs (2j, 2j + 1) instead of (j, j + rope_dim / 2)
    struct {
        double factor, low, high; // low_freq_factor, high_freq_factor
        int original_context;
    } rope_llama3;
    struct {
        double factor, beta_fast, beta_slow;
        double attention_factor; // of cos and sin, resolved
        int original_context;
        bool truncate;
    } rope_yarn;

    /* Latent attention (MLA): kv_rank > 0. The cache holds kv_rank + rope_dim values a token and layer. */
    struct {
        int q_rank; // 0: queries come straight from the hidden state
        int kv_rank;
        int nope_dim; // of a head's query and key, not rotated
    } latent;

    /* Mixture of experts: n_experts > 0, in layers from first_layer on. */
    struct {
        int n_experts, top_k;
        int intermediate; // of one expert
        int n_shared;     // experts that every token takes, as one MLP of n_shared * intermediate
        int first_layer;
        enum arch_router router;
        int n_groups, top_groups; // ARCH_ROUTER_GROUPS
        bool normalise;           // weights are divided by their sum
        float scale;              // of weights, thereafter
        bool bias;                // of router and experts (gpt-oss)
    } moe;

    bool tied_embedding;          // lm_head shares model.embed_tokens.weight
    enum arch_dtype dtype;        // of the weights as stored
    enum arch_dtype linear_dtype; // of the layers' matrices: dtype, or ARCH_FP8 (DeepSeek-V3)
    enum arch_dtype expert_dtype; // of the experts' matrices: linear_dtype, or ARCH_MXFP4 (gpt-oss)
    int bos_id, eos_ids[8], n_eos; // bos -1 when absent
};

static inline bool arch_is_moe(const struct arch *a, int layer)
{
    return a->moe.n_experts > 0 && layer >= a->moe.first_layer;
}

static inline bool arch_is_latent(const struct arch *a)
{
    return a->latent.kv_rank > 0;
}

/* What hidden states are rounded to at the end of each layer, and go as from stage to stage. */
static inline enum arch_dtype arch_carried(const struct arch *a)
{
    return a->dtype == ARCH_F32 ? ARCH_F32 : ARCH_BF16;
}

/* Bytes of n tokens' hidden states on their way. */
static inline size_t arch_carried_bytes(const struct arch *a, size_t n_tokens)
{
    return n_tokens * (size_t)a->hidden * (arch_carried(a) == ARCH_F32 ? 4 : 2);
}

/* Positions that a token of this layer sees at most, itself included; 0: all before it. */
static inline int arch_window(const struct arch *a, int layer)
{
    return a->sliding[layer] ? a->window : 0;
}

/*
 * Fill from config.json text, in the spelling of today's transformers or of published files. What is
 * absent has the family's defaults where transformers has them; what the engine would silently get
 * wrong is refused. ERR_INPUT: one line that names the key and what is allowed.
 */
int arch_parse(const char *json, size_t len, const char *where, struct arch *a,
               struct err *e) ERR_CHECKED;

/*
 * Resolve a model name: a folder in Hugging Face layout, a file whose name ends in ".gguf"
 * (model/gguf_arch.h), or "preset:NAME" (model/presets.h), which has random weights (workers/weights)
 * and no tokenizer.
 */
int arch_open(const char *model, struct arch *a, struct err *e) ERR_CHECKED;

/* "bf16", "mxfp4": as settings and results call it. */
const char *arch_dtype_name(enum arch_dtype dtype);

bool arch_is_preset(const char *model);
bool arch_is_gguf(const char *model);
bool arch_is_folder(const char *model); // neither: the one kind that has a tokenizer.json

/* Fill what is still zero with what follows from the rest, as in a plain decoder of the Llama kind. */
void arch_resolve(struct arch *a);

/* yarn's m(factor, k) = 0.1 k ln(factor) + 1, 1 where nothing grew (Peng et al. 2023, 3.4). */
double arch_yarn_mscale(double factor, double k);

/* Gemma-2's factor of embeddings: sqrt(hidden), rounded to a's dtype as the trained models have it. */
float arch_embed_scale(const struct arch *a);
