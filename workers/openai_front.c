#include "workers/openai_front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/http_reply.h"
#include "core/mem.h"
#include "workers/openai_reply.h"

/* --- plain replies ------------------------------------------------------------------------------- */

void openai_front_answer(struct openai_front_reply *r, int status, const char *type)
{
    r->plain = true;
    r->status = status;
    r->type = type;
    httpd_wake(r->conn, httpd_read_ns(r->conn));
}

void openai_front_refuse(struct openai_front *f, struct openai_front_reply *r, int status,
                         const char *message)
{
    f->n_refused++;
    openai_reply_put_error(&r->body, status, message);
    openai_front_answer(r, status, "application/json");
}

static void get_models(struct openai_front *f, struct openai_front_reply *r)
{
    str_puts(&r->body, "{\"object\":\"list\",\"data\":[{\"id\":");
    openai_reply_put_quoted(&r->body, f->server.model_name);
    str_printf(&r->body, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"tidemark\"}]}",
               (long long)(clock_unix_ns() / NS_PER_S));
    openai_front_answer(r, 200, "application/json");
}

static void get_metrics(struct openai_front *f, struct openai_front_reply *r)
{
    f->server.metrics(f->server.arg, &r->body);
    openai_front_answer(r, 200, "text/plain; version=0.0.4; charset=utf-8");
}

static void get_version(struct openai_front *f, struct openai_front_reply *r)
{
    str_printf(&r->body, "{\"version\":\"%s\"}", f->server.version);
    openai_front_answer(r, 200, "application/json");
}

static void get_health(struct openai_front *f, struct openai_front_reply *r)
{
    (void)f;
    openai_front_answer(r, 200, "text/plain");
}

void openai_front_put_metric(const struct openai_front *f, struct str *out, const char *name,
                             const char *kind, double v)
{
    str_printf(out, "# TYPE %s %s\n%s{engine=\"0\",model_name=", name, kind, name);
    openai_reply_put_quoted(out, f->server.model_name);
    str_printf(out, "} %.17g\n", v);
}

void openai_front_put_process_metrics(struct str *out, int64_t n_connections)
{
    str_printf(out,
               "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.6f\n"
               "# TYPE tidemark_connections gauge\ntidemark_connections %lld\n",
               (double)clock_process_cpu_ns() / (double)NS_PER_S, (long long)n_connections);
}

/* --- requests ------------------------------------------------------------------------------------ */

void openai_front_name(const struct http_request_parts *q, uint64_t number, char *id, size_t cap)
{
    struct http_request_text given = http_request_header(q, "X-Request-Id");
    bool plain = given.n > 0 && given.n < cap;
    for (size_t i = 0; i < given.n; i++) {
        plain = plain && given.s[i] > ' ' && !strchr("\",\\", given.s[i]);
    }
    if (plain) {
        snprintf(id, cap, "%.*s", (int)given.n, given.s);
    } else {
        snprintf(id, cap, "%llu", (unsigned long long)number);
    }
}

/* "Bearer KEY" with the key that is asked for. */
static bool authorized(const struct openai_front *f, const struct http_request_parts *q)
{
    const char *key = f->server.api_key;
    struct http_request_text given = http_request_header(q, "Authorization");
    size_t n = key ? strlen(key) : 0;
    return !key || (given.n == n + 7 && memcmp(given.s, "Bearer ", 7) == 0 &&
                    memcmp(given.s + 7, key, n) == 0);
}

static void post_generate(struct openai_front *f, struct openai_front_reply *r,
                          const struct http_request_parts *q, bool chat)
{
    struct openai_request want;
    struct err e = {0};
    if (openai_request_parse(&want, chat, q->body.s, q->body.n, &e)) {
        openai_front_refuse(f, r, 400, e.msg);
        return;
    }
    if (f->server.model && strcmp(f->server.model, want.model) != 0) {
        char text[200];
        snprintf(text, sizeof text, "The model `%.100s` does not exist.", want.model);
        openai_front_refuse(f, r, 404, text);
    } else {
        f->server.generate(f->server.arg, r, q, &want);
    }
    openai_request_free(&want);
}

static const struct {
    const char *path, *method;
    bool open; // without the key
    bool chat;
    void (*get)(struct openai_front *f, struct openai_front_reply *r); // NULL: generates
} routes[] = {
    {"/v1/completions", "POST", false, false, NULL},
    {"/v1/chat/completions", "POST", false, true, NULL},
    {"/v1/models", "GET", false, false, get_models},
    {"/version", "GET", true, false, get_version},
    {"/metrics", "GET", true, false, get_metrics},
    {"/health", "GET", true, false, get_health},
};

static void on_request(void *arg, struct httpd_conn *c, const struct http_request_parts *q)
{
    struct openai_front *f = arg;
    struct openai_front_reply *r = xcalloc(1, f->server.reply_bytes);
    r->conn = c;
    r->keep_alive = q->keep_alive;
    httpd_set_user(c, r);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!http_request_is(q->path, routes[i].path)) {
            continue;
        }
        if (!http_request_is(q->method, routes[i].method)) {
            r->keep_alive = false; // of a HEAD the client would not read the body
            openai_front_refuse(f, r, 405, "Method Not Allowed");
        } else if (!routes[i].open && !authorized(f, q)) {
            openai_front_refuse(f, r, 401, "Unauthorized");
        } else if (routes[i].get) {
            routes[i].get(f, r);
        } else {
            post_generate(f, r, q, routes[i].chat);
        }
        return;
    }
    r->keep_alive = r->keep_alive && !http_request_is(q->method, "HEAD");
    openai_front_refuse(f, r, 404, "Not Found");
}

/* --- replies ------------------------------------------------------------------------------------- */

static void reply_end(struct openai_front *f, struct openai_front_reply *r, bool gone)
{
    httpd_set_user(r->conn, NULL);
    f->n_ok += !r->plain && !gone;
    f->n_gone += gone;
    f->server.ended(f->server.arg, r, gone);
    str_free(&r->body);
    free(r);
}

static void on_due(void *arg, struct httpd_conn *c, struct httpd_piece *p)
{
    struct openai_front *f = arg;
    struct openai_front_reply *r = httpd_user(c);
    if (r->plain) {
        http_reply_put(p->out, r->status, r->type, r->keep_alive, NULL, r->body.data, r->body.len);
        p->then = r->keep_alive ? HTTPD_END : HTTPD_CLOSE;
    } else {
        f->server.due(f->server.arg, r, p);
    }
    f->ends = p->then != HTTPD_MORE;
}

static void on_sent(void *arg, struct httpd_conn *c, int64_t before_ns, int64_t after_ns)
{
    struct openai_front *f = arg;
    struct openai_front_reply *r = httpd_user(c);
    if (f->server.sent && !r->plain) {
        f->server.sent(f->server.arg, r, before_ns, after_ns);
    }
    if (f->ends) {
        reply_end(f, r, false);
    }
}

static void on_closed(void *arg, struct httpd_conn *c)
{
    struct openai_front *f = arg;
    struct openai_front_reply *r = httpd_user(c);
    if (r) { // NULL: all was made, some of it was not taken
        reply_end(f, r, true);
    }
}

static int on_turn(void *arg, int64_t *wait_ns, struct err *e)
{
    struct openai_front *f = arg;
    return f->server.turn(f->server.arg, wait_ns, e);
}

struct httpd_app openai_front_app(struct openai_front *f)
{
    return (struct httpd_app){
        .arg = f,
        .request = on_request,
        .due = on_due,
        .sent = on_sent,
        .closed = on_closed,
        .turn = f->server.turn ? on_turn : NULL,
    };
}
