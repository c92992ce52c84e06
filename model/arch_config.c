#include "model/arch_config.h"

#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_CONTEXT (1 << 24)
#define get         config_reader_get

struct family {
    const char *name;
    double rms_eps, rope_theta; // where the config leaves them out
    int head_dim;               // likewise; 0: hidden / heads
    bool tied_embedding;        // likewise
    bool norm_rounds;           // in bfloat16
    int (*read)(const struct config_reader *r, struct arch *a);
};

/* --- what all have ---------------------------------------------------------------------------- */

static int read_sizes(const struct config_reader *r, struct arch *a)
{
    const json_t *o = r->root;
    if (config_reader_int(r, o, "num_hidden_layers", 1, ARCH_MAX_LAYERS, NULL, &a->n_layers) ||
        config_reader_int(r, o, "hidden_size", 4, 1 << 17, NULL, &a->hidden) ||
        config_reader_int(r, o, "intermediate_size", 1, 1 << 20, NULL, &a->intermediate) ||
        config_reader_int(r, o, "num_attention_heads", 1, 1024, NULL, &a->n_heads) ||
        config_reader_int(r, o, "num_key_value_heads", 1, 1024, &a->n_heads, &a->n_kv_heads) ||
        config_reader_int(r, o, "vocab_size", 1, 1 << 24, NULL, &a->vocab) ||
        config_reader_int(r, o, "max_position_embeddings", 1, MAX_CONTEXT, NULL, &a->max_context)) {
        return -1;
    }
    if (a->n_heads % a->n_kv_heads != 0) {
        return err_set(r->e, ERR_INPUT,
                       "%s: num_attention_heads %d is not a multiple of num_key_value_heads %d",
                       r->where, a->n_heads, a->n_kv_heads);
    }
    return 0;
}

static int read_head_dim(const struct config_reader *r, int family_default, struct arch *a)
{
    int def = family_default ? family_default : a->hidden / a->n_heads;
    bool has_default = family_default || a->hidden % a->n_heads == 0;
    if (config_reader_int(r, r->root, "head_dim", 2, 1024, has_default ? &def : NULL,
                          &a->head_dim)) {
        return -1;
    }
    if (a->head_dim % 2 != 0) {
        return err_set(r->e, ERR_INPUT, "%s: head_dim %d must be even and from 2 to 1024", r->where,
                       a->head_dim);
    }
    return 0;
}

static int read_dtype(const struct config_reader *r, struct arch *a)
{
    static const struct {
        const char *name;
        enum arch_dtype dtype;
    } known[] = {{"float32", ARCH_F32}, {"bfloat16", ARCH_BF16}, {"float16", ARCH_F16}};
    const json_t *v = get(r->root, "torch_dtype");
    if (!v) {
        v = get(r->root, "dtype");
    }
    const char *name = v ? json_string_value(v) : "float32";
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) {
            a->dtype = known[i].dtype;
            return 0;
        }
    }
    return err_set(r->e, ERR_INPUT,
                   "%s: torch_dtype \"%.32s\": float32, bfloat16 or float16 wanted", r->where,
                   name ? name : "(not text)");
}

static int read_id(const struct config_reader *r, const char *key, const json_t *v, int vocab,
                   int *id)
{
    // Some published configs name an id of -1 or just past the vocabulary for "none".
    if (!json_is_integer(v)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be a token id", r->where, key);
    }
    json_int_t i = json_integer_value(v);
    *id = i >= 0 && i < vocab ? (int)i : -1;
    return 0;
}

static int read_ids(const struct config_reader *r, struct arch *a)
{
    a->bos_id = -1;
    const json_t *bos = get(r->root, "bos_token_id");
    if (bos && read_id(r, "bos_token_id", bos, a->vocab, &a->bos_id)) {
        return -1;
    }
    const json_t *eos = get(r->root, "eos_token_id");
    if (!eos) {
        return 0;
    }
    const size_t max = sizeof a->eos_ids / sizeof *a->eos_ids;
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    if (n > max) {
        return err_set(r->e, ERR_INPUT, "%s: eos_token_id has %zu ids; at most %zu", r->where, n,
                       max);
    }
    for (size_t i = 0; i < n; i++) {
        int id;
        const json_t *v = json_is_array(eos) ? json_array_get(eos, i) : eos;
        if (read_id(r, "eos_token_id", v, a->vocab, &id)) {
            return -1;
        }
        if (id >= 0) {
            a->eos_ids[a->n_eos++] = id;
        }
    }
    return 0;
}

/* --- rotary embedding ------------------------------------------------------------------------- */

static int read_original_context(const struct config_reader *r, const json_t *o,
                                 const struct arch *a, int *out)
{
    const char *key = "original_max_position_embeddings";
    return config_reader_int(r, get(o, key) ? o : r->root, key, 1, MAX_CONTEXT, &a->max_context,
                             out);
}

static int read_llama3(const struct config_reader *r, const json_t *o, struct arch *a)
{
    if (config_reader_number(r, o, "factor", 0, 1e6, NULL, &a->rope_llama3.factor) ||
        config_reader_number(r, o, "low_freq_factor", 0, 1e6, NULL, &a->rope_llama3.low) ||
        config_reader_number(r, o, "high_freq_factor", 0, 1e6, NULL, &a->rope_llama3.high) ||
        read_original_context(r, o, a, &a->rope_llama3.original_context)) {
        return -1;
    }
    if (a->rope_llama3.high <= a->rope_llama3.low) {
        return err_set(r->e, ERR_INPUT, "%s: high_freq_factor must be above low_freq_factor",
                       r->where);
    }
    a->rope = ARCH_ROPE_LLAMA3;
    return 0;
}

/* Of cos and sin: given, or from the factor by which the context grew (Peng et al. 2023, 3.4). */
static int read_attention_factor(const struct config_reader *r, const json_t *o, struct arch *a)
{
    const double none = 0, factor = a->rope_yarn.factor;
    double mscale, mscale_all_dim;
    if (config_reader_number(r, o, "mscale", -1, 100, &none, &mscale) ||
        config_reader_number(r, o, "mscale_all_dim", -1, 100, &none, &mscale_all_dim)) {
        return -1;
    }
    double def = mscale > 0 && mscale_all_dim > 0
                     ? arch_yarn_mscale(factor, mscale) / arch_yarn_mscale(factor, mscale_all_dim)
                     : arch_yarn_mscale(factor, 1);
    if (arch_is_latent(a) && mscale_all_dim > 0) {
        double m = arch_yarn_mscale(factor, mscale_all_dim);
        a->attn_scale = (float)(m * m / sqrt(a->head_dim));
    }
    return config_reader_number(r, o, "attention_factor", 0, 1e3, &def,
                                &a->rope_yarn.attention_factor);
}

static int read_yarn(const struct config_reader *r, const json_t *o, struct arch *a)
{
    const double fast = 32, slow = 1;
    if (read_original_context(r, o, a, &a->rope_yarn.original_context)) {
        return -1;
    }
    const double grown = (double)a->max_context / a->rope_yarn.original_context;
    const bool has_factor = json_object_get(o, "factor") && !get(o, "factor"); // null: as it grew
    if (config_reader_number(r, o, "factor", 0, 1e6, has_factor ? &grown : NULL,
                             &a->rope_yarn.factor) ||
        config_reader_number(r, o, "beta_fast", 0, 1e6, &fast, &a->rope_yarn.beta_fast) ||
        config_reader_number(r, o, "beta_slow", 0, 1e6, &slow, &a->rope_yarn.beta_slow) ||
        config_reader_bool(r, o, "truncate", true, &a->rope_yarn.truncate) ||
        read_attention_factor(r, o, a)) {
        return -1;
    }
    if (a->rope_yarn.beta_fast <= a->rope_yarn.beta_slow) {
        return err_set(r->e, ERR_INPUT, "%s: beta_fast must be above beta_slow", r->where);
    }
    if (a->rope_theta <= 1) {
        return err_set(r->e, ERR_INPUT, "%s: rope_theta must be above 1 with yarn", r->where);
    }
    a->rope = ARCH_ROPE_YARN;
    return 0;
}

static int read_scaling(const struct config_reader *r, const json_t *o, const char *key,
                        struct arch *a)
{
    if (!json_is_object(o)) {
        return err_set(r->e, ERR_INPUT, "%s: %s must be an object", r->where, key);
    }
    if (get(o, "full_attention") || get(o, "sliding_attention")) {
        return err_set(r->e, ERR_INPUT, "%s: %s per kind of layer is not supported", r->where, key);
    }
    const double outer = a->rope_theta;
    if (config_reader_number(r, o, "rope_theta", 0, 1e12, &outer, &a->rope_theta) ||
        config_reader_only_number(r, o, "partial_rotary_factor", 1)) {
        return -1;
    }
    const json_t *type = get(o, "rope_type");
    if (!type) {
        type = get(o, "type");
    }
    const char *name = type ? json_string_value(type) : "default";
    if (name && strcmp(name, "default") == 0) {
        return 0;
    }
    if (name && strcmp(name, "llama3") == 0) {
        return read_llama3(r, o, a);
    }
    if (name && strcmp(name, "yarn") == 0) {
        return read_yarn(r, o, a);
    }
    return err_set(r->e, ERR_INPUT, "%s: unknown rope_type \"%.64s\"; known: default, llama3, yarn",
                   r->where, name ? name : "(not text)");
}

/* Newer configs have everything in rope_parameters, older ones rope_theta beside rope_scaling. */
static int read_rope(const struct config_reader *r, double default_theta, struct arch *a)
{
    if (config_reader_number(r, r->root, "rope_theta", 0, 1e12, &default_theta, &a->rope_theta) ||
        config_reader_only_number(r, r->root, "partial_rotary_factor", 1)) {
        return -1;
    }
    const char *key = get(r->root, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    const json_t *o = get(r->root, key);
    return o ? read_scaling(r, o, key, a) : 0;
}

/* --- sliding layers --------------------------------------------------------------------------- */

static int read_layer_types(const struct config_reader *r, const json_t *types, struct arch *a)
{
    if (!json_is_array(types) || json_array_size(types) != (size_t)a->n_layers) {
        return err_set(r->e, ERR_INPUT, "%s: layer_types must be a list of %d, one for each layer",
                       r->where, a->n_layers);
    }
    for (int i = 0; i < a->n_layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        a->sliding[i] = type && strcmp(type, "sliding_attention") == 0;
        if (!a->sliding[i] && (!type || strcmp(type, "full_attention") != 0)) {
            return err_set(r->e, ERR_INPUT,
                           "%s: layer_types[%d] is \"%.32s\"; full_attention or sliding_attention "
                           "wanted",
                           r->where, i, type ? type : "(not text)");
        }
    }
    return 0;
}

static bool any_slides(const struct arch *a)
{
    for (int i = 0; i < a->n_layers; i++) {
        if (a->sliding[i]) {
            return true;
        }
    }
    return false;
}

/* Without layer_types every second layer slides from `first` on (step 2), or all of them (step 1). */
static int read_sliding(const struct config_reader *r, int first, int step, const int *def_window,
                        struct arch *a)
{
    const json_t *types = get(r->root, "layer_types");
    for (int i = first; !types && i < a->n_layers; i += step) {
        a->sliding[i] = true;
    }
    if (types && read_layer_types(r, types, a)) {
        return -1;
    }
    if (!any_slides(a)) {
        return 0;
    }
    if (json_is_null(json_object_get(r->root, "sliding_window"))) {
        def_window = NULL; // null says there is none, yet layers slide
    }
    return config_reader_int(r, r->root, "sliding_window", 1, MAX_CONTEXT, def_window, &a->window);
}

/* --- quantised weights ------------------------------------------------------------------------ */

/* Modules that stay as they are: any but those in `forbidden`, whose format the family fixes. */
static int check_kept_modules(const struct config_reader *r, const json_t *q, const char *forbidden)
{
    const json_t *list = get(q, "modules_to_not_convert");
    if (list && !json_is_array(list)) {
        return err_set(r->e, ERR_INPUT,
                       "%s: quantization_config.modules_to_not_convert must be a list", r->where);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name || strstr(name, forbidden)) {
            return err_set(r->e, ERR_INPUT,
                           "%s: quantization_config.modules_to_not_convert: \"%.64s\" is not "
                           "supported",
                           r->where, name ? name : "(not text)");
        }
    }
    return 0;
}

static int read_fp8(const struct config_reader *r, const json_t *q, struct arch *a)
{
    const json_t *block = get(q, "weight_block_size");
    if (json_array_size(block) != 2 || json_integer_value(json_array_get(block, 0)) != 128 ||
        json_integer_value(json_array_get(block, 1)) != 128) {
        return err_set(r->e, ERR_INPUT,
                       "%s: quantization_config.weight_block_size must be [128, 128]", r->where);
    }
    a->linear_dtype = ARCH_FP8;
    return config_reader_only_text(r, q, "fmt", "e4m3") || check_kept_modules(r, q, "_proj");
}

static int read_quantisation(const struct config_reader *r, struct arch *a)
{
    const json_t *q = get(r->root, "quantization_config");
    if (!q) {
        return 0;
    }
    const char *method = json_string_value(get(q, "quant_method"));
    if (method && strcmp(method, "fp8") == 0 && strcmp(a->family, "deepseek_v3") == 0) {
        return read_fp8(r, q, a);
    }
    if (method && strcmp(method, "mxfp4") == 0 && strcmp(a->family, "gpt_oss") == 0) {
        a->expert_dtype = ARCH_MXFP4;
        if (a->hidden % 32 != 0 || a->moe.intermediate % 32 != 0) {
            return err_set(r->e, ERR_INPUT,
                           "%s: hidden_size and intermediate_size must be multiples of 32 with "
                           "mxfp4",
                           r->where);
        }
        return check_kept_modules(r, q, "experts");
    }
    return err_set(r->e, ERR_INPUT,
                   "%s: quantization_config.quant_method \"%.32s\" is not supported for %s; fp8 is "
                   "for deepseek_v3, mxfp4 for gpt_oss",
                   r->where, method ? method : "(not text)", a->family);
}

/* --- families --------------------------------------------------------------------------------- */

static int read_llama(const struct config_reader *r, struct arch *a)
{
    if (config_reader_only_bool(r, r->root, "mlp_bias", false) ||
        config_reader_only_text(r, r->root, "hidden_act", "silu") ||
        config_reader_bool(r, r->root, "attention_bias", false, &a->qkv_bias)) {
        return -1;
    }
    a->o_bias = a->qkv_bias;
    return 0;
}

static int read_qwen2(const struct config_reader *r, struct arch *a)
{
    bool slides;
    const int first = 28, window = 4096;
    int full;
    if (config_reader_only_text(r, r->root, "hidden_act", "silu") ||
        config_reader_bool(r, r->root, "use_sliding_window", false, &slides) ||
        config_reader_int(r, r->root, "max_window_layers", 0, MAX_CONTEXT, &first, &full)) {
        return -1;
    }
    a->qkv_bias = true;
    if (slides) {
        return read_sliding(r, full, 1, &window, a);
    }
    const json_t *types = get(r->root, "layer_types");
    if (types && read_layer_types(r, types, a)) {
        return -1;
    }
    if (any_slides(a)) {
        return err_set(r->e, ERR_INPUT,
                       "%s: layer_types has sliding layers, use_sliding_window is false", r->where);
    }
    return 0;
}

/* A soft-capping of null is none; absent, the default. */
static int read_softcap(const struct config_reader *r, const char *key, double def, float *out)
{
    double none = json_is_null(json_object_get(r->root, key)) ? 0 : def, cap;
    if (config_reader_number(r, r->root, key, 0, 1e6, &none, &cap)) {
        return -1;
    }
    *out = (float)cap;
    return 0;
}

static int read_gemma2(const struct config_reader *r, struct arch *a)
{
    const double head = 256;
    const int window = 4096;
    double scalar;
    const char *act = get(r->root, "hidden_activation") ? "hidden_activation" : "hidden_act";
    if (config_reader_only_text(r, r->root, act, "gelu_pytorch_tanh") ||
        config_reader_only_bool(r, r->root, "use_bidirectional_attention", false) ||
        config_reader_number(r, r->root, "query_pre_attn_scalar", 0, 1e6, &head, &scalar) ||
        read_softcap(r, "attn_logit_softcapping", 50, &a->attn_softcap) ||
        read_softcap(r, "final_logit_softcapping", 30, &a->logit_softcap) ||
        config_reader_bool(r, r->root, "attention_bias", false, &a->qkv_bias) ||
        read_sliding(r, 0, 2, &window, a)) {
        return -1;
    }
    a->o_bias = a->qkv_bias;
    a->norm_plus_one = a->post_norms = true;
    a->attn_scale = (float)(1 / sqrt(scalar));
    a->embed_scale = arch_embed_scale(a);
    a->activation = ARCH_GELU_TANH;
    return 0;
}

static int read_top_k(const struct config_reader *r, struct arch *a)
{
    const int most =
        a->moe.n_experts < ARCH_MAX_TOP_EXPERTS ? a->moe.n_experts : ARCH_MAX_TOP_EXPERTS;
    return config_reader_int(r, r->root, "num_experts_per_tok", 1, most, NULL, &a->moe.top_k);
}

static int read_gpt_oss(const struct config_reader *r, struct arch *a)
{
    const json_t *o = r->root;
    const int window = 128;
    if (!get(o, "rope_parameters") && !get(o, "rope_scaling")) {
        return err_set(r->e, ERR_INPUT, "%s: rope_scaling is missing", r->where);
    }
    if (config_reader_int(r, o, "num_local_experts", 1, ARCH_MAX_EXPERTS, NULL,
                          &a->moe.n_experts) ||
        read_top_k(r, a) || config_reader_only_text(r, o, "hidden_act", "silu") ||
        config_reader_only_number(r, o, "swiglu_limit", 7) ||
        config_reader_only_number(r, o, "swiglu_alpha", 1.702) ||
        config_reader_bool(r, o, "attention_bias", true, &a->qkv_bias) ||
        read_sliding(r, 0, 2, &window, a)) {
        return -1;
    }
    a->o_bias = a->qkv_bias;
    a->attn_sinks = true;
    a->activation = ARCH_SWIGLU_CLAMP;
    a->moe.intermediate = a->intermediate;
    a->moe.router = ARCH_ROUTER_SOFTMAX;
    a->moe.scale = 1;
    a->moe.bias = true;
    return 0;
}

static int read_latent(const struct config_reader *r, struct arch *a)
{
    const json_t *o = r->root, *q_rank = json_object_get(o, "q_lora_rank");
    const int none = 0;
    if (config_reader_int(r, o, "q_lora_rank", json_is_null(q_rank) ? 0 : 1, 1 << 16,
                          json_is_null(q_rank) ? &none : NULL, &a->latent.q_rank) ||
        config_reader_int(r, o, "kv_lora_rank", 1, 1 << 16, NULL, &a->latent.kv_rank) ||
        config_reader_int(r, o, "qk_nope_head_dim", 1, 1024, NULL, &a->latent.nope_dim) ||
        config_reader_int(r, o, "qk_rope_head_dim", 2, 1024, NULL, &a->rope_dim) ||
        config_reader_int(r, o, "v_head_dim", 1, 1024, NULL, &a->v_dim) ||
        config_reader_bool(r, o, "rope_interleave", true, &a->rope_interleaved)) {
        return -1;
    }
    if (a->rope_dim % 2 != 0) {
        return err_set(r->e, ERR_INPUT, "%s: qk_rope_head_dim %d must be even", r->where,
                       a->rope_dim);
    }
    if (a->n_kv_heads != a->n_heads) {
        return err_set(r->e, ERR_INPUT,
                       "%s: num_key_value_heads must be num_attention_heads, %d, with latent "
                       "attention",
                       r->where, a->n_heads);
    }
    a->head_dim = a->latent.nope_dim + a->rope_dim;
    return 0;
}

static int check_groups(const struct config_reader *r, const struct arch *a)
{
    int experts = a->moe.n_experts, groups = a->moe.n_groups;
    if (experts % groups != 0 || experts / groups < 2) {
        return err_set(r->e, ERR_INPUT,
                       "%s: n_routed_experts %d must be a multiple of n_group %d, two or more each",
                       r->where, experts, groups);
    }
    if (a->moe.top_k > a->moe.top_groups * (experts / groups)) {
        return err_set(r->e, ERR_INPUT,
                       "%s: num_experts_per_tok %d is more than topk_group %d groups hold",
                       r->where, a->moe.top_k, a->moe.top_groups);
    }
    return 0;
}

static int read_deepseek_experts(const struct config_reader *r, struct arch *a)
{
    const json_t *o = r->root;
    double scale;
    if (config_reader_int(r, o, "n_routed_experts", 1, ARCH_MAX_EXPERTS, NULL, &a->moe.n_experts) ||
        read_top_k(r, a) ||
        config_reader_int(r, o, "moe_intermediate_size", 1, 1 << 17, NULL, &a->moe.intermediate) ||
        config_reader_int(r, o, "n_shared_experts", 0, 8, NULL, &a->moe.n_shared) ||
        config_reader_int(r, o, "first_k_dense_replace", 0, a->n_layers, NULL,
                          &a->moe.first_layer) ||
        config_reader_int(r, o, "n_group", 1, a->moe.n_experts, NULL, &a->moe.n_groups) ||
        config_reader_int(r, o, "topk_group", 1, a->moe.n_groups, NULL, &a->moe.top_groups) ||
        config_reader_bool(r, o, "norm_topk_prob", true, &a->moe.normalise) ||
        config_reader_number(r, o, "routed_scaling_factor", 0, 1e6, NULL, &scale) ||
        config_reader_only_number(r, o, "moe_layer_freq", 1) ||
        config_reader_only_text(r, o, "scoring_func", "sigmoid") ||
        config_reader_only_text(r, o, "topk_method", "noaux_tc")) {
        return -1;
    }
    a->moe.router = ARCH_ROUTER_GROUPS;
    a->moe.scale = (float)scale;
    return check_groups(r, a);
}

static int read_deepseek(const struct config_reader *r, struct arch *a)
{
    if (config_reader_only_text(r, r->root, "hidden_act", "silu") ||
        config_reader_only_bool(r, r->root, "attention_bias", false)) {
        return -1;
    }
    return read_latent(r, a) || read_deepseek_experts(r, a) ? -1 : 0;
}

static const struct family families[] = {
    {"llama", 1e-6, 10000, 0, false, true, read_llama},
    {"qwen2", 1e-6, 10000, 0, false, true, read_qwen2},
    {"gemma2", 1e-6, 10000, 256, true, false, read_gemma2},
    {"gpt_oss", 1e-5, 150000, 64, false, false, read_gpt_oss},
    {"deepseek_v3", 1e-6, 10000, 2, false, true, read_deepseek}, // its heads are latent
};

static const struct family *read_family(const struct config_reader *r, struct arch *a)
{
    const char *type = json_string_value(get(r->root, "model_type"));
    char known[128] = "";
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const struct family *f = &families[i];
        if (type && strcmp(type, f->name) == 0) {
            snprintf(a->family, sizeof a->family, "%s", type);
            return f;
        }
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", f->name);
    }
    if (type) {
        err_set(r->e, ERR_INPUT, "%s: unknown model_type \"%.64s\"; known: %s", r->where, type,
                known);
    } else {
        err_set(r->e, ERR_INPUT, "%s: model_type is missing", r->where);
    }
    return NULL;
}

int arch_config_read(const struct config_reader *r, struct arch *a)
{
    if (!json_is_object(r->root)) {
        return err_set(r->e, ERR_INPUT, "%s: not a JSON object", r->where);
    }
    const struct family *f = read_family(r, a);
    double eps;
    if (!f || read_sizes(r, a) || read_dtype(r, a) || read_ids(r, a) ||
        config_reader_bool(r, r->root, "tie_word_embeddings", f->tied_embedding,
                           &a->tied_embedding) ||
        config_reader_number(r, r->root, "rms_norm_eps", 0, 1, &f->rms_eps, &eps)) {
        return -1;
    }
    a->rms_eps = (float)eps;
    a->norm_rounds = f->norm_rounds && arch_carried(a) != ARCH_F32;
    bool latent = f->read == read_deepseek;
    if ((!latent && read_head_dim(r, f->head_dim, a)) || f->read(r, a) ||
        read_rope(r, f->rope_theta, a) || read_quantisation(r, a)) {
        return -1;
    }
    arch_resolve(a);
    return 0;
}
