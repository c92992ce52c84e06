#include "loadgen/client_openai.h"

#include "core/clock.h"
#include "core/hist.h"
#include "core/http.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/rng.h"
#include "loadgen/body.h"
#include "loadgen/event_form.h"
#include "loadgen/reply.h"
#include "loadgen/sent_list.h"
#include "loadgen/spread.h"
#include "loadgen/sse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

#define MAX_EVENT_BYTES  ((size_t)4 << 20) // of one event of a stream
#define MAX_ANSWER_BYTES ((size_t)64 << 20)
#define MAX_ERROR_BYTES  2048 // of what a server says about a failure
#define KEEP_BYTES       4096 // memory that a slot may hold on to
#define TOKEN_BYTES      6    // of text, about
#define ID_BYTES         40
#define OVER_NS          NS_PER_S // after [DONE] nothing is to come

struct call { // of the live request in the same slot
    struct client_openai *client;
    struct live *live;
    struct http_call *http;
    struct str payload; // until the answer begins
    struct sse sse;
    struct str text; // as escaped: of the tokens so far, of a whole answer, or what went wrong
    struct spread spread;
    struct sent_link unanswered, unfinished, over;
    int64_t t_submit_ns;
    int64_t t_over_ns; // of [DONE]
    int64_t t_ns;      // of the bytes under way
    int64_t usage_out;
    const char *bad; // what is wrong with the answer; NULL: nothing
    char id[ID_BYTES];
    bool is_begun; // the answer has
    bool is_text;  // text is of tokens or of a whole answer
    bool is_over;  // [DONE], or a finish_reason
};

struct client_openai {
    struct client base;
    const struct endpoint_config *cfg;
    struct endpoint endpoint;
    struct http *http;
    struct live_table *table;
    const struct tokenizer *tok;
    struct body body;
    struct call *calls; // (n_slots), a reserved mapping
    uint32_t n_slots;
    struct sent_list unanswered, unfinished; // by time of sending
    struct sent_list over;                   // by time of [DONE]: only the answer's end is to come
    struct event_form form;                  // of an event that went its whole way
    struct str *spare;                       // (n_spare) payloads' memory
    size_t n_spare, cap_spare;
    struct str plain;     // of a text under way
    struct token_ids ids; // of a text under way
    uint32_t *gaps_us;    // (live_room(context))
    struct wire_step step;
    bool is_told[OUTCOME_N]; // in this step
};

static struct client_openai *openai_of(struct client *c)
{
    return (struct client_openai *)c;
}

static struct call *call_of(struct client_openai *o, const struct live *l)
{
    return &o->calls[l->ticket.slot];
}

/* --- memory that goes round -------------------------------------------------------------------------- */

/* The body has been sent: its memory serves another one. */
static void release_payload(struct call *c)
{
    struct client_openai *o = c->client;
    if (c->payload.data == NULL) {
        return;
    }
    if (o->n_spare == o->cap_spare) {
        o->cap_spare = o->cap_spare > 0 ? 2 * o->cap_spare : 64;
        o->spare = xrealloc(o->spare, o->cap_spare * sizeof *o->spare);
    }
    o->spare[o->n_spare++] = c->payload;
    c->payload = (struct str){0};
}

static void keep_payload(struct call *c, struct str *payload)
{
    struct client_openai *o = c->client;
    struct str spare = {0};
    if (o->n_spare > 0) {
        spare = o->spare[--o->n_spare];
        str_clear(&spare);
    }
    c->payload = *payload;
    *payload = spare;
}

static void trim(struct str *s)
{
    if (s->cap > KEEP_BYTES) {
        str_free(s);
    }
}

/* --- one event ---------------------------------------------------------------------------------------- */

static void take_usage(struct call *c, const struct reply *r)
{
    struct record *rec = &c->live->rec;
    if (r->completion_tokens >= 0) {
        c->usage_out = r->completion_tokens;
    }
    if (r->prompt_tokens >= 0 && r->prompt_tokens < UINT32_MAX) {
        rec->n_in_usage = (uint32_t)r->prompt_tokens;
    }
}

/* How many tokens this event brings: as the server counts, where it does so in every event. */
static uint32_t tokens_of(const struct call *c, const struct reply *r)
{
    int64_t so_far = c->live->rec.n_out;
    if (c->client->cfg->usage != ENDPOINT_USAGE_CONTINUOUS || r->completion_tokens <= so_far) {
        return 1;
    }
    int64_t n = r->completion_tokens - so_far;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static void take_text(struct call *c, const struct reply *r)
{
    struct client_openai *o = c->client;
    struct record *rec = &c->live->rec;
    bool is_first = rec->n_out == 0;
    if (c->text.len > MAX_ANSWER_BYTES) {
        c->bad = "an answer that is too long";
        return;
    }
    if (!live_tokens(o->table, c->live, tokens_of(c, r), c->t_ns)) {
        c->bad = "more tokens than were asked for";
        return;
    }
    if (is_first) {
        sent_list_remove(&c->unanswered);
    }
    if (is_first && r->content.len == 0) {
        rec->t_content_ns = RECORD_NONE; // reasoning so far
    } else if (rec->t_content_ns == RECORD_NONE && r->content.len > 0) {
        rec->t_content_ns = c->t_ns;
    }
    if (o->tok) {
        str_append(&c->text, r->reasoning.data, r->reasoning.len);
        str_append(&c->text, r->content.data, r->content.len);
    }
    spread_add(&c->spread, (uint32_t)(r->reasoning.len + r->content.len));
}

static void say_bad(struct call *c, const char *what, const char *text, size_t len)
{
    c->bad = what;
    c->is_text = false;
    str_clear(&c->text);
    str_append(&c->text, text, len < MAX_ERROR_BYTES ? len : MAX_ERROR_BYTES);
}

static void take_reply(struct call *c, const struct reply *r)
{
    take_usage(c, r);
    if (r->content.len + r->reasoning.len > 0) {
        take_text(c, r);
    }
    c->is_over = c->is_over || r->is_done || r->is_finished;
    if (r->is_done && !c->over.before) { // a second one says nothing new
        c->t_over_ns = c->t_ns;
        sent_list_add(&c->client->over, &c->over, c->live->ticket.slot);
    }
}

static void take_event(void *arg, const char *data, size_t len)
{
    struct call *c = arg;
    struct reply r;
    if (c->bad || len == 0) {
        return;
    }
    if (!reply_scan(data, len, &r)) {
        say_bad(c, "an event that is not JSON", data, len);
    } else if (r.is_error) {
        say_bad(c, "an error in the stream", r.message.len > 0 ? r.message.data : data,
                r.message.len > 0 ? r.message.len : len);
    } else {
        event_form_learn(&c->client->form, data, len, &r);
        take_reply(c, &r);
    }
}

/* Events that are known by the form of the last one. Their bytes. */
static size_t take_alike(struct call *c, const char *bytes, size_t n)
{
    const char *at = bytes, *end = bytes + n;
    struct reply r;
    for (size_t used; !c->bad && (used = event_form_match(&c->client->form, at, end, &r)) > 0;) {
        take_reply(c, &r);
        at += used;
    }
    return (size_t)(at - bytes);
}

/* --- bytes of an answer --------------------------------------------------------------------------------- */

static bool is_event_stream(const char *type)
{
    return strncasecmp(type, "text/event-stream", strlen("text/event-stream")) == 0;
}

static void begin_answer(struct call *c, const struct http_call *http)
{
    c->is_begun = true;
    if (http_is_sent(http)) { // else it is released in the end
        release_payload(c);
    }
    live_byte(c->live, c->t_ns);
    c->live->rec.http_status = (uint16_t)http_status(http);
    if (c->live->rec.http_status == 200 && c->client->cfg->stream &&
        !is_event_stream(http_content_type(http))) {
        c->bad = "not a stream of events";
    }
    c->is_text = c->live->rec.http_status == 200 && !c->bad;
}

static int on_data(void *arg, const struct http_call *http, const char *bytes, size_t n,
                   int64_t t_ns)
{
    struct call *c = arg;
    c->t_ns = t_ns;
    if (!c->is_begun) {
        begin_answer(c, http);
    }
    if (c->is_text && c->client->cfg->stream) {
        size_t used = sse_is_between(&c->sse) ? take_alike(c, bytes, n) : 0;
        if (used < n && sse_feed(&c->sse, bytes + used, n - used, take_event, c) != 0) {
            say_bad(c, "an event that is too long", "", 0);
        }
        return c->bad ? -1 : 0;
    }
    size_t most = c->is_text ? MAX_ANSWER_BYTES : MAX_ERROR_BYTES;
    size_t left = most > c->text.len ? most - c->text.len : 0;
    str_append(&c->text, bytes, n < left ? n : left);
    if (c->is_text && n > left) {
        say_bad(c, "an answer that is too long", "", 0);
    }
    return c->bad && n > left ? -1 : 0;
}

/* --- the end of an answer ------------------------------------------------------------------------------- */

/* An answer in one piece: all its tokens came with its last bytes. */
static void take_whole(struct call *c)
{
    struct reply r;
    struct str answer = c->text;
    c->text = (struct str){0};
    if (!reply_scan(answer.len > 0 ? answer.data : "", answer.len, &r) || r.is_done) {
        say_bad(c, "an answer that is not JSON", answer.data, answer.len);
    } else if (r.is_error) {
        say_bad(c, "an error with status 200", r.message.data, r.message.len);
    } else {
        take_usage(c, &r);
        c->is_over = true;
        if (r.content.len + r.reasoning.len > 0) {
            take_text(c, &r);
        }
    }
    str_free(&answer);
}

/* Tokens of the text, by the tokenizer. Adds the tokens of each event's own text to the spread. */
static uint32_t count_tokens(struct call *c)
{
    struct client_openai *o = c->client;
    uint32_t at = 0;
    for (uint32_t i = 0; i < c->spread.n; i++) {
        const struct json_text piece = {c->text.data + at, c->spread.weights[i]};
        at += c->spread.weights[i];
        str_clear(&o->plain);
        json_text_unescape(piece, &o->plain);
        o->ids.n = 0;
        tokenizer_encode(o->tok, o->plain.data ? o->plain.data : "", o->plain.len, false, &o->ids);
        c->spread.weights[i] = (uint32_t)o->ids.n;
    }
    str_clear(&o->plain);
    json_text_unescape((struct json_text){c->text.data, c->text.len}, &o->plain);
    o->ids.n = 0;
    tokenizer_encode(o->tok, o->plain.data ? o->plain.data : "", o->plain.len, false, &o->ids);
    return (uint32_t)o->ids.n;
}

/* The output's tokens: as the server says, else as counted here, else one per event. */
static void count_output(struct call *c)
{
    struct client_openai *o = c->client;
    struct record *rec = &c->live->rec;
    if (c->usage_out >= 0 && c->usage_out < UINT32_MAX) {
        rec->n_out_usage = (uint32_t)c->usage_out;
    }
    if (rec->n_chunks == 0) {
        return;
    }
    if (o->tok && c->is_text && c->text.len > 0) { // else the text is an error's
        rec->n_out_local = count_tokens(c);
    }
    uint32_t n = rec->n_out_usage != UINT32_MAX   ? rec->n_out_usage
                 : rec->n_out_local != UINT32_MAX ? rec->n_out_local
                                                  : rec->n_out;
    if (n > 0 && n != rec->n_out && rec->n_out == rec->n_chunks && c->spread.n == rec->n_chunks) {
        live_recount(o->table, c->live, spread_tokens(&c->spread, n), o->gaps_us);
    }
}

/* What went wrong, in one line, the first time in a step. */
static void tell(struct call *c, enum outcome outcome, const char *what)
{
    struct client_openai *o = c->client;
    if (outcome == OUTCOME_OK || o->is_told[outcome]) {
        return;
    }
    struct str said = {0};
    o->is_told[outcome] = true;
    if (!c->is_text) {
        endpoint_quote(&o->endpoint, c->text.data ? c->text.data : "", c->text.len, 200, &said);
    }
    log_warn("endpoint", "request %s: %s: %s%s%s", c->id, record_outcome_names[outcome], what,
             said.len > 0 ? ": " : "", said.len > 0 ? said.data : "");
    str_free(&said);
}

/* The request is over: its slot's memory is ready for another one. */
static void forget(struct call *c)
{
    sent_list_remove(&c->unanswered);
    sent_list_remove(&c->unfinished);
    sent_list_remove(&c->over);
    release_payload(c);
    sse_reset(&c->sse);
    trim(&c->sse.line);
    trim(&c->sse.data);
    trim(&c->text);
    spread_clear(&c->spread);
    c->http = NULL;
    c->live = NULL;
}

static void finish(struct call *c, enum outcome outcome, int error, const char *what, int64_t t_ns)
{
    struct client_openai *o = c->client;
    struct live *l = c->live;
    count_output(c);
    tell(c, outcome, what);
    forget(c);
    live_end(o->table, l, outcome, error, t_ns);
}

static enum outcome outcome_of(struct call *c, const struct http_end *end, const char **what)
{
    *what = end->message;
    switch (end->fate) {
    case HTTP_UNRESOLVED:
    case HTTP_REFUSED:
    case HTTP_TLS:
        return OUTCOME_CONNECT;
    case HTTP_BROKEN:
    case HTTP_FAILED:
        return end->status == 0 ? OUTCOME_CONNECT : OUTCOME_TRUNCATED;
    case HTTP_STOPPED:
    case HTTP_ANSWERED:
        break;
    }
    if (end->status != 200) {
        *what = "status";
        return OUTCOME_HTTP_STATUS;
    }
    if (c->bad) {
        *what = c->bad;
        return OUTCOME_BAD_STREAM;
    }
    *what = c->live->rec.n_out == 0 ? "no token came" : "it ended before it was finished";
    return c->is_over && c->live->rec.n_out > 0 ? OUTCOME_OK : OUTCOME_TRUNCATED;
}

/* The library knows when the head of the answer came, which may be long before its body; its clock is read
 * after the bytes, ours before. */
static void take_first_byte(struct record *rec, const struct http_end *end)
{
    int64_t t_ns = rec->t_send_ns + end->first_byte_ns;
    if (end->first_byte_ns >= 0 && (rec->t_byte_ns == RECORD_NONE || t_ns < rec->t_byte_ns)) {
        rec->t_byte_ns = t_ns;
    }
}

static void on_end(void *arg, const struct http_end *end)
{
    struct call *c = arg;
    struct record *rec = &c->live->rec;
    const char *what;
    char status[32];
    rec->http_status = (uint16_t)end->status;
    take_first_byte(rec, end);
    if (end->fate == HTTP_ANSWERED && end->status == 200 && !c->bad) {
        if (!c->client->cfg->stream) {
            take_whole(c);
        } else if (sse_end(&c->sse, take_event, c) != 0) {
            say_bad(c, "an event that is too long", "", 0);
        }
    }
    enum outcome outcome = outcome_of(c, end, &what);
    if (outcome == OUTCOME_HTTP_STATUS) {
        snprintf(status, sizeof status, "status %d", end->status);
        what = status;
    }
    finish(c, outcome, outcome == OUTCOME_OK ? 0 : end->code, what, end->t_ns);
}

/* --- timeouts ------------------------------------------------------------------------------------------- */

static void end_overdue(struct client_openai *o, struct sent_list *list, int64_t timeout_ns,
                        enum outcome outcome, int64_t now_ns)
{
    for (uint32_t i; (i = sent_list_first(list)) != SENT_NONE;) {
        struct call *c = &o->calls[i];
        if (now_ns - c->live->rec.t_send_ns < timeout_ns) {
            return;
        }
        c->live->rec.http_status = (uint16_t)http_status(c->http);
        http_cancel(c->http);
        finish(c, outcome, 0, "the time set for it is over", now_ns);
    }
}

/* A server that does not end its answer after [DONE] has said all. */
static void end_over(struct client_openai *o, int64_t now_ns)
{
    for (uint32_t i; (i = sent_list_first(&o->over)) != SENT_NONE;) {
        struct call *c = &o->calls[i];
        if (now_ns - c->t_over_ns < OVER_NS) {
            return;
        }
        const struct http_end end = {.fate = HTTP_ANSWERED,
                                     .t_ns = now_ns,
                                     .status = http_status(c->http),
                                     .message = "",
                                     .first_byte_ns = -1};
        http_cancel(c->http);
        on_end(c, &end);
    }
}

static void check_timeouts(struct client_openai *o)
{
    int64_t now_ns = clock_now_ns();
    end_over(o, now_ns);
    end_overdue(o, &o->unanswered, o->cfg->first_timeout_ns, OUTCOME_TIMEOUT_FIRST, now_ns);
    end_overdue(o, &o->unfinished, o->cfg->total_timeout_ns, OUTCOME_TIMEOUT_TOTAL, now_ns);
}

/* --- the client's ops ------------------------------------------------------------------------------------ */

static void openai_prepare(struct client *client, const struct dataset *ds, uint64_t seed,
                           uint64_t event, const struct prompt *p, struct str *payload)
{
    body_write(&openai_of(client)->body, ds, seed, event, p, payload);
}

static void begin_call(struct client_openai *o, struct call *c, struct live *l)
{
    c->client = o;
    c->live = l;
    c->sse.max_bytes = MAX_EVENT_BYTES;
    c->usage_out = -1;
    c->bad = NULL;
    c->is_begun = c->is_text = c->is_over = false;
    str_clear(&c->text);
    spread_reserve(&c->spread, l->rec.n_out_req);
    str_reserve(&c->text, o->tok ? (size_t)l->rec.n_out_req * TOKEN_BYTES : 0);
    snprintf(c->id, sizeof c->id, "%" PRIu32 "-%" PRIu64, o->step.index, l->rec.id);
}

static uint32_t us_between(int64_t from_ns, int64_t to_ns)
{
    int64_t us = (to_ns - from_ns) / NS_PER_US;
    return us < 0 ? 0 : us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

/* It is sent. Waiting for its turn to connect (target.connects) was asked for, like a wait at the cap. */
static void on_begins(void *arg, int64_t t_ns)
{
    struct call *c = arg;
    struct client_openai *o = c->client;
    uint32_t slot = c->live->ticket.slot;
    if (c->http) { // http_start returned long ago
        c->live->rec.cap_wait_us += us_between(c->t_submit_ns, t_ns);
    }
    live_sent(c->live, t_ns);
    sent_list_add(&o->unanswered, &c->unanswered, slot);
    sent_list_add(&o->unfinished, &c->unfinished, slot);
}

static void openai_submit(struct client *client, struct live *l, struct str *payload)
{
    struct client_openai *o = openai_of(client);
    struct call *c = call_of(o, l);
    begin_call(o, c, l);
    keep_payload(c, payload);
    size_t url = endpoint_pick(&o->endpoint, rng_uniform(o->step.seed, RNG_URL, l->rec.id, 0));
    l->rec.replica = (uint16_t)url;
    const struct http_request r = {
        .url = o->endpoint.urls[url],
        .headers = o->endpoint.headers,
        .id = c->id,
        .body = c->payload.data,
        .n_body_bytes = c->payload.len,
        .arg = c,
        .begins = on_begins,
        .data = on_data,
        .end = on_end,
    };
    c->t_submit_ns = clock_now_ns();
    c->http = http_start(o->http, &r);
}

static int openai_poll(struct client *client, struct err *e)
{
    struct client_openai *o = openai_of(client);
    (void)e;
    int n = http_poll(o->http);
    check_timeouts(o);
    return n;
}

static int openai_wait(struct client *client, int64_t wait_ns, struct err *e)
{
    struct client_openai *o = openai_of(client);
    (void)e;
    int n = http_wait(o->http, wait_ns);
    check_timeouts(o);
    return n;
}

static void openai_begin_step(struct client *client, const struct wire_step *step)
{
    struct client_openai *o = openai_of(client);
    o->step = *step;
    memset(o->is_told, 0, sizeof o->is_told);
    hist_reset(&http_times(o->http)->to_read);
    hist_reset(&http_times(o->http)->handling);
}

static void openai_cancel(struct client *client, struct live *l)
{
    struct call *c = call_of(openai_of(client), l);
    if (l->rec.t_send_ns == RECORD_NONE) { // held back to the end
        l->rec.cap_wait_us += us_between(c->t_submit_ns, clock_now_ns()) + 1;
    }
    http_cancel(c->http);
    count_output(c);
    forget(c);
}

static struct client_times openai_times(struct client *client)
{
    const struct http_times *t = http_times(openai_of(client)->http);
    return (struct client_times){
        .stamp_ns = {(uint64_t)hist_quantile(&t->to_read, 0.5),
                     (uint64_t)hist_quantile(&t->to_read, 0.99)},
        .chunk_ns = {(uint64_t)hist_quantile(&t->handling, 0.5),
                     (uint64_t)hist_quantile(&t->handling, 0.99)},
    };
}

static void openai_destroy(struct client *client)
{
    struct client_openai *o = openai_of(client);
    http_close(o->http);
    for (uint32_t i = 0; i < o->n_slots && o->calls[i].client; i++) { // slots are taken in order
        struct call *c = &o->calls[i];
        str_free(&c->payload);
        sse_free(&c->sse);
        str_free(&c->text);
        spread_free(&c->spread);
    }
    for (size_t i = 0; i < o->n_spare; i++) {
        str_free(&o->spare[i]);
    }
    free(o->spare);
    munmap(o->calls, o->n_slots * sizeof *o->calls);
    endpoint_close(&o->endpoint);
    body_free(&o->body);
    str_free(&o->plain);
    token_ids_free(&o->ids);
    free(o->gaps_us);
    free(o);
}

static const struct client_ops openai_ops = {
    .name = "openai",
    .prepare = openai_prepare,
    .submit = openai_submit,
    .poll = openai_poll,
    .wait = openai_wait,
    .begin_step = openai_begin_step,
    .cancel = openai_cancel,
    .times = openai_times,
    .destroy = openai_destroy,
};

int client_openai_create(struct client **out, const struct endpoint_config *cfg, const char *model,
                         bool ignore_eos, struct live_table *t, uint32_t n_slots, uint32_t context,
                         const struct tokenizer *tok, struct err *e)
{
    struct client_openai *o = xcalloc(1, sizeof *o);
    o->base.ops = &openai_ops;
    o->cfg = cfg;
    o->table = t;
    o->tok = tok;
    o->n_slots = n_slots;
    if (endpoint_open(&o->endpoint, cfg, e) != 0) {
        free(o);
        return -1;
    }
    if (http_open(&o->http, &o->endpoint.http, e) != 0) {
        goto close_endpoint;
    }
    o->calls = mmap(NULL, n_slots * sizeof *o->calls, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    o->gaps_us = malloc(live_room(context) * sizeof *o->gaps_us);
    if (o->calls == MAP_FAILED || !o->gaps_us) {
        err_set(e, ERR_ENV, "no memory for %" PRIu32 " requests in flight", n_slots);
        goto free_memory;
    }
    sent_list_init(&o->unanswered);
    sent_list_init(&o->unfinished);
    sent_list_init(&o->over);
    body_init(&o->body, cfg, model, ignore_eos);
    o->base.is_stamped = true;
    for (size_t i = 0; i < cfg->urls.n; i++) {
        o->base.is_stamped = o->base.is_stamped && http_is_stamped(o->http, o->endpoint.urls[i]);
    }
    *out = &o->base;
    return 0;
free_memory:
    if (o->calls != MAP_FAILED) {
        munmap(o->calls, n_slots * sizeof *o->calls);
    }
    free(o->gaps_us);
    http_close(o->http);
close_endpoint:
    endpoint_close(&o->endpoint);
    free(o);
    return -1;
}
