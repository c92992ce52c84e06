/*
 * GGUF files: the tiny models of tests/golden, written as llama.cpp's converters write them, are read
 * back as the same models and say the same. What is wrong with a file: test_bad_gguf.c.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/str.h"
#include "model/gguf.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/chain.h"
#include "workers/weights/tensors.h"
#include "workers/weights/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static void write_model(const struct weights *from, const struct arch *a, uint32_t type)
{
    struct gguf_writer w = {0};
    gguf_writer_metadata(&w, a);
    gguf_writer_tensors(&w, from, a, type);
    if (a->rope == ARCH_ROPE_LLAMA3) {
        gguf_writer_rope_factors(&w, a->rope_theta, a->rope_dim, a->rope_llama3.factor);
    }
    gguf_writer_file(&w, path);
    gguf_writer_free(&w);
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
    case GGUF_WRITER_Q8_0:
        return 0.51 / 127;
    case GGUF_WRITER_Q4_0:
        return 0.51 / 7;
    case GGUF_WRITER_F16:
        return 0x1p-11;
    case GGUF_WRITER_BF16:
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
    const float *p = a, *q = b;
    if (x.n_rows == 1) { // a vector
        weights_vector(&x, a);
        weights_vector(&y, b);
    } else {
        p = weights_rows(&x, 0, x.n_rows, a), q = weights_rows(&y, 0, y.n_rows, b);
    }
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

static void expect_same_model_with(const char *folder, uint32_t type, bool qkv_bias)
{
    struct arch want, got;
    struct weights *from, *to;
    struct err e = {0};
    assert_int_equal(arch_open(folder, &want, &e), 0);
    want.qkv_bias = want.qkv_bias || qkv_bias;
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

static void expect_same_model(const char *folder, uint32_t type)
{
    expect_same_model_with(folder, type, false);
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
    expect_golden("llama_tiny_f32", GGUF_WRITER_F32);
    expect_golden("llama_tiny_f32", GGUF_WRITER_F16);
    expect_golden("llama_tiny_bf16", GGUF_WRITER_BF16);
    expect_golden("gemma2_tiny_f32", GGUF_WRITER_F32);
    expect_golden("gpt_oss_tiny_f32", GGUF_WRITER_F32);
    expect_golden("gpt_oss_tiny_mxfp4", GGUF_WRITER_BF16);
    expect_golden("deepseek_v3_tiny_f32", GGUF_WRITER_F32);
}

static void quantised_groups_are_read(void **state)
{
    (void)state;
    expect_same_model("preset:tiny", GGUF_WRITER_Q8_0);
    expect_same_model("preset:tiny", GGUF_WRITER_Q4_0);
    expect_same_model("preset:tiny-qwen2", GGUF_WRITER_Q8_0);
}

/* llama.cpp reorders biases of q and k as it does their rows. */
static void biases_of_llamas_heads_are_in_order(void **state)
{
    (void)state;
    expect_same_model_with("preset:tiny", GGUF_WRITER_F32, true);
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
    write_model(from, &want, GGUF_WRITER_F32);
    assert_int_equal(arch_open(path, &got, &e), 0);
    assert_int_equal(got.rope, ARCH_ROPE_LLAMA3);
    assert_true(got.rope_llama3.factor == 32 && got.rope_llama3.low == 1);
    assert_true(got.rope_llama3.high == 4 && got.rope_llama3.original_context == 8192);
    want.rope_theta = 10000; // the factors of another model
    struct gguf_writer w = {0};
    gguf_writer_metadata(&w, &want);
    gguf_writer_tensors(&w, from, &want, GGUF_WRITER_F32);
    gguf_writer_rope_factors(&w, 500000, want.rope_dim, 32);
    gguf_writer_file(&w, path);
    assert_int_equal(arch_open(path, &got, &e), -1);
    assert_non_null(strstr(e.msg, "rope_freqs.weight is not Llama 3.1's scaling"));
    gguf_writer_free(&w);
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

/* --- generated from -------------------------------------------------------------------------- */

enum {
    N_PROMPT = 40,
    N_IDS = 24
};

static void generate(const char *model, int32_t *out)
{
    int32_t prompt[N_PROMPT];
    for (int i = 0; i < N_PROMPT; i++) {
        prompt[i] = 3 + i * 29 % 90;
    }
    const struct chain_config cfg = {
        .model = model,
        .n_stages = 1,
        .n_threads = 1,
        .kernels = "auto",
        .max_tokens = 64,
        .max_rows = 1,
        .n_slots = 1,
        .context = 64,
    };
    struct chain c;
    chain_open(&c, &cfg);
    chain_generate(&c, prompt, N_PROMPT, 16, out, N_IDS);
    for (int i = 0; i < N_IDS; i++) {
        assert_in_range(out[i], 0, c.arch.vocab - 1);
    }
    chain_close(&c);
}

static void expect_same_ids(const char *model)
{
    struct arch a;
    struct weights *from;
    struct err e = {0};
    int32_t want[N_IDS], got[N_IDS];
    assert_int_equal(arch_open(model, &a, &e), 0);
    assert_int_equal(weights_open(&from, model, &a, &e), 0);
    write_model(from, &a, GGUF_WRITER_F32);
    generate(model, want);
    generate(path, got);
    assert_memory_equal(got, want, sizeof got);
    weights_close(from);
}

static void a_file_says_what_its_model_says(void **state)
{
    (void)state;
    static const char *const names[] = {"gemma2_tiny_f32", "gpt_oss_tiny_f32",
                                        "deepseek_v3_tiny_f32"};
    const char *source = getenv("TIDEMARK_SOURCE");
    expect_same_ids("preset:tiny");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *folder = xasprintf("%s/tests/golden/%s", source ? source : ".", names[i]);
        expect_same_ids(folder);
        free(folder);
    }
}

static void every_type_can_be_generated_from(void **state)
{
    (void)state;
    static const uint32_t all[] = {GGUF_WRITER_F16, GGUF_WRITER_BF16, GGUF_WRITER_Q8_0,
                                   GGUF_WRITER_Q4_0};
    struct arch a;
    struct weights *from;
    struct err e = {0};
    int32_t ids[N_IDS];
    assert_int_equal(arch_open("preset:tiny-qwen2", &a, &e), 0);
    assert_int_equal(weights_open(&from, "preset:tiny-qwen2", &a, &e), 0);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        write_model(from, &a, all[i]);
        generate(path, ids);
    }
    weights_close(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_is_read_as_it_was),
        cmocka_unit_test(quantised_groups_are_read),
        cmocka_unit_test(biases_of_llamas_heads_are_in_order),
        cmocka_unit_test(types_are_decoded_as_llama_cpp_does),
        cmocka_unit_test(llama3_scaling_is_known_by_its_factors),
        cmocka_unit_test(a_file_says_what_its_model_says),
        cmocka_unit_test(every_type_can_be_generated_from),
    };
    return cmocka_run_group_tests(tests, make_path, drop_path);
}
