#include "core/http_request.h"

#include <string.h>
#include <strings.h>

#define FRAMING_BYTES  65536 // of chunks, beside as much as a body may have
#define CHUNK_LINE_MAX 256   // size and extensions of one chunk
#define MAX_DIGITS     15    // of a length: fits size_t in base 16 and 10

typedef struct http_request_text text;

static enum http_request_state bad(struct http_request_parser *p, int status)
{
    p->status = status;
    return HTTP_REQUEST_BAD;
}

bool http_request_is(text t, const char *s)
{
    return t.n == strlen(s) && memcmp(t.s, s, t.n) == 0;
}

static bool is_nocase(text t, const char *s)
{
    return t.n == strlen(s) && strncasecmp(t.s, s, t.n) == 0;
}

/* RFC 9110 5.6.2: what names of methods and headers are made of. */
static bool is_token(text t)
{
    for (size_t i = 0; i < t.n; i++) {
        unsigned char c = (unsigned char)t.s[i];
        bool alnum = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (!alnum && (c == 0 || !strchr("!#$%&'*+-.^_`|~", c))) {
            return false;
        }
    }
    return t.n > 0;
}

/* No control characters; `space` says whether blanks may be inside. */
static bool is_printable(text t, bool space)
{
    for (size_t i = 0; i < t.n; i++) {
        unsigned char c = (unsigned char)t.s[i];
        if (c == 127 || c < 32 || (c == ' ' && !space)) {
            if (!(space && c == '\t')) {
                return false;
            }
        }
    }
    return true;
}

/* Split at the first `c`: what is before it; `rest` is what is behind. False when there is none. */
static bool cut(text *rest, char c, text *before)
{
    const char *at = memchr(rest->s, c, rest->n);
    if (!at) {
        return false;
    }
    *before = (text){rest->s, (size_t)(at - rest->s)};
    *rest = (text){at + 1, rest->n - before->n - 1};
    return true;
}

static text trim(text t)
{
    while (t.n && (t.s[0] == ' ' || t.s[0] == '\t')) {
        t = (text){t.s + 1, t.n - 1};
    }
    while (t.n && (t.s[t.n - 1] == ' ' || t.s[t.n - 1] == '\t')) {
        t.n--;
    }
    return t;
}

static int digit_of(char c, int base)
{
    int v = c >= '0' && c <= '9'                 ? c - '0'
            : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                 : 99;
    return v < base ? v : -1;
}

static bool parse_length(text t, int base, size_t *length)
{
    size_t v = 0;
    if (t.n == 0 || t.n > MAX_DIGITS) {
        return false;
    }
    for (size_t i = 0; i < t.n; i++) {
        int d = digit_of(t.s[i], base);
        if (d < 0) {
            return false;
        }
        v = v * (size_t)base + (size_t)d;
    }
    *length = v;
    return true;
}

/* --- the head ------------------------------------------------------------------------------------ */

/* "METHOD SP TARGET SP HTTP/1.x"; 0 or the status that says what is wrong. */
static int parse_line(text line, struct http_request_parts *r)
{
    text version = line;
    if (!cut(&version, ' ', &r->method) || !cut(&version, ' ', &r->target) ||
        !is_token(r->method) || r->target.n == 0 || !is_printable(r->target, false)) {
        return 400;
    }
    if (version.n != 8 || memcmp(version.s, "HTTP/", 5) != 0) {
        return 400;
    }
    if (!http_request_is(version, "HTTP/1.1") && !http_request_is(version, "HTTP/1.0")) {
        return 505;
    }
    r->minor = version.s[7] - '0';
    text rest = r->target;
    if (!cut(&rest, '?', &r->path)) {
        r->path = r->target;
    }
    return 0;
}

static int parse_header(text line, struct http_request_parts *r)
{
    text name, value = line;
    if (!cut(&value, ':', &name) || !is_token(name)) {
        return 400;
    }
    value = trim(value);
    if (!is_printable(value, true)) {
        return 400;
    }
    if (r->n_headers == HTTP_REQUEST_MAX_HEADERS) {
        return 431;
    }
    r->headers[r->n_headers].name = name;
    r->headers[r->n_headers++].value = value;
    return 0;
}

/* All lines of a whole head. Each ends with CRLF and holds no other CR or LF. */
static int parse_head(const char *bytes, size_t head_bytes, struct http_request_parts *r)
{
    text rest = {bytes, head_bytes - 2}; // without the empty line
    bool first = true;
    r->n_headers = 0;
    while (rest.n) {
        text line;
        if (!cut(&rest, '\n', &line) || line.n == 0 || line.s[line.n - 1] != '\r') {
            return 400;
        }
        line.n--;
        int status = first ? parse_line(line, r) : parse_header(line, r);
        if (status) {
            return status;
        }
        first = false;
    }
    return first ? 400 : 0;
}

text http_request_header(const struct http_request_parts *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++) {
        if (is_nocase(r->headers[i].name, name)) {
            return r->headers[i].value;
        }
    }
    return (text){0};
}

static int count_headers(const struct http_request_parts *r, const char *name)
{
    int n = 0;
    for (size_t i = 0; i < r->n_headers; i++) {
        n += is_nocase(r->headers[i].name, name);
    }
    return n;
}

/* How the body is framed. */
static int parse_framing(struct http_request_parser *p, const struct http_request_parts *r)
{
    int lengths = count_headers(r, "Content-Length");
    int codings = count_headers(r, "Transfer-Encoding");
    if (lengths > 1 || codings > 1 || (lengths && codings) || (codings && r->minor == 0)) {
        return 400;
    }
    if (lengths && !parse_length(http_request_header(r, "Content-Length"), 10, &p->length)) {
        return 400;
    }
    p->chunked = codings > 0;
    if (p->chunked && !is_nocase(http_request_header(r, "Transfer-Encoding"), "chunked")) {
        return 501;
    }
    text expect = http_request_header(r, "Expect");
    p->expects_continue = expect.s && is_nocase(expect, "100-continue");
    return p->length > p->max_body_bytes ? 413 : 0;
}

/* No request begins so: a greeting of TLS, for one, whose end of a head would never come. */
static bool is_foreign(const char *bytes, size_t n)
{
    return n > 0 && (unsigned char)bytes[0] < ' ' && bytes[0] != '\r' && bytes[0] != '\n';
}

static enum http_request_state feed_head(struct http_request_parser *p, const char *bytes, size_t n)
{
    if (is_foreign(bytes, n)) {
        return bad(p, 400);
    }
    size_t from = p->seen > 3 ? p->seen - 3 : 0; // the end may have been cut
    size_t to = n < HTTP_REQUEST_MAX_HEAD_BYTES ? n : HTTP_REQUEST_MAX_HEAD_BYTES;
    const char *end = to > from ? memmem(bytes + from, to - from, "\r\n\r\n", 4) : NULL;
    struct http_request_parts r;
    if (!end) {
        p->seen = to;
        return to == HTTP_REQUEST_MAX_HEAD_BYTES ? bad(p, 431) : HTTP_REQUEST_MORE;
    }
    p->head_bytes = (size_t)(end - bytes) + 4;
    p->seen = p->head_bytes;
    int status = parse_head(bytes, p->head_bytes, &r);
    status = status ? status : parse_framing(p, &r);
    return status ? bad(p, status) : HTTP_REQUEST_DONE;
}

/* --- the body ------------------------------------------------------------------------------------ */

/* The line that begins at `from`, its CRLF not included: DONE, or BAD above max bytes. */
static enum http_request_state find_line(struct http_request_parser *p, const char *bytes, size_t n,
                                         size_t max, text *line)
{
    size_t room = n - p->seen < max ? n - p->seen : max;
    const char *end = memmem(bytes + p->seen, room, "\r\n", 2);
    if (!end) {
        return room == max ? bad(p, 400) : HTTP_REQUEST_MORE;
    }
    *line = (text){bytes + p->seen, (size_t)(end - bytes) - p->seen};
    return HTTP_REQUEST_DONE;
}

/* Trailers are read over; the empty line ends the request. `length` counts their bytes. */
static enum http_request_state feed_trailers(struct http_request_parser *p, const char *bytes,
                                             size_t n)
{
    for (;;) {
        text line;
        size_t left = HTTP_REQUEST_MAX_TRAILER_BYTES - p->length;
        enum http_request_state s = find_line(p, bytes, n, left, &line);
        if (s != HTTP_REQUEST_DONE) {
            return s;
        }
        p->seen += line.n + 2;
        p->length += line.n + 2;
        if (line.n == 0) {
            return HTTP_REQUEST_DONE;
        }
    }
}

/* One chunk: size line, data, CRLF. MORE leaves it for later, whole. */
static enum http_request_state feed_chunk(struct http_request_parser *p, char *bytes, size_t n)
{
    text line, size;
    size_t length;
    enum http_request_state s = find_line(p, bytes, n, CHUNK_LINE_MAX, &line);
    if (s != HTTP_REQUEST_DONE) {
        return s;
    }
    text extension = line;
    size = cut(&extension, ';', &size) ? trim(size) : line;
    if (!parse_length(size, 16, &length) || !is_printable(line, true)) {
        return bad(p, 400);
    }
    if (length > p->max_body_bytes - p->body_bytes) {
        return bad(p, 413);
    }
    size_t data = p->seen + line.n + 2;
    p->last_chunk = length == 0;
    if (p->last_chunk) {
        p->seen = data;
        return HTTP_REQUEST_DONE;
    }
    if (n - data < length + 2) {
        return HTTP_REQUEST_MORE;
    }
    if (memcmp(bytes + data + length, "\r\n", 2) != 0) {
        return bad(p, 400);
    }
    memmove(bytes + p->head_bytes + p->body_bytes, bytes + data, length);
    p->body_bytes += length;
    p->seen = data + length + 2;
    // Lines and extensions of chunks stay in memory, too: they may be as much as the body again.
    const size_t framing = p->seen - p->head_bytes - p->body_bytes;
    return framing > p->max_body_bytes + FRAMING_BYTES ? bad(p, 413) : HTTP_REQUEST_DONE;
}

static enum http_request_state feed_chunks(struct http_request_parser *p, char *bytes, size_t n)
{
    while (!p->last_chunk) {
        enum http_request_state s = feed_chunk(p, bytes, n);
        if (s != HTTP_REQUEST_DONE) {
            return s;
        }
    }
    return feed_trailers(p, bytes, n);
}

enum http_request_state http_request_feed(struct http_request_parser *p, char *bytes, size_t n,
                                          size_t *used)
{
    if (p->status) {
        return HTTP_REQUEST_BAD;
    }
    enum http_request_state s = p->head_bytes ? HTTP_REQUEST_DONE : feed_head(p, bytes, n);
    if (s != HTTP_REQUEST_DONE) {
        return s;
    }
    if (p->chunked) {
        s = feed_chunks(p, bytes, n);
        *used = p->seen;
        return s;
    }
    p->body_bytes = p->length;
    *used = p->head_bytes + p->length;
    return n >= *used ? HTTP_REQUEST_DONE : HTTP_REQUEST_MORE;
}

/* RFC 9112 9.3: 1.1 goes on unless "close", 1.0 ends unless "keep-alive". */
static bool keeps_alive(const struct http_request_parts *r)
{
    text connection = http_request_header(r, "Connection");
    return r->minor == 0 ? is_nocase(connection, "keep-alive") : !is_nocase(connection, "close");
}

void http_request_view(const struct http_request_parser *p, const char *bytes,
                       struct http_request_parts *r)
{
    parse_head(bytes, p->head_bytes, r);
    r->body = (text){bytes + p->head_bytes, p->body_bytes};
    r->keep_alive = keeps_alive(r);
}
