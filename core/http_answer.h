/*
 * An HTTP/1.x answer out of the bytes of a connection (RFC 9112): status line, headers, and a body of a
 * known length, in chunks, or up to the end of the connection. Body bytes are handed over where they lie.
 * However the bytes are cut, the same comes out, and only a head that is cut is copied. Interim
 * answers (1xx) are passed over. Pure.
 *
 *   while ((got = http_answer_take(a, &at, end, &span)) == HTTP_ANSWER_BODY) ... span ...
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/str.h"

#define HTTP_ANSWER_MAX_HEAD_BYTES (256 << 10) // of one head, trailer, or chunk's extensions
#define HTTP_ANSWER_TYPE_BYTES     80          // a longer content type is cut

enum http_answer_got {
    HTTP_ANSWER_MORE, // all bytes are used, the answer is not over
    HTTP_ANSWER_BODY, // a span of the body
    HTTP_ANSWER_OVER, // at: behind the answer's last byte
    HTTP_ANSWER_BAD,  // `bad` says what is wrong; the connection is of no more use
};

struct http_answer { // zeroed: before the first answer of a connection
    int part;        // enum part
    int status;      // 0: its line is not whole yet
    bool keeps_open; // the connection may carry another request
    char type[HTTP_ANSWER_TYPE_BYTES];
    const char *bad;
    /* its own: */
    bool is_chunked, has_length, has_digits;
    uint64_t left;     // bytes of the body, or of the chunk
    size_t head_bytes; // so far
    struct str line;   // the beginning of a line that is not over
};

struct http_answer_span {
    const char *bytes; // within what is being taken
    size_t n;
};

/* Another answer is expected. Memory stays. */
void http_answer_begin(struct http_answer *a);
void http_answer_free(struct http_answer *a);

/* Look at the bytes from *at to `end` as far as they say one thing. */
enum http_answer_got http_answer_take(struct http_answer *a, const char **at, const char *end,
                                      struct http_answer_span *span);

/* The server has closed the connection: whether that is a proper end of this answer. */
bool http_answer_ends_with_connection(const struct http_answer *a);
