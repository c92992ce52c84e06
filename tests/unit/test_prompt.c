/*
 * What a prompt is put together from: conversations turn by turn, words that are one token each,
 * preambles, prefix groups, repeats, several sources, drawn and forced lengths. Ids and text of each
 * say the same.
 */
#include "core/mem.h"
#include "core/rng.h"
#include "datasets/dataset.h"
#include "datasets/reuse.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VOCAB   400
#define CONTEXT 4096
#define SEED    5

/*
 * A byte-level vocabulary in GPT-2's manner: every printable ASCII character, G-dot for a space, and
 * 20 words " aa", " ab", ... as one token each; BOS in front of prompts.
 */
static struct tokenizer *words_tok;
static char *folder;

static char *make_tokenizer(void)
{
    struct str vocab = {0}, merges = {0};
    int id = 1;
    str_puts(&vocab, "\"<s>\":0");
    for (char c = 0x21; c < 0x7f; c++) {
        str_printf(&vocab, ",\"%s%c\":%d", c == '"' || c == '\\' ? "\\" : "", c, id++);
    }
    str_printf(&vocab, ",\"\xc4\xa0\":%d", id++);
    for (char a = 'a'; a <= 'd'; a++) {
        for (char b = 'a'; b <= 'e'; b++) {
            str_printf(&vocab, ",\"%c%c\":%d,\"\xc4\xa0%c%c\":%d", a, b, id, a, b, id + 1);
            id += 2;
            str_printf(&merges, "%s\"%c %c\"", merges.len > 0 ? "," : "", a, b);
        }
    }
    for (char a = 'a'; a <= 'd'; a++) {
        for (char b = 'a'; b <= 'e'; b++) {
            str_printf(&merges, ",\"\xc4\xa0 %c%c\"", a, b);
        }
    }
    char *json = xasprintf(
        "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
        "\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[0]}}},"
        "\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{%s},\"merges\":[%s]}}",
        vocab.data, merges.data);
    str_free(&vocab);
    str_free(&merges);
    return json;
}

static int set_up(void **state)
{
    (void)state;
    struct err e = {0};
    folder = xstrdup("/tmp/tm_prompt_XXXXXX");
    char *json = make_tokenizer();
    int rc = mkdtemp(folder) == NULL ||
             tokenizer_parse(&words_tok, json, strlen(json), "words", VOCAB, &e) != 0;
    if (rc != 0) {
        print_message("%s\n", e.msg);
    }
    free(json);
    return rc;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_close(words_tok);
    rmdir(folder);
    free(folder);
    return 0;
}

/* --- asking ----------------------------------------------------------------------------------- */

/* A dataset as a config file would make it: `settings` is the JSON of `load`. */
static int open_with(struct dataset **d, const char *settings, const struct tokenizer *tok,
                     bool may_estimate, struct err *e)
{
    struct dataset_config c = {0};
    json_t *load = json_loads(settings, 0, NULL);
    assert_non_null(load);
    json_t *root = json_pack("{s:o}", "load", load);
    opt_defaults(dataset_options, &c);
    struct dataset_model model = {
        .tok = tok, .vocab = VOCAB, .context = CONTEXT, .may_estimate = may_estimate};
    int rc = opt_apply(dataset_options, &c, root, e);
    if (rc == 0) {
        rc = dataset_open(d, &c, &model, e);
    }
    opt_free(dataset_options, &c);
    json_decref(root);
    return rc;
}

static struct dataset *open_ok(const char *settings, const struct tokenizer *tok)
{
    struct dataset *d = NULL;
    struct err e = {0};
    if (open_with(&d, settings, tok, tok == NULL, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return d;
}

static void check_refused(const char *settings, const char *says)
{
    struct dataset *d = NULL;
    struct err e = {0};
    assert_int_equal(open_with(&d, settings, words_tok, false, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    if (strstr(e.msg, says) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
}

struct asked { // one turn, all that can be asked of it
    struct prompt p;
    int32_t ids[CONTEXT];
    struct prompt_text text;
};

static struct asked *ask(const struct dataset *d, uint64_t seed, uint64_t i, uint32_t turn)
{
    static struct asked kept[4]; // the last four stay readable
    static int next;
    struct asked *a = &kept[next++ % 4];
    static int32_t scratch[CONTEXT];
    dataset_get(d, seed, i, turn, &a->p);
    assert_in_range(a->p.n_in, 1, CONTEXT);
    assert_true(a->p.n_out >= 1 && a->p.n_in + a->p.n_out <= CONTEXT);
    const int32_t *ids = dataset_ids(d, seed, i, &a->p, scratch);
    memcpy(a->ids, ids, a->p.n_in * sizeof *ids);
    dataset_text(d, seed, i, &a->p, &a->text);
    assert_true(a->text.n >= 1);
    assert_int_equal(a->text.parts[a->text.n - 1].end, a->text.json.len);
    return a;
}

static const char *path_in(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *write_file(const char *name, const char *text)
{
    FILE *f = fopen(path_in(name), "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
    return path_in(name);
}

/* The text's ids by the tokenizer, as a server would make them. */
static void check_text_is_ids(const struct asked *a, bool with_special)
{
    struct token_ids ids = {0};
    json_error_t je;
    char *quoted = xasprintf("[\"%s\"]", a->text.json.data);
    json_t *root = json_loads(quoted, 0, &je);
    assert_non_null(root);
    const json_t *text = json_array_get(root, 0);
    tokenizer_encode(words_tok, json_string_value(text), json_string_length(text), with_special,
                     &ids);
    assert_int_equal(ids.n, a->p.n_in);
    assert_memory_equal(ids.v, a->ids, ids.n * sizeof *ids.v);
    json_decref(root);
    free(quoted);
    token_ids_free(&ids);
}

/* --- words ------------------------------------------------------------------------------------ */

static void test_drawn_words_are_one_token_each(void **state)
{
    (void)state;
    struct dataset *d = open_ok("{\"dataset\": \"sharegpt\"}", words_tok);
    for (uint64_t i = 0; i < 200; i++) {
        check_text_is_ids(ask(d, SEED, i, 0), false);
    }
    dataset_close(d);
}

static void test_without_a_tokenizer_there_are_words(void **state)
{
    (void)state;
    struct dataset *d = open_ok("{\"input_tokens\": 50}", NULL);
    const struct asked *a = ask(d, SEED, 1, 0);
    int n_words = 1;
    for (size_t i = 0; i < a->text.json.len; i++) {
        char c = a->text.json.data[i];
        assert_true(c == ' ' || (c >= 'a' && c <= 'z'));
        n_words += c == ' ';
    }
    assert_int_equal(n_words, 50);
    assert_string_not_equal(a->text.json.data, ask(d, SEED, 2, 0)->text.json.data);
    dataset_close(d);
}

/* --- conversations ---------------------------------------------------------------------------- */

#define TURN(role, text) "{\"from\":\"" role "\",\"value\":\"" text "\"}"
#define TALK(turns)      "{\"conversations\":[" turns "]}"

static const char talks[] =
    "[" TALK(TURN("system", "be") "," TURN("human", " aa bb") "," TURN("gpt", " ab ac") "," TURN("human", " ba\\n") "," TURN("gpt", " bc")) ",\n" TALK(
        TURN("gpt", "first") "," TURN("human", " aa") "," TURN("human", " ab") "," TURN(
            "gpt", " ac") "," TURN("gpt", " ad")) "," TALK(TURN("human",
                                                                "aa")) "," TALK(TURN("gpt",
                                                                                     "aa")) "]";

static char *source_of(const char *path, const char *more)
{
    return xasprintf("{\"dataset\": {\"source\": \"%s\"%s}", path, more);
}

static void test_turns(void **state)
{
    (void)state;
    char *settings =
        source_of(write_file("talks.json", talks), ", \"turns\": \"multi\"}, \"think\": \"2s\"");
    struct dataset *d = open_ok(settings, words_tok);
    bool seen[2] = {false};
    for (uint64_t i = 0; i < 2; i++) {
        const struct asked *one = ask(d, SEED, i, 0);
        assert_int_equal(one->p.conversation, i + 1);
        assert_int_equal(one->p.think_ns, 2000000000);
        seen[one->p.entry] = true;
        if (one->p.entry == 1) { // both human messages before the first answer are one turn
            assert_int_equal(one->p.n_turns, 1);
            assert_string_equal(one->text.json.data, "first aa ab");
            assert_int_equal(one->p.n_out, 1);
            assert_int_equal(one->text.n, 2);
            continue;
        }
        assert_int_equal(one->p.n_turns, 2);
        assert_string_equal(one->text.json.data, "be aa bb");
        check_text_is_ids(one, true);
        assert_int_equal(one->p.n_out, 2);
        const struct asked *two = ask(d, SEED, i, 1);
        assert_int_equal(two->p.turn, 1);
        assert_int_equal(two->p.think_ns, 2000000000);
        assert_int_equal(two->p.n_out, 1);
        assert_string_equal(two->text.json.data, "be aa bb ab ac ba\\n");
        assert_memory_equal(two->ids, one->ids, one->p.n_in * sizeof *one->ids); // the history
        const uint8_t roles[] = {PROMPT_SYSTEM, PROMPT_USER, PROMPT_ASSISTANT, PROMPT_USER};
        const size_t ends[] = {2, 8, 14, 19};
        assert_int_equal(two->text.n, 4);
        for (size_t k = 0; k < 4; k++) {
            assert_int_equal(two->text.parts[k].role, roles[k]);
            assert_int_equal(two->text.parts[k].end, ends[k]);
        }
    }
    assert_true(seen[0] && seen[1]);
    json_t *about = dataset_describe(d), *filtered = json_object_get(about, "filtered");
    assert_int_equal(json_integer_value(json_object_get(filtered, "too_few_turns")), 1);
    assert_int_equal(json_integer_value(json_object_get(filtered, "no_human_turn")), 1);
    json_decref(about);
    dataset_close(d);
    free(settings);
    unlink(path_in("talks.json"));
}

/* What no longer fits ends the conversation, and is counted. */
static void test_turns_over_the_context(void **state)
{
    (void)state;
    struct str text = {0};
    str_puts(&text, "[{\"conversations\":[");
    for (int k = 0; k < 10; k++) { // 500 tokens asked, 500 answered
        str_printf(&text, "%s{\"from\":\"human\",\"value\":\"", k > 0 ? "," : "");
        for (int j = 0; j < 500; j++) {
            str_puts(&text, " aa");
        }
        str_puts(&text, "\"},{\"from\":\"gpt\",\"value\":\"");
        for (int j = 0; j < 500; j++) {
            str_puts(&text, " ab");
        }
        str_puts(&text, "\"}");
    }
    str_puts(&text, "]}]");
    char *settings = source_of(write_file("long.json", text.data), ", \"turns\": \"multi\"}");
    struct dataset *d = open_ok(settings, words_tok);
    for (uint32_t turn = 0; turn < 4; turn++) {
        const struct asked *a = ask(d, SEED, 0, turn);
        assert_int_equal(a->p.n_turns, 4); // 1 + 3 x 1000 + 500 + 500 fits 4096, one more does not
        assert_int_equal(a->p.n_in, 1 + turn * 1000 + 500);
        assert_int_equal(a->p.n_out, 500);
    }
    json_t *about = dataset_describe(d);
    json_t *n = json_object_get(json_object_get(about, "filtered"), "turns_over_context");
    assert_int_equal(json_integer_value(n), 6);
    json_decref(about);
    dataset_close(d);
    free(settings);
    str_free(&text);
    unlink(path_in("long.json"));
}

static void test_estimated_text(void **state)
{
    (void)state;
    char *settings = source_of(write_file("talks.json", talks), ", \"turns\": \"multi\"}");
    struct dataset *d = open_ok(settings, NULL);
    for (uint64_t i = 0; i < 2; i++) {
        const struct asked *a = ask(d, SEED, i, 0);
        if (a->p.entry == 0) {
            assert_string_equal(a->text.json.data, "be aa bb");
            assert_int_equal(a->p.n_in, 1 + 2); // a token for every 4 bytes of a message
            assert_int_equal(a->p.n_out, 2);
        }
    }
    json_t *about = dataset_describe(d);
    assert_true(json_is_true(json_object_get(about, "estimated")));
    json_decref(about);
    dataset_close(d);
    free(settings);
    settings =
        source_of(path_in("talks.json"), ", \"filter\": \"first-turn\"}, \"input_tokens\": 3");
    d = open_ok(settings, NULL);
    for (uint64_t i = 0; i < 3; i++) {
        const struct asked *a = ask(d, SEED, i, 0);
        assert_int_equal(a->p.n_in, 3);
        assert_true(a->text.json.len >= 10 && a->text.json.len <= 12); // cut or repeated
    }
    dataset_close(d);
    free(settings);
    unlink(path_in("talks.json"));
}

/* A forced length cuts or repeats ids; the text is what those ids say. */
static void test_forced_text(void **state)
{
    (void)state;
    char *settings = source_of(
        write_file("one.json",
                   "[" TALK(TURN("human", " aa ab\\n\\\"") "," TURN("gpt", " ac ad")) "]"),
        ", \"filter\": \"first-turn\"}, \"input_tokens\": {\"kind\": \"uniform\", \"min\": 2, "
        "\"max\": 30}, \"output_tokens\": 9");
    struct dataset *d = open_ok(settings, words_tok);
    uint32_t shortest = UINT32_MAX, longest = 0;
    for (uint64_t i = 0; i < 100; i++) {
        const struct asked *a = ask(d, SEED, i, 0);
        assert_int_equal(a->p.n_out, 9);
        assert_in_range(a->p.n_in, 2, 30);
        shortest = a->p.n_in < shortest ? a->p.n_in : shortest;
        longest = a->p.n_in > longest ? a->p.n_in : longest;
        assert_int_equal(a->ids[0], 0); // BOS, once
        for (uint32_t k = 1; k < a->p.n_in; k++) {
            assert_int_not_equal(a->ids[k], 0);
        }
        assert_int_equal(strncmp(a->text.json.data, " aa", 3), 0);
    }
    assert_true(shortest < 5 && longest > 26);
    dataset_close(d);
    free(settings);
    unlink(path_in("one.json"));
}

/* --- in front --------------------------------------------------------------------------------- */

#define PREAMBLE "\"preamble\": {\"text\": \"aa ab ac ad\", \"mutate\": \"%s\"}"

/* How many of the first tokens two prompts share. */
static uint32_t common(const struct asked *a, const struct asked *b)
{
    uint32_t n = 0;
    while (n < a->p.n_in && n < b->p.n_in && a->ids[n] == b->ids[n]) {
        n++;
    }
    return n;
}

static void check_mutated(const char *where, uint32_t n_shared, uint32_t n_mark)
{
    char *settings = xasprintf("{\"input_tokens\": 40, " PREAMBLE "}", where);
    struct dataset *d = open_ok(settings, words_tok);
    uint32_t least = UINT32_MAX;
    for (uint64_t i = 0; i < 20; i++) {
        const struct asked *a = ask(d, SEED, i, 0), *b = ask(d, SEED, i + 1, 0);
        assert_int_equal(a->p.n_in, 4 + n_mark + 40);
        least = common(a, b) < least ? common(a, b) : least;
        assert_int_equal(a->text.n, 2);
        assert_int_equal(a->text.parts[0].role, PROMPT_SYSTEM);
        assert_int_equal(a->text.parts[1].role, PROMPT_USER);
        assert_true(n_mark > 0 || strncmp(a->text.json.data, "aa ab ac ad ", 12) == 0);
        check_text_is_ids(a, false);
    }
    assert_int_equal(least, n_shared);
    dataset_close(d);
    free(settings);
}

static void test_preamble(void **state)
{
    (void)state;
    check_mutated("none", 4, 0);
    check_mutated("head", 0, 8);
    check_mutated("middle", 2, 8);
    check_mutated("tail", 4, 8);
}

/* BOS stays in front of everything. */
static void test_preamble_before_text(void **state)
{
    (void)state;
    char *settings = source_of(write_file("talks.json", talks),
                               ", \"turns\": \"multi\"}, \"preamble\": \"aa ab\"");
    struct dataset *d = open_ok(settings, words_tok);
    for (uint64_t i = 0; i < 2; i++) {
        const struct asked *a = ask(d, SEED, i, 0);
        assert_int_equal(a->ids[0], 0);
        assert_int_equal(strncmp(a->text.json.data, "aa ab", 5), 0);
        check_text_is_ids(a, true);
        if (a->p.entry == 0) { // the two system messages are one
            assert_int_equal(a->text.n, 2);
            assert_int_equal(a->text.parts[0].end, 7);
            check_text_is_ids(ask(d, SEED, i, 1), true);
        }
    }
    dataset_close(d);
    free(settings);
    unlink(path_in("talks.json"));
}

#define N_EVENTS 4000

static void test_groups(void **state)
{
    (void)state;
    struct dataset *d = open_ok("{\"input_tokens\": 20, \"prefix\": {\"groups\": 4, \"tokens\": "
                                "100, \"share\": 0.75, \"zipf\": 1}}",
                                words_tok);
    int32_t first[4][100];
    int n_groups = 0, n_in_group[4] = {0}, n_without = 0;
    for (uint64_t i = 0; i < N_EVENTS; i++) {
        const struct asked *a = ask(d, SEED, i, 0);
        if (a->p.n_in == 20) {
            n_without++;
            continue;
        }
        assert_int_equal(a->p.n_in, 120);
        int g = 0;
        while (g < n_groups && memcmp(first[g], a->ids, sizeof first[g]) != 0) {
            g++;
        }
        if (g == n_groups) {
            assert_true(n_groups < 4);
            memcpy(first[n_groups++], a->ids, sizeof first[g]);
        }
        n_in_group[g]++;
        if (i < 50) {
            check_text_is_ids(a, false);
        }
    }
    assert_int_equal(n_groups, 4);
    assert_true(abs(n_without - N_EVENTS / 4) < 5 * sqrt(N_EVENTS * 0.25 * 0.75));
    double sum = 1 + 1 / 2.0 + 1 / 3.0 + 1 / 4.0;
    int most = 0;
    for (int g = 0; g < 4; g++) {
        most = n_in_group[g] > most ? n_in_group[g] : most;
    }
    assert_true(fabs(most - N_EVENTS * 0.75 / sum) < 5 * sqrt(N_EVENTS * 0.75 / sum));
    const struct asked *a = ask(d, SEED, 0, 0), *b = ask(d, SEED + 1, 0, 0);
    assert_true(a->p.n_in != b->p.n_in || memcmp(a->ids + 100, b->ids + 100, 20 * 4) != 0);
    dataset_close(d);
}

/* --- repeats and mixes ------------------------------------------------------------------------ */

static void test_repeats(void **state)
{
    (void)state;
    struct dataset *d = open_ok("{\"repeat_share\": \"20%\"}", words_tok);
    struct reuse r = reuse_measure(d);
    assert_int_equal(r.n_requests, 10000);
    assert_true(fabs(r.repeat_share - 0.2) < 5 * sqrt(0.2 * 0.8 / 10000));
    assert_true(r.prefix_share > 0.17 &&
                r.prefix_share < 0.23); // whole prompts, so their blocks too
    dataset_close(d);
    d = open_ok("{}", words_tok);
    r = reuse_measure(d);
    assert_true(r.repeat_share < 0.01); // four tokens of twenty words may meet
    assert_true(r.prefix_share < 0.001);
    dataset_close(d);
}

static void test_shared_prefixes_are_measured(void **state)
{
    (void)state;
    struct dataset *d = open_ok("{\"input_tokens\": 40, \"prefix\": {\"tokens\": 160}}", words_tok);
    struct reuse r = reuse_measure(d);
    assert_int_equal(r.n_tokens, 10000 * 200);
    assert_true(fabs(r.prefix_share - 0.8 * 9999 / 10000) < 1e-3); // all but the first
    dataset_close(d);
}

static void test_mix(void **state)
{
    (void)state;
    char *path = xstrdup(write_file("talks.json", talks));
    char *settings = xasprintf("{\"dataset\": [{\"source\": \"sharegpt\", \"weight\": 3}, "
                               "{\"source\": \"%s\", \"filter\": \"first-turn\", \"weight\": 1}]}",
                               path);
    struct dataset *d = open_ok(settings, words_tok);
    int n_second = 0;
    for (uint64_t i = 0; i < N_EVENTS; i++) {
        const struct asked *a = ask(d, SEED, i, 0);
        n_second += a->p.entry >> 48 == 1;
        assert_true((a->ids[0] == 0) == (a->p.entry >> 48 == 1)); // only text has BOS
    }
    assert_true(fabs(n_second - N_EVENTS * 0.25) < 5 * sqrt(N_EVENTS * 0.25 * 0.75));
    json_t *about = dataset_describe(d), *sources = json_object_get(about, "sources");
    assert_int_equal(json_array_size(sources), 2);
    assert_string_equal(json_string_value(json_object_get(about, "kind")), "mix");
    assert_true(json_number_value(json_object_get(json_array_get(sources, 0), "weight")) == 3.0);
    json_decref(about);
    assert_int_equal(dataset_n_arrivals(d), 0);
    dataset_close(d);
    free(settings);
    free(path);
    unlink(path_in("talks.json"));
}

static void test_drawn_lengths(void **state)
{
    (void)state;
    struct dataset *d = open_ok("{\"input_tokens\": {\"kind\": \"normal\", \"mean\": 1000, \"sd\": "
                                "100}, \"output_tokens\": {\"kind\": \"exponential\", \"mean\": "
                                "50, \"max\": 400}}",
                                words_tok);
    struct dataset_stats in, out;
    dataset_lengths(d, &in, &out);
    assert_true(fabs(in.mean - 1000) < 2 && fabs(in.p90 - 1128) < 3);
    assert_true(fabs(out.mean - 50) < 1 && out.max == 400 && out.min == 1);
    dataset_close(d);
}

static void test_refused(void **state)
{
    (void)state;
    check_refused("{\"input_tokens\": 4000, \"preamble\": \"aa ab ac ad\", \"output_tokens\": 93}",
                  "4004 + 93 (preamble and prefix included) do not fit the context of 4096");
    check_refused("{\"prefix\": {\"tokens\": 5000}}", "do not fit the context");
    check_refused("{\"input_tokens\": {\"kind\": \"uniform\"}}", "load.input_tokens: kind uniform");
    check_refused("{\"dataset\": {\"turns\": \"multi\"}, \"input_tokens\": 5}", "cannot be forced");
    check_refused("{\"think\": {\"kind\": \"normal\", \"mean\": \"1s\"}}", "load.think: kinds");
    check_refused("{\"dataset\": [{\"source\": \"sharegpt\"}, {\"source\": \"nope\"}]}",
                  "nope: No such file");
    check_refused("{\"dataset\": [{\"sauce\": \"sharegpt\"}]}",
                  "source 1 of the list: load.dataset.sauce: unknown key");
    check_refused("{\"dataset\": [{\"weight\": 0}]}", "load.dataset.weight: 0 is out of range");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drawn_words_are_one_token_each),
        cmocka_unit_test(test_without_a_tokenizer_there_are_words),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_turns_over_the_context),
        cmocka_unit_test(test_estimated_text),
        cmocka_unit_test(test_forced_text),
        cmocka_unit_test(test_preamble),
        cmocka_unit_test(test_preamble_before_text),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_shared_prefixes_are_measured),
        cmocka_unit_test(test_mix),
        cmocka_unit_test(test_drawn_lengths),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
