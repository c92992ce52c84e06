#include "workers/stages_server.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/http_reply.h"
#include "core/json_text.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/rng.h"
#include "model/chat.h"
#include "model/stops.h"
#include "model/wire.h"
#include "results/record.h"
#include "workers/openai_front.h"
#include "workers/openai_logprobs.h"
#include "workers/openai_reply.h"

#define ID_BYTES          64
#define MESSAGES_PER_TURN 256
#define IDLE_WAIT_NS      (1 * NS_PER_MS) // between two looks at the comm while nothing is under way

struct reply {
    struct openai_front_reply base;
    struct openai_reply shape;
    struct openai_request want;
    struct tokenizer_stream *text; // NULL: without a tokenizer
    struct stops_stream stops;
    struct openai_logprobs logprobs;
    struct str shown;  // text that is certain and not yet in an event
    struct str events; // of a stream: made and not yet sent
    int64_t n_in, n_out;
    uint32_t n_asked;
    uint32_t slot; // in the server's table
    int replica;   // -1: not with the workers
    bool head_sent, ended;
    const char *finish_reason;
    struct str stop_reason; // JSON
};

/* What tickets name. */
struct slot {
    struct reply *reply; // NULL: free
    uint32_t generation;
    uint32_t next_free;
};

struct stages_server {
    struct openai_front front;
    struct stages_server_config cfg;
    struct httpd *httpd;
    enum chat_form form;
    struct slot *slots; // (n_slots)
    uint32_t n_slots, free_slot;
    struct routing routing;
    struct series_point *loads; // (replicas) the newest of each
    int64_t n_live, n_requests, prompt_tokens, generated_tokens;
    int n_idle; // turns without a message
};

/* --- slots --------------------------------------------------------------------------------------- */

static void take_slot(struct stages_server *s, struct reply *r)
{
    if (s->free_slot == s->n_slots) {
        const uint32_t n = s->n_slots ? 2 * s->n_slots : 64;
        s->slots = xrealloc(s->slots, n * sizeof *s->slots);
        for (uint32_t i = s->n_slots; i < n; i++) {
            s->slots[i] = (struct slot){.next_free = i + 1};
        }
        s->n_slots = n;
    }
    r->slot = s->free_slot;
    struct slot *at = &s->slots[r->slot];
    s->free_slot = at->next_free;
    at->reply = r;
    at->generation++;
    s->n_live++;
}

static struct wire_ticket ticket_of(const struct stages_server *s, const struct reply *r)
{
    return (struct wire_ticket){.slot = r->slot, .generation = s->slots[r->slot].generation};
}

/* NULL: its reply has ended meanwhile. */
static struct reply *find(const struct stages_server *s, struct wire_ticket t)
{
    return t.slot < s->n_slots && s->slots[t.slot].generation == t.generation
               ? s->slots[t.slot].reply
               : NULL;
}

/* Prompt tokens until the first one is there, and outputs that may still come. */
static uint64_t tokens_left(const struct reply *r)
{
    return (uint64_t)(r->n_asked - r->n_out + (r->n_out == 0 ? r->n_in : 0));
}

/* The workers are through with it. */
static void leave_workers(struct stages_server *s, struct reply *r)
{
    struct slot *at = &s->slots[r->slot];
    routing_done(&s->routing, r->replica, tokens_left(r));
    at->reply = NULL;
    at->next_free = s->free_slot;
    s->free_slot = r->slot;
    s->n_live--;
    r->replica = -1;
}

static void cancel(struct stages_server *s, struct reply *r)
{
    struct wire_cancel c = {.ticket = ticket_of(s, r)};
    struct err unused; // a dead rank is found by the next comm_poll
    if (comm_post(s->cfg.comm, layout_leader(&s->cfg.layout, r->replica), WIRE_CANCEL, &c, sizeof c,
                  &unused)) {
        log_warn("serve", "a request could not be cancelled");
    }
    leave_workers(s, r);
}

/* --- prompts ------------------------------------------------------------------------------------- */

static int put_content(const json_t *content, size_t message, struct str *out, struct err *e)
{
    if (json_is_string(content)) {
        str_puts(out, json_string_value(content));
        return 0;
    }
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *text = json_object_get(json_array_get(content, i), "text");
        if (!json_is_string(text)) {
            return err_set(e, ERR_INPUT, "messages[%zu].content[%zu]: only text is served", message,
                           i);
        }
        str_puts(out, json_string_value(text));
    }
    return 0;
}

static int render_chat(const struct stages_server *s, const json_t *messages, struct str *out,
                       struct err *e)
{
    struct str held = {0}, text = {0};
    int rc = 0;
    for (size_t i = 0; i < json_array_size(messages) && rc == 0; i++) {
        const json_t *m = json_array_get(messages, i);
        str_clear(&text);
        rc = put_content(json_object_get(m, "content"), i, &text, e);
        chat_put_message(s->form, json_string_value(json_object_get(m, "role")),
                         text.data ? text.data : "", &held, out);
    }
    chat_put_opening(s->form, out);
    str_free(&held);
    str_free(&text);
    return rc;
}

static int take_ids(const struct stages_server *s, const json_t *prompt, struct token_ids *ids,
                    struct err *e)
{
    for (size_t i = 0; i < json_array_size(prompt); i++) {
        const int64_t id = json_integer_value(json_array_get(prompt, i));
        if (id < 0 || id >= s->cfg.arch->vocab) {
            return err_set(e, ERR_INPUT, "prompt: token id %lld is not in 0..%d", (long long)id,
                           s->cfg.arch->vocab - 1);
        }
        token_ids_push(ids, (int32_t)id);
    }
    return 0;
}

static int make_prompt(const struct stages_server *s, const struct openai_request *want,
                       struct token_ids *ids, struct err *e)
{
    struct str text = {0};
    if (!want->chat && json_is_array(want->prompt)) {
        return take_ids(s, want->prompt, ids, e);
    }
    if (!s->cfg.tokenizer) {
        return err_set(e, ERR_INPUT,
                       "prompt: this model has no tokenizer, its prompts are lists of token ids");
    }
    int rc = 0;
    if (want->chat) {
        rc = render_chat(s, want->messages, &text, e);
    } else {
        str_puts(&text, json_string_value(want->prompt));
    }
    if (rc == 0) {
        tokenizer_encode(s->cfg.tokenizer, text.data ? text.data : "", text.len, true, ids);
    }
    str_free(&text);
    return rc == 0 && ids->n == 0 ? err_set(e, ERR_INPUT, "prompt: is empty") : rc;
}

/* --- requests ------------------------------------------------------------------------------------ */

static int check_stop_ids(const struct stages_server *s, const struct wire_sampling *how,
                          struct err *e)
{
    for (uint32_t i = 0; i < how->n_stop_ids; i++) {
        if (how->stop_ids[i] >= s->cfg.arch->vocab) {
            return err_set(e, ERR_INPUT, "stop_token_ids: %d is not in 0..%d", how->stop_ids[i],
                           s->cfg.arch->vocab - 1);
        }
    }
    return 0;
}

/* How many tokens are asked for: as many as fit where the request leaves it open. */
static int measure(const struct stages_server *s, struct reply *r, struct err *e)
{
    const int64_t room = s->cfg.arch->max_context - r->n_in;
    int64_t n = r->want.max_tokens;
    if (n == 0) {
        n = s->cfg.serve->tokens < room ? s->cfg.serve->tokens : room;
        n = n < r->want.min_tokens ? r->want.min_tokens : n;
    }
    if (n < 1 || n > room) {
        return err_set(
            e, ERR_INPUT,
            "max_tokens: %lld prompt tokens and %lld to come do not fit the context of %d",
            (long long)r->n_in, (long long)n, s->cfg.arch->max_context);
    }
    r->n_asked = (uint32_t)n;
    return 0;
}

/* Greedy requests that ask for nothing else are the plain ones of a load rank. */
static bool is_plain(const struct wire_sampling *how)
{
    return how->temperature <= 0 && how->logprobs == 0 && how->min_out == 0 && how->n_stop_ids == 0;
}

static int send_request(struct stages_server *s, struct reply *r, const struct token_ids *ids,
                        struct err *e)
{
    const struct wire_sampling *how = &r->want.sampling;
    const size_t tail = is_plain(how) ? 0 : sizeof *how, ids_bytes = ids->n * sizeof(int32_t);
    const size_t n_bytes = sizeof(struct wire_request) + ids_bytes + tail;
    struct wire_request *q = xcalloc(1, n_bytes);
    take_slot(s, r);
    r->replica = routing_pick(&s->routing, tokens_left(r));
    q->ticket = ticket_of(s, r);
    q->n_in = (uint32_t)ids->n;
    q->n_out = r->n_asked;
    q->flags = (r->want.ignore_eos ? 0 : WIRE_STOP_AT_EOS) | (tail ? WIRE_SAMPLED : 0);
    memcpy(q->ids, ids->v, ids_bytes);
    memcpy(q->ids + ids->n, how, tail);
    int rc = comm_post(s->cfg.comm, layout_leader(&s->cfg.layout, r->replica), WIRE_REQUEST, q,
                       n_bytes, e);
    free(q);
    if (rc) {
        leave_workers(s, r);
    }
    return rc;
}

static int submit(struct stages_server *s, struct reply *r, struct err *e)
{
    struct token_ids ids = {0};
    int rc = check_stop_ids(s, &r->want.sampling, e);
    rc = rc ? rc : make_prompt(s, &r->want, &ids, e);
    r->n_in = (int64_t)ids.n;
    rc = rc ? rc : measure(s, r, e);
    rc = rc ? rc : send_request(s, r, &ids, e);
    token_ids_free(&ids);
    return rc;
}

static void generate(void *arg, struct openai_front_reply *base, const struct http_request_parts *q,
                     struct openai_request *want)
{
    struct stages_server *s = arg;
    struct reply *r = (struct reply *)base;
    struct err e = {0};
    char id[ID_BYTES];
    const uint64_t number = (uint64_t)s->n_requests++;
    r->want = *want;
    *want = (struct openai_request){0};
    r->replica = -1;
    if (!r->want.has_seed) {
        r->want.sampling.seed = rng_u64((uint64_t)s->cfg.serve->seed, RNG_SEED, number, 0);
    }
    if (submit(s, r, &e)) {
        openai_front_refuse(&s->front, base, e.code == ERR_INPUT ? 400 : 503, e.msg);
        return;
    }
    openai_front_name(q, number, id, sizeof id);
    openai_reply_init(&r->shape, r->want.chat, q->minor > 0, id, r->want.model);
    r->text = s->cfg.tokenizer ? tokenizer_stream_new(s->cfg.tokenizer, true) : NULL;
    r->logprobs.chat = r->want.chat;
    r->logprobs.tokenizer = s->cfg.tokenizer;
    s->prompt_tokens += r->n_in;
}

static void on_ended(void *arg, struct openai_front_reply *base, bool gone)
{
    (void)gone;
    struct stages_server *s = arg;
    struct reply *r = (struct reply *)base;
    if (r->want.body && r->replica >= 0) {
        cancel(s, r);
    }
    openai_reply_free(&r->shape);
    openai_request_free(&r->want);
    openai_logprobs_free(&r->logprobs);
    tokenizer_stream_free(r->text);
    stops_stream_free(&r->stops);
    str_free(&r->shown);
    str_free(&r->events);
    str_free(&r->stop_reason);
}

/* --- what the last stage says ------------------------------------------------------------------------ */

/* An event of the text, log-probabilities and end that are new. */
static void make_event(struct reply *r)
{
    struct str logprobs = {0}, text = {0};
    bool any = openai_logprobs_put(&r->logprobs, &logprobs);
    const struct openai_reply_more more = {
        .finish_reason = r->finish_reason,
        .logprobs = any ? logprobs.data : NULL,
        .stop_reason = r->stop_reason.data,
    };
    json_text_escape(&text, r->shown.data ? r->shown.data : "", r->shown.len);
    openai_reply_put_event(&r->shape, &r->events, text.data ? text.data : "", text.len, &more);
    str_clear(&r->shown);
    str_free(&logprobs);
    str_free(&text);
}

/* The text of a token into r->shown, as far as it is certain. True: a stop text has ended it. */
static bool take_text(struct reply *r, const struct wire_token *t)
{
    struct str piece = {0};
    bool by_id = false;
    for (uint32_t i = 0; (t->flags & WIRE_STOPPED) && i < r->want.sampling.n_stop_ids; i++) {
        by_id |= r->want.sampling.stop_ids[i] == t->id;
    }
    if (by_id) { // it is not part of the text
        str_printf(&r->stop_reason, "%d", t->id);
    } else if (r->text) {
        tokenizer_stream_push(r->text, &t->id, 1, &piece);
    } else {
        openai_logprobs_text(NULL, t->id, &piece);
    }
    if (r->text && (t->flags & WIRE_LAST)) {
        tokenizer_stream_finish(r->text, &piece);
    }
    static const struct stops none;
    const struct stops *stops = r->n_out > r->want.min_tokens ? &r->want.stops : &none;
    bool hit = stops_push(stops, &r->stops, piece.data ? piece.data : "", piece.len, &r->shown);
    if (!hit && (t->flags & WIRE_LAST)) {
        stops_finish(&r->stops, &r->shown);
    }
    str_free(&piece);
    return hit;
}

static void take_token(struct stages_server *s, struct reply *r, const struct wire_token *t)
{
    const uint64_t n_left = tokens_left(r);
    r->n_out++;
    s->generated_tokens++;
    routing_done(&s->routing, r->replica, n_left - tokens_left(r));
    bool hit = take_text(r, t);
    r->ended = hit || (t->flags & WIRE_LAST) != 0;
    if (hit) {
        str_clear(&r->stop_reason);
        openai_reply_put_quoted(&r->stop_reason, r->want.stops.texts[r->stops.hit - 1]);
    }
    if (r->ended) {
        r->finish_reason = hit || (t->flags & WIRE_STOPPED) ? "stop" : "length";
    }
    if (r->want.stream && (r->shown.len > 0 || r->ended)) {
        make_event(r);
    }
    if (t->flags & WIRE_LAST) {
        leave_workers(s, r);
    } else if (hit) {
        cancel(s, r);
    }
    if (r->ended || r->events.len > 0) {
        httpd_wake(r->base.conn, clock_local_ns());
    }
}

static int take_tokens(struct stages_server *s, const struct comm_msg *m, struct err *e)
{
    const struct wire_token *t = m->data;
    if (m->n_bytes == 0 || m->n_bytes % sizeof *t != 0) {
        return err_set(e, ERR_ENV, "tokens of %zu bytes", m->n_bytes);
    }
    for (size_t i = 0; i < m->n_bytes / sizeof *t; i++) {
        struct reply *r = find(s, t[i].ticket);
        if (r) {
            take_token(s, r, &t[i]);
        }
    }
    return 0;
}

static int take_logprobs(struct stages_server *s, const struct comm_msg *m, struct err *e)
{
    const struct wire_logprobs *l = m->data;
    if (m->n_bytes < sizeof *l || l->n_top > WIRE_MAX_TOP ||
        m->n_bytes != sizeof *l + l->n_top * sizeof l->top[0]) {
        return err_set(e, ERR_ENV, "log-probabilities of %zu bytes", m->n_bytes);
    }
    struct reply *r = find(s, l->ticket);
    if (r) {
        openai_logprobs_add(&r->logprobs, l);
    }
    return 0;
}

static int take_reject(struct stages_server *s, const struct comm_msg *m, struct err *e)
{
    const struct wire_reject *j = m->data;
    if (m->n_bytes != sizeof *j) {
        return err_set(e, ERR_ENV, "reject of %zu bytes", m->n_bytes);
    }
    struct reply *r = find(s, j->ticket);
    if (r) {
        leave_workers(s, r);
        openai_front_refuse(&s->front, &r->base, 503,
                            "the queue is full, or the request can never fit");
    }
    return 0;
}

/* The newest point of a replica's load. */
static int take_journal(struct stages_server *s, const struct comm_msg *m, struct err *e)
{
    const struct wire_journal *j = m->data;
    if (m->n_bytes < sizeof *j) {
        return err_set(e, ERR_ENV, "journal of %zu bytes", m->n_bytes);
    }
    const size_t n =
        j->kind == WIRE_JOURNAL_SERIES ? (m->n_bytes - sizeof *j) / sizeof(struct series_point) : 0;
    struct series_point p;
    for (size_t i = 0; i < n; i++) {
        memcpy(&p, j->bytes + i * sizeof p, sizeof p);
        if (p.replica < s->cfg.layout.replicas) {
            s->loads[p.replica] = p;
        }
    }
    return 0;
}

static int take_message(struct stages_server *s, const struct comm_msg *m, struct err *e)
{
    switch (m->tag) {
    case WIRE_TOKENS:
        return take_tokens(s, m, e);
    case WIRE_LOGPROBS:
        return take_logprobs(s, m, e);
    case WIRE_REJECT:
        return take_reject(s, m, e);
    case WIRE_JOURNAL:
        return take_journal(s, m, e);
    default:
        return 0; // traces
    }
}

/* The comm's own pause is the waiting while something is under way; else the sockets' is. */
static int turn(void *arg, int64_t *wait_ns, struct err *e)
{
    struct stages_server *s = arg;
    int n = 0;
    for (; n < MESSAGES_PER_TURN; n++) {
        struct comm_msg m;
        int got = comm_poll(s->cfg.comm, &m, e);
        if (got < 0) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        if (take_message(s, &m, e)) {
            return err_wrap(e, "from rank %d", m.src);
        }
    }
    s->n_idle = n > 0 ? 0 : s->n_idle + 1;
    *wait_ns = s->n_live > 0 ? 0 : IDLE_WAIT_NS;
    return n == 0 ? comm_pause(s->cfg.comm, s->n_live > 0 ? s->n_idle : 0, e) : 0;
}

/* --- replies ----------------------------------------------------------------------------------------- */

static void put_head(struct stages_server *s, struct reply *r, struct str *out)
{
    const struct http_reply_head head = {
        .status = 200,
        .type = "text/event-stream; charset=utf-8",
        .framing = r->shape.chunked ? HTTP_REPLY_CHUNKED : HTTP_REPLY_TO_CLOSE,
        .keep_alive = r->base.keep_alive,
    };
    r->head_sent = true;
    http_reply_put_head(out, &head);
    if (r->shape.chat && s->cfg.serve->role_chunk) {
        openai_reply_put_role(&r->shape, out);
    }
}

static void due_stream(struct stages_server *s, struct reply *r, struct httpd_piece *p)
{
    const struct openai_reply_usage usage = {r->n_in, r->n_out};
    if (!r->head_sent) {
        put_head(s, r, p->out);
    }
    str_append(p->out, r->events.data ? r->events.data : "", r->events.len);
    str_clear(&r->events);
    p->next_ns = HTTPD_NEVER;
    if (r->ended) {
        openai_reply_put_end(&r->shape, p->out, r->want.include_usage ? &usage : NULL);
        p->then = r->shape.chunked && r->base.keep_alive ? HTTPD_END : HTTPD_CLOSE;
    }
}

static void due_whole(struct reply *r, struct httpd_piece *p)
{
    const struct openai_reply_usage usage = {r->n_in, r->n_out};
    struct str logprobs = {0}, text = {0};
    bool any = openai_logprobs_put(&r->logprobs, &logprobs);
    const struct openai_reply_more more = {
        .finish_reason = r->finish_reason,
        .logprobs = any ? logprobs.data : NULL,
        .stop_reason = r->stop_reason.data,
    };
    json_text_escape(&text, r->shown.data ? r->shown.data : "", r->shown.len);
    openai_reply_put_whole(&r->shape, &r->base.body, text.data ? text.data : "", text.len, &more,
                           &usage);
    http_reply_put(p->out, 200, "application/json", r->base.keep_alive, NULL, r->base.body.data,
                   r->base.body.len);
    p->then = r->base.keep_alive ? HTTPD_END : HTTPD_CLOSE;
    str_free(&logprobs);
    str_free(&text);
}

static void on_due(void *arg, struct openai_front_reply *base, struct httpd_piece *p)
{
    struct reply *r = (struct reply *)base;
    if (r->want.stream) {
        due_stream(arg, r, p);
    } else {
        due_whole(r, p);
    }
}

static void put_metrics(void *arg, struct str *out)
{
    const struct stages_server *s = arg;
    const struct openai_front *f = &s->front;
    double running = 0, waiting = 0, kv = 0, preempted = 0, queried = 0, hits = 0;
    for (int i = 0; i < s->cfg.layout.replicas; i++) {
        const struct series_point *p = &s->loads[i];
        running += p->running;
        waiting += p->waiting;
        kv += (double)p->kv_used / s->cfg.layout.replicas;
        preempted += p->n_preempted;
        queried += (double)p->prefix_query_tokens;
        hits += (double)p->prefix_hit_tokens;
    }
    openai_front_put_metric(f, out, "vllm:num_requests_running", "gauge", running);
    openai_front_put_metric(f, out, "vllm:num_requests_waiting", "gauge", waiting);
    openai_front_put_metric(f, out, "vllm:kv_cache_usage_perc", "gauge", kv);
    openai_front_put_metric(f, out, "vllm:num_preemptions_total", "counter", preempted);
    openai_front_put_metric(f, out, "vllm:prefix_cache_queries_total", "counter", queried);
    openai_front_put_metric(f, out, "vllm:prefix_cache_hits_total", "counter", hits);
    openai_front_put_metric(f, out, "vllm:prompt_tokens_total", "counter",
                            (double)s->prompt_tokens);
    openai_front_put_metric(f, out, "vllm:generation_tokens_total", "counter",
                            (double)s->generated_tokens);
    openai_front_put_metric(f, out, "vllm:request_success_total", "counter", (double)f->n_ok);
    openai_front_put_process_metrics(out, httpd_connections(s->httpd));
}

/* --- the server -------------------------------------------------------------------------------------- */

void stages_server_open(struct stages_server **out, const struct stages_server_config *cfg)
{
    struct stages_server *s = xcalloc(1, sizeof *s);
    s->cfg = *cfg;
    s->form = chat_form_of(cfg->tokenizer);
    routing_init(&s->routing, cfg->routing, cfg->layout.replicas, 0);
    s->loads = xcalloc((size_t)cfg->layout.replicas, sizeof *s->loads);
    s->front.server = (struct openai_front_server){
        .arg = s,
        .reply_bytes = sizeof(struct reply),
        .model = cfg->serve->model,
        .model_name = cfg->serve->model ? cfg->serve->model : cfg->model_name,
        .api_key = cfg->serve->api_key_env ? getenv(cfg->serve->api_key_env) : NULL,
        .version = cfg->version,
        .generate = generate,
        .metrics = put_metrics,
        .due = on_due,
        .ended = on_ended,
        .turn = turn,
    };
    *out = s;
}

struct httpd_app stages_server_app(struct stages_server *s)
{
    return openai_front_app(&s->front);
}

void stages_server_started(struct stages_server *s, struct httpd *h)
{
    s->httpd = h;
}

void stages_server_report(const struct stages_server *s)
{
    log_info("serve",
             "%lld requests: %lld answered, %lld refused, %lld left by their client; %lld tokens",
             (long long)s->n_requests, (long long)s->front.n_ok, (long long)s->front.n_refused,
             (long long)s->front.n_gone, (long long)s->generated_tokens);
}

void stages_server_close(struct stages_server *s)
{
    if (s) {
        free(s->slots);
        free(s->loads);
        routing_free(&s->routing);
        free(s);
    }
}
