/*
 * libcurl, behind core/http.c (with core/http_get.c the one owner of curl.h): whole calls over TLS, HTTP/2 or a proxy, and
 * connections for plain HTTP, which are handed over once they stand: name, address to connect from,
 * IPv6 or 4 and the time that it may take are libcurl's business. Its sockets are in the caller's epoll.
 *
 * libcurl looks for an idle connection by walking over all that lead to the same host, so calls are
 * spread over shards of at most HTTP_SHARD_CALLS, each with connections of its own.
 */
#pragma once

#include "core/http_call.h"

#define HTTP_SHARD_CALLS 128
#define HTTP_OF_CURL     1U // the lowest bit of epoll_data.u64 of its sockets

struct http_curl;

int http_curl_open(struct http_curl **out, const struct http_settings *s, int epoll_fd,
                   struct err *e) ERR_CHECKED;
void http_curl_close(struct http_curl *q);

/* Let libcurl do all of it. Data may come before this returns. */
void http_curl_start(struct http_curl *q, struct http_call *c);

/* Make a connection to where the call goes. `connected` may be called before this returns: the socket is
 * the callee's then. */
void http_curl_connect(struct http_curl *q, struct http_call *c,
                       void (*connected)(struct http_call *c, int fd));

/* Drop what libcurl does for this call. */
void http_curl_cancel(struct http_call *c);

bool http_curl_is_sent(const struct http_call *c);
int http_curl_status(const struct http_call *c);
const char *http_curl_content_type(const struct http_call *c);

/* Whether a connection is idle. */
bool http_curl_has_idle(const struct http_curl *q);

/* A socket of its own has something, seen at t_ns (clock_now_ns). */
void http_curl_ready(struct http_curl *q, uint64_t data, uint32_t events, int64_t t_ns);

/* libcurl's own timers. The next one: INT64_MAX for never (clock_local_ns). */
void http_curl_run_timers(struct http_curl *q);
int64_t http_curl_next_timer_ns(const struct http_curl *q);

bool http_curl_has_h2c(void);
const char *http_curl_library(void);

/* For core/http_get.c: start the library, and a CURL * with the settings that all have in common. */
int http_curl_begin(struct err *e) ERR_CHECKED;
void *http_curl_easy(const struct http_settings *s);

/* What libcurl has for headers. */
struct curl_slist *http_curl_list(char *const *lines, size_t n);
void http_curl_free_list(struct curl_slist *list);
