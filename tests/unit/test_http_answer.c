#include "core/http_answer.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "tests/support/answers.h"

#define OK       "HTTP/1.1 200 OK\r\n"
#define CHUNKED  OK "Transfer-Encoding: chunked\r\n\r\n"
#define LENGTH_2 OK "Content-Length: 2\r\n"
#define N(list)  (sizeof(list) / sizeof((list)[0]))

/* One connection's bytes: a line for each answer, and how they end. */
struct talk {
    const char *bytes, *said;
};

static void is(const struct str *s, const char *wanted)
{
    assert_string_equal(s->data ? s->data : "", wanted);
}

static void check(const struct talk *t, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct answers r = {0};
        answers_take(&r, t[i].bytes, strlen(t[i].bytes));
        answers_end(&r);
        is(&r.said, t[i].said);
        answers_free(&r);
    }
}

static const struct talk status_lines[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 stays [] 0:\n"},
    {"HTTP/1.1 429 Too  Many\r\nContent-Length: 0\r\n\r\n", "429 stays [] 0:\n"},
    {"HTTP/1.1 500 \r\nContent-Length: 0\r\n\r\n", "500 stays [] 0:\n"},
    {"HTTP/1.1 999\r\nContent-Length: 0\r\n\r\n", "999 stays [] 0:\n"},
    {"HTTP/1.1 200 OK\nContent-Length: 1\n\nx", "200 stays [] 1:x\n"}, // bare line feeds
    {"\r\n" LENGTH_2 "\r\nab", "refused: not an answer of HTTP/1.1"},
    {"HTTP/1.1 20\r\n", "refused: not an answer of HTTP/1.1"},
    {"HTTP/1.1 2x0 OK\r\n", "refused: not an answer of HTTP/1.1"},
    {"HTTP/1.1  200 OK\r\n", "refused: not an answer of HTTP/1.1"},
    {"HTTP/2 200 OK\r\n", "refused: not an answer of HTTP/1.1"},
    {"HTTP/2.0 200 OK\r\n", "refused: not an answer of HTTP/1.1"},
    {"http/1.1 200 OK\r\n", "refused: not an answer of HTTP/1.1"},
    {"SSH-2.0-OpenSSH_9.2p1\r\n", "refused: not an answer of HTTP/1.1"},
    {"HTTP/1.1 099 Low\r\n", "refused: a status that is none"},
    {"HTTP/1.1 2000 OK\r\n", "refused: a status that is none"},
    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "refused: a status that is none"},
};

static void reads_status_lines(void **state)
{
    (void)state;
    check(status_lines, N(status_lines));
}

static const struct talk headers[] = {
    {OK "CONTENT-length:3\r\ncontent-TYPE:\t text/plain; charset=utf-8 \t\r\n\r\nabc",
     "200 stays [text/plain; charset=utf-8] 3:abc\n"},
    {OK "Content-Length:  3\t\r\nContent-Type:\r\n\r\nabc", "200 stays [] 3:abc\n"},
    {LENGTH_2 "Content-Lengthy: 7\r\nX: Content-Length: 9\r\n\r\nab", "200 stays [] 2:ab\n"},
    {LENGTH_2 "X: a\r\n Content-Length: 5\r\n\tb\r\n\r\nab", "200 stays [] 2:ab\n"}, // folded
    {LENGTH_2 "Content-Type: a\r\nContent-Type: b\r\n\r\nab", "200 stays [b] 2:ab\n"},
    {LENGTH_2 "no colon\r\n\r\nab", "refused: a header without a name"},
    {LENGTH_2 ": no name\r\n\r\nab", "refused: a header without a name"},
};

static void reads_headers(void **state)
{
    (void)state;
    check(headers, N(headers));
}

static const struct talk lengths[] = {
    {LENGTH_2 "Content-Length: 002\r\n\r\nab", "200 stays [] 2:ab\n"}, // the same twice
    {LENGTH_2 "Content-Length: 3\r\n\r\nabc", "refused: a content length that is none"},
    {LENGTH_2 "Content-Length: 0\r\n\r\nab", "refused: a content length that is none"},
    {OK "Content-Length: 2, 2\r\n\r\nab", "refused: a content length that is none"},
    {OK "Content-Length:\r\n\r\n", "refused: a content length that is none"},
    {OK "Content-Length: -1\r\n\r\n", "refused: a content length that is none"},
    {OK "Content-Length: +1\r\n\r\n", "refused: a content length that is none"},
    {OK "Content-Length: 0x2\r\n\r\n", "refused: a content length that is none"},
    {OK "Content-Length: 1000000000000000\r\n\r\n", "refused: a content length that is none"},
    {OK "Content-Length: 999999999999999\r\n\r\nab", "cut 200 stays [] 2:ab\n"},
};

static void reads_lengths(void **state)
{
    (void)state;
    check(lengths, N(lengths));
}

static const struct talk encodings[] = {
    {OK "transfer-encoding:  CHUNKED \r\n\r\n1\r\na\r\n0\r\n\r\n", "200 stays [] 1:a\n"},
    {LENGTH_2 "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "200 stays [] 1:a\n"},
    {OK "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n1\r\na\r\n0\r\n\r\n",
     "200 stays [] 1:a\n"},
    {LENGTH_2 "Transfer-Encoding: Identity\r\n\r\nab", "200 stays [] 2:ab\n"},
    {OK "Transfer-Encoding: identity\r\n\r\nab", "200 closes [] 2:ab\n"},
    {OK "Transfer-Encoding: gzip\r\n\r\n", "refused: an unknown transfer encoding"},
    {OK "Transfer-Encoding: chunked, gzip\r\n\r\n", "refused: an unknown transfer encoding"},
    {OK "Transfer-Encoding: chunked2\r\n\r\n", "refused: an unknown transfer encoding"},
    {OK "Transfer-Encoding:\r\n\r\n", "refused: an unknown transfer encoding"},
    // chunks of what only gunzip can read, which nobody asked for
    {OK "Transfer-Encoding: gzip, chunked\r\n\r\n", "refused: an unknown transfer encoding"},
    {OK "Transfer-Encoding: chunked, chunked\r\n\r\n", "refused: an unknown transfer encoding"},
};

static void reads_transfer_encodings(void **state)
{
    (void)state;
    check(encodings, N(encodings));
}

static const struct talk connections[] = {
    {LENGTH_2 "Connection: Close\r\n\r\nab", "200 closes [] 2:ab\n"},
    {LENGTH_2 "Connection: Upgrade, close ,x\r\n\r\nab", "200 closes [] 2:ab\n"},
    {LENGTH_2 "Connection: closed\r\n\r\nab", "200 stays [] 2:ab\n"},
    {LENGTH_2 "Connection: keep-alive\r\nConnection: close\r\n\r\nab", "200 closes [] 2:ab\n"},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "200 closes [] 2:ab\n"},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: x, Keep-Alive\r\n\r\nab",
     "200 stays [] 2:ab\n"},
    {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nab", "200 closes [] 2:ab\n"}, // no end
};

static void knows_what_stays_open(void **state)
{
    (void)state;
    check(connections, N(connections));
}

static const struct talk bodies[] = {
    {OK "\r\n", "200 closes [] 0:\n"},
    {OK "\r\nHTTP/1.1 200 OK\r\n\r\n", "200 closes [] 19:HTTP/1.1 200 OK\r\n\r\n\n"},
    {LENGTH_2 "\r\na", "cut 200 stays [] 1:a\n"},
    {"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n" OK "\r\n",
     "204 stays [] 0:\n200 closes [] 0:\n"},
    {"HTTP/1.1 204 No Content\r\n\r\n", "204 stays [] 0:\n"},
    {"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "304 stays [] 0:\n"},
    {CHUNKED "3\r\nhel\r\n0A ; x=\"y\"\r\n01234\r\n789\r\n000\r\nTrailer: 1\r\nno colon\r\n\r\n",
     "200 stays [] 13:hel01234\r\n789\n"},
    {CHUNKED "1;a=b;c\na\n0000000000000000000000F\nabcdefghijklmno\n0\n\n",
     "200 stays [] 16:aabcdefghijklmno\n"}, // bare line feeds, and more zeros than a size has digits
    {CHUNKED "0\r\n\r\n", "200 stays [] 0:\n"},
    {CHUNKED "1\r\na\r\n0\r\n", "cut 200 stays [] 1:a\n"},
    {CHUNKED "2\r\na", "cut 200 stays [] 1:a\n"},
    {CHUNKED, "cut 200 stays [] 0:\n"},
    {CHUNKED "fffffffffffffff\r\nab", "cut 200 stays [] 2:ab\n"},
    {CHUNKED "1000000000000000\r\na", "refused: a chunk that is too long"},
    {CHUNKED "\r\n", "refused: a chunk without a size"},
    {CHUNKED ";x\r\n", "refused: a chunk without a size"},
    {CHUNKED "-1\r\n", "refused: a chunk without a size"},
    {CHUNKED "1\r\na\r\n\r\n", "refused: a chunk without a size"},
    {CHUNKED "1\r\nab\r\n", "refused: a chunk that does not end where it says"},
};

static void reads_bodies(void **state)
{
    (void)state;
    check(bodies, N(bodies));
}

static const struct talk sequences[] = {
    {LENGTH_2 "Content-Type: a\r\n\r\nab" CHUNKED "1\r\nc\r\n0\r\n\r\n",
     "200 stays [a] 2:ab\n200 stays [] 1:c\n"},
    {CHUNKED "1\r\nc\r\n0\r\nT: 1\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx" OK,
     "200 stays [] 1:c\n404 stays [] 1:x\ncut 200 stays [] 0:\n"},
    {"HTTP/1.1 100 Continue\r\n\r\n" LENGTH_2 "\r\nab", "200 stays [] 2:ab\n"},
    {"HTTP/1.0 102 \r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nContent-Type: a\r\n"
     "Connection: close\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" LENGTH_2 "\r\nab",
     "200 stays [] 2:ab\n"},
    {"HTTP/1.1 100 Continue\r\n\r\n", ""},
    {LENGTH_2 "\r\nabc", "200 stays [] 2:ab\ncut 0 closes [] 0:\n"},
    {LENGTH_2 "\r\nab\r\n" OK, "200 stays [] 2:ab\nrefused: not an answer of HTTP/1.1"},
    {"", ""},
};

static void reads_answers_in_turn(void **state)
{
    (void)state;
    check(sequences, N(sequences));
}

/* Pieces: one of `first` bytes, then of `step` bytes each. */
static void check_cut(const struct talk *t, size_t first, size_t step)
{
    struct answers r = {0};
    size_t n = strlen(t->bytes);
    answers_take(&r, t->bytes, first);
    for (size_t at = first; at < n; at += step) {
        answers_take(&r, t->bytes + at, step < n - at ? step : n - at);
    }
    answers_end(&r);
    is(&r.said, t->said);
    answers_free(&r);
}

/* Cut in two at every place, and byte by byte: the same bodies, statuses, types and verdicts. */
static void any_cut_is_the_same(void **state)
{
    (void)state;
    static const struct {
        const struct talk *talks;
        size_t n;
    } all[] = {
        {status_lines, N(status_lines)}, {headers, N(headers)},         {lengths, N(lengths)},
        {encodings, N(encodings)},       {connections, N(connections)}, {bodies, N(bodies)},
        {sequences, N(sequences)},
    };
    for (size_t k = 0; k < N(all); k++) {
        for (size_t i = 0; i < all[k].n; i++) {
            const struct talk *t = &all[k].talks[i];
            for (size_t cut = 1; cut < strlen(t->bytes); cut++) {
                check_cut(t, cut, SIZE_MAX / 2);
            }
            check_cut(t, 0, 1);
            check_cut(t, 0, 3);
        }
    }
}

/* `from` and then lines until the head or trailer has as many bytes (line feeds do not count). */
static void put_lines(struct str *b, const char *from, size_t n_bytes)
{
    size_t n = 0;
    str_clear(b);
    str_puts(b, from);
    for (const char *at = strstr(from, "\r\n\r\n") ? "" : from; *at; at++) {
        n += *at != '\n';
    }
    while (n_bytes - n >= 200) {
        str_printf(b, "%s%098d\n", "X: ", 0);
        n += 101;
    }
    str_printf(b, "X: %0*d\n", (int)(n_bytes - n - 4), 0);
    str_puts(b, "\r\n"); // its CR counts
}

static void feed_all(struct answers *r, const struct str *b, size_t step)
{
    *r = (struct answers){0};
    for (size_t at = 0; at < b->len; at += step) {
        answers_take(r, b->data + at, step < b->len - at ? step : b->len - at);
    }
    answers_end(r);
}

static void expect(const struct str *b, const char *said)
{
    static const size_t steps[] = {1 << 20, 4093};
    for (size_t i = 0; i < N(steps); i++) {
        struct answers r;
        feed_all(&r, b, steps[i]);
        is(&r.said, said);
        answers_free(&r);
    }
}

static void bounds_heads_and_trailers(void **state)
{
    (void)state;
    struct str b = {0};
    const size_t most = HTTP_ANSWER_MAX_HEAD_BYTES;
    put_lines(&b, LENGTH_2, most);
    str_puts(&b, "ab");
    expect(&b, "200 stays [] 2:ab\n");
    put_lines(&b, LENGTH_2, most + 1);
    str_puts(&b, "ab");
    expect(&b, "refused: headers that are too long");

    put_lines(&b, CHUNKED "0\r\n", most);
    expect(&b, "200 stays [] 0:\n");
    put_lines(&b, CHUNKED "0\r\n", most + 1);
    expect(&b, "refused: headers that are too long");

    // a head of the most bytes leaves room for the first chunk's line
    put_lines(&b, OK "Transfer-Encoding: chunked\r\n", most);
    str_puts(&b, "1;x=y\r\na\r\n0\r\n\r\n");
    expect(&b, "200 stays [] 1:a\n");
    str_free(&b);
}

static void bounds_extensions(void **state)
{
    (void)state;
    struct str b = {0};
    const int most = HTTP_ANSWER_MAX_HEAD_BYTES;
    str_printf(&b, CHUNKED "1%*s\na\r\n2%*s\nbc\r\n0\r\n\r\n", most, "", most, "");
    expect(&b, "200 stays [] 3:abc\n");
    str_clear(&b);
    str_printf(&b, CHUNKED "1\r\na\r\n2%*s\nbc\r\n0\r\n\r\n", most + 1, "");
    expect(&b, "refused: chunk extensions that are too long");
    str_free(&b);
}

static void cuts_long_types(void **state)
{
    (void)state;
    struct str b = {0}, said = {0};
    str_printf(&b, LENGTH_2 "Content-Type: %0300d\r\n\r\nab", 0);
    str_printf(&said, "200 stays [%0*d] 2:ab\n", HTTP_ANSWER_TYPE_BYTES - 1, 0);
    expect(&b, said.data);
    str_free(&said);
    str_free(&b);
}

/* Body bytes lie within what was given, and need not wait for each other. */
static void hands_over_what_has_come(void **state)
{
    (void)state;
    static const char bytes[] = CHUNKED "5\r\nhel";
    struct http_answer a = {0};
    struct http_answer_span span;
    const char *at = bytes, *end = bytes + strlen(bytes);
    assert_int_equal(http_answer_take(&a, &at, end, &span), HTTP_ANSWER_BODY);
    assert_ptr_equal(span.bytes, end - 3);
    assert_int_equal(span.n, 3);
    assert_ptr_equal(at, end);
    assert_int_equal(http_answer_take(&a, &at, end, &span), HTTP_ANSWER_MORE);
    assert_false(http_answer_ends_with_connection(&a));
    http_answer_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_status_lines),
        cmocka_unit_test(reads_headers),
        cmocka_unit_test(reads_lengths),
        cmocka_unit_test(reads_transfer_encodings),
        cmocka_unit_test(knows_what_stays_open),
        cmocka_unit_test(reads_bodies),
        cmocka_unit_test(reads_answers_in_turn),
        cmocka_unit_test(any_cut_is_the_same),
        cmocka_unit_test(bounds_heads_and_trailers),
        cmocka_unit_test(bounds_extensions),
        cmocka_unit_test(cuts_long_types),
        cmocka_unit_test(hands_over_what_has_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
