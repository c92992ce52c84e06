#include "tests/support/gguf_writer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"
#include "workers/weights/tensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    U32 = 4,
    I32 = 5,
    F32 = 6,
    BOOL = 7,
    TEXT = 8,
    ARRAY = 9
}; // types of values

/* --- values and tensors --------------------------------------------------------------------------------- */

static void put(struct str *s, uint64_t v, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char byte = (unsigned char)(v >> (8 * i));
        str_append(s, &byte, 1);
    }
}

static void put_text(struct str *s, const char *text)
{
    put(s, strlen(text), 8);
    str_puts(s, text);
}

void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t v)
{
    put_text(&w->values, key);
    put(&w->values, U32, 4);
    put(&w->values, v, 4);
    w->n_values++;
}

void gguf_writer_f32(struct gguf_writer *w, const char *key, double v)
{
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    put_text(&w->values, key);
    put(&w->values, F32, 4);
    put(&w->values, u, 4);
    w->n_values++;
}

void gguf_writer_bool(struct gguf_writer *w, const char *key, bool v)
{
    put_text(&w->values, key);
    put(&w->values, BOOL, 4);
    put(&w->values, v, 1);
    w->n_values++;
}

void gguf_writer_text(struct gguf_writer *w, const char *key, const char *v)
{
    put_text(&w->values, key);
    put(&w->values, TEXT, 4);
    put_text(&w->values, v);
    w->n_values++;
}

static void put_array(struct gguf_writer *w, const char *key, int type, size_t n)
{
    put_text(&w->values, key);
    put(&w->values, ARRAY, 4);
    put(&w->values, (uint64_t)type, 4);
    put(&w->values, n, 8);
    w->n_values++;
}

/* As a tokenizer's tokens: to be skipped. */
void gguf_writer_texts(struct gguf_writer *w, const char *key, int n)
{
    put_array(w, key, TEXT, (size_t)n);
    for (int i = 0; i < n; i++) {
        put_text(&w->values, i % 5 ? "token" : "");
    }
}

void gguf_writer_words(struct gguf_writer *w, const char *key, const char *const *words, size_t n)
{
    put_array(w, key, TEXT, n);
    for (size_t i = 0; i < n; i++) {
        put_text(&w->values, words[i]);
    }
}

void gguf_writer_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    put_array(w, key, I32, n);
    for (size_t i = 0; i < n; i++) {
        put(&w->values, (uint32_t)v[i], 4);
    }
}

void gguf_writer_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n)
{
    put_array(w, key, F32, n);
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &v[i], sizeof u);
        put(&w->values, u, 4);
    }
}

void gguf_writer_info(struct gguf_writer *w, const char *name, int n_dims, const int64_t *shape,
                      uint32_t type)
{
    while (w->data.len % 32 != 0) {
        put(&w->data, 0, 1);
    }
    put_text(&w->infos, name);
    put(&w->infos, (uint64_t)n_dims, 4);
    for (int i = n_dims - 1; i >= 0; i--) {
        put(&w->infos, (uint64_t)shape[i], 8);
    }
    put(&w->infos, type, 4);
    put(&w->infos, w->data.len, 8);
    w->n_tensors++;
}

static void put_f16_factor(struct str *s, float factor)
{
    put(s, f16_from_f32(factor), 2);
}

static void put_group(struct str *s, uint32_t type, const float *v)
{
    float largest = 0;
    for (int i = 0; i < 32; i++) {
        largest = fmaxf(largest, fabsf(v[i]));
    }
    const float factor = f16_to_f32(f16_from_f32(largest / (type == GGUF_WRITER_Q8_0 ? 127 : 7)));
    put_f16_factor(s, factor);
    for (int i = 0; i < (type == GGUF_WRITER_Q8_0 ? 32 : 16); i++) {
        if (type == GGUF_WRITER_Q8_0) {
            put(s, (uint8_t)(int8_t)lrintf(fminf(fmaxf(v[i] / factor, -127), 127)), 1);
        } else {
            const long low = lrintf(v[i] / factor) + 8, high = lrintf(v[i + 16] / factor) + 8;
            put(s, (uint64_t)(low | high << 4), 1);
        }
    }
}

void gguf_writer_values(struct str *s, uint32_t type, const float *v, size_t n)
{
    for (size_t i = 0; i < n; i += type == GGUF_WRITER_Q8_0 || type == GGUF_WRITER_Q4_0 ? 32 : 1) {
        uint32_t u;
        memcpy(&u, &v[i], sizeof u);
        switch (type) {
        case GGUF_WRITER_F32:
            put(s, u, 4);
            break;
        case GGUF_WRITER_BF16:
            put(s, bf16_from_f32(v[i]), 2);
            break;
        case GGUF_WRITER_F16:
            put(s, f16_from_f32(v[i]), 2);
            break;
        default:
            put_group(s, type, v + i);
        }
    }
}

void gguf_writer_assemble(const struct gguf_writer *w, struct str *out)
{
    str_puts(out, "GGUF");
    put(out, 3, 4);
    put(out, w->n_tensors, 8);
    put(out, w->n_values, 8);
    str_append(out, w->values.data, w->values.len);
    str_append(out, w->infos.data, w->infos.len);
    while (out->len % 32 != 0) {
        put(out, 0, 1);
    }
    str_append(out, w->data.data, w->data.len);
}

void gguf_writer_free(struct gguf_writer *w)
{
    str_free(&w->values);
    str_free(&w->infos);
    str_free(&w->data);
}

/* --- models as converters write them ---------------------------------------------------------- */

static const char *const architectures[][2] = {
    {"llama", "llama"},     {"qwen2", "qwen2"},           {"gemma2", "gemma2"},
    {"gpt_oss", "gpt-oss"}, {"deepseek_v3", "deepseek2"},
};

static const char *arch_name(const struct arch *a)
{
    for (size_t i = 0; i < 5; i++) {
        if (strcmp(a->family, architectures[i][0]) == 0) {
            return architectures[i][1];
        }
    }
    fail_msg("%s", a->family);
    return NULL;
}

static const char *key(const struct arch *a, const char *name)
{
    static char full[2][128];
    static int turn;
    turn = !turn;
    snprintf(full[turn], sizeof full[turn], "%s.%s", arch_name(a), name);
    return full[turn];
}

static void put_yarn(struct gguf_writer *w, const struct arch *a)
{
    gguf_writer_text(w, key(a, "rope.scaling.type"), "yarn");
    gguf_writer_f32(w, key(a, "rope.scaling.factor"), a->rope_yarn.factor);
    gguf_writer_f32(w, key(a, "rope.scaling.yarn_beta_fast"), a->rope_yarn.beta_fast);
    gguf_writer_f32(w, key(a, "rope.scaling.yarn_beta_slow"), a->rope_yarn.beta_slow);
    gguf_writer_u32(w, key(a, "rope.scaling.original_context_length"),
                    (uint32_t)a->rope_yarn.original_context);
    if (arch_is_latent(a)) {
        gguf_writer_f32(w, key(a, "rope.scaling.yarn_log_multiplier"), 0.1);
    }
}

static void put_experts(struct gguf_writer *w, const struct arch *a)
{
    gguf_writer_u32(w, key(a, "expert_count"), (uint32_t)a->moe.n_experts);
    gguf_writer_u32(w, key(a, "expert_used_count"), (uint32_t)a->moe.top_k);
    gguf_writer_u32(w, key(a, "expert_feed_forward_length"), (uint32_t)a->moe.intermediate);
    if (arch_is_latent(a)) {
        gguf_writer_u32(w, key(a, "expert_shared_count"), (uint32_t)a->moe.n_shared);
        gguf_writer_u32(w, key(a, "expert_group_count"), (uint32_t)a->moe.n_groups);
        gguf_writer_u32(w, key(a, "expert_group_used_count"), (uint32_t)a->moe.top_groups);
        gguf_writer_f32(w, key(a, "expert_weights_scale"), (double)a->moe.scale);
        gguf_writer_bool(w, key(a, "expert_weights_norm"), a->moe.normalise);
        gguf_writer_u32(w, key(a, "expert_gating_func"), 2);
        gguf_writer_u32(w, key(a, "leading_dense_block_count"), (uint32_t)a->moe.first_layer);
    }
}

static void put_latent(struct gguf_writer *w, const struct arch *a)
{
    if (a->latent.q_rank > 0) {
        gguf_writer_u32(w, key(a, "attention.q_lora_rank"), (uint32_t)a->latent.q_rank);
    }
    gguf_writer_u32(w, key(a, "attention.kv_lora_rank"), (uint32_t)a->latent.kv_rank);
    gguf_writer_u32(w, key(a, "attention.key_length"), (uint32_t)(a->latent.kv_rank + a->rope_dim));
    gguf_writer_u32(w, key(a, "attention.key_length_mla"), (uint32_t)a->head_dim);
    gguf_writer_u32(w, key(a, "attention.value_length"), (uint32_t)a->latent.kv_rank);
    gguf_writer_u32(w, key(a, "attention.value_length_mla"), (uint32_t)a->v_dim);
}

void gguf_writer_metadata(struct gguf_writer *w, const struct arch *a)
{
    gguf_writer_text(w, "general.architecture", arch_name(a));
    gguf_writer_texts(w, "tokenizer.ggml.tokens", 97);
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)a->bos_id);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)a->eos_ids[0]);
    gguf_writer_u32(w, key(a, "block_count"), (uint32_t)a->n_layers);
    gguf_writer_u32(w, key(a, "context_length"), (uint32_t)a->max_context);
    gguf_writer_u32(w, key(a, "embedding_length"), (uint32_t)a->hidden);
    gguf_writer_u32(w, key(a, "feed_forward_length"), (uint32_t)a->intermediate);
    gguf_writer_u32(w, key(a, "attention.head_count"), (uint32_t)a->n_heads);
    gguf_writer_u32(w, key(a, "attention.head_count_kv"),
                    arch_is_latent(a) ? 1 : (uint32_t)a->n_kv_heads);
    gguf_writer_f32(w, key(a, "attention.layer_norm_rms_epsilon"), (double)a->rms_eps);
    gguf_writer_f32(w, key(a, "rope.freq_base"), a->rope_theta);
    gguf_writer_u32(w, key(a, "rope.dimension_count"), (uint32_t)a->rope_dim);
    if (arch_is_latent(a)) {
        put_latent(w, a);
    } else {
        gguf_writer_u32(w, key(a, "attention.key_length"), (uint32_t)a->head_dim);
        gguf_writer_u32(w, key(a, "attention.value_length"), (uint32_t)a->v_dim);
    }
    if (a->window > 0 && strcmp(a->family, "qwen2") != 0) {
        gguf_writer_u32(w, key(a, "attention.sliding_window"), (uint32_t)a->window);
    }
    if (a->attn_softcap > 0) {
        gguf_writer_f32(w, key(a, "attn_logit_softcapping"), (double)a->attn_softcap);
        gguf_writer_f32(w, key(a, "final_logit_softcapping"), (double)a->logit_softcap);
    }
    if (a->rope == ARCH_ROPE_YARN) {
        put_yarn(w, a);
    }
    if (a->moe.n_experts > 0) {
        put_experts(w, a);
    }
}

static const char *const file_names[WEIGHTS_N] = {
    "token_embd.weight",
    "output_norm.weight",
    "output.weight",
    "attn_norm.weight",
    "post_attention_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_sinks.weight",
    "attn_output.weight",
    "attn_output.bias",
    "attn_q_a.weight",
    "attn_q_a_norm.weight",
    "attn_q_b.weight",
    "attn_kv_a_mqa.weight",
    "attn_kv_a_norm.weight",
    "attn_kv_b.weight",
    "ffn_norm.weight",
    "post_ffw_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_inp.bias",
    "exp_probs_b.bias",
    "ffn_gate_exps.weight",
    "ffn_up_exps.weight",
    "ffn_down_exps.weight",
    "ffn_gate_exps.bias",
    "ffn_up_exps.bias",
    "ffn_down_exps.bias",
    "ffn_gate_shexp.weight",
    "ffn_up_shexp.weight",
    "ffn_down_shexp.weight",
};

/* Rows of Llama's heads, or their biases: reshape(heads, 2, D / 2, cols), then the middle two axes change places. */
static void permute(const struct arch *a, enum weights_id id, const struct weights_tensor *t,
                    float *v)
{
    const bool rows = id == WEIGHTS_Q || id == WEIGHTS_K;
    const bool biases = id == WEIGHTS_Q_BIAS || id == WEIGHTS_K_BIAS;
    if (strcmp(a->family, "llama") != 0 || (!rows && !biases)) {
        return;
    }
    const size_t cols = biases ? 1 : (size_t)t->n_cols, half = (size_t)a->head_dim / 2;
    const size_t n = (size_t)t->n_rows * (size_t)t->n_cols;
    float *from = xmalloc(n * sizeof *from);
    memcpy(from, v, n * sizeof *from);
    for (size_t head = 0; head < n / cols / (2 * half); head++) {
        for (size_t h = 0; h < 2; h++) {
            for (size_t j = 0; j < half; j++) {
                memcpy(v + (head * 2 * half + 2 * j + h) * cols,
                       from + (head * 2 * half + h * half + j) * cols, cols * sizeof *v);
            }
        }
    }
    free(from);
}

static void put_one(struct gguf_writer *w, const struct weights *from, const struct arch *a,
                    enum weights_id id, int layer, uint32_t type)
{
    char name[128];
    const char *file_name =
        id == WEIGHTS_MLP_NORM && a->attn_sinks ? "post_attention_norm.weight" : file_names[id];
    if (tensors_is_of_layer(id)) {
        snprintf(name, sizeof name, "blk.%d.%s", layer, file_name);
    } else {
        snprintf(name, sizeof name, "%s", file_name);
    }
    const struct tensors_shape s = tensors_shape(a, id);
    const bool of_expert = tensors_is_of_expert(id);
    const int64_t shape[3] = {a->moe.n_experts, s.n_rows, s.n_cols};
    const int64_t vectors[2] = {a->moe.n_experts, s.n_cols};
    const int64_t *dims = s.is_vector ? vectors : shape;
    const int n_dims = (s.is_vector ? 1 : 2) + of_expert;
    type = s.exact ? GGUF_WRITER_F32 : type;
    gguf_writer_info(w, name, n_dims, of_expert ? dims : dims + 1, type);
    for (int x = of_expert ? 0 : -1; x < (of_expert ? a->moe.n_experts : 0); x++) {
        struct weights_tensor t;
        struct err e = {0};
        assert_int_equal(weights_find(from, id, layer, x, &t, &e), 0);
        t.dtype = ARCH_F32;
        const size_t n = (size_t)(t.n_rows * t.n_cols);
        float *v = xmalloc(n * sizeof *v);
        const float *rows = weights_rows(&t, 0, t.n_rows, v);
        if (rows != v) {
            memcpy(v, rows, n * sizeof *v);
        }
        permute(a, id, &t, v);
        for (size_t i = 0; i < n && s.is_norm && a->norm_plus_one; i++) {
            v[i] += 1;
        }
        gguf_writer_values(&w->data, type, v, n);
        free(v);
    }
}

/* rope_freqs.weight: what each frequency is divided by. */
void gguf_writer_rope_factors(struct gguf_writer *w, double theta, int64_t dim, double factor)
{
    const int64_t shape[1] = {dim / 2};
    gguf_writer_info(w, "rope_freqs.weight", 1, shape, GGUF_WRITER_F32);
    for (int64_t i = 0; i < dim / 2; i++) {
        const double turns = 8192 * pow(theta, -2.0 * (double)i / (double)dim) / (2 * M_PI);
        const double smooth = fmin(fmax((turns - 1) / 3, 0), 1);
        const float f = (float)(1 / ((1 - smooth) / factor + smooth));
        gguf_writer_values(&w->data, GGUF_WRITER_F32, &f, 1);
    }
}

void gguf_writer_tensors(struct gguf_writer *w, const struct weights *from, const struct arch *a,
                         uint32_t type)
{
    for (int id = 0; id < WEIGHTS_N; id++) {
        const enum weights_id i = (enum weights_id)id;
        for (int layer = 0; layer < (tensors_is_of_layer(i) ? a->n_layers : 1); layer++) {
            if (tensors_has(a, i, layer)) {
                put_one(w, from, a, i, layer, type);
            }
        }
    }
}

void gguf_writer_file(const struct gguf_writer *w, const char *path)
{
    struct str s = {0};
    gguf_writer_assemble(w, &s);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(s.data, 1, s.len, f), s.len);
    assert_int_equal(fclose(f), 0);
    str_free(&s);
}
