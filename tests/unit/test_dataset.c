/*
 * Datasets as the load sees them: events as a pure function of (seed, i), filters against files
 * small enough to count by hand, and against real files whose counts an independent program made
 * (tests/golden/README.md).
 */
#include "core/config.h"
#include "core/mem.h"
#include "core/rng.h"
#include "datasets/dataset.h"

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

#define CONTEXT 4096
#define VOCAB   8

/* One token per letter of "abcdef", BOS before a prompt. */
static const char letters_json[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true}],"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[0]}}},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,"
    "\"f\":6},\"merges\":[]},\"decoder\":{\"type\":\"Fuse\"}}";

static struct tokenizer *letters;
static char *folder;

static int set_up(void **state)
{
    (void)state;
    struct err e = {0};
    folder = xstrdup("/tmp/tm_dataset_XXXXXX");
    return mkdtemp(folder) == NULL ||
           tokenizer_parse(&letters, letters_json, sizeof letters_json - 1, "letters", VOCAB, &e) !=
               0;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_close(letters);
    rmdir(folder);
    free(folder);
    return 0;
}

static struct dataset_config config(char *source, int filter)
{
    return (struct dataset_config){.source = source, .filter = filter, .time_scale = 1};
}

static struct dataset *open_ok(const struct dataset_config *c, const struct tokenizer *tok,
                               int vocab, int context)
{
    struct dataset *d = NULL;
    struct err e = {0};
    if (dataset_open(&d, c, &(struct dataset_model){.tok = tok, .vocab = vocab, .context = context},
                     &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return d;
}

static void check_refused(const struct dataset_config *c, const struct tokenizer *tok, int context,
                          const char *says)
{
    struct dataset *d = NULL;
    struct err e = {0};
    assert_int_equal(
        dataset_open(&d, c, &(struct dataset_model){.tok = tok, .vocab = VOCAB, .context = context},
                     &e),
        -1);
    assert_null(d);
    assert_int_equal(e.code, ERR_INPUT);
    if (strstr(e.msg, says) == NULL) {
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    }
}

static char *write_file(const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
    return path;
}

static json_int_t filtered(const struct dataset *d, const char *reason)
{
    json_t *about = dataset_describe(d);
    json_int_t n = json_integer_value(json_object_get(json_object_get(about, "filtered"), reason));
    json_decref(about);
    return n;
}

static size_t n_reasons(const struct dataset *d)
{
    json_t *about = dataset_describe(d);
    size_t n = json_object_size(json_object_get(about, "filtered"));
    json_decref(about);
    return n;
}

/* The ids of event i's first turn, until the next call. */
static const int32_t *ids_of(const struct dataset *d, uint64_t seed, uint64_t i)
{
    static int32_t scratch[1 << 17];
    struct prompt p;
    dataset_get(d, seed, i, 0, &p);
    assert_in_range(p.n_in, 1, sizeof scratch / sizeof *scratch);
    return dataset_ids(d, seed, i, &p, scratch);
}

static uint64_t n_kept(const struct dataset *d)
{
    struct dataset_stats in, out;
    dataset_lengths(d, &in, &out);
    return in.n;
}

/* --- the published table ---------------------------------------------------------------------- */

static void test_sampler_events(void **state)
{
    (void)state;
    struct dataset_config c = config((char[]){"sharegpt"}, 0);
    struct dataset *d = open_ok(&c, NULL, 1024, 2048), *again = open_ok(&c, NULL, 1024, 2048);
    uint64_t n_differ = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        struct prompt p, q, other;
        dataset_get(d, 7, i, 0, &p);
        dataset_get(again, 7, 1999 - i, 0, &q); // in any order, from any rank
        dataset_get(again, 7, i, 0, &q);
        dataset_get(d, 8, i, 0, &other);
        assert_memory_equal(&p, &q, sizeof p);
        assert_true(p.n_in >= 4 && p.n_in <= 1024 && p.n_out >= 1 && p.n_out <= 1024);
        assert_int_equal(p.redrawn, 0); // 1024 + 1024 fits
        n_differ += p.n_in != other.n_in || p.n_out != other.n_out;
    }
    assert_true(n_differ > 1900);
    assert_int_equal(dataset_n_arrivals(d), 0);
    dataset_close(d);
    dataset_close(again);
}

static void check_near(double got, double want)
{
    if (fabs(got - want) > 0.02 * want) {
        fail_msg("%g instead of %g", got, want);
    }
}

static void test_sampler_lengths(void **state)
{
    (void)state;
    struct dataset_config c = config((char[]){"quantile:sharegpt"}, 0);
    struct dataset *d = open_ok(&c, NULL, 1024, 2048);
    struct dataset_stats in, out;
    dataset_lengths(d, &in, &out);
    assert_int_equal(in.n, 100000);
    assert_true(in.min == 4 && in.max == 1024 && out.min == 1 && out.max == 1024);
    check_near(in.median, 108);
    check_near(in.mean, 226);
    check_near(in.p90, 635);
    check_near(in.p99, 887);
    check_near(out.median, 132);
    check_near(out.mean, 195);
    check_near(out.p90, 488);
    check_near(out.p99, 778);
    dataset_close(d);
}

/* Under independence the correlation of n draws has a standard deviation of 1 / sqrt(n). */
static void test_sampler_lengths_are_independent(void **state)
{
    (void)state;
    struct dataset_config c = config((char[]){"sharegpt"}, 0);
    struct dataset *d = open_ok(&c, NULL, 1024, 2048);
    const int n = 40000;
    double x = 0, y = 0, xx = 0, yy = 0, xy = 0;
    for (int i = 0; i < n; i++) {
        struct prompt p;
        dataset_get(d, 3, (uint64_t)i, 0, &p);
        x += p.n_in;
        y += p.n_out;
        xx += (double)p.n_in * p.n_in;
        yy += (double)p.n_out * p.n_out;
        xy += (double)p.n_in * p.n_out;
    }
    double r = (n * xy - x * y) / sqrt((n * xx - x * x) * (n * yy - y * y));
    assert_true(fabs(r) < 4 / sqrt(n));
    dataset_close(d);
}

static void test_sampler_redraws(void **state)
{
    (void)state;
    struct dataset_config c = config((char[]){"sharegpt"}, 0);
    struct dataset *d = open_ok(&c, NULL, 1024, 300);
    uint64_t n_redrawn = 0;
    for (uint64_t i = 0; i < 5000; i++) {
        struct prompt p;
        dataset_get(d, 1, i, 0, &p);
        assert_true(p.n_in + p.n_out <= 300);
        n_redrawn += p.redrawn;
    }
    assert_in_range(n_redrawn, 2000, 20000); // about half of the pairs are longer than that
    dataset_close(d);
    check_refused(&c, NULL, 8, "less than 1 % of sharegpt's requests fit the context of 8 tokens");
}

static void test_sampler_forced(void **state)
{
    (void)state;
    struct dataset_config c = config((char[]){"sharegpt"}, 0);
    struct prompt p;
    c.input.mean = 100;
    c.output.mean = 28;
    struct dataset *d = open_ok(&c, NULL, 1024, 128);
    dataset_get(d, 1, 12345, 0, &p);
    assert_int_equal(p.n_in, 100);
    assert_int_equal(p.n_out, 28);
    dataset_close(d);
    check_refused(&c, NULL, 127, "100 + 28 do not fit the context of 127 tokens");
    c.output.mean = 0;
    d = open_ok(&c, NULL, 1024, 128);
    for (uint64_t i = 0; i < 100; i++) {
        dataset_get(d, 1, i, 0, &p);
        assert_int_equal(p.n_in, 100);
        assert_in_range(p.n_out, 1, 28);
    }
    dataset_close(d);
}

static void test_drawn_ids(void **state)
{
    (void)state;
    struct dataset_config c = config((char[]){"sharegpt"}, 0);
    struct dataset *plain = open_ok(&c, NULL, 5, 2048);
    struct dataset *with_tok = open_ok(&c, letters, VOCAB, 2048);
    int32_t a[1003], b[1003];
    uint32_t counts[VOCAB] = {0};
    const struct prompt long_one = {.n_in = 1003, .n_turns = 1}, short_one = {.n_in = 10};
    assert_ptr_equal(dataset_ids(plain, 1, 42, &long_one, a), a);
    assert_ptr_equal(dataset_ids(plain, 1, 42, &short_one, b), b);
    assert_memory_equal(a, b, 10 * sizeof *a); // a shorter prompt is a prefix
    for (int i = 0; i < 1003; i++) {
        assert_in_range(a[i], 0, 4);
        counts[a[i]]++;
    }
    for (int i = 0; i < 5; i++) {
        assert_in_range(counts[i], 150, 250);
    }
    dataset_ids(with_tok, 1, 42, &long_one, b);
    for (int i = 0; i < 1003; i++) {
        assert_in_range(b[i], 1, 6); // not BOS, nothing beyond the tokenizer
    }
    dataset_close(plain);
    dataset_close(with_tok);
}

/* --- conversations, counted by hand ----------------------------------------------------------- */

#define TURN(role, text) "{\"from\":\"" role "\",\"value\":\"" text "\"}"
#define TALK(turns)      "{\"id\":\"x\",\"conversations\":[" turns "]}"

/* Prompts and completions count one more than their letters: BOS. */
static const char by_hand[] =
    "[" TALK(TURN("human", "abc") "," TURN("gpt", "abcd")) ",\n" // 4 + 5: kept
    TALK(TURN("human", "ab") "," TURN("gpt", "abcdef")) ",\n"    // 3: prompt too short
    TALK(TURN("human", "abcdef") "," TURN("gpt", "ab")) ",\n"    // 3: completion too short
    TALK(TURN("human", "abcdef")) ",\n"                          // one turn
    TALK("") ",\n"                                               // none
    TALK(TURN("system", "ffff") "," TURN(
        "user",
        "dddd")) ",\n" // 5 + 5: turns 0 and 1, kept
                 "{\"conversation\":[{\"role\":\"user\",\"content\":\"eeeee\"}," // 6 + 6: other names, kept
                 "{\"role\":\"assistant\",\"content\":\"fffff\"}]},\n"           //
    TALK(TURN("gpt", "abcdef") "," TURN("gpt", "abcdef")) ",\n"                  // 7 + 7: kept
    TALK(TURN("human", "") "," TURN("gpt", "abcdef")) "]\n"; // 0: an empty prompt is none

static void test_two_turn_filters_by_hand(void **state)
{
    (void)state;
    char *path = write_file("hand.json", by_hand);
    const int filters[] = {DATASET_FILTER_VLLM, DATASET_FILTER_INFERENCE_BENCHMARK};
    for (int i = 0; i < 2; i++) {
        struct dataset_config c = config(path, filters[i]);
        struct dataset *d = open_ok(&c, letters, VOCAB, CONTEXT);
        assert_int_equal(n_kept(d), 4);
        assert_int_equal(filtered(d, "too_few_turns"), 2);
        assert_int_equal(filtered(d, "prompt_too_short"), 2);
        assert_int_equal(filtered(d, "completion_too_short"), 1);
        assert_int_equal(n_reasons(d), 3);
        struct dataset_stats in, out;
        dataset_lengths(d, &in, &out);
        assert_true(in.min == 4 && in.max == 7 && in.mean == 22 / 4.0 && in.median == 5.5);
        assert_true(out.min == 5 && out.max == 7 && out.mean == 23 / 4.0);
        dataset_close(d);
        d = open_ok(&c, letters, VOCAB, 10); // 4 + 5 and 5 + 5 remain
        assert_int_equal(n_kept(d), 2);
        assert_int_equal(filtered(d, "context"), 2);
        dataset_close(d);
    }
    unlink(path);
    free(path);
}

static void test_first_turn_by_hand(void **state)
{
    (void)state;
    char *path = write_file("first.json", by_hand);
    struct dataset_config c = config(path, DATASET_FILTER_FIRST_TURN);
    struct dataset *d = open_ok(&c, letters, VOCAB, CONTEXT);
    assert_int_equal(n_kept(d), 6);
    assert_int_equal(filtered(d, "no_human_turn"), 2);
    assert_int_equal(filtered(d, "prompt_too_short"), 1); // the empty one
    assert_int_equal(n_reasons(d), 2);
    const int32_t dddd[] = {0, 4, 4, 4, 4};
    bool has_dddd = false;
    for (uint64_t i = 0; i < 6; i++) { // the first human turn, wherever it stands
        struct prompt p;
        dataset_get(d, 1, i, 0, &p);
        assert_true(p.n_out >= 1 && p.n_out <= 1024);
        has_dddd |= p.n_in == 5 && memcmp(ids_of(d, 1, i), dddd, sizeof dddd) == 0 && p.entry == 5;
    }
    assert_true(has_dddd);
    dataset_close(d);
    unlink(path);
    free(path);
}

/* A file of one conversation with so many letters in turns 0 and 1. */
static char *write_lengths(size_t n_prompt, size_t n_completion)
{
    struct str s = {0};
    str_puts(&s, "[{\"conversations\":[{\"value\":\"");
    for (size_t i = 0; i < n_prompt; i++) {
        str_puts(&s, "a");
    }
    str_puts(&s, "\"},{\"value\":\"");
    for (size_t i = 0; i < n_completion; i++) {
        str_puts(&s, "b");
    }
    str_puts(&s, "\"}]}]");
    char *path = write_file("lengths.json", s.data);
    str_free(&s);
    return path;
}

static void check_limits(int filter, size_t n_in, size_t n_out, const char *reason)
{
    char *path = write_lengths(n_in - 1, n_out - 1);
    struct dataset_config c = config(path, filter);
    if (reason != NULL) {
        check_refused(&c, letters, CONTEXT, reason);
    } else {
        dataset_close(open_ok(&c, letters, VOCAB, CONTEXT));
    }
    unlink(path);
    free(path);
}

static void test_limits(void **state)
{
    (void)state;
    const int v = DATASET_FILTER_VLLM, b = DATASET_FILTER_INFERENCE_BENCHMARK;
    check_limits(v, 1024, 1024, NULL);
    check_limits(v, 1025, 10, "keeps no conversation of 1: prompt_too_long 1");
    check_limits(v, 1024, 1025, "sum_too_long 1");
    check_limits(v, 10, 2038, NULL);
    check_limits(v, 10, 2039, "sum_too_long 1");
    check_limits(v, 4, 4, NULL);
    check_limits(v, 3, 4, "prompt_too_short 1");
    check_limits(v, 4, 3, "completion_too_short 1");
    check_limits(b, 1024, 1024, NULL);
    check_limits(b, 1025, 10, "prompt_too_long 1");
    check_limits(b, 10, 1025, "completion_too_long 1");
    check_limits(b, 4, 4, NULL);
    check_limits(b, 4, 3, "completion_too_short 1");
}

static void test_forced_lengths(void **state)
{
    (void)state;
    char *path =
        write_file("forced.json", "[" TALK(TURN("human", "abcde") "," TURN("gpt", "a")) "]");
    struct dataset_config c = config(path, DATASET_FILTER_VLLM);
    c.output.mean = 2; // below the filter's minimum, which is not asked of it
    struct dataset *d = open_ok(&c, letters, VOCAB, CONTEXT);
    struct prompt p;
    dataset_get(d, 1, 0, 0, &p);
    assert_int_equal(p.n_in, 6);
    assert_int_equal(p.n_out, 2);
    dataset_close(d);
    c.input.mean = 9;
    d = open_ok(&c, letters, VOCAB, CONTEXT);
    dataset_get(d, 1, 0, 0, &p);
    const int32_t repeated[] = {0, 1, 2, 3, 4, 5, 1, 2, 3}; // BOS once
    assert_int_equal(p.n_in, 9);
    assert_memory_equal(ids_of(d, 1, 0), repeated, sizeof repeated);
    dataset_close(d);
    c.input.mean = 3;
    d = open_ok(&c, letters, VOCAB, CONTEXT);
    dataset_get(d, 1, 0, 0, &p);
    assert_int_equal(p.n_in, 3);
    assert_memory_equal(ids_of(d, 1, 0), repeated, 3 * sizeof *repeated);
    json_t *about = dataset_describe(d);
    const char *note = json_string_value(json_object_get(about, "note"));
    assert_non_null(strstr(note, "every prompt is made 3 tokens long"));
    assert_non_null(strstr(note, "every output is 2 tokens long"));
    json_decref(about);
    dataset_close(d);
    unlink(path);
    free(path);
}

#define N_MANY 37

static char *write_many(void)
{
    struct str s = {0};
    for (int i = 0; i < N_MANY; i++) {
        str_puts(&s, i > 0 ? "," : "[");
        str_puts(&s, TALK(TURN("human", "aaaa") "," TURN("gpt", "bbbb")));
    }
    str_puts(&s, "]");
    char *path = write_file("many.json", s.data);
    str_free(&s);
    return path;
}

static void test_order(void **state)
{
    (void)state;
    char *path = write_many();
    struct dataset_config c = config(path, DATASET_FILTER_VLLM);
    struct dataset *d = open_ok(&c, letters, VOCAB, CONTEXT);
    uint64_t order[2][3][N_MANY]; // by seed and epoch
    for (uint64_t seed = 0; seed < 2; seed++) {
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            bool seen[N_MANY] = {false};
            for (uint64_t i = 0; i < N_MANY; i++) {
                struct prompt p;
                dataset_get(d, seed, epoch * N_MANY + i, 0, &p);
                assert_in_range(p.entry, 0, N_MANY - 1);
                assert_false(seen[p.entry]); // none twice before all once
                seen[p.entry] = true;
                order[seed][epoch][i] = p.entry;
            }
        }
    }
    assert_memory_not_equal(order[0][0], order[1][0], sizeof order[0][0]);
    assert_memory_not_equal(order[0][0], order[0][1], sizeof order[0][0]);
    assert_memory_not_equal(order[0][1], order[0][2], sizeof order[0][0]);
    dataset_close(d);
    unlink(path);
    free(path);
}

/* --- refused ---------------------------------------------------------------------------------- */

static void check_text_refused(const char *text, const char *says)
{
    char *path = write_file("bad.json", text);
    struct dataset_config c = config(path, DATASET_FILTER_VLLM);
    check_refused(&c, letters, CONTEXT, says);
    unlink(path);
    free(path);
}

static void test_bad_files(void **state)
{
    (void)state;
    check_text_refused("", "bad.json: empty");
    check_text_refused("{}", "bad.json:1: \"timestamp\" is missing");
    check_text_refused("x", "bad.json:1: neither conversations ('[' first)");
    check_text_refused("[", "not JSON");
    check_text_refused("[]", "keeps no conversation of 0");
    check_text_refused("[\n {\"id\": oops}]", "bad.json:2:9: not JSON");
    check_text_refused("[\n {\"id\":\n\n \"a}]", "bad.json:4:");
    check_text_refused("[{\"conversations\":[]}\n{}]",
                       "bad.json:2:1: not JSON: ',' or ']' expected");
    check_text_refused("[{\"conversations\":[]},]", "not JSON");
    check_text_refused("[{\"conversations\":[]}] x",
                       "bad.json:1:24: not JSON: text after the list");
    check_text_refused("[7]", "conversation 1: no list of");
    check_text_refused("[}]", "not JSON");
    check_text_refused("[{]}]", "not JSON");
    check_text_refused("[" TALK("") ",\n[]]", "bad.json:2: conversation 2: no list of");
    check_text_refused("[{\"a\":1}]", "conversation 1: no list of \"conversations\"");
    check_text_refused("[{\"conversations\":[1,2]}]",
                       "conversation 1: a turn has no \"value\" text");
    check_text_refused("[" TALK("") "," TALK("") "]",
                       "keeps no conversation of 2: too_few_turns 2");
}

static void test_bad_sources(void **state)
{
    (void)state;
    struct dataset_config c = config((char[]){"shargpt"}, 0);
    check_refused(&c, letters, CONTEXT,
                  "shargpt: No such file or directory (sharegpt, or the path");
    c.source = (char[]){"/nowhere/x.json"};
    check_refused(&c, letters, CONTEXT, "/nowhere/x.json");
    check_refused(&c, NULL, CONTEXT, "/nowhere/x.json");
    c.source = NULL;
    check_refused(&c, letters, CONTEXT, "source");
    char *path = write_file("text.json", by_hand);
    c.source = path;
    check_refused(&c, NULL, CONTEXT, "needs a model folder with tokenizer.json");
    c.window = (struct opt_window){10, 5};
    check_refused(&c, letters, CONTEXT, "window: ends before it begins");
    unlink(path);
    free(path);
}

/* --- options and description ------------------------------------------------------------------ */

static void check_options(const char *yaml, const char *source, int filter, int64_t to_ns)
{
    struct dataset_config c = {0};
    struct err e = {0};
    json_t *root = NULL;
    assert_int_equal(config_parse(yaml, strlen(yaml), "y", &root, &e), 0);
    opt_defaults(dataset_options, &c);
    if (opt_apply(dataset_options, &c, root, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    assert_string_equal(c.source, source);
    assert_int_equal(c.filter, filter);
    assert_int_equal(c.window.to_ns, to_ns);
    assert_true(c.time_scale > 0);
    opt_free(dataset_options, &c);
    json_decref(root);
}

static void test_options(void **state)
{
    (void)state;
    check_options("load: {input_tokens: 5}", "sharegpt", DATASET_FILTER_VLLM, 0);
    check_options("load: {dataset: x.json}", "x.json", DATASET_FILTER_VLLM, 0);
    check_options("load: {dataset: {source: y.json, filter: first-turn}}", "y.json",
                  DATASET_FILTER_FIRST_TURN, 0);
    check_options("load: {dataset: {source: t.csv, time_scale: 0.5, window: [0s, 300s]}}", "t.csv",
                  DATASET_FILTER_VLLM, 300000000000);
}

static void test_description(void **state)
{
    (void)state;
    char *path = write_file("about.json", by_hand);
    struct dataset_config c = config(path, DATASET_FILTER_INFERENCE_BENCHMARK);
    struct dataset *d = open_ok(&c, letters, VOCAB, CONTEXT);
    json_t *about = dataset_describe(d);
    assert_string_equal(json_string_value(json_object_get(about, "source")), path);
    assert_string_equal(json_string_value(json_object_get(about, "kind")), "sharegpt");
    assert_string_equal(json_string_value(json_object_get(about, "filter")), "inference-benchmark");
    assert_int_equal(strlen(json_string_value(json_object_get(about, "hash"))), 6 + 16);
    assert_int_equal(json_integer_value(json_object_get(about, "entries")), 4);
    assert_true(json_number_value(json_object_get(json_object_get(about, "input_tokens"), "max")) ==
                7);
    json_decref(about);
    dataset_close(d);
    c.source = (char[]){"sharegpt"};
    d = open_ok(&c, NULL, VOCAB, 2048);
    about = dataset_describe(d);
    assert_true(json_is_null(json_object_get(about, "filter")));
    assert_non_null(strstr(json_string_value(json_object_get(about, "note")), "independently"));
    json_decref(about);
    dataset_close(d);
    unlink(path);
    free(path);
}

/* --- real files ------------------------------------------------------------------------------- */

struct expected {
    const char *file;
    int filter, context;
    uint64_t kept;
    json_int_t too_few_turns, beyond_context;
    uint64_t sum_in, sum_out; // sum_out 0: drawn
};

/* Counted by tests/golden/count_sharegpt.py with `tokenizers` 0.23.3. */
static const struct expected real[] = {
    {"fastchat_dummy_multi_turn_500.json", DATASET_FILTER_VLLM, 512, 500, 0, 0, 6768, 24685},
    {"fastchat_dummy_multi_turn_500.json", DATASET_FILTER_INFERENCE_BENCHMARK, 512, 500, 0, 0, 6768,
     24685},
    {"fastchat_dummy_multi_turn_500.json", DATASET_FILTER_VLLM, 64, 179, 0, 321, 1642, 3586},
    {"fastchat_dummy_multi_turn_500.json", DATASET_FILTER_FIRST_TURN, 512, 500, 0, 0, 6768, 0},
    {"sharegpt_v3_first_turns_1000.json", DATASET_FILTER_VLLM, 512, 0, 1000, 0, 0, 0},
    {"sharegpt_v3_first_turns_1000.json", DATASET_FILTER_FIRST_TURN, 512, 620, 0, 380, 73671, 0},
    {"sharegpt_v3_first_turns_1000.json", DATASET_FILTER_FIRST_TURN, 2048, 991, 0, 9, 482268, 0},
};

static void check_real(const char *shared, const struct tokenizer *tok, const struct expected *x)
{
    char *path = xasprintf("%s/data/sharegpt/%s", shared, x->file);
    struct dataset_config c = config(path, x->filter);
    if (x->kept == 0) {
        char *says = xasprintf("keeps no conversation of 1000: too_few_turns %lld",
                               (long long)x->too_few_turns);
        check_refused(&c, tok, x->context, says);
        free(says);
        free(path);
        return;
    }
    struct dataset *d = open_ok(&c, tok, 512, x->context);
    struct dataset_stats in, out;
    dataset_lengths(d, &in, &out);
    assert_int_equal(in.n, x->kept);
    assert_int_equal(filtered(d, "too_few_turns"), x->too_few_turns);
    assert_int_equal(filtered(d, "context"), x->beyond_context);
    assert_int_equal(llround(in.mean * (double)in.n), x->sum_in);
    if (x->sum_out > 0) {
        assert_int_equal(llround(out.mean * (double)out.n), x->sum_out);
    }
    for (uint64_t i = 0; i < 2 * x->kept; i++) {
        struct prompt p;
        dataset_get(d, 1, i, 0, &p);
        assert_true(p.n_in >= 1 && p.n_out >= 1 && p.n_in + p.n_out <= (uint32_t)x->context);
        assert_int_equal(ids_of(d, 1, i)[0], 1); // BOS
    }
    dataset_close(d);
    free(path);
}

static void test_real_files(void **state)
{
    (void)state;
    const char *from_env = getenv("TIDEMARK_SHARED"), *source = getenv("TIDEMARK_SOURCE");
    char *shared = from_env != NULL ? xstrdup(from_env)
                                    : xasprintf("%s/../shared", source != NULL ? source : ".");
    char *model = xasprintf("%s/models/stories260K", shared);
    if (access(model, R_OK) != 0) {
        print_message("skipped: no %s (shared data; set TIDEMARK_SHARED)\n", model);
        free(model);
        free(shared);
        skip();
    }
    struct tokenizer *tok;
    struct err e = {0};
    assert_int_equal(tokenizer_open(&tok, model, 512, &e), 0);
    for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
        check_real(shared, tok, &real[i]);
    }
    tokenizer_close(tok);
    free(model);
    free(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler_events),
        cmocka_unit_test(test_sampler_lengths),
        cmocka_unit_test(test_sampler_lengths_are_independent),
        cmocka_unit_test(test_sampler_redraws),
        cmocka_unit_test(test_sampler_forced),
        cmocka_unit_test(test_drawn_ids),
        cmocka_unit_test(test_two_turn_filters_by_hand),
        cmocka_unit_test(test_first_turn_by_hand),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_forced_lengths),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_bad_sources),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_description),
        cmocka_unit_test(test_real_files),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
