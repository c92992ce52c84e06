/*
 * The tokenizer that a GGUF file carries, against ids from independent implementations
 * (tests/golden/gguf_tokenizer_cases.json: sentencepiece and Hugging Face `tokenizers`), and every
 * kind of file that is refused, with its line.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "core/mem.h"
#include "model/gguf_tokenizer.h"
#include "model/tokenizer.h"
#include "tests/support/gguf_writer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- against other implementations ------------------------------------------------------------ */

static char *golden(const char *name)
{
    return xasprintf("%s/tests/golden/%s", getenv("TIDEMARK_SOURCE"), name);
}

static void check_ids(const char *text, const struct token_ids *ids, const json_t *want)
{
    if (ids->n != json_array_size(want)) {
        fail_msg("\"%.80s\": %zu ids instead of %zu", text, ids->n, json_array_size(want));
    }
    for (size_t i = 0; i < ids->n; i++) {
        if (ids->v[i] != json_integer_value(json_array_get(want, i))) {
            fail_msg("\"%.80s\": id %zu is %d instead of %lld", text, i, ids->v[i],
                     (long long)json_integer_value(json_array_get(want, i)));
        }
    }
}

/* "decoded" stands there where it is another text, null where it is not compared. */
static void check_case(const struct tokenizer *t, struct tokenizer_encoder *encoder,
                       const json_t *c)
{
    const json_t *text = json_object_get(c, "text"), *decoded = json_object_get(c, "decoded");
    struct token_ids ids = {0}, again = {0};
    struct str back = {0};
    tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &ids);
    check_ids(json_string_value(text), &ids, json_object_get(c, "ids"));
    tokenizer_encoder_add(encoder, json_string_value(text), json_string_length(text), true, &again);
    check_ids(json_string_value(text), &again, json_object_get(c, "ids"));
    if (!json_is_null(decoded)) {
        const json_t *want = decoded ? decoded : text;
        tokenizer_decode(t, ids.v, ids.n, false, &back);
        assert_string_equal(back.data, json_string_value(want));
        assert_int_equal(back.len, json_string_length(want));
    }
    str_free(&back);
    token_ids_free(&ids);
    token_ids_free(&again);
}

static size_t check_file(const json_t *file)
{
    struct err e = {0};
    struct tokenizer *t;
    char *name =
        xasprintf("gguf_tokenizers/%s.gguf", json_string_value(json_object_get(file, "file")));
    char *path = golden(name);
    const json_t *cases = json_object_get(file, "cases");
    if (tokenizer_open(&t, path, 1000, &e)) {
        fail_msg("%s", e.msg);
    }
    assert_true(tokenizer_is_there(path));
    struct tokenizer_encoder *encoder = tokenizer_encoder_new(t);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        check_case(t, encoder, json_array_get(cases, i));
    }
    tokenizer_encoder_free(encoder);
    tokenizer_close(t);
    free(path);
    free(name);
    return json_array_size(cases);
}

static void ids_are_those_of_other_implementations(void **state)
{
    (void)state;
    char *path = golden("gguf_tokenizer_cases.json");
    json_error_t je;
    json_t *root = json_load_file(path, 0, &je);
    size_t n_cases = 0;
    assert_non_null(root);
    assert_int_equal(json_array_size(root), 13);
    for (size_t i = 0; i < json_array_size(root); i++) {
        n_cases += check_file(json_array_get(root, i));
    }
    assert_true(n_cases > 250);
    json_decref(root);
    free(path);
}

/* --- files made here -------------------------------------------------------------------------- */

#define T       "tokenizer.ggml."
#define SPACE   "\xE2\x96\x81"
#define N_WORDS 8

static const char *const words[N_WORDS] = {"<unk>", "<s>", "</s>", "a",
                                           "b",     SPACE, "ab",   SPACE "a"};
static const int32_t types[N_WORDS] = {2, 3, 3, 1, 1, 1, 1, 1};
static const float scores[N_WORDS] = {0, 0, 0, -3, -4, -5, -1, -2};

/* What differs from a sound file; `add` writes more, or what a key left out would have said. */
struct change {
    const char *without; // a key
    void (*add)(struct gguf_writer *w);
};

static bool has(const struct change *c, const char *key)
{
    return !c->without || strcmp(c->without, key) != 0;
}

static void put_spelt(struct gguf_writer *w, const struct change *c)
{
    if (has(c, T "model")) {
        gguf_writer_text(w, T "model", "llama");
    }
    if (has(c, T "tokens")) {
        gguf_writer_words(w, T "tokens", words, N_WORDS);
    }
    if (has(c, T "token_type")) {
        gguf_writer_i32s(w, T "token_type", types, N_WORDS);
    }
    if (has(c, T "scores")) {
        gguf_writer_f32s(w, T "scores", scores, N_WORDS);
    }
}

static void put_byte_level(struct gguf_writer *w, const struct change *c)
{
    static const char *const tokens[4] = {"a", "b", "ab", "<s>"}, *const merges[1] = {"a b"};
    static const int32_t kinds[4] = {1, 1, 1, 3};
    gguf_writer_text(w, T "model", "gpt2");
    if (has(c, T "pre")) {
        gguf_writer_text(w, T "pre", "qwen2");
    }
    gguf_writer_words(w, T "tokens", tokens, 4);
    gguf_writer_i32s(w, T "token_type", kinds, 4);
    if (has(c, T "merges")) {
        gguf_writer_words(w, T "merges", merges, 1);
    }
}

static int read(void (*put)(struct gguf_writer *w, const struct change *c), const struct change *c,
                int vocab, struct tokenizer **t, struct err *e)
{
    struct gguf_writer w = {0};
    struct str s = {0};
    struct gguf *g;
    put(&w, c);
    if (c->add) {
        c->add(&w);
    }
    gguf_writer_assemble(&w, &s);
    gguf_writer_free(&w);
    void *copy = xmalloc(s.len); // its own allocation, so that a sanitizer sees a read past its end
    memcpy(copy, s.data, s.len);
    assert_int_equal(gguf_parse(&g, copy, s.len, "x.gguf", e), 0);
    int rc = gguf_tokenizer_read(t, g, vocab, e);
    gguf_close(g);
    free(copy);
    str_free(&s);
    return rc;
}

static void expect_ids(const struct tokenizer *t, const char *text, size_t n, const int32_t *want)
{
    struct token_ids ids = {0};
    tokenizer_encode(t, text, strlen(text), true, &ids);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.v, want, n * sizeof *want);
    token_ids_free(&ids);
}

static void says_nothing_more(struct gguf_writer *w)
{
    gguf_writer_bool(w, T "add_bos_token", false);
    gguf_writer_bool(w, T "add_space_prefix", false);
}

static void ends_texts(struct gguf_writer *w)
{
    gguf_writer_bool(w, T "add_eos_token", true);
    gguf_writer_u32(w, T "bos_token_id", 4);
}

static void flags_and_their_defaults(void **state)
{
    (void)state;
    struct tokenizer *t;
    struct err e = {0};
    struct change c = {0};
    assert_int_equal(read(put_spelt, &c, 9, &t, &e), 0);
    expect_ids(t, "ab", 3, (const int32_t[]){1, 5, 6}); // "ab" is better than " a"
    expect_ids(t, "a</s>a", 4, (const int32_t[]){1, 7, 2, 7});
    expect_ids(t, "xyb", 4, (const int32_t[]){1, 5, 0, 4}); // unknown ones become one
    assert_int_equal(tokenizer_vocab(t), N_WORDS);
    assert_false(tokenizer_is_ordinary(t, 0) || tokenizer_is_ordinary(t, 2));
    tokenizer_close(t);
    c.add = says_nothing_more;
    assert_int_equal(read(put_spelt, &c, 9, &t, &e), 0);
    expect_ids(t, "ab", 1, (const int32_t[]){6});
    tokenizer_close(t);
    c.add = ends_texts;
    assert_int_equal(read(put_spelt, &c, 9, &t, &e), 0);
    expect_ids(t, "ab", 4, (const int32_t[]){4, 5, 6, 2});
    tokenizer_close(t);
}

/* --- refused ---------------------------------------------------------------------------------- */

static void refuse(void (*put)(struct gguf_writer *w, const struct change *c), const char *without,
                   void (*add)(struct gguf_writer *w), const char *says)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    const struct change c = {.without = without, .add = add};
    assert_int_equal(read(put, &c, N_WORDS, &t, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_null(t);
    if (!strstr(e.msg, says) || strncmp(e.msg, "x.gguf: ", 8) != 0 || strchr(e.msg, '\n')) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
}

static void other_kind(struct gguf_writer *w)
{
    gguf_writer_text(w, T "model", "bert");
}

static void kind_as_number(struct gguf_writer *w)
{
    gguf_writer_u32(w, T "model", 1);
}

static void tokens_as_numbers(struct gguf_writer *w)
{
    gguf_writer_i32s(w, T "tokens", types, N_WORDS);
}

static void tokens_as_text(struct gguf_writer *w)
{
    gguf_writer_text(w, T "tokens", "a b c");
}

static void no_tokens(struct gguf_writer *w)
{
    gguf_writer_words(w, T "tokens", words, 0);
}

static void many_tokens(struct gguf_writer *w)
{
    gguf_writer_texts(w, T "tokens", N_WORDS + 1);
}

static void put_tokens(struct gguf_writer *w, size_t at, const char *text)
{
    const char *changed[N_WORDS];
    memcpy(changed, words, sizeof changed);
    changed[at] = text;
    gguf_writer_words(w, T "tokens", changed, N_WORDS);
}

static void token_twice(struct gguf_writer *w)
{
    put_tokens(w, 6, "a");
}

static void token_not_utf8(struct gguf_writer *w)
{
    put_tokens(w, 4, "a\xFF");
}

static void token_too_long(struct gguf_writer *w)
{
    char text[1026];
    memset(text, 'a', sizeof text);
    text[1025] = '\0';
    put_tokens(w, 4, text);
}

static void put_types(struct gguf_writer *w, size_t at, int32_t type)
{
    int32_t changed[N_WORDS];
    memcpy(changed, types, sizeof changed);
    changed[at] = type;
    gguf_writer_i32s(w, T "token_type", changed, N_WORDS);
}

static void type_zero(struct gguf_writer *w)
{
    put_types(w, 3, 0);
}

static void type_seven(struct gguf_writer *w)
{
    put_types(w, 7, 7);
}

static void type_negative(struct gguf_writer *w)
{
    put_types(w, 1, INT32_MIN);
}

static void byte_without_a_byte(struct gguf_writer *w)
{
    put_types(w, 3, 6);
}

static void types_as_texts(struct gguf_writer *w)
{
    gguf_writer_words(w, T "token_type", words, N_WORDS);
}

static void types_as_fractions(struct gguf_writer *w)
{
    gguf_writer_f32s(w, T "token_type", scores, N_WORDS);
}

static void types_as_number(struct gguf_writer *w)
{
    gguf_writer_u32(w, T "token_type", 1);
}

static void few_types(struct gguf_writer *w)
{
    gguf_writer_i32s(w, T "token_type", types, N_WORDS - 1);
}

static void few_scores(struct gguf_writer *w)
{
    gguf_writer_f32s(w, T "scores", scores, N_WORDS - 1);
}

static void scores_as_texts(struct gguf_writer *w)
{
    gguf_writer_words(w, T "scores", words, N_WORDS);
}

static void put_scores(struct gguf_writer *w, float score)
{
    float changed[N_WORDS];
    memcpy(changed, scores, sizeof changed);
    changed[5] = score;
    gguf_writer_f32s(w, T "scores", changed, N_WORDS);
}

static void score_nan(struct gguf_writer *w)
{
    put_scores(w, NAN);
}

static void score_infinite(struct gguf_writer *w)
{
    put_scores(w, -INFINITY);
}

static void bos_outside(struct gguf_writer *w)
{
    gguf_writer_u32(w, T "bos_token_id", N_WORDS);
}

static void bos_as_text(struct gguf_writer *w)
{
    gguf_writer_text(w, T "bos_token_id", "1");
}

static void unknown_outside(struct gguf_writer *w)
{
    gguf_writer_u32(w, T "unknown_token_id", UINT32_MAX);
}

static void eos_outside(struct gguf_writer *w)
{
    gguf_writer_u32(w, T "eos_token_id", 99);
}

static void flag_as_number(struct gguf_writer *w)
{
    gguf_writer_u32(w, T "add_bos_token", 1);
}

static void prefix_as_text(struct gguf_writer *w)
{
    gguf_writer_text(w, T "add_space_prefix", "yes");
}

static void squeezed(struct gguf_writer *w)
{
    gguf_writer_bool(w, T "remove_extra_whitespaces", true);
}

static void mapped(struct gguf_writer *w)
{
    gguf_writer_i32s(w, T "precompiled_charsmap", types, 2);
}

static void bad_sentencepiece_is_named(void **state)
{
    (void)state;
    refuse(put_spelt, T "model", NULL, "metadata " T "model: llama (SentencePiece BPE) or gpt2");
    refuse(put_spelt, T "model", other_kind, T "model is bert; llama (SentencePiece BPE) and gpt2");
    refuse(put_spelt, T "model", kind_as_number, T "model: llama");
    refuse(put_spelt, T "tokens", NULL, T "tokens: a list of texts wanted");
    refuse(put_spelt, T "tokens", tokens_as_numbers, T "tokens: a list of texts");
    refuse(put_spelt, T "tokens", tokens_as_text, T "tokens: a list of texts");
    refuse(put_spelt, T "tokens", no_tokens, T "tokens: a list of texts");
    refuse(put_spelt, T "tokens", many_tokens, T "tokens has 9 tokens, token_embd.weight 8 rows");
    refuse(put_spelt, T "tokens", token_twice, T "tokens[6]: token ids 3 and 6 have the same text");
    refuse(put_spelt, T "tokens", token_not_utf8, T "tokens[4]: it is no UTF-8");
    refuse(put_spelt, T "tokens", token_too_long, T "tokens[4]: it has 1025 bytes; at most 1024");
    refuse(put_spelt, T "token_type", NULL, T "token_type: a list of numbers wanted");
    refuse(put_spelt, T "token_type", types_as_texts, T "token_type: a list of numbers wanted");
    refuse(put_spelt, T "token_type", types_as_number, T "token_type: a list of numbers wanted");
    refuse(put_spelt, T "token_type", types_as_fractions, T "token_type[0] is not a type of token");
    refuse(put_spelt, T "token_type", few_types, T "token_type has 7 values for 8 tokens");
    refuse(put_spelt, T "token_type", type_zero, T "token_type[3] is not a type of token (1 to 6)");
    refuse(put_spelt, T "token_type", type_seven, T "token_type[7] is not a type of token");
    refuse(put_spelt, T "token_type", type_negative, T "token_type[1] is not a type of token");
    refuse(put_spelt, T "token_type", byte_without_a_byte,
           T "tokens[3]: it is a byte, and not <0x00> to <0xFF>");
    refuse(put_spelt, T "scores", NULL, T "scores: a list of numbers wanted");
    refuse(put_spelt, T "scores", scores_as_texts, T "scores: a list of numbers wanted");
    refuse(put_spelt, T "scores", few_scores, T "scores has 7 values for 8 tokens");
    refuse(put_spelt, T "scores", score_nan, T "scores[5] is not a finite number");
    refuse(put_spelt, T "scores", score_infinite, T "scores[5] is not a finite number");
    refuse(put_spelt, NULL, bos_outside, T "bos_token_id is 8; the file has tokens 0..7");
    refuse(put_spelt, NULL, bos_as_text, T "bos_token_id: a token id wanted");
    refuse(put_spelt, NULL, eos_outside, T "eos_token_id is 99; the file has tokens 0..7");
    refuse(put_spelt, NULL, unknown_outside, T "unknown_token_id is 4294967295; the file has");
    refuse(put_spelt, NULL, flag_as_number, T "add_bos_token: true or false wanted");
    refuse(put_spelt, NULL, prefix_as_text, T "add_space_prefix: true or false wanted");
    refuse(put_spelt, NULL, squeezed, T "remove_extra_whitespaces is not supported");
    refuse(put_spelt, NULL, mapped, T "precompiled_charsmap is not supported");
}

static void other_pre(struct gguf_writer *w)
{
    gguf_writer_text(w, T "pre", "default");
}

static void pre_as_list(struct gguf_writer *w)
{
    gguf_writer_words(w, T "pre", words, 1);
}

static void put_merges(struct gguf_writer *w, const char *second)
{
    const char *merges[2] = {"a b", second};
    gguf_writer_words(w, T "merges", merges, 2);
}

static void merge_of_one(struct gguf_writer *w)
{
    put_merges(w, "ab");
}

static void merge_of_three(struct gguf_writer *w)
{
    put_merges(w, "a b a");
}

static void merge_of_nothing(struct gguf_writer *w)
{
    put_merges(w, "");
}

static void merge_unknown_left(struct gguf_writer *w)
{
    put_merges(w, "c b");
}

static void merge_unknown_right(struct gguf_writer *w)
{
    put_merges(w, "a c");
}

static void merge_unknown_result(struct gguf_writer *w)
{
    put_merges(w, "b a");
}

static void merges_as_numbers(struct gguf_writer *w)
{
    gguf_writer_i32s(w, T "merges", types, 2);
}

static void bos_that_is_not_there(struct gguf_writer *w)
{
    gguf_writer_bool(w, T "add_bos_token", true);
}

static void prefix_of_bytes(struct gguf_writer *w)
{
    gguf_writer_bool(w, T "add_space_prefix", true);
}

static void bad_byte_level_is_named(void **state)
{
    (void)state;
    refuse(put_byte_level, T "pre", NULL, T "pre: one of gpt-2, llama-bpe,");
    refuse(put_byte_level, T "pre", pre_as_list, T "pre: one of gpt-2, llama-bpe,");
    refuse(put_byte_level, T "pre", other_pre, T "pre is default; gpt-2, llama-bpe, smaug-bpe, ");
    refuse(put_byte_level, T "merges", NULL, T "merges: a list of texts wanted");
    refuse(put_byte_level, T "merges", merges_as_numbers, T "merges: a list of texts wanted");
    refuse(put_byte_level, T "merges", merge_of_one, T "merges[1]: not of the form \"a b\"");
    refuse(put_byte_level, T "merges", merge_of_three, T "merges[1]: not of the form \"a b\"");
    refuse(put_byte_level, T "merges", merge_of_nothing, T "merges[1]: not of the form \"a b\"");
    refuse(put_byte_level, T "merges", merge_unknown_left, T "merges[1]: its left part is not in");
    refuse(put_byte_level, T "merges", merge_unknown_right, T "merges[1]: its right part is not");
    refuse(put_byte_level, T "merges", merge_unknown_result, T "merges[1]: its result is not in");
    refuse(put_byte_level, NULL, bos_that_is_not_there, T "bos_token_id is missing");
    refuse(put_byte_level, NULL, prefix_of_bytes, T "add_space_prefix (gpt2) is not supported");
}

/* Every byte of what the file says of its tokenizer, changed: read or refused, and never both. */
static void every_damaged_byte_is_survived(void **state)
{
    (void)state;
    struct gguf_writer w = {0};
    struct str s = {0};
    put_spelt(&w, &(struct change){0});
    gguf_writer_assemble(&w, &s);
    gguf_writer_free(&w);
    for (size_t i = 0; i < 3 * s.len; i++) {
        struct gguf *g;
        struct tokenizer *t;
        struct err e = {0};
        char *copy = xmalloc(s.len);
        memcpy(copy, s.data, s.len);
        copy[i / 3] ^= (char)(i % 3 == 0 ? 1 : i % 3 == 1 ? 0x80 : 0xFF);
        if (gguf_parse(&g, copy, s.len, "x.gguf", &e) == 0) {
            if (gguf_tokenizer_read(&t, g, N_WORDS, &e) == 0) {
                struct token_ids ids = {0};
                tokenizer_encode(t, "abba baba", 9, true, &ids);
                assert_true(ids.n > 0);
                token_ids_free(&ids);
                tokenizer_close(t);
            }
            gguf_close(g);
        }
        assert_true(e.code == ERR_NONE || e.code == ERR_INPUT);
        free(copy);
    }
    str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_other_implementations),
        cmocka_unit_test(flags_and_their_defaults),
        cmocka_unit_test(bad_sentencepiece_is_named),
        cmocka_unit_test(bad_byte_level_is_named),
        cmocka_unit_test(every_damaged_byte_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
