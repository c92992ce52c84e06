/*
 * An HTTP client: many calls at once on one thread. Nothing waits but http_wait. Bytes of an answer are
 * handed over as they are read, with the time at which they came. A call is a slot of a pool that keeps
 * its memory: once as many calls have been in flight as will be, nothing of ours is allocated any more.
 *
 * Calls go one of two ways: plain HTTP/1.1 over connections that libcurl makes and we read and write
 * (core/http_plain.h), and all else (TLS, HTTP/2, proxies) over libcurl (core/http_curl.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/hist.h"

enum http_version {
    HTTP_AUTO, // 1.1 on http://, what the server prefers on https://
    HTTP_1_1,
    HTTP_2, // without asking first, on http:// too
};

struct http_settings { // texts borrowed until http_close; NULL: none
    enum http_version version;
    bool insecure;                // a server's certificate may be anybody's
    const char *ca_file;          // PEM; NULL: the system's
    const char *cert_file;        // PEM: the client's own certificate
    const char *key_file;         // and its key
    const char *proxy;            // NULL: none, whatever the environment says
    const char *user_agent;       // NULL: none
    char *const *local_addresses; // (n_local_addresses) to connect from, in turn
    size_t n_local_addresses;
    int64_t connect_timeout_ns; // 0: 30 s
    double connects_rps;        // most new connections per second; 0: as many as it takes
};

struct http;
struct http_call;

/* What became of a call. */
enum http_fate {
    HTTP_ANSWERED,   // a whole answer, of whatever status
    HTTP_UNRESOLVED, // no such host
    HTTP_REFUSED,    // no connection
    HTTP_TLS,        // no agreement on certificates or ciphers
    HTTP_BROKEN,     // the connection ended before the answer did
    HTTP_STOPPED,    // the caller's data function said so
    HTTP_FAILED,     // anything else
};

struct http_end {
    enum http_fate fate;
    int status;            // 0: no answer began
    int code;              // libcurl's CURLcode for what happened
    const char *message;   // one line, valid during the call
    int64_t t_ns;          // when: of its last bytes, where these ended it
    int64_t first_byte_ns; // since it went out; < 0: none came
};

struct http_request { // everything borrowed until `end` has been called, or http_cancel
    const char *url;
    struct http_headers *headers; // may be shared by many; NULL: none
    const char *id;               // value of a header of its own, x-request-id; NULL: none
    const void *body;             // POST; NULL: GET
    size_t n_body_bytes;
    void *arg;
    /* It goes out now: inside of http_start, or later where connects_rps makes it wait. May be NULL. */
    void (*begins)(void *arg, int64_t t_ns);
    /* Bytes of the answer's body, which came at t_ns (clock_now_ns); maybe before http_start has returned.
     * -1 ends the call, which http_cancel may not do from in here. */
    int (*data)(void *arg, const struct http_call *c, const char *bytes, size_t n, int64_t t_ns);
    /* The call is over and its slot free; not called for a cancelled one. */
    void (*end)(void *arg, const struct http_end *end);
};

int http_open(struct http **out, const struct http_settings *s, struct err *e) ERR_CHECKED;
void http_close(struct http *h); // forgets all calls in flight

/* "Name: value" lines, for all requests that share them. Copied. Freed after all calls have ended. */
struct http_headers *http_headers_create(const char *const *lines, size_t n);
void http_headers_free(struct http_headers *headers);

/* Whether bytes from there have the time at which they arrived, however late they are read. */
bool http_is_stamped(const struct http *h, const char *url);

/* Begin a call. `data` may be called before this returns, `end` only later. */
struct http_call *http_start(struct http *h, const struct http_request *r);
/* Drop it: nothing is called any more, its connection is closed. */
void http_cancel(struct http_call *c);

/* Whether all of the request has gone out, so that nothing of it is read any more: for the data function. */
bool http_is_sent(const struct http_call *c);

/* Status and content type of an answer that has begun: for the data function. "" when it has none. */
int http_status(const struct http_call *c);
const char *http_content_type(const struct http_call *c);

/* Read and write what can be, without waiting. How many sockets had something. */
int http_poll(struct http *h);
/* The same, after waiting for at most wait_ns until one has. */
int http_wait(struct http *h, int64_t wait_ns);

/* How long the client itself takes, as histograms of ns; cleared by the caller. */
struct http_times {
    struct hist
        to_read; // from the arrival of bytes (libcurl's: from finding their socket readable)
    struct hist handling; // from then until all that a read brought has been dealt with
};
struct http_times *http_times(struct http *h);

/* Raise the limit on open files to the hard one. The limit in force. */
uint64_t http_raise_open_files(void);

/* Whether HTTP/2 works without TLS: libcurl before 8.0 cannot use such a connection twice. */
bool http_has_h2c(void);

const char *http_library(void); // "libcurl/7.88.1 OpenSSL/3.0.15 ..."
