/* The reader of untrusted weight files, and the model folder above it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/mem.h"
#include "core/str.h"
#include "workers/weights/safetensors.h"
#include "workers/weights/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file's bytes: length, header, n data bytes counting up. */
static void build(struct str *s, const char *header, size_t n_data)
{
    uint64_t len = strlen(header);
    str_clear(s);
    for (int i = 0; i < 8; i++) {
        unsigned char byte = (unsigned char)(len >> (8 * i));
        str_append(s, &byte, 1);
    }
    str_puts(s, header);
    for (size_t i = 0; i < n_data; i++) {
        unsigned char byte = (unsigned char)i;
        str_append(s, &byte, 1);
    }
}

static int parse(const struct str *s, struct safetensors **out, struct err *e)
{
    *e = (struct err){0};
    return safetensors_parse(out, s->data, s->len, "x.safetensors", e);
}

static void a_sound_file_gives_its_tensors(void **state)
{
    (void)state;
    struct str s = {0};
    struct safetensors *f;
    struct err e;
    build(&s,
          "{\"__metadata__\": {\"format\": \"pt\"},"
          "\"b\": {\"dtype\": \"BF16\", \"shape\": [2, 3], \"data_offsets\": [8, 20]},"
          "\"none\": {\"dtype\": \"F32\", \"shape\": [0, 5], \"data_offsets\": [8, 8]},"
          "\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}  ",
          20);
    assert_int_equal(parse(&s, &f, &e), 0);
    assert_int_equal(safetensors_count(f), 3);
    assert_string_equal(safetensors_at(f, 0)->name, "a");
    const struct safetensors_tensor *b = safetensors_find(f, "b");
    assert_non_null(b);
    assert_string_equal(b->dtype, "BF16");
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->n_bytes, 12);
    assert_int_equal(*(const unsigned char *)b->data, 8);
    assert_null(safetensors_find(f, "c"));
    safetensors_close(f);
    str_free(&s);
}

static void bad_files_say_what_is_wrong(void **state)
{
    (void)state;
#define T(range) "{\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": " range "}"
    const struct {
        const char *header;
        size_t n_data;
        const char *says;
    } bad[] = {
        {"{\"a\": " T("[0, 8]") "}", 7, "truncated: tensor a ends at byte 8"},
        {"{\"a\": " T("[0, 8]") "}", 9, "1 bytes follow the last tensor"},
        {"{\"a\": " T("[0, 8]") ", \"b\": " T("[4, 12]") "}", 12, "tensor b: overlaps"},
        {"{\"a\": " T("[0, 8]") ", \"b\": " T("[0, 8]") "}", 8, "overlaps"},
        {"{\"a\": " T("[0, 8]") ", \"b\": " T("[9, 17]") "}", 17, "a gap lies before"},
        {"{\"a\": " T("[0, 7]") "}", 7, "do not match dtype and shape"},
        {"{\"a\": " T("[8, 0]") "}", 8, "data_offsets must be"},
        {"{\"a\": " T("[-8, 0]") "}", 8, "data_offsets must be"},
        {"{\"a\": " T("[0]") "}", 8, "data_offsets must be"},
        {"{\"a\": " T("{}") "}", 8, "data_offsets must be"},
        {"{\"a\": {\"dtype\": \"F33\", \"shape\": [2], \"data_offsets\": [0, 8]}}", 8,
         "unknown dtype"},
        {"{\"a\": {\"shape\": [2], \"data_offsets\": [0, 8]}}", 8, "dtype is missing"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [-2], \"data_offsets\": [0, 8]}}", 8, "shape"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1.5], \"data_offsets\": [0, 8]}}", 8, "shape"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": 2, \"data_offsets\": [0, 8]}}", 8, "shape"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [4294967296, 4294967296, 4], "
         "\"data_offsets\": [0, 0]}}",
         0, "larger than any memory"},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [1,1,1,1,1,1,1,1,1], \"data_offsets\": [0, 4]}}",
         4, "at most 8 sizes"},
        {"{\"a\": 1}", 0, "not an object"},
        {"{\"a\": " T("[0, 8]") ", \"a\": " T("[0, 8]") "}", 8, "not JSON"},
        {"[]", 0, "not a JSON object"},
        {"{", 0, "not JSON"},
    };
    struct str s = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct safetensors *f = NULL;
        struct err e;
        build(&s, bad[i].header, bad[i].n_data);
        assert_int_equal(parse(&s, &f, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        if (!strstr(e.msg, bad[i].says) || strncmp(e.msg, "x.safetensors: ", 15) != 0) {
            fail_msg("\"%s\" does not say \"%s\"", e.msg, bad[i].says);
        }
        assert_null(f);
    }
    str_free(&s);
}

static void every_cut_of_a_file_is_refused(void **state)
{
    (void)state;
    struct str s = {0};
    build(&s, "{\"a\": " T("[0, 8]") "}", 8);
    for (size_t n = 0; n < s.len; n++) {
        struct safetensors *f;
        struct err e = {0};
        char *cut = xmalloc(n); // its own allocation, so that a sanitizer sees a read past its end
        memcpy(cut, s.data, n);
        assert_int_equal(safetensors_parse(&f, cut, n, "cut", &e), -1);
        assert_non_null(strstr(e.msg, "truncated"));
        free(cut);
    }
    const unsigned char huge[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct safetensors *f;
    struct err e = {0};
    assert_int_equal(safetensors_parse(&f, huge, sizeof huge, "huge", &e), -1);
    assert_non_null(strstr(e.msg, "not a safetensors file"));
    str_free(&s);
}

/* --- a model's folder ------------------------------------------------------------------------- */

static char dir[] = "/tmp/tidemark-test-XXXXXX";

static void put(const char *name, const void *bytes, size_t n)
{
    char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static void drop(const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    unlink(path);
    free(path);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static const struct arch one_layer = {
    .family = "llama",
    .n_layers = 1,
    .hidden = 2,
    .intermediate = 2,
    .n_heads = 1,
    .n_kv_heads = 1,
    .head_dim = 2,
    .v_dim = 2,
    .vocab = 3,
    .max_context = 16,
    .tied_embedding = true,
};

/* All tensors of one_layer; the q projection's entry as given. */
static void build_model(struct str *s, const char *q)
{
    struct str h = {0};
    str_printf(&h, "{\"model.layers.0.self_attn.q_proj.weight\": %s", q);
    size_t at = 16;
    const char *square[] = {"self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                            "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};
    for (size_t i = 0; i < sizeof square / sizeof *square; i++, at += 16) {
        str_printf(&h,
                   ", \"model.layers.0.%s.weight\": {\"dtype\": \"F32\", \"shape\": [2, 2], "
                   "\"data_offsets\": [%zu, %zu]}",
                   square[i], at, at + 16);
    }
    const char *norms[] = {"model.layers.0.input_layernorm.weight",
                           "model.layers.0.post_attention_layernorm.weight", "model.norm.weight"};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++, at += 8) {
        str_printf(&h,
                   ", \"%s\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [%zu, %zu]}",
                   norms[i], at, at + 8);
    }
    str_printf(&h,
               ", \"model.embed_tokens.weight\": {\"dtype\": \"F32\", \"shape\": [3, 2], "
               "\"data_offsets\": [%zu, %zu]}}",
               at, at + 24);
    build(s, h.data, at + 24);
    str_free(&h);
}

static void expect_refused(const char *says)
{
    struct err e = {0};
    assert_int_equal(weights_check(dir, &one_layer, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    if (!strstr(e.msg, says)) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
}

#define Q "model.layers.0.self_attn.q_proj.weight"

static void a_folder_is_checked_tensor_by_tensor(void **state)
{
    (void)state;
    struct str s = {0};
    struct err e = {0};
    expect_refused("missing model file");
    build_model(&s, "{\"dtype\": \"F32\", \"shape\": [2, 2], \"data_offsets\": [0, 16]}");
    put("model.safetensors", s.data, s.len);
    assert_int_equal(weights_check(dir, &one_layer, &e), 0);
    put("model.safetensors", s.data, s.len - 1);
    expect_refused("model.safetensors: truncated");
    put("model.safetensors", s.data, 0);
    expect_refused("model.safetensors: truncated");
    build_model(&s, "{\"dtype\": \"F32\", \"shape\": [4, 1], \"data_offsets\": [0, 16]}");
    put("model.safetensors", s.data, s.len);
    expect_refused("wrong shape of tensor " Q ": found F32 (4, 1), config.json needs F32 (2, 2)");
    build_model(&s, "{\"dtype\": \"F16\", \"shape\": [2, 4], \"data_offsets\": [0, 16]}");
    put("model.safetensors", s.data, s.len);
    expect_refused("wrong shape of tensor " Q ": found F16 (2, 4), config.json needs F32 (2, 2)");
    build_model(&s, "{\"dtype\": \"I32\", \"shape\": [2, 2], \"data_offsets\": [0, 16]}");
    put("model.safetensors", s.data, s.len);
    expect_refused("wrong dtype of tensor " Q ": found I32 (2, 2), config.json needs F32 (2, 2)");
    drop("model.safetensors");
    str_free(&s);
}

static uint64_t hash_of_dir(void)
{
    struct err e = {0};
    uint64_t hash = 0;
    assert_int_equal(weights_hash(dir, &one_layer, &hash, &e), 0);
    return hash;
}

static void a_hash_tells_headers_and_sizes_apart(void **state)
{
    (void)state;
    struct str s = {0};
    struct err e = {0};
    uint64_t hash;
    assert_int_equal(weights_hash(dir, &one_layer, &hash, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    build(&s, "{\"a\": " T("[0, 8]") "}", 8);
    put("model.safetensors", s.data, s.len);
    uint64_t first = hash_of_dir();
    assert_int_equal(hash_of_dir(), first);
    s.data[s.len - 1] ^= 1; // a weight
    put("model.safetensors", s.data, s.len);
    assert_int_equal(hash_of_dir(), first);
    build(&s, "{\"b\": " T("[0, 8]") "}", 8);
    put("model.safetensors", s.data, s.len);
    assert_int_not_equal(hash_of_dir(), first);
    drop("model.safetensors");
    str_free(&s);
}

static void a_hash_knows_no_order_of_shards(void **state)
{
    (void)state;
    static const char *const index[] = {
        "{\"weight_map\": {\"a\": \"1.safetensors\", \"b\": \"2.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"2.safetensors\", \"a\": \"1.safetensors\"}}"};
    struct str s = {0};
    uint64_t hash[2];
    build(&s, "{\"a\": " T("[0, 8]") "}", 8);
    put("1.safetensors", s.data, s.len);
    build(&s, "{\"b\": " T("[0, 8]") "}", 8);
    put("2.safetensors", s.data, s.len);
    for (int i = 0; i < 2; i++) {
        put("model.safetensors.index.json", index[i], strlen(index[i]));
        hash[i] = hash_of_dir();
    }
    assert_int_equal(hash[0], hash[1]);
    put("1.safetensors", s.data, s.len);
    assert_int_not_equal(hash_of_dir(), hash[0]);
    drop("model.safetensors.index.json");
    drop("1.safetensors");
    drop("2.safetensors");
    str_free(&s);
}

static void an_index_stays_in_its_folder(void **state)
{
    (void)state;
    const struct {
        const char *index, *says;
    } bad[] = {
        {"{\"weight_map\": {\"a\": \"../secret\"}}", "mapped to no file of this folder"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "mapped to no file of this folder"},
        {"{\"weight_map\": {\"a\": 7}}", "mapped to no file of this folder"},
        {"{\"weight_map\": {\"a\": \"gone.safetensors\"}}", "gone.safetensors: No such file"},
        {"{\"weight_map\": []}", "weight_map is missing"},
        {"{\"weight_map\": {}}", "tensor model.embed_tokens.weight is missing"},
        {"{", "not JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put("model.safetensors.index.json", bad[i].index, strlen(bad[i].index));
        expect_refused(bad[i].says);
    }
    drop("model.safetensors.index.json");
}

static void a_pipe_for_weights_does_not_hang(void **state)
{
    (void)state;
    char *path = xasprintf("%s/model.safetensors", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refused("not a regular file");
    drop("model.safetensors");
    free(path);
}

static void unaligned_tensors_are_read(void **state)
{
    (void)state;
    struct str s = {0};
    struct err e = {0};
    build_model(&s, "{\"dtype\": \"F32\", \"shape\": [2, 2], \"data_offsets\": [0, 16]} ");
    put("model.safetensors", s.data, s.len);
    struct weights *w;
    assert_int_equal(weights_open(&w, dir, &one_layer, &e), 0);
    struct weights_tensor t;
    assert_int_equal(weights_find(w, WEIGHTS_Q, 0, -1, &t, &e), 0);
    float scratch[4], want[4];
    memcpy(want, (const char *)t.data + 8, 8);
    assert_memory_equal(weights_rows(&t, 1, 1, scratch), want, 8);
    assert_int_equal(weights_find(w, WEIGHTS_NORM, 0, -1, &t, &e), 0);
    memcpy(want, t.data, 8);
    weights_vector(&t, scratch);
    assert_memory_equal(scratch, want, 8);
    weights_close(w);
    drop("model.safetensors");
    str_free(&s);
}

static void presets_need_no_files(void **state)
{
    (void)state;
    struct arch a;
    struct err e = {0};
    assert_int_equal(arch_open("preset:small", &a, &e), 0);
    assert_int_equal(weights_check("preset:small", &a, &e), 0);
    struct weights *w;
    assert_int_equal(weights_open(&w, "preset:small", &a, &e), 0);
    struct weights_tensor t;
    assert_int_equal(weights_find(w, WEIGHTS_DOWN, 7, -1, &t, &e), 0);
    assert_string_equal(t.name, "model.layers.7.mlp.down_proj.weight");
    assert_int_equal(t.n_rows, 512);
    assert_int_equal(t.n_cols, 1408);
    uint16_t whole[3 * 1408], row[1408];
    weights_rows(&t, 100, 3, whole);
    weights_rows(&t, 102, 1, row);
    assert_memory_equal(row, whole + 2 * 1408, sizeof row);
    float norm[512];
    assert_int_equal(weights_find(w, WEIGHTS_MLP_NORM, 3, -1, &t, &e), 0);
    weights_vector(&t, norm);
    assert_true(norm[0] == 1 && norm[511] == 1);
    weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_gives_its_tensors),
        cmocka_unit_test(bad_files_say_what_is_wrong),
        cmocka_unit_test(every_cut_of_a_file_is_refused),
        cmocka_unit_test(a_folder_is_checked_tensor_by_tensor),
        cmocka_unit_test(a_hash_tells_headers_and_sizes_apart),
        cmocka_unit_test(a_hash_knows_no_order_of_shards),
        cmocka_unit_test(an_index_stays_in_its_folder),
        cmocka_unit_test(a_pipe_for_weights_does_not_hang),
        cmocka_unit_test(unaligned_tensors_are_read),
        cmocka_unit_test(presets_need_no_files),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
