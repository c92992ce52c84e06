/*
 * Tensors of every family: that all are found in the tiny models, that their values are those which
 * PyTorch reads, and that presets make them without a file. Hashes are FNV-1a (64 bit) of the bytes
 * that PyTorch 2.15 has after its own decoding (float8_e4m3fn times its factors; transformers' MXFP4).
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/str.h"
#include "model/sizes.h"
#include "workers/weights/bf16.h"
#include "workers/weights/safetensors.h"
#include "workers/weights/tensors.h"
#include "workers/weights/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const models[] = {
    "llama_tiny_f32",     "llama_tiny_bf16",      "qwen2_tiny_f32",        "qwen2_tiny_bf16",
    "gemma2_tiny_f32",    "gemma2_tiny_bf16",     "gpt_oss_tiny_f32",      "gpt_oss_tiny_bf16",
    "gpt_oss_tiny_mxfp4", "deepseek_v3_tiny_f32", "deepseek_v3_tiny_bf16", "deepseek_v3_tiny_fp8",
};

static char *folder_of(const char *name)
{
    const char *source = getenv("TIDEMARK_SOURCE");
    return xasprintf("%s/tests/golden/%s", source ? source : ".", name);
}

static struct weights *open_model(const char *model, struct arch *a)
{
    struct err e = {0};
    struct weights *w = NULL;
    if (arch_open(model, a, &e) || weights_open(&w, model, a, &e)) {
        fail_msg("%s", e.msg);
    }
    return w;
}

static struct weights_tensor find(const struct weights *w, enum weights_id id, int layer,
                                  int expert)
{
    struct err e = {0};
    struct weights_tensor t;
    if (weights_find(w, id, layer, expert, &t, &e)) {
        fail_msg("%s", e.msg);
    }
    return t;
}

/* Every tensor that the arch has: how many values they hold, how many bytes they take. */
static int64_t count_all(const struct weights *w, const struct arch *a, int64_t *bytes)
{
    int64_t n = 0;
    *bytes = 0;
    for (int id = 0; id < WEIGHTS_N; id++) {
        const enum weights_id i = (enum weights_id)id;
        for (int layer = 0; layer < (tensors_is_of_layer(i) ? a->n_layers : 1); layer++) {
            const int n_experts = tensors_is_of_expert(i) ? a->moe.n_experts : 1;
            for (int x = 0; tensors_has(a, i, layer) && x < n_experts; x++) {
                const struct weights_tensor t = find(w, i, layer, tensors_is_of_expert(i) ? x : -1);
                n += t.n_rows * t.n_cols;
                *bytes += weights_stored_bytes(&t);
            }
        }
    }
    return n;
}

/* What the files hold in all, but for factors and what is not the model's. */
static int64_t count_files(const struct arch *a, const char *folder)
{
    const char *const files[] = {"model.safetensors", "model-00001-of-00002.safetensors",
                                 "model-00002-of-00002.safetensors"};
    char beyond[64];
    snprintf(beyond, sizeof beyond, "model.layers.%d.", a->n_layers);
    int64_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        char *path = xasprintf("%s/%s", folder, files[i]);
        struct safetensors *f;
        struct err e = {0};
        if (access(path, F_OK) == 0) {
            assert_int_equal(safetensors_open(&f, path, &e), 0);
            for (size_t k = 0; k < safetensors_count(f); k++) {
                const struct safetensors_tensor *t = safetensors_at(f, k);
                int64_t values = strstr(t->name, "_blocks") ? 2 : 1;
                for (int d = 0; d < t->n_dims; d++) {
                    values *= t->shape[d];
                }
                bool factors = strstr(t->name, "_scale") != NULL;
                n += factors || strncmp(t->name, beyond, strlen(beyond)) == 0 ? 0 : values;
            }
            safetensors_close(f);
        }
        free(path);
    }
    return n;
}

static void every_tensor_of_every_family_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char *folder = folder_of(models[i]);
        struct arch a;
        struct err e = {0};
        struct weights *w = open_model(folder, &a);
        if (weights_check(folder, &a, &e)) {
            fail_msg("%s", e.msg);
        }
        int64_t bytes, n = count_all(w, &a, &bytes);
        assert_int_equal(n, count_files(&a, folder)); // none is left over
        assert_int_equal(n, sizes_params(&a));
        weights_close(w);
        free(folder);
    }
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

static void values_are_those_that_pytorch_reads(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        enum weights_id id;
        int layer, expert;
        enum arch_dtype as;
        uint64_t hash;
    } cases[] = {
        {"gpt_oss_tiny_mxfp4", WEIGHTS_EXPERT_GATE, 1, 4, ARCH_F32, 0x05dc305b6779c0cc},
        {"gpt_oss_tiny_mxfp4", WEIGHTS_EXPERT_GATE, 1, 4, ARCH_BF16, 0x0b5a43599a7fe98c},
        {"gpt_oss_tiny_mxfp4", WEIGHTS_EXPERT_UP, 1, 4, ARCH_F32, 0x32706feef1b1656e},
        {"gpt_oss_tiny_mxfp4", WEIGHTS_EXPERT_DOWN, 1, 5, ARCH_F32, 0x05d288e8bc30247e},
        {"gpt_oss_tiny_mxfp4", WEIGHTS_EXPERT_UP_BIAS, 1, 2, ARCH_F32, 0xb0fc1b4f38458f41},
        {"gpt_oss_tiny_mxfp4", WEIGHTS_EXPERT_DOWN_BIAS, 1, 5, ARCH_F32, 0xd01b39f3b367923d},
        {"gpt_oss_tiny_bf16", WEIGHTS_EXPERT_UP, 1, 3, ARCH_F32, 0xf964fd2613fb851c},
        {"gpt_oss_tiny_bf16", WEIGHTS_EXPERT_DOWN, 1, 0, ARCH_BF16, 0x8d278a6c00d1e78d},
        {"gpt_oss_tiny_f32", WEIGHTS_EXPERT_GATE, 1, 1, ARCH_BF16, 0x6adb77db0b9f5d38},
        {"deepseek_v3_tiny_fp8", WEIGHTS_DOWN, 0, -1, ARCH_F32, 0x5f8c1924b82a375e},
        {"deepseek_v3_tiny_fp8", WEIGHTS_DOWN, 0, -1, ARCH_BF16, 0x925bc795cd03187e},
        {"deepseek_v3_tiny_fp8", WEIGHTS_EXPERT_GATE, 2, 7, ARCH_F32, 0xdb85ed0e7221c73f},
        {"deepseek_v3_tiny_fp8", WEIGHTS_EXPERT_GATE, 2, 7, ARCH_BF16, 0x866b21e401fc0d24},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *folder = folder_of(cases[i].model);
        struct arch a;
        struct weights *w = open_model(folder, &a);
        struct weights_tensor t = find(w, cases[i].id, cases[i].layer, cases[i].expert);
        t.dtype = cases[i].as;
        const size_t bytes = (size_t)(t.n_rows * weights_row_bytes(t.dtype, t.n_cols));
        void *scratch = xmalloc(bytes);
        uint64_t hash = fnv(weights_rows(&t, 0, t.n_rows, scratch), bytes);
        if (hash != cases[i].hash) {
            fail_msg("%s: %s, case %zu", cases[i].model, t.name, i);
        }
        free(scratch);
        weights_close(w);
        free(folder);
    }
}

/* Any part is what it is in the whole, in both dtypes. */
static void expect_parts_of_the_whole(struct weights_tensor *t)
{
    const size_t n = (size_t)(t->n_rows * t->n_cols);
    float *whole = xcalloc(n, sizeof *whole), *part = xcalloc(n, sizeof *part);
    t->dtype = ARCH_F32;
    const float *all = weights_rows(t, 0, t->n_rows, whole);
    for (int64_t row = 0; row < t->n_rows; row += 3) {
        const int64_t m = t->n_rows - row < 2 ? 1 : 2;
        const size_t values = (size_t)(m * t->n_cols);
        const float *want = all + row * t->n_cols;
        t->dtype = ARCH_F32;
        assert_memory_equal(weights_rows(t, row, m, part), want, values * sizeof *want);
        t->dtype = ARCH_BF16;
        const uint16_t *halves = weights_rows(t, row, m, part);
        for (size_t i = 0; i < values; i++) {
            assert_true(isfinite(want[i]));
            assert_int_equal(halves[i], bf16_from_f32(want[i]));
        }
    }
    free(whole);
    free(part);
}

static void any_rows_are_those_of_the_whole(void **state)
{
    (void)state;
    static const char *const presets[] = {"preset:tiny", "preset:tiny-gpt-oss",
                                          "preset:tiny-deepseek", "preset:tiny-gemma2"};
    char *stored = folder_of("deepseek_v3_tiny_fp8"), *strided = folder_of("gpt_oss_tiny_bf16");
    const char *const names[] = {presets[0], presets[1], presets[2], presets[3], stored, strided};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct arch a;
        struct weights *w = open_model(names[i], &a);
        for (int id = WEIGHTS_ATTN_NORM; id < WEIGHTS_N; id++) {
            const enum weights_id x = (enum weights_id)id;
            if (tensors_has(&a, x, 1)) {
                struct weights_tensor t = find(w, x, 1, tensors_is_of_expert(x) ? 1 : -1);
                expect_parts_of_the_whole(&t);
            }
        }
        weights_close(w);
    }
    free(stored);
    free(strided);
}

static void generated_norms_do_nothing_but_norm(void **state)
{
    (void)state;
    const struct {
        const char *model;
        enum weights_id id;
        float value;
    } cases[] = {{"preset:tiny", WEIGHTS_MLP_NORM, 1},
                 {"preset:tiny-gemma2", WEIGHTS_POST_MLP_NORM, 0},
                 {"preset:tiny-deepseek", WEIGHTS_KV_A_NORM, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arch a;
        struct weights *w = open_model(cases[i].model, &a);
        struct weights_tensor t = find(w, cases[i].id, 2, -1);
        float *v = xcalloc((size_t)t.n_cols, sizeof *v);
        weights_vector(&t, v);
        for (int64_t k = 0; k < t.n_cols; k++) {
            assert_true(v[k] == cases[i].value);
        }
        free(v);
        weights_close(w);
    }
}

static void generated_bytes_are_those_of_the_sizes(void **state)
{
    (void)state;
    static const char *const presets[] = {"preset:tiny", "preset:tiny-qwen2", "preset:tiny-gemma2",
                                          "preset:tiny-gpt-oss", "preset:gpt-oss-20b-2l"};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        struct arch a;
        struct weights *w = open_model(presets[i], &a);
        int64_t bytes, n = count_all(w, &a, &bytes);
        assert_int_equal(n, sizes_params(&a));
        assert_true((double)bytes == sizes_bytes(&a));
        weights_close(w);
    }
}

/* --- what is wrong with a folder -------------------------------------------------------------- */

#define LAYER1 "model.layers.1."

/* One change of a header, of equal length: JSON allows spaces. */
static const struct {
    const char *model, *from, *to, *says;
} tampered[] = {
    {"gpt_oss_tiny_mxfp4", "layers.1.mlp.experts.gate_up_proj_blocks",
     "layers.1.mlp.experts.gate_up_proj_blockz",
     "tensor " LAYER1 "mlp.experts.gate_up_proj_blocks is missing"},
    {"gpt_oss_tiny_mxfp4", "layers.1.mlp.experts.down_proj_scales",
     "layers.1.mlp.experts.down_proj_scalez",
     "tensor " LAYER1 "mlp.experts.down_proj_scales is missing"},
    {"gpt_oss_tiny_mxfp4", "layers.1.mlp.experts.down_proj_blocks\":{\"dtype\":\"U8\"",
     "layers.1.mlp.experts.down_proj_blocks\":{\"dtype\":\"I8\"",
     "wrong dtype of tensor " LAYER1 "mlp.experts.down_proj_blocks: found I8 (6, 64, 1, 16), "
     "config.json needs U8 (6, 64, 1, 16)"},
    {"gpt_oss_tiny_mxfp4", "\"shape\":[6,64,2,16]", "\"shape\":[6,64,16,2]",
     "wrong shape of tensor model.layers.0.mlp.experts.gate_up_proj_blocks: found U8 (6, 64, 16, 2)"},
    {"gpt_oss_tiny_mxfp4", "\"shape\":[6,64,2,16]", "\"shape\":[6,64, 32] ",
     "found U8 (6, 64, 32), config.json needs U8 (6, 64, 2, 16)"},
    {"gpt_oss_tiny_mxfp4", "\"shape\":[6,64,2]", "\"shape\":[6,2,64]",
     "wrong shape of tensor model.layers.0.mlp.experts.gate_up_proj_scales: found U8 (6, 2, 64)"},
    {"gpt_oss_tiny_mxfp4", "layers.2.self_attn.sinks", "layers.2.self_attn.sonks",
     "tensor model.layers.2.self_attn.sinks is missing"},
    {"gpt_oss_tiny_mxfp4", "layers.0.mlp.router.bias", "layers.0.mlp.router.vias",
     "tensor model.layers.0.mlp.router.bias is missing"},
    {"gpt_oss_tiny_bf16", "\"shape\":[6,24,40]", "\"shape\":[6,40,24]",
     "mlp.experts.gate_up_proj: found BF16 (6, 40, 24), config.json needs BF16 (6, 24, 40)"},
    {"gpt_oss_tiny_bf16", "\"shape\":[6,20,24]", "\"shape\":[20,6,24]",
     "mlp.experts.down_proj: found BF16 (20, 6, 24), config.json needs BF16 (6, 20, 24)"},
    {"gpt_oss_tiny_bf16", "experts.down_proj_bias\":{\"dtype\":\"BF16\"",
     "experts.down_proj_bias\":{\"dtype\":\"I16\" ", "down_proj_bias: found I16 (6, 24)"},
    {"deepseek_v3_tiny_fp8", "layers.2.mlp.experts.7.up_proj.weight_scale_inv",
     "layers.2.mlp.experts.7.up_proj.weight_scale_int",
     "tensor model.layers.2.mlp.experts.7.up_proj.weight_scale_inv is missing"},
    {"deepseek_v3_tiny_fp8", "layers.2.mlp.experts.7.up_proj.weight\"",
     "layers.2.mlp.experts.8.up_proj.weight\"",
     "tensor model.layers.2.mlp.experts.7.up_proj.weight is missing"},
    {"deepseek_v3_tiny_fp8", "\"F8_E4M3\",\"shape\":[64,14]", "\"F8_E5M2\",\"shape\":[64,14]",
     "wrong dtype of tensor model.layers.0.self_attn.kv_b_proj.weight: found F8_E5M2 (64, 14), "
     "config.json needs F8_E4M3 (64, 14)"},
    {"deepseek_v3_tiny_fp8", "\"F8_E4M3\",\"shape\":[64,14]", "\"F8_E4M3\",\"shape\":[14,64]",
     "wrong shape of tensor model.layers.0.self_attn.kv_b_proj.weight: found F8_E4M3 (14, 64)"},
    {"deepseek_v3_tiny_fp8", "\"F32\",\"shape\":[2,2]", "\"F32\",\"shape\":[4,1]",
     "weight_scale_inv: found F32 (4, 1), config.json needs F32 (2, 2)"},
    {"deepseek_v3_tiny_fp8", "\"F32\",\"shape\":[1,2]", "\"F32\",\"shape\":[2]  ",
     "weight_scale_inv: found F32 (2), config.json needs F32 (1, 2)"},
    {"deepseek_v3_tiny_fp8", "gate.e_score_correction_bias", "gate.e_score_correction_vias",
     "mlp.gate.e_score_correction_bias is missing"},
    {"deepseek_v3_tiny_fp8", "kv_a_proj_with_mqa.weight\"", "kv_a_proj_with_mqb.weight\"",
     "self_attn.kv_a_proj_with_mqa.weight is missing"},
    {"deepseek_v3_tiny_bf16", "layers.0.self_attn.q_proj.weight",
     "layers.0.self_attn.r_proj.weight",
     "tensor model.layers.0.self_attn.q_proj.weight is missing"},
    {"gemma2_tiny_bf16", "layers.3.pre_feedforward_layernorm.weight",
     "layers.3.pre_feedforward_layernorn.weight",
     "tensor model.layers.3.pre_feedforward_layernorm.weight is missing"},
    {"gemma2_tiny_bf16", "layers.0.post_feedforward_layernorm.weight",
     "layers.9.post_feedforward_layernorm.weight",
     "tensor model.layers.0.post_feedforward_layernorm.weight is missing"},
    {"qwen2_tiny_bf16", "layers.2.self_attn.k_proj.bias", "layers.2.self_attn.k_proj.vias",
     "tensor model.layers.2.self_attn.k_proj.bias is missing"},
    {"qwen2_tiny_bf16", "\"dtype\":\"BF16\",\"shape\":[60]", "\"dtype\":\"I16\" ,\"shape\":[60]",
     "wrong dtype of tensor model.layers.0.self_attn.q_proj.bias: found I16 (60)"},
};

static char dir[] = "/tmp/tidemark-test-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    char *path = xasprintf("%s/model.safetensors", dir);
    unlink(path);
    free(path);
    return rmdir(dir);
}

static void write_tampered(const char *folder, const char *from, const char *to)
{
    char *path = xasprintf("%s/model.safetensors", folder);
    struct str s = {0};
    struct err e = {0};
    assert_int_equal(str_read_file(&s, path, 1 << 20, &e), 0);
    free(path);
    assert_int_equal(strlen(from), strlen(to));
    char *at = memmem(s.data, s.len, from, strlen(from));
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    path = xasprintf("%s/model.safetensors", dir);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(s.data, 1, s.len, f), s.len);
    assert_int_equal(fclose(f), 0);
    free(path);
    str_free(&s);
}

static void wrong_tensors_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof tampered / sizeof *tampered; i++) {
        char *folder = folder_of(tampered[i].model);
        struct arch a;
        struct err e = {0};
        assert_int_equal(arch_open(folder, &a, &e), 0);
        write_tampered(folder, tampered[i].from, tampered[i].to);
        assert_int_equal(weights_check(dir, &a, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        if (!strstr(e.msg, tampered[i].says) || strncmp(e.msg, dir, strlen(dir)) != 0) {
            fail_msg("\"%s\" does not say \"%s\"", e.msg, tampered[i].says);
        }
        free(folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_of_every_family_is_found),
        cmocka_unit_test(values_are_those_that_pytorch_reads),
        cmocka_unit_test(any_rows_are_those_of_the_whole),
        cmocka_unit_test(generated_norms_do_nothing_but_norm),
        cmocka_unit_test(generated_bytes_are_those_of_the_sizes),
        cmocka_unit_test(wrong_tensors_are_named),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
