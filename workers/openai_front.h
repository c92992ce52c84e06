/*
 * The HTTP side that all servers of the OpenAI-compatible API share: routes, the API key, errors, the list
 * of models, /version, /health. What generates stands behind it: it says what a reply consists of and when.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/httpd.h"
#include "core/str.h"
#include "workers/openai_request.h"

/* One reply, from its request to its last byte: the beginning of what the server behind keeps of it. */
struct openai_front_reply {
    struct httpd_conn *conn;
    bool keep_alive;
    bool plain;       // whole, and ready in `body`: errors, models, metrics
    int status;       // of a plain reply
    const char *type; // of a plain reply
    struct str body;
};

struct openai_front_server {
    void *arg;
    size_t reply_bytes;     // of its struct that begins with a struct openai_front_reply; zeroed
    const char *model;      // the only name that is served; NULL: any
    const char *model_name; // in the list of models
    const char *api_key;    // NULL: none is asked for
    const char *version;
    /* Answer: by a plain reply, or by httpd_wake and what `due` says then. May take over `want`. */
    void (*generate)(void *arg, struct openai_front_reply *r, const struct http_request_parts *q,
                     struct openai_request *want);
    void (*metrics)(void *arg, struct str *out);
    void (*due)(void *arg, struct openai_front_reply *r, struct httpd_piece *p);
    void (*sent)(void *arg, struct openai_front_reply *r, int64_t before_ns, int64_t after_ns);
    /* The reply has ended, or (`gone`) its client has: release what hangs on it. Not for plain ones
       that `generate` never saw. */
    void (*ended)(void *arg, struct openai_front_reply *r, bool gone);
    int (*turn)(void *arg, int64_t *wait_ns, struct err *e); // as httpd.h has it; may be NULL
};

struct openai_front {
    struct openai_front_server server;
    int64_t n_refused, n_gone, n_ok; // ok: generated to the end
    bool ends;                       // the piece that is being sent is its reply's last
};

/* What to open an httpd with. `f` must outlive it. */
struct httpd_app openai_front_app(struct openai_front *f);

/* A plain reply, with what is in r->body; or an error. */
void openai_front_answer(struct openai_front_reply *r, int status, const char *type);
void openai_front_refuse(struct openai_front *f, struct openai_front_reply *r, int status,
                         const char *message);

/* The client's name for its request, if it can stand in JSON and CSV as it is; else the number. */
void openai_front_name(const struct http_request_parts *q, uint64_t number, char *id, size_t cap);

/* One metric in Prometheus' text form, with the labels that vLLM gives. */
void openai_front_put_metric(const struct openai_front *f, struct str *out, const char *name,
                             const char *kind, double v);
void openai_front_put_process_metrics(struct str *out, int64_t n_connections);
