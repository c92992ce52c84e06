#include "model/gguf_arch.h"

#include "model/arch_config.h"

#include <jansson.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Llama 3.1's scaling is stored as its effect alone, in a tensor; these make it. */
#define LLAMA3_LOW      1
#define LLAMA3_HIGH     4
#define LLAMA3_ORIGINAL 8192

struct translation {
    const struct gguf *g;
    const char *arch; // of the file
    json_t *config;
    struct err *e;
};

enum kind {
    WHOLE,
    NUMBER,
    FLAG,
};

/* Keys with the architecture's name before them, and what config.json calls them. */
static const struct {
    const char *from, *to;
    enum kind kind;
} keys[] = {
    {"block_count", "num_hidden_layers", WHOLE},
    {"context_length", "max_position_embeddings", WHOLE},
    {"embedding_length", "hidden_size", WHOLE},
    {"feed_forward_length", "intermediate_size", WHOLE},
    {"attention.head_count", "num_attention_heads", WHOLE},
    {"attention.head_count_kv", "num_key_value_heads", WHOLE},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", NUMBER},
    {"attention.sliding_window", "sliding_window", WHOLE},
    {"attn_logit_softcapping", "attn_logit_softcapping", NUMBER},
    {"final_logit_softcapping", "final_logit_softcapping", NUMBER},
    {"rope.freq_base", "rope_theta", NUMBER},
    {"expert_count", "num_local_experts", WHOLE},
    {"expert_count", "n_routed_experts", WHOLE},
    {"expert_used_count", "num_experts_per_tok", WHOLE},
    {"expert_feed_forward_length", "moe_intermediate_size", WHOLE},
    {"expert_shared_count", "n_shared_experts", WHOLE},
    {"expert_group_count", "n_group", WHOLE},
    {"expert_group_used_count", "topk_group", WHOLE},
    {"expert_weights_scale", "routed_scaling_factor", NUMBER},
    {"expert_weights_norm", "norm_topk_prob", FLAG},
    {"leading_dense_block_count", "first_k_dense_replace", WHOLE},
    {"attention.q_lora_rank", "q_lora_rank", WHOLE},
    {"attention.kv_lora_rank", "kv_lora_rank", WHOLE},
    {"rope.dimension_count", "qk_rope_head_dim", WHOLE},
};

static const char *const families[][2] = {
    {"llama", "llama"},     {"qwen2", "qwen2"},           {"gemma2", "gemma2"},
    {"gpt-oss", "gpt_oss"}, {"deepseek2", "deepseek_v3"},
};

static void key_of(const struct translation *t, const char *key, char out[128])
{
    snprintf(out, 128, "%s.%s", t->arch, key);
}

static bool whole(const struct translation *t, const char *key, int64_t *out)
{
    char full[128];
    key_of(t, key, full);
    return gguf_int(t->g, full, out);
}

static bool number(const struct translation *t, const char *key, double *out)
{
    char full[128];
    key_of(t, key, full);
    return gguf_number(t->g, full, out);
}

static void put(const struct translation *t, const char *key, json_t *v)
{
    json_object_set_new(t->config, key, v);
}

static int wrong_kind(const struct translation *t, const char *key, const char *wanted)
{
    return err_set(t->e, ERR_INPUT, "%s: metadata %s: %s wanted", gguf_where(t->g), key, wanted);
}

static int translate_keys(const struct translation *t)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char full[128];
        int64_t n;
        double d;
        bool b;
        key_of(t, keys[i].from, full);
        if (!gguf_has(t->g, full)) {
            continue;
        }
        if (keys[i].kind == WHOLE && gguf_int(t->g, full, &n)) {
            put(t, keys[i].to, json_integer(n));
        } else if (keys[i].kind == NUMBER && gguf_number(t->g, full, &d) && isfinite(d)) {
            put(t, keys[i].to, json_real(d));
        } else if (keys[i].kind == FLAG && gguf_bool(t->g, full, &b)) {
            put(t, keys[i].to, json_boolean(b));
        } else {
            return wrong_kind(t, full,
                              keys[i].kind == WHOLE    ? "one whole number"
                              : keys[i].kind == NUMBER ? "a number"
                                                       : "true or false");
        }
    }
    return 0;
}

/* The text ends with its own token, and with those that end a turn of a chat. */
static int translate_ids(const struct translation *t)
{
    static const char *const ids[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                         {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                                         {"tokenizer.ggml.eot_token_id", "eos_token_id"},
                                         {"tokenizer.ggml.eom_token_id", "eos_token_id"}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        int64_t n;
        if (!gguf_has(t->g, ids[i][0])) {
            continue;
        }
        if (!gguf_int(t->g, ids[i][0], &n)) {
            return wrong_kind(t, ids[i][0], "a token id");
        }
        json_t *list = json_object_get(t->config, ids[i][1]);
        if (i == 0) {
            put(t, ids[i][1], json_integer(n));
        } else if (list) {
            json_array_append_new(list, json_integer(n));
        } else {
            put(t, ids[i][1], json_pack("[I]", (json_int_t)n));
        }
    }
    return 0;
}

static const struct gguf_tensor *need(const struct translation *t, const char *name)
{
    const struct gguf_tensor *found = gguf_find(t->g, name);
    if (!found) {
        err_set(t->e, ERR_INPUT, "%s: tensor %s is missing", gguf_where(t->g), name);
    }
    return found;
}

static int translate_embedding(const struct translation *t)
{
    const struct gguf_tensor *embed = need(t, "token_embd.weight");
    if (!embed) {
        return -1;
    }
    put(t, "vocab_size", json_integer(embed->shape[0]));
    put(t, "tie_word_embeddings", json_boolean(!gguf_find(t->g, "output.weight")));
    put(t, "torch_dtype", json_string("float32")); // replaced by what the tensors say
    return 0;
}

static void translate_heads(const struct translation *t)
{
    int64_t dim, heads = 0, hidden = 0, layers = 0;
    bool has_heads = whole(t, "attention.head_count", &heads) && heads > 0;
    if (!whole(t, "attention.key_length", &dim) && !whole(t, "rope.dimension_count", &dim)) {
        return;
    }
    put(t, "head_dim", json_integer(dim));
    // 27b alone scales by hidden / heads, which no key says.
    bool b27 = strcmp(t->arch, "gemma2") == 0 && whole(t, "block_count", &layers) && layers == 46;
    if (b27 && has_heads && whole(t, "embedding_length", &hidden)) {
        dim = hidden / heads;
    }
    put(t, "query_pre_attn_scalar", json_integer(dim));
}

static int translate_latent(const struct translation *t)
{
    int64_t gating, key, value, rope, n;
    if (!whole(t, "expert_gating_func", &gating) || gating != 2) {
        return err_set(t->e, ERR_INPUT,
                       "%s: metadata deepseek2.expert_gating_func must be 2, sigmoid (V3 and R1)",
                       gguf_where(t->g));
    }
    if ((!whole(t, "attention.key_length_mla", &key) && !whole(t, "attention.key_length", &key)) ||
        (!whole(t, "attention.value_length_mla", &value) &&
         !whole(t, "attention.value_length", &value)) ||
        !whole(t, "rope.dimension_count", &rope)) {
        return wrong_kind(t, "deepseek2.attention",
                          "key_length, value_length, rope.dimension_count");
    }
    put(t, "qk_nope_head_dim", json_integer(key - rope));
    put(t, "v_head_dim", json_integer(value));
    // Files that keep kv_b as two tensors say one head of keys and values.
    json_object_set(t->config, "num_key_value_heads",
                    json_object_get(t->config, "num_attention_heads"));
    if (!whole(t, "attention.q_lora_rank", &n)) {
        put(t, "q_lora_rank", json_null());
    }
    if (!whole(t, "expert_group_count",
               &n)) { // older files: the groups of V3 go with its 256 experts
        bool v3 = whole(t, "expert_count", &n) && n == 256;
        put(t, "n_group", json_integer(v3 ? 8 : 1));
        put(t, "topk_group", json_integer(v3 ? 4 : 1));
    }
    return 0;
}

static int translate_yarn(const struct translation *t, json_t *scaling)
{
    static const char *const numbers[][2] = {
        {"rope.scaling.factor", "factor"},
        {"rope.scaling.yarn_beta_fast", "beta_fast"},
        {"rope.scaling.yarn_beta_slow", "beta_slow"},
    };
    double d;
    int64_t n;
    json_object_set_new(scaling, "rope_type", json_string("yarn"));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (number(t, numbers[i][0], &d) && isfinite(d)) {
            json_object_set_new(scaling, numbers[i][1], json_real(d));
        }
    }
    if (whole(t, "rope.scaling.original_context_length", &n)) {
        json_object_set_new(scaling, "original_max_position_embeddings", json_integer(n));
    }
    if (number(t, "rope.scaling.yarn_log_multiplier", &d) && isfinite(d)) { // 0.1 mscale_all_dim
        json_object_set_new(scaling, "mscale", json_real(10 * d));
        json_object_set_new(scaling, "mscale_all_dim", json_real(10 * d));
    }
    json_object_set_new(scaling, "truncate", json_boolean(strcmp(t->arch, "gpt-oss") != 0));
    return 0;
}

static float factor_at(const struct gguf_tensor *freqs, int64_t i)
{
    float f;
    memcpy(&f, (const char *)freqs->data + (size_t)i * sizeof f, sizeof f);
    return f;
}

/* By what the frequency of pair i is divided (Llama 3.1). */
static double llama3_factor(double theta, int64_t i, int64_t dim, double factor)
{
    const double wavelength = 2 * M_PI * pow(theta, 2.0 * (double)i / (double)dim);
    if (wavelength < (double)LLAMA3_ORIGINAL / LLAMA3_HIGH) {
        return 1;
    }
    if (wavelength > (double)LLAMA3_ORIGINAL / LLAMA3_LOW) {
        return factor;
    }
    const double smooth =
        (LLAMA3_ORIGINAL / wavelength - LLAMA3_LOW) / (double)(LLAMA3_HIGH - LLAMA3_LOW);
    return 1 / ((1 - smooth) / factor + smooth);
}

static int translate_llama3(const struct translation *t, const struct gguf_tensor *freqs,
                            json_t *scaling)
{
    double theta = 10000;
    (void)number(t, "rope.freq_base", &theta);
    const int64_t n = freqs->shape[0];
    const bool is_vector = freqs->n_dims == 1 && freqs->type == ARCH_F32;
    const double factor = is_vector ? (double)factor_at(freqs, n - 1) : 0;
    for (int64_t i = 0; i < n; i++) {
        const double want = llama3_factor(theta, i, 2 * n, factor);
        if (!is_vector || !(fabs((double)factor_at(freqs, i) / want - 1) < 1e-4)) {
            return err_set(t->e, ERR_INPUT,
                           "%s: tensor rope_freqs.weight is not Llama 3.1's scaling; no other is "
                           "supported",
                           gguf_where(t->g));
        }
    }
    json_object_set_new(scaling, "rope_type", json_string("llama3"));
    json_object_set_new(scaling, "factor", json_real(factor));
    json_object_set_new(scaling, "low_freq_factor", json_real(LLAMA3_LOW));
    json_object_set_new(scaling, "high_freq_factor", json_real(LLAMA3_HIGH));
    json_object_set_new(scaling, "original_max_position_embeddings", json_integer(LLAMA3_ORIGINAL));
    return 0;
}

static int translate_rope(const struct translation *t)
{
    char key[128], type[32] = "none";
    key_of(t, "rope.scaling.type", key);
    if (gguf_has(t->g, key) && !gguf_text(t->g, key, type, sizeof type)) {
        return wrong_kind(t, key, "a name");
    }
    const struct gguf_tensor *freqs = gguf_find(t->g, "rope_freqs.weight");
    json_t *scaling = json_object();
    put(t, "rope_scaling", scaling);
    if (strcmp(type, "yarn") == 0) {
        return translate_yarn(t, scaling);
    }
    if (strcmp(type, "none") != 0) {
        return err_set(t->e, ERR_INPUT, "%s: metadata %s is %s; none and yarn are supported",
                       gguf_where(t->g), key, type);
    }
    return freqs ? translate_llama3(t, freqs, scaling) : 0;
}

/* The types of tensors as struct arch has them: of the table, the layers' matrices, the experts. */
static int read_types(const struct translation *t, struct arch *a)
{
    char name[96];
    const struct gguf_tensor *embed = need(t, "token_embd.weight");
    const struct gguf_tensor *linear = need(t, "blk.0.attn_output.weight"), *experts = linear;
    const int last = a->n_layers - 1;
    if (arch_is_moe(a, last)) {
        snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", last);
        experts = need(t, name);
    }
    if (!embed || !linear || !experts) {
        return -1;
    }
    a->dtype = embed->type;
    a->linear_dtype = linear->type;
    a->expert_dtype = experts->type;
    if (strcmp(a->family, "llama") != 0 && strcmp(a->family, "gemma2") != 0) {
        return 0;
    }
    a->qkv_bias = gguf_find(t->g, "blk.0.attn_q.bias") != NULL;
    a->o_bias = gguf_find(t->g, "blk.0.attn_output.bias") != NULL;
    return 0;
}

static int translate(const struct translation *t)
{
    if (translate_keys(t) || translate_ids(t) || translate_embedding(t) || translate_rope(t)) {
        return -1;
    }
    translate_heads(t);
    return strcmp(t->arch, "deepseek2") == 0 ? translate_latent(t) : 0;
}

static int find_family(const struct gguf *g, char arch[32], const char **family, struct err *e)
{
    const char *key = "general.architecture";
    if (!gguf_text(g, key, arch, 32)) {
        return err_set(e, ERR_INPUT, "%s: metadata %s is missing", gguf_where(g), key);
    }
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(arch, families[i][0]) == 0) {
            *family = families[i][1];
            return 0;
        }
    }
    return err_set(e, ERR_INPUT,
                   "%s: unknown %s \"%s\"; known: llama, qwen2, gemma2, gpt-oss, deepseek2",
                   gguf_where(g), key, arch);
}

int gguf_arch_read(const struct gguf *g, struct arch *a, struct err *e)
{
    char arch[32];
    const char *family = NULL;
    if (find_family(g, arch, &family, e)) {
        return -1;
    }
    const struct translation t = {.g = g, .arch = arch, .config = json_object(), .e = e};
    put(&t, "model_type", json_string(family));
    const struct config_reader r = {.root = t.config, .where = gguf_where(g), .e = e};
    struct arch parsed = {0};
    int rc = translate(&t) || arch_config_read(&r, &parsed) || read_types(&t, &parsed) ? -1 : 0;
    if (rc == 0) {
        *a = parsed;
    }
    json_decref(t.config);
    return rc;
}
