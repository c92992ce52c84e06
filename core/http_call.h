/*
 * A call under way: what core/http.c, and the two ways that it may go, know of it. Inner header of core/http*.
 */
#pragma once

#include "core/http.h"

struct curl_slist;
struct http_transfer; // core/http_curl.h
struct http_conn;     // core/http_plain.h
struct http_plain;

#define HTTP_MESSAGE_BYTES 256

struct http_headers {
    char **lines; // (n)
    size_t n;
    struct curl_slist *list; // the same, for libcurl
};

struct http_call {
    struct http *h;
    struct http_call *next; // free, waiting for its turn to connect, or to be ended
    struct http_request request;
    bool is_plain; // for core/http_plain.h
    int64_t t_start_ns;
    int64_t t_byte_ns;              // of the answer's first bytes; < 0: none came
    struct http_transfer *transfer; // libcurl is at work on it
    struct http_conn *conn;         // the plain connection that carries it
    struct http_end end;            // of one that failed
    char message[HTTP_MESSAGE_BYTES];
};

struct http_plain *http_call_plain(const struct http_call *c);

/* Bytes of the body, read at t_ns; false: the caller wants no more. */
bool http_call_data(struct http_call *c, const char *bytes, size_t n, int64_t t_ns);

/* It is over; not inside of http_start. */
void http_call_end(struct http_call *c, const struct http_end *end);

/* It has failed, and is over with the next look at the sockets. The message is copied. */
void http_call_fail(struct http_call *c, enum http_fate fate, int code, const char *message);
