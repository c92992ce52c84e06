/*
 * The tokenizer against ids from independent implementations: tests/golden/tokenizer_cases.json
 * (Hugging Face `tokenizers`) and golden.json of a real model (llama2.c). Then what those cannot
 * say: bytes that are no UTF-8, and every kind of tokenizer.json that is refused, with its line.
 */
#include "core/mem.h"
#include "model/tokenizer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODEL "models/stories260K"

/* PATH below the shared data, or NULL where that is absent. Caller frees. */
static char *shared_path(const char *path)
{
    const char *shared = getenv("TIDEMARK_SHARED");
    const char *source = getenv("TIDEMARK_SOURCE");
    char *full = shared != NULL ? xasprintf("%s/%s", shared, path)
                                : xasprintf("%s/../shared/%s", source != NULL ? source : ".", path);
    if (access(full, R_OK) != 0) {
        print_message("skipped: no %s (shared data; set TIDEMARK_SHARED)\n", full);
        free(full);
        return NULL;
    }
    return full;
}

static json_t *load_json(const char *path)
{
    json_error_t je;
    json_t *root = json_load_file(path, 0, &je);
    if (root == NULL) {
        fail_msg("%s:%d: %s", path, je.line, je.text);
    }
    return root;
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

static void check_case(const struct tokenizer *t, const json_t *c)
{
    const json_t *text = json_object_get(c, "text");
    const json_t *decoded = json_object_get(c, "decoded");
    const char *s = json_string_value(text);
    struct token_ids ids = {0};
    struct str back = {0};
    tokenizer_encode(t, s, json_string_length(text), true, &ids);
    check_ids(s, &ids, json_object_get(c, "ids"));
    tokenizer_decode(t, ids.v, ids.n, false, &back);
    assert_string_equal(back.data, json_string_value(decoded));
    assert_int_equal(back.len, json_string_length(decoded));
    str_free(&back);
    token_ids_free(&ids);
}

/* NULL when the set's tokenizer lies in shared data that is absent. */
static struct tokenizer *open_set(const json_t *set)
{
    struct err e = {0};
    struct tokenizer *t = NULL;
    int vocab = (int)json_integer_value(json_object_get(set, "vocab"));
    const char *shared = json_string_value(json_object_get(set, "shared"));
    int rc;
    if (shared != NULL) {
        char *dir = shared_path(shared);
        if (dir == NULL) {
            return NULL;
        }
        rc = tokenizer_open(&t, dir, vocab, &e);
        free(dir);
    } else {
        char *text = json_dumps(json_object_get(set, "tokenizer"), 0);
        rc = tokenizer_parse(&t, text, strlen(text), "crafted", vocab, &e);
        free(text);
    }
    if (rc != 0) {
        fail_msg("%s: %s", json_string_value(json_object_get(set, "name")), e.msg);
    }
    return t;
}

static void test_oracle_cases(void **state)
{
    (void)state;
    char *path = xasprintf("%s/tests/golden/tokenizer_cases.json", getenv("TIDEMARK_SOURCE"));
    json_t *root = load_json(path);
    size_t i, k, n_cases = 0;
    json_t *set, *c;
    json_array_foreach(json_object_get(root, "sets"), i, set)
    {
        struct tokenizer *t = open_set(set);
        if (t == NULL) {
            continue;
        }
        json_array_foreach(json_object_get(set, "cases"), k, c)
        {
            check_case(t, c);
            n_cases++;
        }
        tokenizer_close(t);
    }
    assert_true(n_cases > 300);
    json_decref(root);
    free(path);
}

static void test_golden_prompts(void **state)
{
    (void)state;
    char *dir = shared_path(MODEL);
    if (dir == NULL) {
        skip();
    }
    char *path = xasprintf("%s/golden.json", dir);
    json_t *root = load_json(path);
    struct tokenizer *t;
    struct err e = {0};
    assert_int_equal(tokenizer_open(&t, dir, 512, &e), 0);
    assert_int_equal(tokenizer_vocab(t), 512);
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(root, "cases"), i, c)
    {
        const char *prompt = json_string_value(json_object_get(c, "prompt"));
        struct token_ids ids = {0};
        struct str text = {0};
        tokenizer_encode(t, prompt, strlen(prompt), true, &ids);
        check_ids(prompt, &ids, json_object_get(c, "prompt_ids"));
        tokenizer_decode(t, ids.v, ids.n, false, &text);
        assert_string_equal(text.data, prompt);
        token_ids_free(&ids);
        str_free(&text);
    }
    assert_int_equal(i, 6);
    tokenizer_close(t);
    json_decref(root);
    free(path);
    free(dir);
}

/* --- a small tokenizer of our own ------------------------------------------------------------- */

#define HEAD "{\"added_tokens\":["
#define BOS  "{\"id\":0,\"content\":\"<s>\",\"special\":true}"
#define MODEL_BYTES                                                                                \
    "],\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"?\",\"vocab\":{"         \
    "\"<s>\":0,\"?\":1,\"a\":2,\"b\":3,\"ab\":4,\"<0xFF>\":5,\"<0xC3>\":6,\"<0xA9>\":7,\" \":8},"  \
    "\"merges\":[\"a b\"]}"
#define DECODER ",\"decoder\":{\"type\":\"ByteFallback\"}}"

static struct tokenizer *parse_ok(const char *json, int vocab)
{
    struct err e = {0};
    struct tokenizer *t = NULL;
    if (tokenizer_parse(&t, json, strlen(json), "t.json", vocab, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return t;
}

static void test_any_bytes(void **state)
{
    (void)state;
    struct tokenizer *t = parse_ok(HEAD BOS MODEL_BYTES DECODER, 9);
    struct token_ids ids = {0};
    struct str text = {0};
    const char stray[] = "ab\xFF"
                         "a\xC3"
                         "\xC3\xA9"
                         "\xE2\x82"; // a stray byte, half characters
    const int32_t want[] = {4, 5, 2, 6, 6, 7, 1, 1};
    tokenizer_encode(t, stray, sizeof stray - 1, true, &ids); // no template: nothing is added
    assert_int_equal(ids.n, sizeof want / sizeof *want);
    assert_memory_equal(ids.v, want, sizeof want);
    tokenizer_decode(t, ids.v, ids.n, false, &text);
    assert_string_equal(text.data, "ab\xEF\xBF\xBD"
                                   "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD??");
    ids.n = 0;
    str_clear(&text);
    tokenizer_encode(t, "a\0b", 3, true, &ids); // NUL is a character like others: unknown here
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.v[1], 1);
    token_ids_free(&ids);
    str_free(&text);
    tokenizer_close(t);
}

static void test_decode_ids_from_outside(void **state)
{
    (void)state;
    struct tokenizer *t = parse_ok(HEAD BOS MODEL_BYTES DECODER, 100);
    const int32_t ids[] = {0, 2, -1, 99, 3, INT32_MAX, INT32_MIN, 6, 0, 7};
    struct str text = {0};
    tokenizer_decode(t, ids, sizeof ids / sizeof *ids, false, &text);
    assert_string_equal(text.data, "ab\xC3\xA9"); // special and unknown ids are left out
    assert_true(tokenizer_is_ordinary(t, 2));
    assert_false(tokenizer_is_ordinary(t, 0));
    assert_false(tokenizer_is_ordinary(t, 9));
    assert_false(tokenizer_is_ordinary(t, -1));
    assert_int_equal(tokenizer_vocab(t), 9); // smaller than the model's padded vocabulary is fine
    str_free(&text);
    tokenizer_close(t);
}

/* Text that follows text keeps its leading space. */
static void test_decode_continues(void **state)
{
    (void)state;
    struct tokenizer *t = parse_ok(
        HEAD BOS MODEL_BYTES
        ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},"
        "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}}",
        9);
    const int32_t ids[] = {8, 8, 2};
    struct str text = {0};
    tokenizer_decode(t, ids, 3, false, &text);
    assert_string_equal(text.data, " a");
    tokenizer_decode(t, ids, 3, true, &text);
    assert_string_equal(text.data, " a  a");
    str_free(&text);
    tokenizer_close(t);
}

/*
 * Segments cut at joints that no merge crosses give what one segment gives: compare with a
 * reference.
 */
static size_t reference_merge(const char *text, char out[][8])
{
    static const char *const merges[] = {"a b", "b a", "ab ab", "a a", "aa b", "ba c", "c c"};
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        out[i][0] = text[i];
        out[i][1] = '\0';
    }
    for (;;) {
        size_t best = n, rank = sizeof merges / sizeof *merges;
        for (size_t i = 0; i + 1 < n; i++) {
            char pair[20];
            snprintf(pair, sizeof pair, "%.7s %.7s", out[i], out[i + 1]);
            for (size_t r = 0; r < rank; r++) {
                if (strcmp(pair, merges[r]) == 0) {
                    rank = r;
                    best = i;
                    break;
                }
            }
        }
        if (best == n) {
            return n;
        }
        char both[16];
        snprintf(both, sizeof both, "%.7s%.7s", out[best], out[best + 1]);
        memcpy(out[best], both, sizeof out[best]);
        n--;
        memmove(out[best + 1], out[best + 2], (n - best - 1) * sizeof out[0]);
    }
}

static void test_against_plain_merging(void **state)
{
    (void)state;
    struct tokenizer *t = parse_ok(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"ba\":4,"
        "\"abab\":5,\"aa\":6,\"aab\":7,\"bac\":8,\"cc\":9},\"merges\":[[\"a\",\"b\"],[\"b\",\"a\"],"
        "\"ab ab\",\"a a\",\"aa b\",\"ba c\",\"c c\"]},\"decoder\":{\"type\":\"Fuse\"}}",
        10);
    static const char *const names[] = {"a",    "b",  "c",   "ab",  "ba",
                                        "abab", "aa", "aab", "bac", "cc"};
    static char want[400][8];
    char text[400];
    uint32_t x = 1;
    for (int round = 0; round < 2000; round++) {
        size_t len = (size_t)(round % (round % 10 == 0 ? 390 : 60));
        for (size_t i = 0; i < len; i++) {
            x = x * 1664525u + 1013904223u;
            text[i] = "aabbabc"[(x >> 16) % 7];
        }
        text[len] = '\0';
        struct token_ids ids = {0};
        size_t n = reference_merge(text, want);
        tokenizer_encode(t, text, len, true, &ids);
        assert_int_equal(ids.n, n);
        for (size_t i = 0; i < n; i++) {
            assert_string_equal(names[ids.v[i]], want[i]);
        }
        token_ids_free(&ids);
    }
    tokenizer_close(t);
}

/* --- streams and encoders ---------------------------------------------------------------------- */

#define BYTE_LEVEL                                                                                 \
    "{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":\"ByteLevel\"},"            \
    "\"model\":{\"vocab\":{\"a\":0,\"\\u00C3\":1,\"\\u00A9\":2,\"\\u00F0\":3,\"\\u0141\":4,"       \
    "\"\\u013A\":5,\"\\u0122\":6},\"merges\":[]}}"

/* A character is shown when its last byte is known, a broken one when the next byte tells. */
static void test_stream_holds_back(void **state)
{
    (void)state;
    struct tokenizer *t = parse_ok(BYTE_LEVEL, 7);
    struct tokenizer_stream *s = tokenizer_stream_new(t, false);
    static const struct {
        int32_t id;
        const char *so_far;
    } steps[] = {
        {0, "a"},
        {1, "a"},
        {2, "a\u00E9"},
        {1, "a\u00E9"},
        {0, "a\u00E9\uFFFDa"},
        {3, "a\u00E9\uFFFDa"},
    };
    struct str text = {0};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        tokenizer_stream_push(s, &steps[i].id, 1, &text);
        assert_string_equal(text.data, steps[i].so_far);
    }
    tokenizer_stream_finish(s, &text);
    assert_string_equal(text.data, "a\u00E9\uFFFDa\uFFFD");
    str_clear(&text);
    tokenizer_stream_push(s, &steps[2].id, 1, &text); // a new text: the end left nothing behind
    assert_string_equal(text.data, "\uFFFD");
    str_free(&text);
    tokenizer_stream_free(s);
    tokenizer_close(t);
}

/* An encoder remembers words; what it gives is what a text alone gives, again and again. */
static void test_encoder_remembers(void **state)
{
    (void)state;
    struct tokenizer *t = parse_ok(BYTE_LEVEL, 7);
    struct tokenizer_encoder *e = tokenizer_encoder_new(t);
    static const char *const texts[] = {"a",           "aa",   "\u00E9a", "aaaaaaaa",
                                        "a\u00E9 a a", "\xC3", ""};
    struct token_ids alone = {0}, ids = {0};
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
            char *copy = xstrdup(texts[i]); // its end is the end of the memory
            alone.n = ids.n = 0;
            tokenizer_encode(t, copy, strlen(copy), true, &alone);
            tokenizer_encoder_add(e, copy, strlen(copy), true, &ids);
            assert_int_equal(ids.n, alone.n);
            assert_true(ids.n == 0 || memcmp(ids.v, alone.v, ids.n * sizeof *ids.v) == 0);
            free(copy);
        }
    }
    token_ids_free(&alone);
    token_ids_free(&ids);
    tokenizer_encoder_free(e);
    tokenizer_close(t);
}

/* --- refused ---------------------------------------------------------------------------------- */

static void check_refused(const char *json, int vocab, const char *says)
{
    struct err e = {0};
    struct tokenizer *t = NULL;
    assert_int_equal(tokenizer_parse(&t, json, strlen(json), "t.json", vocab, &e), -1);
    assert_null(t);
    assert_int_equal(e.code, ERR_INPUT);
    if (strstr(e.msg, says) == NULL || strncmp(e.msg, "t.json", 6) != 0) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
}

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"

static void test_refused(void **state)
{
    (void)state;
    check_refused("", 9, "not JSON");
    check_refused("{\"model\":\n  oops}", 9, "t.json:2:");
    check_refused("[]", 9, "not an object");
    check_refused("{}", 9, "model");
    check_refused(HEAD BOS MODEL_BYTES DECODER, 8, "does not match the vocabulary");
    check_refused("{\"model\":{\"type\":\"Unigram\"}}", 9, "Unigram is not supported (BPE is)");
    check_refused("{\"pre_tokenizer\":{\"type\":\"Bert\"}}", 9,
                  "pre_tokenizer: type Bert is not supported");
    check_refused("{\"normalizer\":{\"type\":\"Nmt\"}}", 9, "type Nmt is not supported");
    check_refused("{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x\"}}}", 9,
                  "String");
    check_refused("{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", 9, "two tokens");
    check_refused("{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", 9, "not JSON");
    check_refused("{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", 9,
                  "token id -1 does not match");
    check_refused("{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", 9, "whole number");
    check_refused("{\"model\":{\"vocab\":{},\"merges\":[]}}", 9, "model.vocab");
    check_refused("{\"model\":{\"vocab\":{\"a\\u0000\":0},\"merges\":[]}}", 9, "not JSON");
    check_refused("{\"model\":{" VOCAB "}}", 9, "model.merges: not a list");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[\"a b\", \"a\"]}}", 9,
                  "model.merges[1]: not of the form");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[[\"a\",\"c\"]]}}", 9, "its right part");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[\"b a\"]}}", 9, "its result");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[],\"unk_token\":\"u\"}}", 9, "unk_token");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[],\"dropout\":0.1}}", 9, "dropout");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[],\"end_of_word_suffix\":\"w\"}}", 9,
                  "suffix");
    check_refused("{\"added_tokens\":[{\"id\":1,\"content\":\"x\"}],\"model\":{" VOCAB
                  ",\"merges\":[]}}",
                  9, "added_tokens[0]: token id 1 is given to two tokens");
    check_refused("{\"added_tokens\":[{\"id\":5,\"content\":\"a\"}],\"model\":{" VOCAB
                  ",\"merges\":[]}}",
                  9, "have the same text");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[]},\"post_processor\":{\"type\":\"Bert\"}}", 9,
                  "post_processor: type Bert");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[]},\"post_processor\":{\"type\":"
                  "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
                  "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[9]}}}}",
                  9, "does not match the vocabulary");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[]},\"decoder\":{\"type\":\"WordPiece\"}}", 9,
                  "decoder: type WordPiece is not supported");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[]},\"decoder\":{\"type\":\"Metaspace\"}}", 9,
                  "Metaspace: no \"replacement\"");
    check_refused("{\"model\":{" VOCAB ",\"merges\":[]},\"decoder\":{\"type\":\"Sequence\","
                  "\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}]}}",
                  9, "ByteFallback after Fuse");
}

#define SPLIT(pattern, rest)                                                                       \
    "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{" pattern "}," rest "}}"

static void test_refused_pretokenizers(void **state)
{
    (void)state;
    check_refused(SPLIT("\"Regex\":\"a+\\n\"", "\"behavior\":\"Isolated\""), 9,
                  "pre_tokenizer: Split: not a known regular expression "
                  "(docs/extending.md tells how to add one): a+");
    check_refused(SPLIT("\"Regex\":\"\\\\p{N}{1,3}\"", "\"behavior\":\"Removed\",\"invert\":true"),
                  9, "Removed, inverted, is not supported");
    check_refused(SPLIT("\"String\":\"\"", "\"behavior\":\"Isolated\""), 9, "some text");
    check_refused(SPLIT("\"String\":\"a\"", "\"behavior\":\"Contiguous\""), 9, "Isolated");
    check_refused("{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
                  "{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}}",
                  9, "after ByteLevel");
    check_refused("{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
                  "{\"type\":\"Digits\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":true}]}}",
                  9, "a prefix after another step");
    check_refused("{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\","
                  "\"prepend_scheme\":\"second\"}}",
                  9, "always, first, never");
}

static void test_missing_file(void **state)
{
    (void)state;
    struct err e = {0};
    struct tokenizer *t;
    assert_int_equal(tokenizer_open(&t, "/nowhere", 9, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "/nowhere/tokenizer.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle_cases),      cmocka_unit_test(test_golden_prompts),
        cmocka_unit_test(test_any_bytes),         cmocka_unit_test(test_decode_ids_from_outside),
        cmocka_unit_test(test_decode_continues),  cmocka_unit_test(test_against_plain_merging),
        cmocka_unit_test(test_stream_holds_back), cmocka_unit_test(test_encoder_remembers),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_refused_pretokenizers),
        cmocka_unit_test(test_missing_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
