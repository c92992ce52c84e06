#include "tests/support/faults.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/http_reply.h"
#include "core/units.h"
#include "workers/openai_reply.h"

#define DEFAULT_WAIT_NS (300 * NS_PER_MS)
#define HUGE_BYTES      (1 << 20)
#define SSE_TYPE        "text/event-stream; charset=utf-8"

/* What a fault is written with: the script, the reply's shape, and the time in its name. */
struct pen {
    struct faults_script *s;
    const struct faults_request *r;
    struct openai_reply reply;
    int64_t wait_ns;     // of the name, or the default
    int64_t cut_wait_ns; // before the packet that is being written
    struct str *out;     // &s->bytes
};

static void put(struct pen *p, const char *text)
{
    str_puts(p->out, text);
}

/* End the packet; what follows is sent wait_ns later. */
static void cut(struct pen *p, int64_t wait_ns)
{
    struct faults_script *s = p->s;
    size_t before = s->n_cuts ? s->cuts[s->n_cuts - 1].end : 0;
    if (p->out->len > before && s->n_cuts < FAULTS_MAX_CUTS - 1) {
        s->cuts[s->n_cuts++] = (struct faults_cut){p->out->len, p->cut_wait_ns};
        p->cut_wait_ns = 0;
    }
    p->cut_wait_ns += wait_ns;
}

static void ends(struct pen *p, enum httpd_then then)
{
    p->s->then = then;
}

static void head_with(struct pen *p, const char *type, enum http_reply_body framing, size_t length,
                      bool keep_alive, const char *more)
{
    const struct http_reply_head h = {200, type, framing, length, keep_alive, more};
    http_reply_put_head(p->out, &h);
}

static void head(struct pen *p)
{
    head_with(p, SSE_TYPE, HTTP_REPLY_CHUNKED, 0, true, NULL);
}

static void token(struct pen *p, const char *text, bool last)
{
    const struct openai_reply_more more = {.finish_reason = last ? "length" : NULL};
    openai_reply_put_event(&p->reply, p->out, text, strlen(text), &more);
}

/* Tokens from number `from` to the last. */
static void tokens(struct pen *p, int64_t from)
{
    for (int64_t i = from; i < p->r->n_tokens; i++) {
        token(p, " word", i == p->r->n_tokens - 1);
    }
}

static void end_stream(struct pen *p, bool usage)
{
    const struct openai_reply_usage u = {p->r->prompt_tokens, p->r->n_tokens};
    openai_reply_put_end(&p->reply, p->out, usage ? &u : NULL);
}

static void finish(struct pen *p, int64_t from)
{
    tokens(p, from);
    end_stream(p, false);
    ends(p, HTTPD_END);
}

/* An SSE body as text, without any chunk framing. */
static void body(struct pen *p, struct str *to)
{
    struct str *out = p->out;
    p->out = to;
    p->reply.chunked = false;
    tokens(p, 0);
    end_stream(p, false);
    p->reply.chunked = true;
    p->out = out;
}

static void status(struct pen *p, int code, const char *more)
{
    struct str text = {0};
    openai_reply_put_error(&text, code, "scripted fault");
    http_reply_put(p->out, code, "application/json", true, more, text.data, text.len);
    str_free(&text);
    ends(p, HTTPD_END);
}

/* --- times --------------------------------------------------------------------------------------- */

static void slow_first(struct pen *p)
{
    head(p);
    cut(p, p->wait_ns);
    finish(p, 0);
}

static void slow_head(struct pen *p)
{
    head(p);
    size_t n = p->out->len;
    for (size_t i = 1; i <= n && p->s->n_cuts < FAULTS_MAX_CUTS - 1; i++) {
        p->s->cuts[p->s->n_cuts++] = (struct faults_cut){i, p->wait_ns / (int64_t)n};
    }
    finish(p, 0);
}

static void stall(struct pen *p)
{
    head(p);
    token(p, " word", false);
    token(p, " word", false);
    cut(p, p->wait_ns);
    finish(p, 2);
}

static void stall_forever(struct pen *p)
{
    head(p);
    token(p, " word", false);
    token(p, " word", false);
    ends(p, HTTPD_MORE);
}

static void never(struct pen *p)
{
    ends(p, HTTPD_MORE);
}

static void head_only(struct pen *p)
{
    head(p);
    ends(p, HTTPD_MORE);
}

/* --- where packets are cut ------------------------------------------------------------------------ */

/* Cut after `n` bytes of the first `text` behind `from`. */
static void cut_inside(struct pen *p, size_t from, const char *text, size_t n)
{
    size_t rest = p->out->len;
    char *at = memmem(p->out->data + from, rest - from, text, strlen(text));
    p->out->len = (size_t)(at - p->out->data) + n;
    cut(p, 20 * NS_PER_MS);
    p->out->len = rest;
}

static void split_utf8(struct pen *p)
{
    head(p);
    size_t from = p->out->len;
    token(p, " caf\xc3\xa9 \xe6\xb0\xb4", false);
    cut_inside(p, from, "\xc3\xa9", 1);
    cut_inside(p, from, "\xe6\xb0\xb4", 2);
    finish(p, 1);
}

static void split_data(struct pen *p)
{
    head(p);
    size_t from = p->out->len;
    token(p, " word", false);
    cut_inside(p, from, "data: ", 2);
    from = p->out->len;
    token(p, " word", false);
    cut_inside(p, from, "data: ", 5);
    cut_inside(p, from, "\n\n", 1);
    finish(p, 2);
}

static void bytewise(struct pen *p)
{
    head(p);
    finish(p, 0);
    size_t n = p->out->len < FAULTS_MAX_CUTS - 1 ? p->out->len : FAULTS_MAX_CUTS - 2;
    for (size_t i = 1; i <= n; i++) {
        p->s->cuts[p->s->n_cuts++] = (struct faults_cut){i, 0};
    }
}

/* Chunks of 7 bytes that know nothing of events, and size lines cut from their data. */
static void odd_chunks(struct pen *p)
{
    struct str text = {0};
    head(p);
    body(p, &text);
    for (size_t at = 0; at < text.len; at += 7) {
        size_t n = text.len - at < 7 ? text.len - at : 7;
        str_printf(p->out, "%zx\r\n", n);
        cut(p, 0);
        str_append(p->out, text.data + at, n);
        put(p, "\r\n");
    }
    put(p, HTTP_REPLY_LAST_CHUNK);
    str_free(&text);
    ends(p, HTTPD_END);
}

/* Leading zeros, upper case, extensions, trailers: all allowed by RFC 9112 7.1. */
static void chunk_extensions(struct pen *p)
{
    struct str text = {0};
    head(p);
    body(p, &text);
    str_printf(p->out, "000%zX;name=\"a;b\";other\r\n", text.len);
    str_append(p->out, text.data, text.len);
    put(p, "\r\n000;last\r\nX-Trailer: yes\r\n\r\n");
    str_free(&text);
    ends(p, HTTPD_END);
}

static void bad_chunk(struct pen *p)
{
    head(p);
    token(p, " word", false);
    put(p, "zz\r\nno size\r\n");
    ends(p, HTTPD_CLOSE);
}

static void events_in_chunk(struct pen *p)
{
    struct str text = {0};
    head(p);
    body(p, &text);
    http_reply_put_chunk(p->out, text.data, text.len);
    put(p, HTTP_REPLY_LAST_CHUNK);
    str_free(&text);
    ends(p, HTTPD_END);
}

/* --- what is in the events ------------------------------------------------------------------------ */

static void line_ends(struct pen *p, const char *line_end)
{
    struct str text = {0};
    head(p);
    body(p, &text);
    struct str changed = {0};
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '\n') {
            str_puts(&changed, line_end);
        } else {
            str_append(&changed, text.data + i, 1);
        }
    }
    http_reply_put_chunk(p->out, changed.data, changed.len);
    put(p, HTTP_REPLY_LAST_CHUNK);
    str_free(&changed);
    str_free(&text);
    ends(p, HTTPD_END);
}

static void crlf(struct pen *p)
{
    line_ends(p, "\r\n");
}

static void cr(struct pen *p)
{
    line_ends(p, "\r");
}

static void tokens_in_event(struct pen *p)
{
    head(p);
    for (int64_t i = 0; i < p->r->n_tokens; i += 4) {
        token(p, " one two three four", i + 4 >= p->r->n_tokens);
    }
    end_stream(p, true);
    ends(p, HTTPD_END);
}

static void role_only(struct pen *p)
{
    head(p);
    openai_reply_put_role(&p->reply, p->out);
    cut(p, p->wait_ns);
    finish(p, 0);
}

static void empty_events(struct pen *p)
{
    head(p);
    token(p, "", false);
    cut(p, p->wait_ns);
    for (int64_t i = 0; i < p->r->n_tokens; i++) {
        token(p, " word", false);
        token(p, "", i == p->r->n_tokens - 1);
    }
    end_stream(p, false);
    ends(p, HTTPD_END);
}

static void usage_last(struct pen *p)
{
    head(p);
    tokens(p, 0);
    end_stream(p, true);
    ends(p, HTTPD_END);
}

static void chunk(struct pen *p, const char *text)
{
    http_reply_put_chunk(p->out, text, strlen(text));
}

static void comments(struct pen *p)
{
    head(p);
    chunk(p, ": ping\n\n:\n\nretry: 100\n\nevent: message\nid: 7\n");
    for (int64_t i = 0; i < p->r->n_tokens; i++) {
        token(p, " word", i == p->r->n_tokens - 1);
        chunk(p, ": data: {\"no\": \"event\"}\n\nevent: token\n");
    }
    end_stream(p, false);
    ends(p, HTTPD_END);
}

static void reasoning(struct pen *p)
{
    struct str event = {0};
    head(p);
    for (int i = 0; i < 3; i++) {
        str_clear(&event);
        str_append(&event, p->reply.prefix.data, p->reply.prefix.len);
        str_puts(&event, "{\"index\":0,\"delta\":{\"reasoning_content\":\" hm\"},\"logprobs\":null,"
                         "\"finish_reason\":null}]}\n\n");
        http_reply_put_chunk(p->out, event.data, event.len);
        cut(p, p->wait_ns / 3);
    }
    str_free(&event);
    finish(p, 0);
}

/* Usage in every event, and tokens that do not follow from the length of the text. */
static void usage_each(struct pen *p)
{
    const int64_t so_far[] = {p->r->n_tokens - 3, p->r->n_tokens - 1, p->r->n_tokens};
    struct str event = {0};
    head(p);
    for (int i = 0; i < 3; i++) {
        str_clear(&event);
        str_append(&event, p->reply.prefix.data, p->reply.prefix.len);
        str_printf(&event,
                   "{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":null}],\"usage\":"
                   "{\"prompt_tokens\":1,\"completion_tokens\":%" PRId64 "}}\n\n",
                   i == 2 ? "a long word" : " a", so_far[i]);
        http_reply_put_chunk(p->out, event.data, event.len);
        cut(p, p->wait_ns / 3);
    }
    str_free(&event);
    end_stream(p, true);
    ends(p, HTTPD_END);
}

static void bad_json(struct pen *p)
{
    head(p);
    token(p, " word", false);
    chunk(p, "data: {\"choices\":[{\"text\":\" wo\n\n");
    finish(p, 1);
}

static void bad_path(struct pen *p)
{
    head(p);
    for (int i = 0; i < 5; i++) {
        token(p, " word", false);
    }
    chunk(p, "data: oops C:\\path\n\n");
    finish(p, 5);
}

static void error_in_stream(struct pen *p)
{
    struct str text = {0};
    head(p);
    token(p, " word", false);
    str_puts(&text, "data: ");
    openai_reply_put_error(&text, 500, "scripted fault");
    str_puts(&text, "\n\n");
    http_reply_put_chunk(p->out, text.data, text.len);
    str_free(&text);
    end_stream(p, false);
    ends(p, HTTPD_END);
}

static void huge_line(struct pen *p)
{
    char *text = malloc(HUGE_BYTES + 1);
    memset(text, 'x', HUGE_BYTES);
    text[HUGE_BYTES] = '\0';
    head(p);
    token(p, text, false);
    free(text);
    finish(p, 1);
}

/* --- how it ends ---------------------------------------------------------------------------------- */

static void no_done(struct pen *p)
{
    head(p);
    tokens(p, 0);
    put(p, HTTP_REPLY_LAST_CHUNK);
    ends(p, HTTPD_END);
}

static void late_done(struct pen *p)
{
    head(p);
    tokens(p, 0);
    cut(p, p->wait_ns);
    end_stream(p, false);
    ends(p, HTTPD_END);
}

static void two_dones(struct pen *p)
{
    head(p);
    tokens(p, 0);
    chunk(p, "data: [DONE]\n\n");
    chunk(p, "data: [DONE]\n\n");
    end_stream(p, false);
    ends(p, HTTPD_END);
}

static void truncated(struct pen *p)
{
    head(p);
    token(p, " word", false);
    token(p, " word", false);
    ends(p, HTTPD_CLOSE);
}

static void half_event(struct pen *p)
{
    head(p);
    token(p, " word", false);
    token(p, " word", false);
    p->out->len -= 30;
    ends(p, HTTPD_CLOSE);
}

static void reset_early(struct pen *p)
{
    ends(p, HTTPD_RESET);
}

static void reset_mid(struct pen *p)
{
    head(p);
    token(p, " word", false);
    token(p, " word", false);
    cut(p, 50 * NS_PER_MS); // so that the tokens are read before the reset drops them
    ends(p, HTTPD_RESET);
}

static void close_early(struct pen *p)
{
    ends(p, HTTPD_CLOSE);
}

static void close_after(struct pen *p)
{
    head_with(p, SSE_TYPE, HTTP_REPLY_CHUNKED, 0, false, NULL);
    finish(p, 0);
    ends(p, HTTPD_CLOSE);
}

/* Ends well; then the idle connection is closed without a word. */
static void idle_close(struct pen *p)
{
    head(p);
    finish(p, 0);
    p->s->idle_ns = p->wait_ns;
}

/* --- other framings and kinds --------------------------------------------------------------------- */

static void http10(struct pen *p)
{
    put(p, "HTTP/1.0 200 OK\r\nContent-Type: " SSE_TYPE "\r\n\r\n");
    body(p, p->out);
    ends(p, HTTPD_CLOSE);
}

static void with_length(struct pen *p)
{
    struct str text = {0};
    body(p, &text);
    head_with(p, SSE_TYPE, HTTP_REPLY_LENGTH, text.len, true, NULL);
    str_append(p->out, text.data, text.len);
    str_free(&text);
    ends(p, HTTPD_END);
}

static void short_length(struct pen *p)
{
    struct str text = {0};
    body(p, &text);
    head_with(p, SSE_TYPE, HTTP_REPLY_LENGTH, text.len + 100, true, NULL);
    str_append(p->out, text.data, text.len);
    str_free(&text);
    ends(p, HTTPD_CLOSE);
}

static void not_sse(struct pen *p)
{
    const struct openai_reply_usage u = {p->r->prompt_tokens, p->r->n_tokens};
    struct str text = {0};
    openai_reply_put_whole(&p->reply, &text, " word", 5,
                           &(struct openai_reply_more){.finish_reason = "length"}, &u);
    http_reply_put(p->out, 200, "application/json", true, NULL, text.data, text.len);
    str_free(&text);
    ends(p, HTTPD_END);
}

static void html(struct pen *p)
{
    static const char page[] = "<!doctype html><title>welcome</title><p>Not an API.\n";
    http_reply_put(p->out, 200, "text/html", true, NULL, page, sizeof page - 1);
    ends(p, HTTPD_END);
}

static void empty_body(struct pen *p)
{
    http_reply_put(p->out, 200, SSE_TYPE, true, NULL, NULL, 0);
    ends(p, HTTPD_END);
}

static void not_http(struct pen *p)
{
    put(p, "SSH-2.0-OpenSSH_9.2p1\r\n");
    ends(p, HTTPD_CLOSE);
}

static void http_401(struct pen *p)
{
    status(p, 401, "WWW-Authenticate: Bearer\r\n");
}

static void http_404(struct pen *p)
{
    status(p, 404, NULL);
}

static void http_429(struct pen *p)
{
    status(p, 429, "Retry-After: 1\r\n");
}

static void http_500(struct pen *p)
{
    status(p, 500, NULL);
}

static void http_503(struct pen *p)
{
    status(p, 503, NULL);
}

/* --- by name --------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*write)(struct pen *p);
    const char *help;
} faults[] = {
    {"slow_first", slow_first, "the head at once, the first token later"},
    {"slow_head", slow_head, "the head byte by byte"},
    {"stall", stall, "a wait after two tokens"},
    {"stall_forever", stall_forever, "two tokens, then nothing"},
    {"never", never, "nothing at all"},
    {"head_only", head_only, "the head, then nothing"},
    {"split_utf8", split_utf8, "packets end inside characters"},
    {"split_data", split_data, "packets end inside `data: ` and between line ends"},
    {"bytewise", bytewise, "one byte a packet"},
    {"odd_chunks", odd_chunks, "HTTP chunks of 7 bytes"},
    {"chunk_extensions", chunk_extensions, "extensions, leading zeros, trailers"},
    {"bad_chunk", bad_chunk, "a chunk without a size"},
    {"events_in_chunk", events_in_chunk, "all events in one HTTP chunk"},
    {"crlf", crlf, "lines of events end with CR LF"},
    {"cr", cr, "lines of events end with CR"},
    {"tokens_in_event", tokens_in_event, "four tokens in each event"},
    {"role_only", role_only, "a chunk with a role only, then a wait"},
    {"empty_events", empty_events, "events without text, the first with a wait behind it"},
    {"usage_last", usage_last, "a last event with usage and no choices, asked for or not"},
    {"comments", comments, "comments, `event:`, `id:` and `retry:` lines"},
    {"reasoning", reasoning, "three reasoning chunks before the content"},
    {"usage_each", usage_each, "usage in every event, of several tokens (chat)"},
    {"bad_json", bad_json, "an event that is no JSON"},
    {"bad_path", bad_path, "five tokens, then text with a backslash that is no JSON"},
    {"error_in_stream", error_in_stream, "an event with an error object"},
    {"huge_line", huge_line, "an event of 1 MiB"},
    {"no_done", no_done, "no [DONE], else well ended"},
    {"late_done", late_done, "a wait between the last token and [DONE]"},
    {"two_dones", two_dones, "[DONE] three times"},
    {"truncated", truncated, "closed after two tokens, without the last chunk"},
    {"half_event", half_event, "closed inside an event"},
    {"reset_early", reset_early, "reset before the first byte"},
    {"reset_mid", reset_mid, "reset after two tokens"},
    {"close_early", close_early, "closed before the first byte"},
    {"close_after", close_after, "a good reply with `Connection: close`"},
    {"idle_close", idle_close, "a good reply; then the idle connection is closed silently"},
    {"http10", http10, "HTTP/1.0, the body ends with the connection"},
    {"with_length", with_length, "events under a Content-Length"},
    {"short_length", short_length, "closed before Content-Length bytes came"},
    {"not_sse", not_sse, "a whole JSON reply to whatever was asked for"},
    {"html", html, "status 200 and a web page"},
    {"empty_body", empty_body, "status 200 and nothing"},
    {"not_http", not_http, "another protocol's greeting"},
    {"http_401", http_401, "status 401"},
    {"http_404", http_404, "status 404"},
    {"http_429", http_429, "status 429 with Retry-After: 1"},
    {"http_500", http_500, "status 500"},
    {"http_503", http_503, "status 503"},
};

enum {
    N_FAULTS = sizeof faults / sizeof faults[0]
};

const char *faults_name(int i)
{
    return i < N_FAULTS ? faults[i].name : NULL;
}

const char *faults_help(int i)
{
    return faults[i].help;
}

static int find(const char *name, size_t n)
{
    int i = 0;
    while (i < N_FAULTS && !(strlen(faults[i].name) == n && memcmp(faults[i].name, name, n) == 0)) {
        i++;
    }
    return i;
}

bool faults_write(struct faults_script *s, const char *name, const struct faults_request *r)
{
    size_t n = strcspn(name, "=");
    int i = find(name, n);
    struct pen p = {.s = s, .r = r, .wait_ns = DEFAULT_WAIT_NS, .out = &s->bytes};
    struct err e;
    if (i == N_FAULTS || (name[n] && units_parse_duration_ns(name + n + 1, &p.wait_ns, &e))) {
        return false;
    }
    openai_reply_init(&p.reply, r->chat, true, "fault", r->model);
    faults[i].write(&p);
    if (s->n_cuts == 0 || s->cuts[s->n_cuts - 1].end < s->bytes.len || p.cut_wait_ns > 0) {
        s->cuts[s->n_cuts++] = (struct faults_cut){s->bytes.len, p.cut_wait_ns};
    }
    openai_reply_free(&p.reply);
    return true;
}
