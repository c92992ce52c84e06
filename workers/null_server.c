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
#include "workers/openai_front.h"
#include "workers/openai_reply.h"
#include "workers/send_log.h"

#define NEVER_NS (INT64_MAX / 2) // no reply waits as long, and one more gap does not overflow
#define NO_NAME  "demo"          // of the model in lists, where any name is served

/* One reply, from its request to its last byte. */
struct reply {
    struct openai_front_reply base;
    struct reply *before, *after; // in the queue
    bool running, waiting, head_sent, stream;
    struct openai_reply shape;
    bool include_usage;
    int64_t prompt_tokens, n_tokens, next_token;
    int64_t start_ns, law_ns; // law_ns: of the next packet
    uint64_t number;          // of the request
    uint32_t log_request;
};

struct null_server {
    struct openai_front front;
    const struct serve_config *c;
    struct httpd *httpd;
    struct send_log *log;
    struct reply *first, *last; // waiting
    int64_t n_running, n_waiting, kv_tokens;
    int64_t n_requests, prompt_tokens, generated_tokens;
    int64_t stall_from_ns, stall_to_ns;
    struct hist late_ns;
    /* Of the piece that is being sent: its row for the log. */
    struct send_log_row sending;
};

/* --- the queue ----------------------------------------------------------------------------------- */

static void queue_put(struct null_server *s, struct reply *r)
{
    r->before = s->last;
    *(s->last ? &s->last->after : &s->first) = r;
    s->last = r;
    r->waiting = true;
    s->n_waiting++;
}

static void queue_take(struct null_server *s, struct reply *r)
{
    *(r->before ? &r->before->after : &s->first) = r->after;
    *(r->after ? &r->after->before : &s->last) = r->before;
    r->before = r->after = NULL;
    r->waiting = false;
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
        for (int64_t k = 1; k < r->n_tokens && t_ns < NEVER_NS; k++) {
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
    httpd_wake(r->base.conn, r->head_sent || !r->stream ? with_stall(s, r, r->law_ns) : now_ns);
}

static void start_waiting(struct null_server *s)
{
    while (s->first && s->n_running < s->c->max_concurrent) {
        struct reply *r = s->first;
        queue_take(s, r);
        start(s, r, clock_local_ns());
    }
}

static void on_ended(void *arg, struct openai_front_reply *base, bool gone)
{
    (void)gone;
    struct null_server *s = arg;
    struct reply *r = (struct reply *)base;
    if (r->running) {
        s->n_running--;
        s->kv_tokens -= r->prompt_tokens + (r->stream ? r->next_token : 0);
    } else if (r->waiting) {
        queue_take(s, r);
    }
    openai_reply_free(&r->shape);
    start_waiting(s);
}

/* --- requests ------------------------------------------------------------------------------------ */

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
    int64_t read_ns = httpd_read_ns(r->base.conn);
    if (s->log) {
        r->log_request = send_log_request(s->log, id);
        const struct send_log_row row = {
            .request = r->log_request, .token = -1, .law_ns = read_ns, .before_ns = read_ns};
        send_log_add(s->log, &row);
    }
}

static void generate(void *arg, struct openai_front_reply *base, const struct http_request_parts *q,
                     struct openai_request *want)
{
    struct null_server *s = arg;
    struct reply *r = (struct reply *)base;
    char id[SEND_LOG_ID_BYTES];
    if (s->n_requests++ == 0) {
        first_request(s, httpd_read_ns(r->base.conn));
    }
    r->number = (uint64_t)s->n_requests - 1;
    r->stream = want->stream;
    r->include_usage = want->include_usage;
    r->prompt_tokens = want->prompt_tokens;
    r->n_tokens = want->max_tokens ? want->max_tokens : s->c->tokens;
    r->n_tokens = r->n_tokens < want->min_tokens ? want->min_tokens : r->n_tokens;
    s->prompt_tokens += r->prompt_tokens;
    openai_front_name(q, r->number, id, sizeof id);
    log_read(s, r, id);
    openai_reply_init(&r->shape, want->chat, q->minor > 0, id, want->model);
    if (s->n_running < s->c->max_concurrent) {
        start(s, r, httpd_read_ns(r->base.conn));
        return;
    }
    queue_put(s, r);
    if (r->stream) {
        httpd_wake(r->base.conn, httpd_read_ns(r->base.conn)); // its head
    }
}

static void put_metrics(void *arg, struct str *out)
{
    const struct null_server *s = arg;
    const struct openai_front *f = &s->front;
    double kv = (double)s->kv_tokens / (double)s->c->kv_tokens;
    openai_front_put_metric(f, out, "vllm:num_requests_running", "gauge", (double)s->n_running);
    openai_front_put_metric(f, out, "vllm:num_requests_waiting", "gauge", (double)s->n_waiting);
    openai_front_put_metric(f, out, "vllm:kv_cache_usage_perc", "gauge", kv > 1.0 ? 1.0 : kv);
    openai_front_put_metric(f, out, "vllm:num_preemptions_total", "counter",
                            0.0); // it has no need to
    openai_front_put_metric(f, out, "vllm:prompt_tokens_total", "counter",
                            (double)s->prompt_tokens);
    openai_front_put_metric(f, out, "vllm:generation_tokens_total", "counter",
                            (double)s->generated_tokens);
    openai_front_put_metric(f, out, "vllm:request_success_total", "counter", (double)f->n_ok);
    openai_front_put_process_metrics(out, httpd_connections(s->httpd));
}

/* --- replies ------------------------------------------------------------------------------------- */

static void put_head(const struct null_server *s, struct reply *r, struct str *out)
{
    const struct http_reply_head head = {
        .status = 200,
        .type = "text/event-stream; charset=utf-8",
        .framing = r->shape.chunked ? HTTP_REPLY_CHUNKED : HTTP_REPLY_TO_CLOSE,
        .keep_alive = r->base.keep_alive,
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
        const struct openai_reply_more more = {.finish_reason =
                                                   r->next_token == r->n_tokens ? "length" : NULL};
        openai_reply_put_event(&r->shape, out, text, bytes, &more);
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
        p->then = r->shape.chunked && r->base.keep_alive ? HTTPD_END : HTTPD_CLOSE;
        return;
    }
    p->next_ns = r->running ? with_stall(s, r, r->law_ns) : HTTPD_NEVER;
}

static void due_whole(struct null_server *s, struct reply *r, struct httpd_piece *p)
{
    const struct openai_reply_usage usage = {r->prompt_tokens, r->n_tokens};
    char *text = xmalloc((size_t)r->n_tokens * NULL_WORDS_MAX_BYTES);
    size_t n = null_words_put(text, r->number, r->n_tokens);
    openai_reply_put_whole(&r->shape, &r->base.body, text, n,
                           &(struct openai_reply_more){.finish_reason = "length"}, &usage);
    free(text);
    s->sending = (struct send_log_row){.request = r->log_request,
                                       .law_ns = with_stall(s, r, r->law_ns),
                                       .token = 0,
                                       .n_tokens = (int32_t)r->n_tokens};
    http_reply_put(p->out, 200, "application/json", r->base.keep_alive, NULL, r->base.body.data,
                   r->base.body.len);
    p->then = r->base.keep_alive ? HTTPD_END : HTTPD_CLOSE;
}

static void on_due(void *arg, struct openai_front_reply *base, struct httpd_piece *p)
{
    struct null_server *s = arg;
    struct reply *r = (struct reply *)base;
    s->sending.n_tokens = 0;
    if (r->stream) {
        due_stream(s, r, p);
    } else {
        due_whole(s, r, p);
    }
}

static void on_sent(void *arg, struct openai_front_reply *base, int64_t before_ns, int64_t after_ns)
{
    (void)base;
    struct null_server *s = arg;
    if (s->sending.n_tokens) {
        s->generated_tokens += s->sending.n_tokens;
        s->sending.before_ns = before_ns;
        s->sending.after_ns = (uint32_t)(after_ns - before_ns);
        hist_record(&s->late_ns, before_ns - s->sending.law_ns);
        if (s->log) {
            send_log_add(s->log, &s->sending);
        }
    }
}

/* --- the server ---------------------------------------------------------------------------------- */

struct httpd_app null_server_app(struct null_server *s)
{
    return openai_front_app(&s->front);
}

int null_server_open(struct null_server **out, const struct serve_config *c, const char *version,
                     struct err *e)
{
    struct null_server *s = xcalloc(1, sizeof *s);
    s->c = c;
    s->front.server = (struct openai_front_server){
        .arg = s,
        .reply_bytes = sizeof(struct reply),
        .model = c->model,
        .model_name = c->model ? c->model : NO_NAME,
        .api_key = c->api_key_env ? getenv(c->api_key_env) : NULL,
        .version = version,
        .generate = generate,
        .metrics = put_metrics,
        .due = on_due,
        .sent = on_sent,
        .ended = on_ended,
    };
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
             (long long)(s->n_requests + s->front.n_refused), (long long)s->front.n_ok,
             (long long)s->front.n_refused, (long long)s->front.n_gone,
             (long long)s->generated_tokens);
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
