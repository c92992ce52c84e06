/*
 * GGUF files: the tiny models of tests/golden, written here as llama.cpp's converters write them, are
 * read back as the same models; and what is wrong with a file is said in one line.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/str.h"
#include "model/gguf.h"
#include "model/gguf_arch.h"
#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"
#include "workers/weights/tensors.h"
#include "workers/weights/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    U32 = 4,
    F32 = 6,
    BOOL = 7,
    TEXT = 8,
    ARRAY = 9,
    U64 = 10
}; // types of values
enum {
    T_F32 = 0,
    T_F16 = 1,
    T_Q4_0 = 2,
    T_Q8_0 = 8,
    T_BF16 = 30
}; // types of tensors

/* --- a writer --------------------------------------------------------------------------------- */

struct writer {
    struct str values, infos, data;
    uint64_t n_values, n_tensors;
};

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

static void value_u32(struct writer *w, const char *key, uint32_t v)
{
    put_text(&w->values, key);
    put(&w->values, U32, 4);
    put(&w->values, v, 4);
    w->n_values++;
}

static void value_f32(struct writer *w, const char *key, double v)
{
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    put_text(&w->values, key);
    put(&w->values, F32, 4);
    put(&w->values, u, 4);
    w->n_values++;
}

static void value_bool(struct writer *w, const char *key, bool v)
{
    put_text(&w->values, key);
    put(&w->values, BOOL, 4);
    put(&w->values, v, 1);
    w->n_values++;
}

static void value_text(struct writer *w, const char *key, const char *v)
{
    put_text(&w->values, key);
    put(&w->values, TEXT, 4);
    put_text(&w->values, v);
    w->n_values++;
}

/* As a tokenizer's tokens: to be skipped. */
static void value_texts(struct writer *w, const char *key, int n)
{
    put_text(&w->values, key);
    put(&w->values, ARRAY, 4);
    put(&w->values, TEXT, 4);
    put(&w->values, (uint64_t)n, 8);
    for (int i = 0; i < n; i++) {
        put_text(&w->values, i % 5 ? "token" : "");
    }
    w->n_values++;
}

static void info(struct writer *w, const char *name, int n_dims, const int64_t *shape,
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
    const float factor = f16_to_f32(f16_from_f32(largest / (type == T_Q8_0 ? 127 : 7)));
    put_f16_factor(s, factor);
    for (int i = 0; i < (type == T_Q8_0 ? 32 : 16); i++) {
        if (type == T_Q8_0) {
            put(s, (uint8_t)(int8_t)lrintf(fminf(fmaxf(v[i] / factor, -127), 127)), 1);
        } else {
            const long low = lrintf(v[i] / factor) + 8, high = lrintf(v[i + 16] / factor) + 8;
            put(s, (uint64_t)(low | high << 4), 1);
        }
    }
}

static void put_values(struct str *s, uint32_t type, const float *v, size_t n)
{
    for (size_t i = 0; i < n; i += type == T_Q8_0 || type == T_Q4_0 ? 32 : 1) {
        uint32_t u;
        memcpy(&u, &v[i], sizeof u);
        switch (type) {
        case T_F32:
            put(s, u, 4);
            break;
        case T_BF16:
            put(s, bf16_from_f32(v[i]), 2);
            break;
        case T_F16:
            put(s, f16_from_f32(v[i]), 2);
            break;
        default:
            put_group(s, type, v + i);
        }
    }
}

static void assemble(const struct writer *w, struct str *out)
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

static void free_writer(struct writer *w)
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

static void put_yarn(struct writer *w, const struct arch *a)
{
    value_text(w, key(a, "rope.scaling.type"), "yarn");
    value_f32(w, key(a, "rope.scaling.factor"), a->rope_yarn.factor);
    value_f32(w, key(a, "rope.scaling.yarn_beta_fast"), a->rope_yarn.beta_fast);
    value_f32(w, key(a, "rope.scaling.yarn_beta_slow"), a->rope_yarn.beta_slow);
    value_u32(w, key(a, "rope.scaling.original_context_length"),
              (uint32_t)a->rope_yarn.original_context);
    if (arch_is_latent(a)) {
        value_f32(w, key(a, "rope.scaling.yarn_log_multiplier"), 0.1);
    }
}

static void put_experts(struct writer *w, const struct arch *a)
{
    value_u32(w, key(a, "expert_count"), (uint32_t)a->moe.n_experts);
    value_u32(w, key(a, "expert_used_count"), (uint32_t)a->moe.top_k);
    value_u32(w, key(a, "expert_feed_forward_length"), (uint32_t)a->moe.intermediate);
    if (arch_is_latent(a)) {
        value_u32(w, key(a, "expert_shared_count"), (uint32_t)a->moe.n_shared);
        value_u32(w, key(a, "expert_group_count"), (uint32_t)a->moe.n_groups);
        value_u32(w, key(a, "expert_group_used_count"), (uint32_t)a->moe.top_groups);
        value_f32(w, key(a, "expert_weights_scale"), (double)a->moe.scale);
        value_bool(w, key(a, "expert_weights_norm"), a->moe.normalise);
        value_u32(w, key(a, "expert_gating_func"), 2);
        value_u32(w, key(a, "leading_dense_block_count"), (uint32_t)a->moe.first_layer);
    }
}

static void put_latent(struct writer *w, const struct arch *a)
{
    if (a->latent.q_rank > 0) {
        value_u32(w, key(a, "attention.q_lora_rank"), (uint32_t)a->latent.q_rank);
    }
    value_u32(w, key(a, "attention.kv_lora_rank"), (uint32_t)a->latent.kv_rank);
    value_u32(w, key(a, "attention.key_length"), (uint32_t)(a->latent.kv_rank + a->rope_dim));
    value_u32(w, key(a, "attention.key_length_mla"), (uint32_t)a->head_dim);
    value_u32(w, key(a, "attention.value_length"), (uint32_t)a->latent.kv_rank);
    value_u32(w, key(a, "attention.value_length_mla"), (uint32_t)a->v_dim);
}

static void put_metadata(struct writer *w, const struct arch *a)
{
    value_text(w, "general.architecture", arch_name(a));
    value_texts(w, "tokenizer.ggml.tokens", 97);
    value_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)a->bos_id);
    value_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)a->eos_ids[0]);
    value_u32(w, key(a, "block_count"), (uint32_t)a->n_layers);
    value_u32(w, key(a, "context_length"), (uint32_t)a->max_context);
    value_u32(w, key(a, "embedding_length"), (uint32_t)a->hidden);
    value_u32(w, key(a, "feed_forward_length"), (uint32_t)a->intermediate);
    value_u32(w, key(a, "attention.head_count"), (uint32_t)a->n_heads);
    value_u32(w, key(a, "attention.head_count_kv"),
              arch_is_latent(a) ? 1 : (uint32_t)a->n_kv_heads);
    value_f32(w, key(a, "attention.layer_norm_rms_epsilon"), (double)a->rms_eps);
    value_f32(w, key(a, "rope.freq_base"), a->rope_theta);
    value_u32(w, key(a, "rope.dimension_count"), (uint32_t)a->rope_dim);
    if (arch_is_latent(a)) {
        put_latent(w, a);
    } else {
        value_u32(w, key(a, "attention.key_length"), (uint32_t)a->head_dim);
        value_u32(w, key(a, "attention.value_length"), (uint32_t)a->v_dim);
    }
    if (a->window > 0 && strcmp(a->family, "qwen2") != 0) {
        value_u32(w, key(a, "attention.sliding_window"), (uint32_t)a->window);
    }
    if (a->attn_softcap > 0) {
        value_f32(w, key(a, "attn_logit_softcapping"), (double)a->attn_softcap);
        value_f32(w, key(a, "final_logit_softcapping"), (double)a->logit_softcap);
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

/* Rows of Llama's heads: reshape(heads, 2, D / 2, cols), then the middle two axes change places. */
static void permute(const struct arch *a, enum weights_id id, const struct weights_tensor *t,
                    float *v)
{
    const bool rows = id == WEIGHTS_Q || id == WEIGHTS_K;
    if (strcmp(a->family, "llama") != 0 || !rows) {
        return;
    }
    const size_t cols = (size_t)t->n_cols, half = (size_t)a->head_dim / 2;
    const size_t n = (size_t)t->n_rows * cols;
    float *from = xmalloc(n * sizeof *from);
    memcpy(from, v, n * sizeof *from);
    for (size_t head = 0; head < (size_t)t->n_rows / (2 * half); head++) {
        for (size_t h = 0; h < 2; h++) {
            for (size_t j = 0; j < half; j++) {
                memcpy(v + (head * 2 * half + 2 * j + h) * cols,
                       from + (head * 2 * half + h * half + j) * cols, cols * sizeof *v);
            }
        }
    }
    free(from);
}

static void put_one(struct writer *w, const struct weights *from, const struct arch *a,
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
    type = s.exact ? T_F32 : type;
    info(w, name, n_dims, of_expert ? dims : dims + 1, type);
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
        put_values(&w->data, type, v, n);
        free(v);
    }
}

/* rope_freqs.weight: what each frequency is divided by. */
static void put_rope_factors(struct writer *w, double theta, int64_t dim, double factor)
{
    const int64_t shape[1] = {dim / 2};
    info(w, "rope_freqs.weight", 1, shape, T_F32);
    for (int64_t i = 0; i < dim / 2; i++) {
        const double turns = 8192 * pow(theta, -2.0 * (double)i / (double)dim) / (2 * M_PI);
        const double smooth = fmin(fmax((turns - 1) / 3, 0), 1);
        const float f = (float)(1 / ((1 - smooth) / factor + smooth));
        put_values(&w->data, T_F32, &f, 1);
    }
}

static void put_tensors(struct writer *w, const struct weights *from, const struct arch *a,
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

static char path[] = "/tmp/tidemark-test-XXXXXX.gguf";

static int make_path(void **state)
{
    (void)state;
    int fd = mkstemps(path, 5);
    return fd < 0 ? -1 : close(fd);
}

static int drop_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_file(const struct str *s)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(s->data, 1, s->len, f), s->len);
    assert_int_equal(fclose(f), 0);
}

static void write_model(const struct weights *from, const struct arch *a, uint32_t type)
{
    struct writer w = {0};
    struct str s = {0};
    put_metadata(&w, a);
    put_tensors(&w, from, a, type);
    if (a->rope == ARCH_ROPE_LLAMA3) {
        put_rope_factors(&w, a->rope_theta, a->rope_dim, a->rope_llama3.factor);
    }
    assemble(&w, &s);
    write_file(&s);
    str_free(&s);
    free_writer(&w);
}

/* --- read back -------------------------------------------------------------------------------- */

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b);
}

static void expect_same_arch(const struct arch *got, const struct arch *want)
{
    assert_string_equal(got->family, want->family);
    assert_true(got->n_layers == want->n_layers && got->hidden == want->hidden);
    assert_true(got->n_heads == want->n_heads && got->n_kv_heads == want->n_kv_heads);
    assert_true(got->head_dim == want->head_dim && got->v_dim == want->v_dim);
    assert_true(got->intermediate == want->intermediate && got->vocab == want->vocab);
    assert_true(got->max_context == want->max_context && got->bos_id == want->bos_id);
    assert_true(got->n_eos == want->n_eos && got->eos_ids[0] == want->eos_ids[0]);
    assert_true(got->norm_plus_one == want->norm_plus_one && got->post_norms == want->post_norms);
    assert_true(got->qkv_bias == want->qkv_bias && got->o_bias == want->o_bias);
    assert_true(got->attn_sinks == want->attn_sinks && got->activation == want->activation);
    assert_true(near((double)got->rms_eps, (double)want->rms_eps));
    assert_true(near((double)got->logit_softcap, (double)want->logit_softcap));
    assert_true(near((double)got->attn_softcap, (double)want->attn_softcap));
    assert_true(got->rope == want->rope && got->rope_dim == want->rope_dim);
    assert_true(near(got->rope_theta, want->rope_theta));
    assert_true(got->rope_interleaved == want->rope_interleaved);
    assert_true(got->tied_embedding == want->tied_embedding);
    assert_memory_equal(&got->latent, &want->latent, sizeof got->latent);
    assert_true(got->moe.n_experts == want->moe.n_experts && got->moe.top_k == want->moe.top_k);
    assert_true(got->moe.n_groups == want->moe.n_groups &&
                got->moe.top_groups == want->moe.top_groups);
    assert_true(got->moe.n_shared == want->moe.n_shared && got->moe.bias == want->moe.bias);
    assert_true(got->moe.intermediate == want->moe.intermediate &&
                got->moe.first_layer == want->moe.first_layer);
    for (int i = 0; i < want->n_layers; i++) {
        assert_int_equal(arch_window(got, i), arch_window(want, i));
    }
    if (want->rope == ARCH_ROPE_YARN) {
        assert_true(near(got->rope_yarn.factor, want->rope_yarn.factor));
        assert_true(near(got->rope_yarn.attention_factor, want->rope_yarn.attention_factor));
        assert_true(got->rope_yarn.truncate == want->rope_yarn.truncate);
    }
}

/* The furthest that a value may be from the original, in parts of the group's largest. */
static double tolerance(uint32_t type)
{
    switch (type) {
    case T_Q8_0:
        return 0.51 / 127;
    case T_Q4_0:
        return 0.51 / 7;
    case T_F16:
        return 0x1p-11;
    case T_BF16:
        return 0x1p-8;
    default:
        return 0;
    }
}

static void expect_same_rows(const struct weights_tensor *got, const struct weights_tensor *want,
                             double allowed)
{
    assert_int_equal(got->n_rows, want->n_rows);
    assert_int_equal(got->n_cols, want->n_cols);
    const size_t n = (size_t)(want->n_rows * want->n_cols);
    float *a = xmalloc(n * sizeof *a), *b = xmalloc(n * sizeof *b);
    struct weights_tensor x = *got, y = *want;
    x.dtype = y.dtype = ARCH_F32;
    const float *p = weights_rows(&x, 0, x.n_rows, a), *q = weights_rows(&y, 0, y.n_rows, b);
    float largest = 0;
    for (size_t i = 0; i < n; i++) {
        largest = fmaxf(largest, fabsf(q[i]));
    }
    for (size_t i = 0; i < n; i++) {
        // Norms lost bits when 1 was added.
        const double bound = allowed * (double)largest + (want->is_norm ? 0x1p-23 : 0);
        if (fabs((double)p[i] - (double)q[i]) > bound) {
            fail_msg("%s, %s: value %zu is %g, not %g", got->name, want->name, i, (double)p[i],
                     (double)q[i]);
        }
    }
    free(a);
    free(b);
}

static void expect_same_model(const char *folder, uint32_t type)
{
    struct arch want, got;
    struct weights *from, *to;
    struct err e = {0};
    assert_int_equal(arch_open(folder, &want, &e), 0);
    assert_int_equal(weights_open(&from, folder, &want, &e), 0);
    want.rope = want.rope == ARCH_ROPE_LLAMA3 ? ARCH_ROPE_DEFAULT : want.rope;
    write_model(from, &want, type);
    if (arch_open(path, &got, &e) || weights_check(path, &got, &e) ||
        weights_open(&to, path, &got, &e)) {
        fail_msg("%s", e.msg);
    }
    expect_same_arch(&got, &want);
    for (int id = 0; id < WEIGHTS_N; id++) {
        const enum weights_id i = (enum weights_id)id;
        for (int layer = 0; layer < (tensors_is_of_layer(i) ? want.n_layers : 1); layer++) {
            const int n = tensors_is_of_expert(i) ? want.moe.n_experts : 1;
            for (int x = 0; tensors_has(&want, i, layer) && x < n; x++) {
                struct weights_tensor a, b;
                const int expert = tensors_is_of_expert(i) ? x : -1;
                assert_int_equal(weights_find(to, i, layer, expert, &a, &e), 0);
                assert_int_equal(weights_find(from, i, layer, expert, &b, &e), 0);
                expect_same_rows(&a, &b, tensors_shape(&want, i).exact ? 0 : tolerance(type));
            }
        }
    }
    uint64_t hash;
    assert_int_equal(weights_hash(path, &got, &hash, &e), 0);
    weights_close(from);
    weights_close(to);
}

static void expect_golden(const char *name, uint32_t type)
{
    const char *source = getenv("TIDEMARK_SOURCE");
    char *folder = xasprintf("%s/tests/golden/%s", source ? source : ".", name);
    expect_same_model(folder, type);
    free(folder);
}

static void every_family_is_read_as_it_was(void **state)
{
    (void)state;
    expect_golden("llama_tiny_f32", T_F32);
    expect_golden("llama_tiny_f32", T_F16);
    expect_golden("llama_tiny_bf16", T_BF16);
    expect_golden("gemma2_tiny_f32", T_F32);
    expect_golden("gpt_oss_tiny_f32", T_F32);
    expect_golden("gpt_oss_tiny_mxfp4", T_BF16);
    expect_golden("deepseek_v3_tiny_f32", T_F32);
}

static void quantised_groups_are_read(void **state)
{
    (void)state;
    expect_same_model("preset:tiny", T_Q8_0);
    expect_same_model("preset:tiny", T_Q4_0);
    expect_same_model("preset:tiny-qwen2", T_Q8_0);
}

static void llama3_scaling_is_known_by_its_factors(void **state)
{
    (void)state;
    struct arch want, got;
    struct weights *from;
    struct err e = {0};
    assert_int_equal(arch_open("preset:tiny", &want, &e), 0);
    assert_int_equal(weights_open(&from, "preset:tiny", &want, &e), 0);
    want.rope = ARCH_ROPE_LLAMA3;
    want.rope_theta = 500000;
    want.rope_llama3.factor = 32;
    write_model(from, &want, T_F32);
    assert_int_equal(arch_open(path, &got, &e), 0);
    assert_int_equal(got.rope, ARCH_ROPE_LLAMA3);
    assert_true(got.rope_llama3.factor == 32 && got.rope_llama3.low == 1);
    assert_true(got.rope_llama3.high == 4 && got.rope_llama3.original_context == 8192);
    want.rope_theta = 10000; // the factors of another model
    struct writer w = {0};
    struct str s = {0};
    put_metadata(&w, &want);
    put_tensors(&w, from, &want, T_F32);
    put_rope_factors(&w, 500000, want.rope_dim, 32);
    assemble(&w, &s);
    write_file(&s);
    assert_int_equal(arch_open(path, &got, &e), -1);
    assert_non_null(strstr(e.msg, "rope_freqs.weight is not Llama 3.1's scaling"));
    str_free(&s);
    free_writer(&w);
    weights_close(from);
}

static uint64_t fnv(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001b3u;
    }
    return h;
}

/* Rows one by one, as they are stored: their values are those of the rows as float32. */
static void expect_rows_as_stored(const struct weights_tensor *t)
{
    struct weights_tensor whole = *t, one = *t;
    const size_t n = (size_t)t->n_cols, bytes = (size_t)weights_row_bytes(t->dtype, t->n_cols);
    float *want = xmalloc(n * sizeof *want), *got = xmalloc(n * sizeof *got);
    void *scratch = xmalloc(bytes);
    whole.dtype = one.dtype = ARCH_F32;
    one.n_rows = 1; // a tensor of that row alone
    one.first = one.rotary_head = 0;
    one.stored = t->dtype;
    for (int64_t row = 0; row < t->n_rows; row++) {
        one.data = weights_rows(t, row, 1, scratch);
        const float *a = weights_rows(&whole, row, 1, want), *b = weights_rows(&one, 0, 1, got);
        assert_memory_equal(a, b, n * sizeof *a);
    }
    free(want);
    free(got);
    free(scratch);
}

/* tests/golden/types.gguf, and what llama.cpp's package decodes of it (make_gguf.py). */
static void types_are_decoded_as_llama_cpp_does(void **state)
{
    (void)state;
    static const struct {
        enum weights_id id;
        enum arch_dtype stored;
        uint64_t hash;
    } cases[] = {
        {WEIGHTS_EMBED, ARCH_MXFP4, 0x5fbe1654d0b03535},
        {WEIGHTS_HEAD, ARCH_INT8, 0x81132bb02047f1d4},
        {WEIGHTS_NORM, ARCH_F32, 0xab02de1b1ecf89bf},
        {WEIGHTS_Q, ARCH_INT8, 0xdfa454060f7953fa},
        {WEIGHTS_K, ARCH_F16, 0x8e9a49efcb6902ee},
        {WEIGHTS_V, ARCH_BF16, 0xad4d7e27124f6465},
        {WEIGHTS_O, ARCH_INT4, 0x3dc73a363880bad6},
        {WEIGHTS_GATE, ARCH_INT4, 0x596f4429a360ee27},
        {WEIGHTS_UP, ARCH_MXFP4, 0x290dc24fbdbaa2d2},
        {WEIGHTS_DOWN, ARCH_INT8, 0x9113b28260087915},
    };
    const char *source = getenv("TIDEMARK_SOURCE");
    char *file = xasprintf("%s/tests/golden/types.gguf", source ? source : ".");
    struct arch a;
    struct weights *w;
    struct err e = {0};
    assert_int_equal(arch_open(file, &a, &e) || weights_check(file, &a, &e), 0);
    assert_int_equal(weights_open(&w, file, &a, &e), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct weights_tensor t;
        assert_int_equal(weights_find(w, cases[i].id, 0, -1, &t, &e), 0);
        assert_int_equal(t.stored, cases[i].stored);
        assert_int_equal(t.dtype, t.stored == ARCH_MXFP4 ? ARCH_BF16 : t.stored);
        expect_rows_as_stored(&t);
        t.dtype = ARCH_F32;
        t.rotary_head = 0; // as it lies in the file
        const size_t n = (size_t)(t.n_rows * t.n_cols);
        float *v = xmalloc(n * sizeof *v);
        if (fnv(weights_rows(&t, 0, t.n_rows, v), n * sizeof *v) != cases[i].hash) {
            fail_msg("%s", t.name);
        }
        free(v);
    }
    weights_close(w);
    free(file);
}

/* --- what is wrong with a file ---------------------------------------------------------------- */

/* A sound file of two values and one tensor, for damage. */
static void small_file(struct str *s)
{
    struct writer w = {0};
    const int64_t shape[2] = {2, 32};
    const float zeros[64] = {0};
    value_text(&w, "general.architecture", "llama");
    value_u32(&w, "llama.block_count", 1);
    info(&w, "a", 2, shape, T_F32);
    put_values(&w.data, T_F32, zeros, 64);
    assemble(&w, s);
    free_writer(&w);
}

static void expect_refused(const void *bytes, size_t n, const char *says)
{
    struct gguf *g = NULL;
    struct err e = {0};
    void *copy = xmalloc(n); // its own allocation, so that a sanitizer sees a read past its end
    memcpy(copy, bytes, n);
    assert_int_equal(gguf_parse(&g, copy, n, "x.gguf", &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_null(g);
    if (!strstr(e.msg, says) || strncmp(e.msg, "x.gguf: ", 8) != 0 || strchr(e.msg, '\n')) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
    free(copy);
}

static void every_cut_of_a_file_is_refused(void **state)
{
    (void)state;
    struct str s = {0};
    small_file(&s);
    for (size_t n = 0; n < s.len; n++) {
        expect_refused(s.data, n, "truncated");
    }
    struct gguf *g;
    struct err e = {0};
    assert_int_equal(gguf_parse(&g, s.data, s.len, "x.gguf", &e), 0);
    assert_int_equal(gguf_count(g), 1);
    gguf_close(g);
    str_free(&s);
}

static void damage_is_named(void **state)
{
    (void)state;
    struct str s = {0};
    small_file(&s);
    const size_t first_key = 24, value = first_key + 8 + 20, block = value + 4 + 8 + 5;
    const size_t tensor = block + 8 + 17 + 4 + 4; // the tensor's name
    const size_t dims = tensor + 8 + 1, type = dims + 4 + 16, offset = type + 4;
    const struct {
        size_t at;
        uint64_t v;
        size_t n;
        const char *says;
    } damage[] = {
        {0, 0x46554747, 4, NULL}, // "GGUF": as it is
        {0, 0x46554748, 4, "not a GGUF file"},
        {0, 0x4c4d4747, 4, "not a GGUF file"},
        {4, 1, 4, "GGUF version 1; 2 and 3"},
        {4, 4, 4, "GGUF version 4"},
        {4, 0x03000000, 4, "GGUF version 50331648"}, // big-endian
        {4, 2, 4, NULL},
        {8, 2, 8, "a tensor's name of 0 bytes"}, // padding is no tensor
        {8, 1ull << 40, 8, "1099511627776 tensors and 2 metadata values; at most"},
        {8, UINT64_MAX, 8, "at most 1048576 and 65536"},
        {16, 1, 8, "tensor llama.block_count has a dimension of 4294967297"},
        {16, 65537, 8, "65537 metadata values"},
        {first_key, 0, 8, "a metadata key of 0 bytes"},
        {first_key, 1ull << 62, 8, "truncated: the file ends in a metadata key"},
        {first_key + 8, 0, 1, "without a NUL wanted"},
        {value, 13, 4, "metadata general.architecture has unknown type 13"},
        {value, 9, 4, "general.architecture"},
        {value + 4, UINT64_MAX, 8, "truncated: the file ends in general.architecture"},
        {tensor, 0, 8, "a tensor's name of 0 bytes"},
        {tensor, 70000, 8, "truncated: the file ends in a tensor's name"},
        {dims, 0, 4, "tensor a has 0 dimensions; 1 to 4 wanted"},
        {dims, 5, 4, "tensor a has 5 dimensions"},
        {dims + 4, 0, 8, "tensor a has a dimension of 0"},
        {dims + 4, 1ull << 32, 8, "tensor a has a dimension of 4294967296"},
        {dims + 4, 33, 8, "truncated: tensor a ends at byte 264 of the data, the file has 256"},
        {type, 12, 4, "tensor a has type Q4_K (12); F32, F16, BF16, Q8_0, Q4_0 and MXFP4"},
        {type, 14, 4, "tensor a has type Q6_K (14)"},
        {type, 26, 4, "tensor a has type I32 (26)"},
        {type, 999, 4, "tensor a has type unknown (999)"},
        {type, 8, 4, NULL}, // Q8_0 takes fewer bytes
        {offset, 1, 8, "offset 1 is no multiple of 32"},
        {offset, 32, 8, "truncated: tensor a ends at byte 288"},
        {offset, UINT64_MAX - 31, 8, "truncated: tensor a"},
    };
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        struct str copy = {0};
        str_append(&copy, s.data, s.len);
        for (size_t k = 0; k < damage[i].n; k++) {
            copy.data[damage[i].at + k] = (char)(damage[i].v >> (8 * k));
        }
        struct gguf *g;
        struct err e = {0};
        if (damage[i].says) {
            expect_refused(copy.data, copy.len, damage[i].says);
        } else {
            assert_int_equal(gguf_parse(&g, copy.data, copy.len, "x.gguf", &e), 0);
            gguf_close(g);
        }
        str_free(&copy);
    }
    str_free(&s);
}

static void names_and_places_are_taken_once(void **state)
{
    (void)state;
    const int64_t shape[1] = {32}, odd[1] = {33};
    const float zeros[33] = {0};
    struct writer w = {0};
    struct str s = {0};
    info(&w, "a", 1, shape, T_F32);
    put_values(&w.data, T_F32, zeros, 32);
    info(&w, "a", 1, shape, T_F32);
    put_values(&w.data, T_F32, zeros, 32);
    assemble(&w, &s);
    expect_refused(s.data, s.len, "tensor a stands there twice");
    free_writer(&w);
    str_clear(&s);
    w = (struct writer){0};
    value_u32(&w, "k", 1);
    value_u32(&w, "k", 2);
    assemble(&w, &s);
    expect_refused(s.data, s.len, "metadata k stands there twice");
    free_writer(&w);
    str_clear(&s);
    w = (struct writer){0};
    info(&w, "a", 1, shape, T_F32);
    info(&w, "b", 1, shape, T_F32); // no data between
    put_values(&w.data, T_F32, zeros, 32);
    assemble(&w, &s);
    expect_refused(s.data, s.len, "overlaps another tensor");
    free_writer(&w);
    str_clear(&s);
    w = (struct writer){0};
    info(&w, "a", 1, odd, T_Q8_0);
    assemble(&w, &s);
    expect_refused(s.data, s.len, "rows of 33 values of type Q8_0; a multiple of 32 wanted");
    free_writer(&w);
    str_clear(&s);
    w = (struct writer){0};
    value_u32(&w, "general.alignment", 0);
    assemble(&w, &s);
    expect_refused(s.data, s.len, "general.alignment must be from 1 to 1048576");
    free_writer(&w);
    str_free(&s);
}

/* The metadata of preset:tiny without one key, or with another value for it. */
static void expect_bad_model(const char *dropped, void (*add)(struct writer *w), const char *says)
{
    struct arch a, got;
    struct weights *from;
    struct err e = {0};
    assert_int_equal(arch_open("preset:tiny", &a, &e), 0);
    assert_int_equal(weights_open(&from, "preset:tiny", &a, &e), 0);
    struct writer w = {0};
    struct str s = {0};
    put_metadata(&w, &a);
    char *at = memmem(w.values.data, w.values.len, dropped, strlen(dropped));
    assert_non_null(at);
    *at = 'X';
    if (add) {
        add(&w);
    }
    put_tensors(&w, from, &a, T_F32);
    assemble(&w, &s);
    write_file(&s);
    assert_int_equal(arch_open(path, &got, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    if (!strstr(e.msg, says) || !strstr(e.msg, path)) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
    str_free(&s);
    free_writer(&w);
    weights_close(from);
}

static void other_architecture(struct writer *w)
{
    value_text(w, "general.architecture", "mamba");
}

static void heads_as_text(struct writer *w)
{
    value_text(w, "llama.attention.head_count", "4");
}

static void layers_as_list(struct writer *w)
{
    value_texts(w, "llama.block_count", 4);
}

static void no_layers(struct writer *w)
{
    value_u32(w, "llama.block_count", 0);
}

static void eps_as_text(struct writer *w)
{
    value_text(w, "llama.attention.layer_norm_rms_epsilon", "1e-5");
}

static void eps_not_a_number(struct writer *w)
{
    value_f32(w, "llama.attention.layer_norm_rms_epsilon", (double)NAN);
}

static void linear_scaling(struct writer *w)
{
    value_u32(w, "llama.block_count", 4);
    value_text(w, "llama.rope.scaling.type", "linear");
}

static void scaling_as_number(struct writer *w)
{
    value_u32(w, "llama.block_count", 4);
    value_u32(w, "llama.rope.scaling.type", 2);
}

static void yarn_without_factor(struct writer *w)
{
    value_u32(w, "llama.block_count", 4);
    value_text(w, "llama.rope.scaling.type", "yarn");
}

static void bad_metadata_is_named(void **state)
{
    (void)state;
    expect_bad_model("general.architecture", NULL, "metadata general.architecture is missing");
    expect_bad_model(
        "general.architecture", other_architecture,
        "unknown general.architecture \"mamba\"; known: llama, qwen2, gemma2, gpt-oss");
    expect_bad_model("llama.block_count", NULL, "num_hidden_layers is missing");
    expect_bad_model("llama.block_count", no_layers, "num_hidden_layers must be a whole number");
    expect_bad_model("llama.block_count", layers_as_list, "llama.block_count: one whole number");
    expect_bad_model("llama.context_length", NULL, "max_position_embeddings is missing");
    expect_bad_model("llama.embedding_length", NULL, "hidden_size is missing");
    expect_bad_model("llama.feed_forward_length", NULL, "intermediate_size is missing");
    expect_bad_model("llama.attention.head_count", NULL, "num_attention_heads is missing");
    expect_bad_model("llama.attention.head_count", heads_as_text,
                     "metadata llama.attention.head_count: one whole number wanted");
    expect_bad_model("llama.attention.layer_norm_rms_epsilon", eps_as_text,
                     "layer_norm_rms_epsilon: a number wanted");
    expect_bad_model("llama.attention.layer_norm_rms_epsilon", eps_not_a_number,
                     "layer_norm_rms_epsilon: a number wanted");
    expect_bad_model("llama.block_count", linear_scaling,
                     "llama.rope.scaling.type is linear; none and yarn are supported");
    expect_bad_model("llama.block_count", scaling_as_number, "llama.rope.scaling.type: a name");
    expect_bad_model("llama.block_count", yarn_without_factor, "factor is missing");
}

/* A tensor of the right name and the wrong shape or type, or none at all. */
static void bad_tensors_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t at; // behind the name, in the info
        uint64_t v;
        const char *says;
    } cases[] = {
        {"token_embd.weight", 0, 0, "tensor token_embd.weight is missing"},
        {"blk.0.attn_output.weight", 0, 0, "tensor blk.0.attn_output.weight is missing"},
        {"blk.3.ffn_up.weight", 0, 0, "tensor blk.3.ffn_up.weight is missing"},
        {"blk.1.attn_norm.weight", 4, 64,
         "wrong shape of tensor blk.1.attn_norm.weight: found (64), its metadata need (128)"},
        {"blk.2.attn_k.weight", 4, 64,
         "wrong shape of tensor blk.2.attn_k.weight: found (64, 64), its metadata need (64, 128)"},
        {"output_norm.weight", 12, 8, "tensor output_norm.weight has type Q8_0; F32, F16 or BF16"},
    };
    struct arch a;
    struct weights *from;
    struct err e = {0};
    assert_int_equal(arch_open("preset:tiny", &a, &e), 0);
    assert_int_equal(weights_open(&from, "preset:tiny", &a, &e), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct writer w = {0};
        struct str s = {0};
        struct arch got;
        put_metadata(&w, &a);
        put_tensors(&w, from, &a, T_F32);
        char *at = memmem(w.infos.data, w.infos.len, cases[i].name, strlen(cases[i].name));
        assert_non_null(at);
        if (cases[i].at == 0) {
            *at = 'X';
        } else {
            at[strlen(cases[i].name) + cases[i].at] = (char)cases[i].v;
        }
        assemble(&w, &s);
        write_file(&s);
        assert_int_equal(arch_open(path, &got, &e) || weights_check(path, &got, &e), 1);
        assert_int_equal(e.code, ERR_INPUT);
        if (!strstr(e.msg, cases[i].says)) {
            fail_msg("\"%s\" does not say \"%s\"", e.msg, cases[i].says);
        }
        str_free(&s);
        free_writer(&w);
    }
    weights_close(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_is_read_as_it_was),
        cmocka_unit_test(quantised_groups_are_read),
        cmocka_unit_test(types_are_decoded_as_llama_cpp_does),
        cmocka_unit_test(llama3_scaling_is_known_by_its_factors),
        cmocka_unit_test(every_cut_of_a_file_is_refused),
        cmocka_unit_test(damage_is_named),
        cmocka_unit_test(names_and_places_are_taken_once),
        cmocka_unit_test(bad_metadata_is_named),
        cmocka_unit_test(bad_tensors_are_named),
    };
    return cmocka_run_group_tests(tests, make_path, drop_path);
}
