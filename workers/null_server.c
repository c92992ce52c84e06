#include "workers/null_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/hist.h"
#include "core/http_reply.h"
#include "core/log.h"
#include "core/mem.h"
#include "workers/null_law.h"
#include "workers/null_words.h"
#include "workers/openai_reply.h"
#include "workers/openai_request.h"
#include "workers/send_log.h"

#define NO_NAME "demo" // of the model in lists, where any name is served

/* One reply, from its request to its last byte. */
struct reply {
    struct httpd_conn *conn;
    struct reply *before, *after; // in the queue
    bool running, head_sent, stream, keep_alive;
    bool plain;       // a whole reply that is ready in `body`: errors, models, metrics
    int status;       // of a plain reply
    const char *type; // of a plain reply
    struct str body;
    struct openai_reply shape;
    bool include_usage;
    int64_t prompt_tokens, n_tokens, next_token;
    int64_t start_ns, law_ns; // law_ns: of the next packet
    uint64_t number;          // of the request
    uint32_t log_request;
};

struct null_server {
    const struct serve_config *c;
    const char *api_key; // NULL: none is asked for
    const char *version;
    struct httpd *httpd;
    struct send_log *log;
    struct reply *first, *last; // waiting
    int64_t n_running, n_waiting, kv_tokens;
    int64_t n_requests, n_ok, n_gone, n_refused, prompt_tokens, generated_tokens;
    int64_t stall_from_ns, stall_to_ns;
    struct hist late_ns;
    /* Of the piece that is being sent: its row for the log. */
    struct send_log_row sending;
    bool ends;
};

/* --- the queue ----------------------------------------------------------------------------------- */

static void queue_put(struct null_server *s, struct reply *r)
{
    r->before = s->last;
    *(s->last ? &s->last->after : &s->first) = r;
    s->last = r;
    s->n_waiting++;
}

static void queue_take(struct null_server *s, struct reply *r)
{
    *(r->before ? &r->before->after : &s->first) = r->after;
    *(r->after ? &r->after->before : &s->last) = r->before;
    r->before = r->after = NULL;
    s->n_waiting--;
}

/* The law's time, moved on by a stall that lies between the reply's start and it. */
static int64_t with_stall(const struct null_server *s, const struct reply *r, int64_t law_ns)
{
    bool across = r->start_ns < s->stall_from_ns && law_ns >= s->stall_from_ns;
    return across ? law_ns + s->stall_to_ns - s->stall_from_ns : law_ns;
}

static void set_law(const struct null_server *s, struct reply *r)
{
    int64_t t_ns = r->start_ns + null_law_ttft_ns(s->c, r->number);
    if (!r->stream) { // due with its last token
        for (int64_t k = 1; k < r->n_tokens; k++) {
            t_ns += null_law_gap_ns(s->c, r->number, k);
        }
    }
    r->law_ns = t_ns;
}

static void start(struct null_server *s, struct reply *r, int64_t now_ns)
{
    r->running = true;
    r->start_ns = now_ns;
    set_law(s, r);
    s->n_running++;
    s->kv_tokens += r->prompt_tokens;
    httpd_wake(r->conn, r->head_sent || !r->stream ? with_stall(s, r, r->law_ns) : now_ns);
}

static void start_waiting(struct null_server *s)
{
    while (s->first && s->n_running < s->c->max_concurrent) {
        struct reply *r = s->first;
        queue_take(s, r);
        start(s, r, clock_local_ns());
    }
}

static void reply_end(struct null_server *s, struct reply *r)
{
    httpd_set_user(r->conn, NULL);
    if (r->running) {
        s->n_running--;
        s->kv_tokens -= r->prompt_tokens + (r->stream ? r->next_token : 0);
    } else if (!r->plain) {
        queue_take(s, r);
    }
    openai_reply_free(&r->shape);
    str_free(&r->body);
    free(r);
    start_waiting(s);
}

/* --- requests ------------------------------------------------------------------------------------ */

static struct reply *reply_new(struct httpd_conn *c, const struct http_request *q)
{
    struct reply *r = xcalloc(1, sizeof *r);
    r->conn = c;
    r->keep_alive = q->keep_alive;
    httpd_set_user(c, r);
    return r;
}

/* A reply that is ready; its body is in r->body. */
static void answer(struct reply *r, int status, const char *type)
{
    r->plain = true;
    r->status = status;
    r->type = type;
    httpd_wake(r->conn, httpd_read_ns(r->conn));
}

static void refuse(struct null_server *s, struct reply *r, int status, const char *message)
{
    s->n_refused++;
    openai_reply_put_error(&r->body, status, message);
    answer(r, status, "application/json");
}

/* "Bearer KEY" with the key that is asked for. */
static bool authorized(const struct null_server *s, const struct http_request *q)
{
    struct http_request_text given = http_request_header(q, "Authorization");
    size_t n = s->api_key ? strlen(s->api_key) : 0;
    return !s->api_key || (given.n == n + 7 && memcmp(given.s, "Bearer ", 7) == 0 &&
                           memcmp(given.s + 7, s->api_key, n) == 0);
}

/* The client's name for its request, if it can stand in JSON and CSV as it is; else our number. */
static void name_request(const struct http_request *q, uint64_t number, char id[SEND_LOG_ID_BYTES])
{
    struct http_request_text given = http_request_header(q, "X-Request-Id");
    bool plain = given.n > 0 && given.n < SEND_LOG_ID_BYTES;
    for (size_t i = 0; i < given.n; i++) {
        plain = plain && given.s[i] > ' ' && !strchr("\",\\", given.s[i]);
    }
    if (plain) {
        snprintf(id, SEND_LOG_ID_BYTES, "%.*s", (int)given.n, given.s);
    } else {
        snprintf(id, SEND_LOG_ID_BYTES, "%llu", (unsigned long long)number);
    }
}

static void first_request(struct null_server *s, int64_t read_ns)
{
    if (s->c->stall.to_ns > 0 && s->c->stall_from == SERVE_FIRST_REQUEST) {
        s->stall_from_ns = read_ns + s->c->stall.from_ns;
        s->stall_to_ns = read_ns + s->c->stall.to_ns;
        httpd_stall(s->httpd, s->stall_from_ns, s->stall_to_ns);
    }
}

static void log_read(struct null_server *s, struct reply *r, const char *id)
{
    int64_t read_ns = httpd_read_ns(r->conn);
    if (s->log) {
        r->log_request = send_log_request(s->log, id);
        const struct send_log_row row = {
            .request = r->log_request, .token = -1, .law_ns = read_ns, .before_ns = read_ns};
        send_log_add(s->log, &row);
    }
}

static void generate(struct null_server *s, struct reply *r, const struct http_request *q,
                     const struct openai_request *want, bool chat)
{
    char id[SEND_LOG_ID_BYTES];
    if (s->n_requests++ == 0) {
        first_request(s, httpd_read_ns(r->conn));
    }
    r->number = (uint64_t)s->n_requests - 1;
    r->stream = want->stream;
    r->include_usage = want->include_usage;
    r->prompt_tokens = want->prompt_tokens;
    r->n_tokens = want->max_tokens ? want->max_tokens : s->c->tokens;
    r->n_tokens = r->n_tokens < want->min_tokens ? want->min_tokens : r->n_tokens;
    s->prompt_tokens += r->prompt_tokens;
    name_request(q, r->number, id);
    log_read(s, r, id);
    openai_reply_init(&r->shape, chat, q->minor > 0, id, want->model);
    if (s->n_running < s->c->max_concurrent) {
        start(s, r, httpd_read_ns(r->conn));
        return;
    }
    queue_put(s, r);
    if (r->stream) {
        httpd_wake(r->conn, httpd_read_ns(r->conn)); // its head
    }
}

static void post_generate(struct null_server *s, struct reply *r, const struct http_request *q,
                          bool chat)
{
    struct openai_request want;
    struct err e = {0};
    if (openai_request_parse(&want, chat, q->body.s, q->body.n, &e)) {
        refuse(s, r, 400, e.msg);
        return;
    }
    if (s->c->model && strcmp(s->c->model, want.model) != 0) {
        char text[200];
        snprintf(text, sizeof text, "The model `%.100s` does not exist.", want.model);
        refuse(s, r, 404, text);
    } else {
        generate(s, r, q, &want, chat);
    }
    openai_request_free(&want);
}

static void get_models(struct null_server *s, struct reply *r)
{
    str_puts(&r->body, "{\"object\":\"list\",\"data\":[{\"id\":");
    openai_reply_put_quoted(&r->body, s->c->model ? s->c->model : NO_NAME);
    str_printf(&r->body, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"tidemark\"}]}",
               (long long)(clock_unix_ns() / NS_PER_S));
    answer(r, 200, "application/json");
}

static void put_metric(struct str *out, const struct null_server *s, const char *name,
                       const char *kind, double v)
{
    str_printf(out, "# TYPE %s %s\n%s{engine=\"0\",model_name=", name, kind, name);
    openai_reply_put_quoted(out, s->c->model ? s->c->model : NO_NAME);
    str_printf(out, "} %.17g\n", v);
}

static void get_metrics(struct null_server *s, struct reply *r)
{
    double kv = (double)s->kv_tokens / (double)s->c->kv_tokens;
    struct str *out = &r->body;
    put_metric(out, s, "vllm:num_requests_running", "gauge", (double)s->n_running);
    put_metric(out, s, "vllm:num_requests_waiting", "gauge", (double)s->n_waiting);
    put_metric(out, s, "vllm:kv_cache_usage_perc", "gauge", kv > 1.0 ? 1.0 : kv);
    put_metric(out, s, "vllm:num_preemptions_total", "counter", 0.0); // it has no need to
    put_metric(out, s, "vllm:prompt_tokens_total", "counter", (double)s->prompt_tokens);
    put_metric(out, s, "vllm:generation_tokens_total", "counter", (double)s->generated_tokens);
    put_metric(out, s, "vllm:request_success_total", "counter", (double)s->n_ok);
    str_printf(out,
               "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.6f\n"
               "# TYPE tidemark_connections gauge\ntidemark_connections %lld\n",
               (double)clock_process_cpu_ns() / (double)NS_PER_S,
               (long long)httpd_connections(s->httpd));
    answer(r, 200, "text/plain; version=0.0.4; charset=utf-8");
}

static void get_version(struct null_server *s, struct reply *r)
{
    str_printf(&r->body, "{\"version\":\"%s\"}", s->version);
    answer(r, 200, "application/json");
}

static void get_health(struct null_server *s, struct reply *r)
{
    (void)s;
    answer(r, 200, "text/plain");
}

static const struct {
    const char *path, *method;
    bool open; // without the key
    bool chat;
    void (*get)(struct null_server *s, struct reply *r); // NULL: generates
} routes[] = {
    {"/v1/completions", "POST", false, false, NULL},
    {"/v1/chat/completions", "POST", false, true, NULL},
    {"/v1/models", "GET", false, false, get_models},
    {"/version", "GET", true, false, get_version},
    {"/metrics", "GET", true, false, get_metrics},
    {"/health", "GET", true, false, get_health},
};

static void on_request(void *arg, struct httpd_conn *c, const struct http_request *q)
{
    struct null_server *s = arg;
    struct reply *r = reply_new(c, q);
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (!http_request_is(q->path, routes[i].path)) {
            continue;
        }
        if (!http_request_is(q->method, routes[i].method)) {
            r->keep_alive = false; // of a HEAD the client would not read the body
            refuse(s, r, 405, "Method Not Allowed");
        } else if (!routes[i].open && !authorized(s, q)) {
            refuse(s, r, 401, "Unauthorized");
        } else if (routes[i].get) {
            routes[i].get(s, r);
        } else {
            post_generate(s, r, q, routes[i].chat);
        }
        return;
    }
    r->keep_alive = r->keep_alive && !http_request_is(q->method, "HEAD");
    refuse(s, r, 404, "Not Found");
}

/* --- replies ------------------------------------------------------------------------------------- */

static void put_head(const struct null_server *s, struct reply *r, struct str *out)
{
    const struct http_reply_head head = {
        .status = 200,
        .type = "text/event-stream; charset=utf-8",
        .framing = r->shape.chunked ? HTTP_REPLY_CHUNKED : HTTP_REPLY_TO_CLOSE,
        .keep_alive = r->keep_alive,
    };
    r->head_sent = true;
    http_reply_put_head(out, &head);
    if (r->shape.chat && s->c->role_chunk) {
        openai_reply_put_role(&r->shape, out);
    }
}

static void put_events(const struct null_server *s, struct reply *r, int64_t until, struct str *out)
{
    while (r->next_token < until) {
        char text[NULL_WORDS_MAX_BYTES * 64]; // serve.tokens_per_event is at most 64
        int64_t n = until - r->next_token;
        n = n < s->c->tokens_per_event ? n : s->c->tokens_per_event;
        size_t bytes = null_words_put(text, r->number + (uint64_t)r->next_token, n);
        r->next_token += n;
        openai_reply_put_event(&r->shape, out, text, bytes,
                               r->next_token == r->n_tokens ? "length" : NULL);
    }
}

/* The packet whose time has come; r->law_ns moves on to the next. */
static void put_packet(struct null_server *s, struct reply *r, struct str *out)
{
    int64_t first = r->next_token;
    int64_t until = first + s->c->tokens_per_event * s->c->events_per_packet;
    until = until < r->n_tokens ? until : r->n_tokens;
    s->sending = (struct send_log_row){
        .request = r->log_request,
        .law_ns = with_stall(s, r, r->law_ns),
        .token = (int32_t)first,
        .n_tokens = (int32_t)(until - first),
    };
    put_events(s, r, until, out);
    s->kv_tokens += until - first;
    for (int64_t k = first + 1; k <= until; k++) {
        r->law_ns += null_law_gap_ns(s->c, r->number, k);
    }
}

static void due_stream(struct null_server *s, struct reply *r, struct httpd_piece *p)
{
    const struct openai_reply_usage usage = {r->prompt_tokens, r->n_tokens};
    if (!r->head_sent) {
        put_head(s, r, p->out);
    }
    if (r->running && with_stall(s, r, r->law_ns) <= clock_local_ns()) {
        put_packet(s, r, p->out);
    }
    if (r->next_token == r->n_tokens) {
        openai_reply_put_end(&r->shape, p->out, r->include_usage ? &usage : NULL);
        p->then = r->shape.chunked && r->keep_alive ? HTTPD_END : HTTPD_CLOSE;
        return;
    }
    p->next_ns = r->running ? with_stall(s, r, r->law_ns) : HTTPD_NEVER;
}

static void due_whole(struct null_server *s, struct reply *r, struct httpd_piece *p)
{
    const struct openai_reply_usage usage = {r->prompt_tokens, r->n_tokens};
    char *text = xmalloc((size_t)r->n_tokens * NULL_WORDS_MAX_BYTES);
    size_t n = null_words_put(text, r->number, r->n_tokens);
    openai_reply_put_whole(&r->shape, &r->body, text, n, "length", &usage);
    free(text);
    s->sending = (struct send_log_row){.request = r->log_request,
                                       .law_ns = with_stall(s, r, r->law_ns),
                                       .token = 0,
                                       .n_tokens = (int32_t)r->n_tokens};
    http_reply_put(p->out, 200, "application/json", r->keep_alive, NULL, r->body.data, r->body.len);
    p->then = r->keep_alive ? HTTPD_END : HTTPD_CLOSE;
}

static void on_due(void *arg, struct httpd_conn *c, struct httpd_piece *p)
{
    struct null_server *s = arg;
    struct reply *r = httpd_user(c);
    s->sending.n_tokens = 0;
    if (r->plain) {
        http_reply_put(p->out, r->status, r->type, r->keep_alive, NULL, r->body.data, r->body.len);
        p->then = r->keep_alive ? HTTPD_END : HTTPD_CLOSE;
    } else if (r->stream) {
        due_stream(s, r, p);
    } else {
        due_whole(s, r, p);
    }
    s->ends = p->then != HTTPD_MORE;
}

static void on_sent(void *arg, struct httpd_conn *c, int64_t before_ns, int64_t after_ns)
{
    struct null_server *s = arg;
    struct reply *r = httpd_user(c);
    if (s->sending.n_tokens) {
        s->generated_tokens += s->sending.n_tokens;
        s->sending.before_ns = before_ns;
        s->sending.after_ns = (uint32_t)(after_ns - before_ns);
        hist_record(&s->late_ns, before_ns - s->sending.law_ns);
        if (s->log) {
            send_log_add(s->log, &s->sending);
        }
    }
    if (s->ends) {
        s->n_ok += !r->plain;
        reply_end(s, r);
    }
}

static void on_closed(void *arg, struct httpd_conn *c)
{
    struct null_server *s = arg;
    struct reply *r = httpd_user(c);
    if (r) { // NULL: all was made, some of it was not taken
        s->n_gone++;
        reply_end(s, r);
    }
}

/* --- the server ---------------------------------------------------------------------------------- */

struct httpd_app null_server_app(struct null_server *s)
{
    return (struct httpd_app){
        .arg = s, .request = on_request, .due = on_due, .sent = on_sent, .closed = on_closed};
}

int null_server_open(struct null_server **out, const struct serve_config *c, const char *version,
                     struct err *e)
{
    struct null_server *s = xcalloc(1, sizeof *s);
    s->c = c;
    s->version = version;
    s->api_key = c->api_key_env ? getenv(c->api_key_env) : NULL;
    hist_reset(&s->late_ns);
    if (c->log && send_log_open(&s->log, c->log, e)) {
        free(s);
        return -1;
    }
    *out = s;
    return 0;
}

void null_server_started(struct null_server *s, struct httpd *h)
{
    s->httpd = h;
    if (s->c->stall.to_ns > 0 && s->c->stall_from == SERVE_START) {
        int64_t now_ns = clock_local_ns();
        s->stall_from_ns = now_ns + s->c->stall.from_ns;
        s->stall_to_ns = now_ns + s->c->stall.to_ns;
        httpd_stall(h, s->stall_from_ns, s->stall_to_ns);
    }
}

void null_server_report(const struct null_server *s)
{
    const struct hist *l = &s->late_ns;
    log_info("serve",
             "%lld requests: %lld answered, %lld refused, %lld left by their client; %lld tokens",
             (long long)(s->n_requests + s->n_refused), (long long)s->n_ok, (long long)s->n_refused,
             (long long)s->n_gone, (long long)s->generated_tokens);
    if (l->n && s->c->ttft_ns + s->c->itl_ns > 0) { // else all are due at once
        log_info("serve",
                 "packets behind their law: p50 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.1f us",
                 (double)hist_quantile(l, 0.5) / 1e3, (double)hist_quantile(l, 0.99) / 1e3,
                 (double)hist_quantile(l, 0.999) / 1e3, (double)l->max / 1e3);
    }
}

int null_server_close(struct null_server *s, struct err *e)
{
    if (!s) {
        return 0;
    }
    int rc = send_log_close(s->log, e);
    free(s);
    return rc;
}
