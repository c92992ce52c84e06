#include "core/http_request.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/str.h"

#define MAX_BODY 1000

#define GET  "GET /v1/models?x=1 HTTP/1.1\r\nHost: a\r\nEmpty:\r\nX-Request-Id: \t 7-1 \r\n\r\n"
#define POST "POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
#define CHUNKED                                                                                    \
    "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"                                        \
    "3\r\nhel\r\n0A ; x=\"y\"\r\n0123456789\r\n000\r\nTrailer: 1\r\n\r\n"

static struct http_request_parser fresh(void)
{
    return (struct http_request_parser){.max_body_bytes = MAX_BODY};
}

/* All at once; the bytes must be one whole request or the start of one. */
static enum http_request_state feed(struct http_request_parser *p, struct str *bytes,
                                    const char *text)
{
    size_t used = 0;
    *p = fresh();
    str_clear(bytes);
    str_puts(bytes, text);
    enum http_request_state s = http_request_feed(p, bytes->data, bytes->len, &used);
    if (s == HTTP_REQUEST_DONE) {
        assert_int_equal(used, bytes->len);
    }
    return s;
}

static void is(struct http_request_text t, const char *wanted)
{
    assert_int_equal(t.n, strlen(wanted));
    assert_memory_equal(t.s, wanted, t.n);
}

static void reads_a_get(void **state)
{
    (void)state;
    struct str b = {0};
    struct http_request_parser p;
    struct http_request_parts r;
    assert_int_equal(feed(&p, &b, GET), HTTP_REQUEST_DONE);
    http_request_view(&p, b.data, &r);
    is(r.method, "GET");
    is(r.target, "/v1/models?x=1");
    is(r.path, "/v1/models");
    is(r.body, "");
    assert_int_equal(r.minor, 1);
    assert_true(r.keep_alive);
    assert_int_equal(r.n_headers, 3);
    is(http_request_header(&r, "x-request-id"), "7-1");
    is(http_request_header(&r, "EMPTY"), "");
    assert_null(http_request_header(&r, "Hos").s);
    str_free(&b);
}

static void reads_bodies(void **state)
{
    (void)state;
    struct str b = {0};
    struct http_request_parser p;
    struct http_request_parts r;
    assert_int_equal(feed(&p, &b, POST), HTTP_REQUEST_DONE);
    http_request_view(&p, b.data, &r);
    is(r.body, "hello");
    assert_int_equal(feed(&p, &b, CHUNKED), HTTP_REQUEST_DONE);
    http_request_view(&p, b.data, &r);
    is(r.body, "hel0123456789");
    str_free(&b);
}

/* Cut in two at every place, and byte by byte: the same request, and not before its last byte. */
static void any_split_is_the_same(void **state)
{
    (void)state;
    static const char *const texts[] = {GET, POST, CHUNKED};
    for (size_t t = 0; t < 3; t++) {
        size_t n = strlen(texts[t]), used;
        for (size_t cut = 1; cut < n; cut++) {
            struct http_request_parser p = fresh();
            char *bytes = malloc(n); // of exactly this size: reading past it is seen
            memcpy(bytes, texts[t], n);
            assert_int_equal(http_request_feed(&p, bytes, cut, &used), HTTP_REQUEST_MORE);
            assert_int_equal(http_request_feed(&p, bytes, n, &used), HTTP_REQUEST_DONE);
            assert_int_equal(used, n);
            free(bytes);
        }
        struct http_request_parser p = fresh();
        char *bytes = strdup(texts[t]);
        for (size_t i = 1; i < n; i++) {
            assert_int_equal(http_request_feed(&p, bytes, i, &used), HTTP_REQUEST_MORE);
        }
        assert_int_equal(http_request_feed(&p, bytes, n, &used), HTTP_REQUEST_DONE);
        free(bytes);
    }
}

static void leaves_the_next_request(void **state)
{
    (void)state;
    char bytes[] = POST GET;
    struct http_request_parser p = fresh();
    size_t used = 0;
    assert_int_equal(http_request_feed(&p, bytes, strlen(bytes), &used), HTTP_REQUEST_DONE);
    assert_int_equal(used, strlen(POST));
}

static void says_what_the_client_waits_for(void **state)
{
    (void)state;
    struct str b = {0};
    struct http_request_parser p;
    assert_int_equal(
        feed(&p, &b, "POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"),
        HTTP_REQUEST_MORE);
    assert_true(p.expects_continue);
    str_free(&b);
}

static void knows_when_to_close(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool keep;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
    };
    struct str b = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_request_parser p;
        struct http_request_parts r;
        assert_int_equal(feed(&p, &b, cases[i].text), HTTP_REQUEST_DONE);
        http_request_view(&p, b.data, &r);
        assert_int_equal(r.keep_alive, cases[i].keep);
    }
    str_free(&b);
}

static void refuses_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"\r\n\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\n\r\n", 400},
        {"G@T / HTTP/1.1\r\n\r\n", 400},
        {"GET /\x01 HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTX/1.1\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\n\r\n", 505},
        {"GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n: a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
        {"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", 413},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400},
        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400},
    };
    struct str b = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_request_parser p;
        assert_int_equal(feed(&p, &b, cases[i].text), HTTP_REQUEST_BAD);
        assert_int_equal(p.status, cases[i].status);
    }
    str_free(&b);
}

static void put_headers(struct str *b, int n, const char *value)
{
    str_clear(b);
    str_puts(b, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < n; i++) {
        str_printf(b, "H%d: %s\r\n", i, value);
    }
}

static void holds_its_bounds(void **state)
{
    (void)state;
    struct str b = {0};
    struct http_request_parser p = fresh();
    size_t used;
    put_headers(&b, HTTP_REQUEST_MAX_HEADERS, "");
    str_puts(&b, "\r\n");
    assert_int_equal(http_request_feed(&p, b.data, b.len, &used), HTTP_REQUEST_DONE);

    p = fresh();
    put_headers(&b, HTTP_REQUEST_MAX_HEADERS + 1, "");
    str_puts(&b, "\r\n");
    assert_int_equal(http_request_feed(&p, b.data, b.len, &used), HTTP_REQUEST_BAD);
    assert_int_equal(p.status, 431);

    p = fresh();
    put_headers(&b, HTTP_REQUEST_MAX_HEAD_BYTES / 8, "long");
    assert_true(b.len > HTTP_REQUEST_MAX_HEAD_BYTES);
    size_t last = HTTP_REQUEST_MAX_HEAD_BYTES - 1;
    assert_int_equal(http_request_feed(&p, b.data, last, &used), HTTP_REQUEST_MORE);
    assert_int_equal(http_request_feed(&p, b.data, last + 1, &used), HTTP_REQUEST_BAD);
    assert_int_equal(p.status, 431);
    str_free(&b);
}

/* Lines of chunks count, too: a byte may not bring 250 others with it for ever. */
static void bounds_what_chunks_are_wrapped_in(void **state)
{
    (void)state;
    struct http_request_parser p = {.max_body_bytes = 1000};
    struct str b = {0};
    size_t used;
    str_puts(&b, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 900; i++) {
        str_printf(&b, "1;%0*d\r\nx\r\n", 200, 0);
    }
    assert_int_equal(http_request_feed(&p, b.data, b.len, &used), HTTP_REQUEST_BAD);
    assert_int_equal(p.status, 413);
    str_free(&b);
}

static void bounds_trailers(void **state)
{
    (void)state;
    struct str b = {0};
    struct http_request_parser p = fresh();
    size_t used;
    str_puts(&b, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    size_t head = b.len;
    while (b.len - head < HTTP_REQUEST_MAX_TRAILER_BYTES) {
        str_puts(&b, "Trailer: of some length\r\n");
    }
    assert_int_equal(http_request_feed(&p, b.data, b.len, &used), HTTP_REQUEST_BAD);
    assert_int_equal(p.status, 400);
    str_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_get),
        cmocka_unit_test(reads_bodies),
        cmocka_unit_test(any_split_is_the_same),
        cmocka_unit_test(leaves_the_next_request),
        cmocka_unit_test(says_what_the_client_waits_for),
        cmocka_unit_test(knows_when_to_close),
        cmocka_unit_test(refuses_what_is_wrong),
        cmocka_unit_test(holds_its_bounds),
        cmocka_unit_test(bounds_what_chunks_are_wrapped_in),
        cmocka_unit_test(bounds_trailers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
