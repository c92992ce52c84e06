/* What is wrong with a GGUF file is said in one line: damage, and models that are not whole. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/str.h"
#include "model/gguf.h"
#include "tests/support/gguf_writer.h"
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

/* A sound file of two values and one tensor, for damage. */
static void small_file(struct str *s)
{
    struct gguf_writer w = {0};
    const int64_t shape[2] = {2, 32};
    const float zeros[64] = {0};
    gguf_writer_text(&w, "general.architecture", "llama");
    gguf_writer_u32(&w, "llama.block_count", 1);
    gguf_writer_info(&w, "a", 2, shape, GGUF_WRITER_F32);
    gguf_writer_values(&w.data, GGUF_WRITER_F32, zeros, 64);
    gguf_writer_assemble(&w, s);
    gguf_writer_free(&w);
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

/* Where small_file has what: the first key and its value, the tensor's name, shape, type and offset. */
enum {
    FIRST_KEY = 24,
    VALUE = FIRST_KEY + 8 + 20, // its type, then a text of 5 bytes
    TENSOR = VALUE + 4 + 8 + 5 + 8 + 17 + 4 + 4,
    DIMS = TENSOR + 8 + 1,
    TYPE = DIMS + 4 + 16,
    OFFSET = TYPE + 4,
};

static const struct {
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
    {FIRST_KEY, 0, 8, "a metadata key of 0 bytes"},
    {FIRST_KEY, 1ull << 62, 8, "truncated: the file ends in a metadata key"},
    {FIRST_KEY + 8, 0, 1, "without a NUL wanted"},
    {VALUE, 13, 4, "metadata general.architecture has unknown type 13"},
    {VALUE, 9, 4, "general.architecture"},
    {VALUE + 4, UINT64_MAX, 8, "truncated: the file ends in general.architecture"},
    {TENSOR, 0, 8, "a tensor's name of 0 bytes"},
    {TENSOR, 70000, 8, "truncated: the file ends in a tensor's name"},
    {DIMS, 0, 4, "tensor a has 0 dimensions; 1 to 4 wanted"},
    {DIMS, 5, 4, "tensor a has 5 dimensions"},
    {DIMS + 4, 0, 8, "tensor a has a dimension of 0"},
    {DIMS + 4, 1ull << 32, 8, "tensor a has a dimension of 4294967296"},
    {DIMS + 4, 33, 8, "truncated: tensor a ends at byte 264 of the data, the file has 256"},
    {TYPE, 12, 4, "tensor a has type Q4_K (12); F32, F16, BF16, Q8_0, Q4_0 and MXFP4"},
    {TYPE, 14, 4, "tensor a has type Q6_K (14)"},
    {TYPE, 26, 4, "tensor a has type I32 (26)"},
    {TYPE, 999, 4, "tensor a has type unknown (999)"},
    {TYPE, 8, 4, NULL}, // Q8_0 takes fewer bytes
    {OFFSET, 1, 8, "offset 1 is no multiple of 32"},
    {OFFSET, 32, 8, "truncated: tensor a ends at byte 288"},
    {OFFSET, UINT64_MAX - 31, 8, "truncated: tensor a"},
};

static void damage_is_named(void **state)
{
    (void)state;
    struct str s = {0};
    small_file(&s);
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
    struct gguf_writer w = {0};
    struct str s = {0};
    gguf_writer_info(&w, "a", 1, shape, GGUF_WRITER_F32);
    gguf_writer_values(&w.data, GGUF_WRITER_F32, zeros, 32);
    gguf_writer_info(&w, "a", 1, shape, GGUF_WRITER_F32);
    gguf_writer_values(&w.data, GGUF_WRITER_F32, zeros, 32);
    gguf_writer_assemble(&w, &s);
    expect_refused(s.data, s.len, "tensor a stands there twice");
    gguf_writer_free(&w);
    str_clear(&s);
    w = (struct gguf_writer){0};
    gguf_writer_u32(&w, "k", 1);
    gguf_writer_u32(&w, "k", 2);
    gguf_writer_assemble(&w, &s);
    expect_refused(s.data, s.len, "metadata k stands there twice");
    gguf_writer_free(&w);
    str_clear(&s);
    w = (struct gguf_writer){0};
    gguf_writer_info(&w, "a", 1, shape, GGUF_WRITER_F32);
    gguf_writer_info(&w, "b", 1, shape, GGUF_WRITER_F32); // no data between
    gguf_writer_values(&w.data, GGUF_WRITER_F32, zeros, 32);
    gguf_writer_assemble(&w, &s);
    expect_refused(s.data, s.len, "overlaps another tensor");
    gguf_writer_free(&w);
    str_clear(&s);
    w = (struct gguf_writer){0};
    gguf_writer_info(&w, "a", 1, odd, GGUF_WRITER_Q8_0);
    gguf_writer_assemble(&w, &s);
    expect_refused(s.data, s.len, "rows of 33 values of type Q8_0; a multiple of 32 wanted");
    gguf_writer_free(&w);
    str_clear(&s);
    w = (struct gguf_writer){0};
    gguf_writer_u32(&w, "general.alignment", 0);
    gguf_writer_assemble(&w, &s);
    expect_refused(s.data, s.len, "general.alignment must be from 1 to 1048576");
    gguf_writer_free(&w);
    str_free(&s);
}

/* The metadata of preset:tiny without one key, or with another value for it. */
static void expect_bad_model(const char *dropped, void (*add)(struct gguf_writer *w),
                             const char *says)
{
    struct arch a, got;
    struct weights *from;
    struct err e = {0};
    assert_int_equal(arch_open("preset:tiny", &a, &e), 0);
    assert_int_equal(weights_open(&from, "preset:tiny", &a, &e), 0);
    struct gguf_writer w = {0};
    gguf_writer_metadata(&w, &a);
    char *at = memmem(w.values.data, w.values.len, dropped, strlen(dropped));
    assert_non_null(at);
    *at = 'X';
    if (add) {
        add(&w);
    }
    gguf_writer_tensors(&w, from, &a, GGUF_WRITER_F32);
    gguf_writer_file(&w, path);
    assert_int_equal(arch_open(path, &got, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    if (!strstr(e.msg, says) || !strstr(e.msg, path)) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
    gguf_writer_free(&w);
    weights_close(from);
}

static void other_architecture(struct gguf_writer *w)
{
    gguf_writer_text(w, "general.architecture", "mamba");
}

static void heads_as_text(struct gguf_writer *w)
{
    gguf_writer_text(w, "llama.attention.head_count", "4");
}

static void layers_as_list(struct gguf_writer *w)
{
    gguf_writer_texts(w, "llama.block_count", 4);
}

static void no_layers(struct gguf_writer *w)
{
    gguf_writer_u32(w, "llama.block_count", 0);
}

static void eps_as_text(struct gguf_writer *w)
{
    gguf_writer_text(w, "llama.attention.layer_norm_rms_epsilon", "1e-5");
}

static void eps_not_a_number(struct gguf_writer *w)
{
    gguf_writer_f32(w, "llama.attention.layer_norm_rms_epsilon", (double)NAN);
}

static void linear_scaling(struct gguf_writer *w)
{
    gguf_writer_u32(w, "llama.block_count", 4);
    gguf_writer_text(w, "llama.rope.scaling.type", "linear");
}

static void scaling_as_number(struct gguf_writer *w)
{
    gguf_writer_u32(w, "llama.block_count", 4);
    gguf_writer_u32(w, "llama.rope.scaling.type", 2);
}

static void yarn_without_factor(struct gguf_writer *w)
{
    gguf_writer_u32(w, "llama.block_count", 4);
    gguf_writer_text(w, "llama.rope.scaling.type", "yarn");
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
        struct gguf_writer w = {0};
        struct arch got;
        gguf_writer_metadata(&w, &a);
        gguf_writer_tensors(&w, from, &a, GGUF_WRITER_F32);
        char *at = memmem(w.infos.data, w.infos.len, cases[i].name, strlen(cases[i].name));
        assert_non_null(at);
        if (cases[i].at == 0) {
            *at = 'X';
        } else {
            at[strlen(cases[i].name) + cases[i].at] = (char)cases[i].v;
        }
        gguf_writer_file(&w, path);
        assert_int_equal(arch_open(path, &got, &e) || weights_check(path, &got, &e), 1);
        assert_int_equal(e.code, ERR_INPUT);
        if (!strstr(e.msg, cases[i].says)) {
            fail_msg("\"%s\" does not say \"%s\"", e.msg, cases[i].says);
        }
        gguf_writer_free(&w);
    }
    weights_close(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_of_a_file_is_refused),  cmocka_unit_test(damage_is_named),
        cmocka_unit_test(names_and_places_are_taken_once), cmocka_unit_test(bad_metadata_is_named),
        cmocka_unit_test(bad_tensors_are_named),
    };
    return cmocka_run_group_tests(tests, make_path, drop_path);
}
