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
        {"", "t.csv:3: TIMESTAMP"},
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
        cmocka_unit_test(test_window_and_scale),
        cmocka_unit_test(test_filtered),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_nul_bytes),
        cmocka_unit_test(test_real_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
