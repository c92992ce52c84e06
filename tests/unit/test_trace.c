/*
 * Azure traces: both years' time formats, windows and scaling to the nanosecond, every kind of bad
 * line by its number, and the real trace against counts of an independent program
 * (tests/golden/count_sharegpt.py).
 */
#include "core/mem.h"
#include "core/str.h"
#include "datasets/dataset.h"
#include "datasets/trace.h"

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

#define HEADER  "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
#define CONTEXT 1000
#define SECOND  1000000000LL

static const struct dataset_config plain = {.time_scale = 1};

/* As trace_parse does for a dataset: with the lengths that the settings force. */
static int parse(struct entries *s, const struct dataset_config *c, const char *text, size_t len,
                 struct err *e)
{
    struct lengths in, out;
    struct trace_input input = {.cfg = c, .in = &in, .out = &out, .context = CONTEXT};
    assert_int_equal(lengths_init(&in, &c->input, &quantile_sharegpt_input, e), 0);
    assert_int_equal(lengths_init(&out, &c->output, &quantile_sharegpt_output, e), 0);
    return trace_parse(s, &input, text, len, "t.csv", e);
}

static struct entries parse_ok(const struct dataset_config *c, const char *text)
{
    struct entries s = {0};
    struct err e = {0};
    if (parse(&s, c, text, strlen(text), &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return s;
}

static void check_refused(const struct dataset_config *c, const char *text, const char *says)
{
    struct entries s = {0};
    struct err e = {0};
    assert_int_equal(parse(&s, c, text, strlen(text), &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_null(s.v);
    if (strncmp(e.msg, says, strlen(says)) != 0) {
        fail_msg("\"%s\" does not begin with \"%s\"", e.msg, says);
    }
}

static const char five[] = HEADER "2023-11-16 18:15:46.6805900,374,44\r\n"
                                  "2023-11-16 18:15:50.9951690,396,109\r\n"
                                  "2023-11-16 18:15:50.9951690,1,1\r\n"     // at the same time
                                  "2023-11-16 18:16:46.0000000,600,401\r\n" // one over the context
                                  "2023-11-17 00:00:00.0000000,600,400\r\n";

static void check_entry(const struct entries *s, size_t at, uint64_t index, int64_t t_ns,
                        uint32_t n_in, uint32_t n_out)
{
    const struct entry *x = &s->v[at];
    assert_int_equal(x->index, index);
    assert_int_equal(x->t_ns, t_ns);
    assert_int_equal(s->turns[x->turn_at].n_in, n_in);
    assert_int_equal(s->turns[x->turn_at].n_out, n_out);
}

static void test_lines(void **state)
{
    (void)state;
    struct entries s = parse_ok(&plain, five);
    assert_int_equal(s.n, 4);
    assert_int_equal(s.n_source, 5);
    assert_int_equal(s.filtered[ENTRIES_CONTEXT], 1);
    check_entry(&s, 0, 0, 0, 374, 44);
    check_entry(&s, 1, 1, 4314579000, 396, 109);
    check_entry(&s, 2, 2, 4314579000, 1, 1);
    check_entry(&s, 3, 4, (5 * 3600 + 44 * 60 + 13) * SECOND + 319410000, 600, 400);
    entries_free(&s);
}

/* Every form of one instant, and instants on both sides of a leap day and of a year. */
static void test_time_formats(void **state)
{
    (void)state;
    struct entries s = parse_ok(&plain, "TIMESTAMP,ContextTokens,GeneratedTokens\n"
                                        "2024-02-28 23:59:59.5,1,1\n"
                                        "2024-02-28T23:59:59.500Z,1,1\n"
                                        "2024-02-29 01:59:59.500000000+02:00,1,1\n"
                                        "2024-02-28 20:29:59.500-03:30,1,1\n"
                                        "2024-02-29 23:59:59,1,1\n"
                                        "2024-03-01 00:00:00.000000001+00:00,1,1\n"
                                        "2025-01-01T00:00:00Z,1,1");
    const int64_t day = 86400 * SECOND;
    const int64_t want[] = {
        0, 0, 0, 0, day - SECOND / 2, day + SECOND / 2 + 1, 307 * day + SECOND / 2};
    assert_int_equal(s.n, 7);
    for (size_t i = 0; i < s.n; i++) {
        assert_int_equal(s.v[i].t_ns, want[i]);
    }
    entries_free(&s);
}

static void test_empty_last_lines(void **state)
{
    (void)state;
    static const char *const ends[] = {"", "\n", "\r\n", "\n\n", "\r\n\r\n\n"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        char *text = xasprintf(HEADER "2023-11-16 18:15:46,1,1%s", ends[i]);
        struct entries s = parse_ok(&plain, text);
        assert_int_equal(s.n_source, 1);
        entries_free(&s);
        free(text);
    }
}

static void test_window_and_scale(void **state)
{
    (void)state;
    struct dataset_config c = plain;
    c.window = (struct opt_window){4 * SECOND, 59 * SECOND};
    c.time_scale = 0.5; // twice as fast
    struct entries s = parse_ok(&c, five);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.filtered[ENTRIES_OUTSIDE_WINDOW], 3); // also what the context would filter
    assert_int_equal(s.filtered[ENTRIES_CONTEXT], 0);
    check_entry(&s, 0, 1, 157289500, 396, 109);
    check_entry(&s, 1, 2, 157289500, 1, 1);
    entries_free(&s);
    c.window = (struct opt_window){60 * SECOND, -1}; // open end
    s = parse_ok(&c, five);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.v[0].index, 4);
    entries_free(&s);
    c.window = (struct opt_window){4314579000, 4314579001}; // [from, to)
    s = parse_ok(&c, five);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.v[0].t_ns, 0);
    entries_free(&s);
    c.window = (struct opt_window){4314579001, 59 * SECOND};
    check_refused(&c, five, "t.csv: keeps no request of 5: outside_window 5");
}

static void test_filtered(void **state)
{
    (void)state;
    const char *text = HEADER "2023-11-16 18:15:46,0,44\n"
                              "2023-11-16 18:15:46,44,0\n"
                              "2023-11-16 18:15:46,999,1\n"
                              "2023-11-16 18:15:46,1000000000,1000000000\n";
    struct entries s = parse_ok(&plain, text);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.filtered[ENTRIES_ZERO_TOKENS], 2);
    assert_int_equal(s.filtered[ENTRIES_CONTEXT], 1);
    entries_free(&s);
    struct dataset_config c = plain;
    c.input.mean = 600;
    c.output.mean = 400;
    s = parse_ok(&c, text); // forced lengths: nothing is filtered
    assert_int_equal(s.n, 4);
    check_entry(&s, 3, 3, 0, 1000000000, 1000000000); // as the trace says: forced when asked for
    entries_free(&s);
}

static void test_bad_lines(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"\n2023-11-16 18:15:47,1,1", "t.csv:3: TIMESTAMP"}, // empty, and not the last
        {"x", "t.csv:3: TIMESTAMP"},
        {"2023-11-16,1,1", "t.csv:3: TIMESTAMP"},
        {"2023-11-16 18:15,1,1", "t.csv:3: TIMESTAMP"},
        {"2023-13-16 18:15:50,1,1", "t.csv:3: TIMESTAMP"},
        {"2023-02-29 18:15:50,1,1", "t.csv:3: TIMESTAMP"},
        {"2023-11-16 24:15:50,1,1", "t.csv:3: TIMESTAMP"},
        {"2023-11-16 18:60:50,1,1", "t.csv:3: TIMESTAMP"},
        {"2023-11-16 18:15:50.,1,1", "t.csv:3: TIMESTAMP"},
        {"2023-11-16 18:15:50.1234567890,1,1", "t.csv:3: TIMESTAMP"},
        {"2023-11-16 18:15:50+2,1,1", "t.csv:3: TIMESTAMP"},
        {"1023-11-16 18:15:50,1,1", "t.csv:3: TIMESTAMP is not YYYY-MM-DD HH:MM:SS"},
        {"2023-11-16 18:15:50", "t.csv:3: 1 fields where the header has 3"},
        {"2023-11-16 18:15:50,,1", "t.csv:3: ContextTokens"},
        {"2023-11-16 18:15:50,-1,1", "t.csv:3: ContextTokens"},
        {"2023-11-16 18:15:50,1.5,1", "t.csv:3: ContextTokens"},
        {"2023-11-16 18:15:50, 1,1", "t.csv:3: ContextTokens"},
        {"2023-11-16 18:15:50,1000000001,1", "t.csv:3: ContextTokens"},
        {"2023-11-16 18:15:50,99999999999999999999,1", "t.csv:3: ContextTokens"},
        {"2023-11-16 18:15:50,1", "t.csv:3: 2 fields where the header has 3"},
        {"2023-11-16 18:15:50,1,", "t.csv:3: GeneratedTokens"},
        {"2023-11-16 18:15:50,1,2x", "t.csv:3: GeneratedTokens"},
        {"2023-11-16 18:15:50,1,1,", "t.csv:3: 4 fields where the header has 3"},
        {"2023-11-16 18:15:50,1,1,7", "t.csv:3: 4 fields where the header has 3"},
        {"2023-11-16 18:15:45.9999999,1,1", "t.csv:3: its time is before that of the line above"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *text = xasprintf("%s2023-11-16 18:15:46,1,1\n%s\n", HEADER, bad[i].line);
        check_refused(&plain, text, bad[i].says);
        free(text);
    }
}

static void test_bad_files(void **state)
{
    (void)state;
    check_refused(&plain, "", "t.csv:1: neither conversations");
    check_refused(&plain, "TIMESTAMP,ContextTokens\n", "t.csv:1: neither conversations");
    check_refused(&plain, "2023-11-16 18:15:46,1,1\n", "t.csv:1: neither conversations");
    check_refused(&plain, HEADER, "t.csv: keeps no request of 0");
    struct dataset_config c = plain;
    c.time_scale = 1e6;
    check_refused(&c, HEADER "1970-01-01 00:00:00,1,1\n2199-01-01 00:00:00,1,1\n",
                  "t.csv:3: time_scale 1e+06 puts it too far away");
}

/* Bytes that a C string would end at. */
static void test_nul_bytes(void **state)
{
    (void)state;
    const char text[] = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16\0 18:15:46,1,1\n";
    struct entries s = {0};
    struct err e = {0};
    assert_int_equal(parse(&s, &plain, text, sizeof text - 1, &e), -1);
    assert_non_null(strstr(e.msg, "t.csv:2: TIMESTAMP"));
}

/* --- BurstGPT --------------------------------------------------------------------------------- */

#define BURSTGPT "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"

static void test_burstgpt(void **state)
{
    (void)state;
    struct entries s = parse_ok(&plain, BURSTGPT "5,ChatGPT,472,18,490,Conversation log\n"
                                                 "45,GPT-4,12,0,12,API log\n" // failed
                                                 "45.25,ChatGPT,30,40,70,API log\n");
    assert_int_equal(s.n, 2);
    assert_int_equal(s.filtered[ENTRIES_ZERO_TOKENS], 1);
    check_entry(&s, 0, 0, 0, 472, 18);
    check_entry(&s, 1, 2, 40 * SECOND + SECOND / 4, 30, 40);
    entries_free(&s);
    s = parse_ok(&plain, "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,"
                         "Total tokens,Log Type\n7,abc,1.5,GPT-4,3,4,7,API log\n");
    check_entry(&s, 0, 0, 0, 3, 4); // columns are found by name
    entries_free(&s);
    check_refused(&plain, BURSTGPT "soon,ChatGPT,1,1,2,x\n", "t.csv:2: Timestamp is not seconds");
    check_refused(&plain, BURSTGPT "1,ChatGPT,,1,2,x\n", "t.csv:2: Request tokens");
    check_refused(&plain, BURSTGPT "1,ChatGPT,1,x,2,x\n", "t.csv:2: Response tokens");
    check_refused(&plain, BURSTGPT "1,ChatGPT,1,1,2\n", "t.csv:2: 5 fields where the header has 6");
}

/* --- Mooncake --------------------------------------------------------------------------------- */

#define LINE(ms, in, out, ids)                                                                     \
    "{\"timestamp\": " ms ", \"input_length\": " in ", \"output_length\": " out                    \
    ", \"hash_ids\": [" ids "]}\n"

static void test_mooncake(void **state)
{
    (void)state;
    struct entries s =
        parse_ok(&plain, LINE("1000", "600", "10", "7, 8") LINE("1500", "512", "20", "7")
                             LINE("1500", "900", "101", "7, 9"));
    assert_int_equal(s.n, 2);
    assert_int_equal(s.filtered[ENTRIES_CONTEXT], 1);
    check_entry(&s, 0, 0, 0, 600, 10);
    check_entry(&s, 1, 1, SECOND / 2, 512, 20);
    const uint64_t blocks[] = {7, 8, 7};
    assert_int_equal(s.n_blocks, 3);
    assert_memory_equal(s.blocks, blocks, sizeof blocks);
    assert_int_equal(s.v[1].data_at, 2);
    assert_int_equal(s.v[1].n_data, 1);
    entries_free(&s);
    check_refused(&plain, LINE("0", "513", "1", "7"),
                  "t.csv:1: 1 \"hash_ids\" for 513 tokens: one for each 512 is 2 of them");
    check_refused(&plain, LINE("0", "1", "1", "1") LINE("0", "1", "1", "x"), "t.csv:2: not {");
    check_refused(&plain, LINE("5", "1", "1", "1") LINE("4", "1", "1", "1"),
                  "t.csv:2: its time is");
    check_refused(&plain, LINE("-1", "1", "1", "1"), "t.csv:1: \"timestamp\"");
    check_refused(&plain, "{\"timestamp\": 1}\n", "t.csv:1: \"input_length\" or");
}

static void test_mooncake_fractions(void **state)
{
    (void)state;
    struct entries s =
        parse_ok(&plain, LINE("27.5", "1", "1", "1") LINE("28", "1", "1", "1")
                             LINE("28.000001", "1", "1", "1") LINE("4e3", "1", "1", "1") "\n");
    const int64_t want[] = {0, 500000, 500001, 3972500000};
    assert_int_equal(s.n, 4);
    for (size_t i = 0; i < s.n; i++) {
        assert_int_equal(s.v[i].t_ns, want[i]);
    }
    entries_free(&s);
    check_refused(&plain, LINE("1e999", "1", "1", "1"), "t.csv:1: \"timestamp\"");
    check_refused(&plain, LINE("5000000000000.5", "1", "1", "1"), "t.csv:1: \"timestamp\"");
}

/* The first k tokens of two prompts are the same just as long as their blocks are. */
static void check_shared(const struct dataset *d, const struct entries *s, uint64_t i, uint64_t k)
{
    static int32_t a[1 << 17], b[1 << 17];
    const struct entry *x = &s->v[i], *y = &s->v[k];
    struct prompt p, q;
    dataset_get(d, 1, i, 0, &p);
    dataset_get(d, 9, k, 0, &q);
    dataset_ids(d, 1, i, &p, a);
    dataset_ids(d, 9, k, &q, b); // under another seed
    uint32_t n_blocks = 0, shorter = p.n_in < q.n_in ? p.n_in : q.n_in, n = 0;
    while (n_blocks < x->n_data && n_blocks < y->n_data &&
           s->blocks[x->data_at + n_blocks] == s->blocks[y->data_at + n_blocks]) {
        n_blocks++;
    }
    uint32_t shared = n_blocks * 512 < shorter ? n_blocks * 512 : shorter;
    assert_memory_equal(a, b, shared * sizeof *a);
    for (n = shared; n < shorter && a[n] == b[n];) { // two draws of 100,000 ids may meet
        n++;
    }
    assert_true(n - shared <= 1);
}

static void test_real_blocks(void **state)
{
    (void)state;
    const char *shared = getenv("TIDEMARK_SHARED"), *source = getenv("TIDEMARK_SOURCE");
    const char *file = "data/traces/mooncake_conversation_trace.jsonl";
    char *path = shared != NULL ? xasprintf("%s/%s", shared, file)
                                : xasprintf("%s/../shared/%s", source != NULL ? source : ".", file);
    if (access(path, R_OK) != 0) {
        print_message("skipped: no %s (shared data; set TIDEMARK_SHARED)\n", path);
        free(path);
        skip();
    }
    struct str text = {0};
    struct err e = {0};
    struct dataset_config c = plain;
    struct lengths in, out;
    struct trace_input input = {.cfg = &c, .in = &in, .out = &out, .context = 1 << 17};
    struct entries s;
    struct dataset *d;
    c.source = path;
    assert_int_equal(str_read_file(&text, path, 1 << 24, &e), 0);
    assert_int_equal(lengths_init(&in, &c.input, &quantile_sharegpt_input, &e), 0);
    assert_int_equal(lengths_init(&out, &c.output, &quantile_sharegpt_output, &e), 0);
    assert_int_equal(trace_parse(&s, &input, text.data, text.len, path, &e), 0);
    assert_int_equal(s.n, 12031);
    struct dataset_model model = {.vocab = 100000, .context = 1 << 17};
    assert_int_equal(dataset_open(&d, &c, &model, &e), 0);
    for (uint64_t i = 1; i < s.n; i += 7) { // with one of its neighbours, and with the first
        check_shared(d, &s, i, i - 1);
        check_shared(d, &s, i, 0);
    }
    dataset_close(d);
    entries_free(&s);
    str_free(&text);
    free(path);
}

/* --- the real trace --------------------------------------------------------------------------- */

static struct dataset *open_real(char *path, int context)
{
    struct dataset_config c = plain;
    struct dataset *d = NULL;
    struct err e = {0};
    c.source = path;
    c.time_scale = 0.5;
    c.window = (struct opt_window){300 * SECOND, 600 * SECOND};
    if (dataset_open(&d, &c, &(struct dataset_model){.vocab = 1024, .context = context}, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return d;
}

static void check_real(char *path, int context, uint64_t kept, int64_t over, int64_t sum_in,
                       int64_t sum_out)
{
    struct dataset *d = open_real(path, context);
    json_t *about = dataset_describe(d);
    const json_t *counts = json_object_get(about, "filtered");
    int64_t in = 0, out = 0;
    assert_int_equal(dataset_n_arrivals(d), kept);
    assert_int_equal(json_integer_value(json_object_get(counts, "outside_window")), 17944);
    assert_int_equal(json_integer_value(json_object_get(counts, "context")), over);
    for (uint64_t i = 0; i < kept; i++) {
        struct prompt p, other_seed;
        dataset_get(d, 1, i, 0, &p);
        dataset_get(d, 2, i, 0, &other_seed);
        assert_memory_equal(&p, &other_seed, sizeof p); // a trace is in its own order
        assert_true(i == 0 || dataset_arrival_ns(d, i) >= dataset_arrival_ns(d, i - 1));
        in += p.n_in;
        out += p.n_out;
    }
    assert_int_equal(in, sum_in);
    assert_int_equal(out, sum_out);
    assert_int_equal(dataset_arrival_ns(d, 0), 163427000 / 2);
    assert_int_equal(dataset_arrival_ns(d, kept - 1), 299971336000 / 2);
    json_decref(about);
    dataset_close(d);
}

static void test_real_trace(void **state)
{
    (void)state;
    const char *shared = getenv("TIDEMARK_SHARED"), *source = getenv("TIDEMARK_SOURCE");
    const char *file = "data/traces/AzureLLMInferenceTrace_conv.csv";
    char *path = shared != NULL ? xasprintf("%s/%s", shared, file)
                                : xasprintf("%s/../shared/%s", source != NULL ? source : ".", file);
    if (access(path, R_OK) != 0) {
        print_message("skipped: no %s (shared data; set TIDEMARK_SHARED)\n", path);
        free(path);
        skip();
    }
    check_real(path, 2048, 1239, 183, 1140916, 361061);
    check_real(path, 16384, 1422, 0, 1759634, 379124);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_time_formats),
        cmocka_unit_test(test_empty_last_lines),
        cmocka_unit_test(test_window_and_scale),
        cmocka_unit_test(test_filtered),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_nul_bytes),
        cmocka_unit_test(test_burstgpt),
        cmocka_unit_test(test_mooncake),
        cmocka_unit_test(test_mooncake_fractions),
        cmocka_unit_test(test_real_trace),
        cmocka_unit_test(test_real_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
