/*
 * HTTP/1.x requests from bytes: strict (RFC 9112: CRLF line ends, no folded headers, one
 * Content-Length or one Transfer-Encoding, never both) and bounded. The caller keeps the bytes of
 * one connection in one buffer and shows all of it after each read; what comes out depends on the
 * bytes alone, never on how they were cut. Nothing is allocated.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_REQUEST_MAX_HEAD_BYTES    (32 << 10)
#define HTTP_REQUEST_MAX_HEADERS       64
#define HTTP_REQUEST_MAX_TRAILER_BYTES 8192

enum http_request_state {
    HTTP_REQUEST_MORE, // not whole yet
    HTTP_REQUEST_DONE,
    HTTP_REQUEST_BAD, // `status` says why; the connection is of no more use
};

/* Where one connection's request stands. Zeroed: before its first byte. */
struct http_request_parser {
    size_t max_body_bytes; // set by the caller
    size_t head_bytes;     // with its empty line; 0: not whole yet
    size_t seen;           // head: bytes searched for its end; chunks: where the next one begins
    size_t body_bytes;     // of the body, decoded, from head_bytes on
    size_t length;         // Content-Length
    bool chunked;
    bool last_chunk;
    bool expects_continue; // the client waits for "100 Continue" before it sends the body
    int status;            // HTTP_REQUEST_BAD: 400, 413, 431, 501, 505
};

struct http_request_text {
    const char *s; // not NUL-terminated
    size_t n;
};

/* A view into the buffer: valid until the buffer changes. */
struct http_request_parts {
    struct http_request_text method, target, path, body; // path: target up to '?'
    int minor;                                           // HTTP/1.minor, 0 or 1
    bool keep_alive;
    struct {
        struct http_request_text name, value;
    } headers[HTTP_REQUEST_MAX_HEADERS];
    size_t n_headers;
};

/*
 * Look at the first n bytes of the buffer: all that came since the request's first byte. A chunked
 * body is decoded in place. DONE: `*used` bytes belong to this request.
 */
enum http_request_state http_request_feed(struct http_request_parser *p, char *bytes, size_t n,
                                          size_t *used);

/* After DONE, on the same buffer. */
void http_request_view(const struct http_request_parser *p, const char *bytes,
                       struct http_request_parts *r);

/* The value of the first header of this name (any case); s is NULL where there is none. */
struct http_request_text http_request_header(const struct http_request_parts *r, const char *name);

bool http_request_is(struct http_request_text t, const char *s);
