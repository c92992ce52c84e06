/*
 * Whole answers, waited for, one after the other over one connection: for questions outside of any load.
 * Of any one thread. ERR_ENV with the reason; `body` is appended to.
 */
#pragma once

#include "core/http.h"
#include "core/str.h"

struct http_getter;

int http_get_open(struct http_getter **out, const struct http_settings *s,
                  struct http_headers *headers, struct err *e) ERR_CHECKED;
int http_get_url(struct http_getter *g, const char *url, int64_t timeout_ns, int *status,
                 struct str *body, struct err *e) ERR_CHECKED;
void http_get_close(struct http_getter *g);

/* One of them. */
int http_get(const struct http_settings *s, const char *url, struct http_headers *headers,
             int64_t timeout_ns, int *status, struct str *body, struct err *e) ERR_CHECKED;
