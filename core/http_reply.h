/*
 * Bytes of HTTP/1.1 replies, appended to a buffer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/str.h"

/* "Not Found" for 404; "Unknown" for what this server never says. */
const char *http_reply_reason(int status);

/* What follows the head. */
enum http_reply_body {
    HTTP_REPLY_CHUNKED,
    HTTP_REPLY_TO_CLOSE, // for HTTP/1.0: the end of the connection ends the body
    HTTP_REPLY_LENGTH,
};

struct http_reply_head {
    int status;
    const char *type; // Content-Type
    enum http_reply_body framing;
    size_t length; // HTTP_REPLY_LENGTH
    bool keep_alive;
    const char *more; // further header lines, each with CRLF; or NULL
};

void http_reply_put_head(struct str *out, const struct http_reply_head *h);

/* A whole reply. */
void http_reply_put(struct str *out, int status, const char *type, bool keep_alive,
                    const char *more, const void *body, size_t n);

/* One chunk of a chunked body; n > 0. */
void http_reply_put_chunk(struct str *out, const void *bytes, size_t n);

#define HTTP_REPLY_LAST_CHUNK "0\r\n\r\n"
