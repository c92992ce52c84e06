/*
 * Calls over plain HTTP/1.1, behind core/http.c: one recvmsg(2) a look, answers read where they lie, idle
 * connections used again, the youngest first. libcurl makes the connections; after that it would ask
 * poll(2) after every read, and stamp what it brings when it gets round to it.
 *
 * Bytes are stamped by the kernel, when they arrive (SO_TIMESTAMPNS), whatever the client is doing
 * then; of several packets that one read takes, it is the last one's. Where the kernel's stamp cannot be
 * (the wall clock was set meanwhile) the time of the look stands in.
 */
#pragma once

#include "core/http_call.h"
#include "core/http_curl.h"

struct http_plain;

struct http_plain *http_plain_open(const struct http_settings *s, struct http_curl *curl,
                                   int epoll_fd);
void http_plain_close(struct http_plain *p);

/* Whether this URL is one for here: http://, nobody's name in it. */
bool http_plain_takes(const char *url);

/* Whether the call can begin without a new connection. */
bool http_plain_has_idle(struct http_plain *p, const struct http_call *c);

void http_plain_start(struct http_plain *p, struct http_call *c);
/* Drop it, and its connection. */
void http_plain_cancel(struct http_call *c);

bool http_plain_is_sent(const struct http_call *c);
int http_plain_status(const struct http_call *c);
const char *http_plain_content_type(const struct http_call *c);

/* Sockets are about to be looked at. */
void http_plain_look(struct http_plain *p);

/* This connection (epoll_data.ptr) has something, seen at t_ns: read and write it. When what was read
 * had arrived; t_ns: nothing was. */
int64_t http_plain_ready(struct http_plain *p, struct http_conn *k, uint32_t events, int64_t t_ns);
