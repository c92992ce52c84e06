/*
 * Server-sent events: the examples of the WHATWG text and what servers send, each whole, byte by byte
 * and cut at every one and every two places.
 */
#include "core/str.h"
#include "loadgen/sse.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static void put_event(void *arg, const char *data, size_t len)
{
    struct str *out = arg;
    str_puts(out, "[");
    str_append(out, data, len);
    str_puts(out, "]");
}

/* Stream, limit of a line, and its events; "!" where the stream is refused. */
static const struct {
    const char *bytes;
    size_t max_bytes;
    const char *events;
} cases[] = {
    {"data: YHOO\ndata: +2\ndata: 10\n\n", 0, "[YHOO\n+2\n10]"},
    {": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
     0, "[first event][second event][ third event]"},
    {"data\n\ndata\ndata\n\ndata:", 0, "[][\n][]"}, // the last one lacks its empty line: it counts
    {"data:test\n\ndata: test\n\n", 0, "[test][test]"},
    {"data: a\r\n\r\ndata: b\r\n\r\n", 0, "[a][b]"},
    {"data: a\r\rdata: b\r\r", 0, "[a][b]"},
    {"data: a\rdata: b\n\r\ndata: c\r\n\n", 0, "[a\nb][c]"},
    {"\xef\xbb\xbf"
     "data: a\n\n",
     0, "[a]"},
    {"data: a\n\n\xef\xbb\xbf"
     "data: b\n\n",
     0, "[a]"}, // in the middle it is part of a name
    {"database: a\n\nDATA: b\n\n data: c\n\n", 0, ""},
    {"data: a", 0, "[a]"},
    {"data: caf\xc3\xa9\n\n", 0, "[caf\xc3\xa9]"},
    {"data:12345\n\ndata:123456\n\ndata:1\n\n", 10, "[12345]!"},
    {"\xef\xbb\xbf"
     "data:12345\n\n",
     10, "[12345]"},
    {"data:1234\ndata:1234\ndata:1234\n\n", 10, "!"}, // no line is too long, the event is
    {"", 0, ""},
};

static int feed(struct sse *s, const char *bytes, size_t from, size_t to, struct str *out)
{
    return to > from ? sse_feed(s, bytes + from, to - from, put_event, out) : 0;
}

/* Cut at two places, which may be the same. */
static void check_cut(size_t c, size_t a, size_t b)
{
    const char *bytes = cases[c].bytes;
    struct sse s = {.max_bytes = cases[c].max_bytes};
    struct str out = {0};
    str_puts(&out, "");
    if (feed(&s, bytes, 0, a, &out) || feed(&s, bytes, a, b, &out) ||
        feed(&s, bytes, b, strlen(bytes), &out) || sse_end(&s, put_event, &out)) {
        str_puts(&out, "!");
    }
    assert_string_equal(out.len > 0 ? out.data : "", cases[c].events);
    sse_free(&s);
    str_free(&out);
}

static void test_every_cut_gives_the_same_events(void **state)
{
    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t n = strlen(cases[c].bytes);
        for (size_t a = 0; a <= n; a++) {
            for (size_t b = a; b <= n; b++) {
                check_cut(c, a, b);
            }
        }
    }
}

static void test_byte_by_byte(void **state)
{
    (void)state;
    struct sse s = {0};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) { // one reader for all: reset
        struct str out = {0};
        int rc = 0;
        sse_reset(&s);
        s.max_bytes = cases[c].max_bytes;
        for (const char *p = cases[c].bytes; *p && rc == 0; p++) {
            rc = sse_feed(&s, p, 1, put_event, &out);
        }
        if (rc != 0 || sse_end(&s, put_event, &out) != 0) {
            str_puts(&out, "!");
        }
        assert_string_equal(out.len > 0 ? out.data : "", cases[c].events);
        str_free(&out);
    }
    sse_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut_gives_the_same_events),
        cmocka_unit_test(test_byte_by_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
