/*
 * An OpenAI-compatible endpoint that computes nothing: it answers with words at the times of
 * workers/null_law.h. A known server for measuring clients, and their ceiling.
 *
 * At most serve.max_concurrent replies are under way, others wait in order; a reply's laws begin
 * when it does. What a stream's client sees: the head at once (with the role chunk of a chat), then
 * packets of events_per_packet x tokens_per_event tokens, each at its first token's time.
 */
#pragma once

#include "core/err.h"
#include "core/httpd.h"
#include "workers/serve_config.h"

struct null_server;

/* `c` must outlive it. */
int null_server_open(struct null_server **s, const struct serve_config *c, const char *version,
                     struct err *e) ERR_CHECKED;

/* What to open an httpd with, and the httpd once it is open. */
struct httpd_app null_server_app(struct null_server *s);
void null_server_started(struct null_server *s, struct httpd *h);

/* Log lines: requests, tokens, lateness of the packets against the law. */
void null_server_report(const struct null_server *s);

/* Writes serve.log. */
int null_server_close(struct null_server *s, struct err *e) ERR_CHECKED;
