#include "workers/openai_reply.h"

#include <string.h>

#include "core/clock.h"
#include "core/http_reply.h"
#include "core/json_text.h"

struct piece {
    const char *s;
    size_t n;
};

#define PIECE(literal) ((struct piece){literal, sizeof(literal) - 1})

void openai_reply_put_quoted(struct str *out, const char *text)
{
    str_puts(out, "\"");
    json_text_escape(out, text, strlen(text));
    str_puts(out, "\"");
}

static void put_opening(const struct openai_reply *r, struct str *out, const char *object)
{
    str_printf(out, "{\"id\":%s,\"object\":\"%s\",\"created\":%lld,\"model\":%s,\"choices\":[",
               r->id.data, object, (long long)r->created_s, r->model.data);
}

void openai_reply_init(struct openai_reply *r, bool chat, bool chunked, const char *id,
                       const char *model)
{
    struct str full = {0};
    *r = (struct openai_reply){
        .chat = chat,
        .chunked = chunked,
        .created_s = clock_unix_ns() / NS_PER_S,
    };
    str_printf(&full, "%s%s", chat ? "chatcmpl-" : "cmpl-", id);
    openai_reply_put_quoted(&r->id, full.data);
    openai_reply_put_quoted(&r->model, model);
    str_puts(&r->prefix, "data: ");
    put_opening(r, &r->prefix, chat ? "chat.completion.chunk" : "text_completion");
    str_free(&full);
}

void openai_reply_free(struct openai_reply *r)
{
    str_free(&r->prefix);
    str_free(&r->id);
    str_free(&r->model);
}

/* The prefix and some pieces as one event, and as one HTTP chunk. */
static void put_event(const struct openai_reply *r, struct str *out, const struct piece *pieces,
                      int n_pieces)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = r->prefix.len;
    for (int i = 0; i < n_pieces; i++) {
        n += pieces[i].n;
    }
    str_reserve(out, n + 24);
    char *at = out->data + out->len;
    if (r->chunked) {
        int shift = (63 - __builtin_clzll(n)) & ~3;
        for (; shift >= 0; shift -= 4) {
            *at++ = digits[n >> shift & 15];
        }
        *at++ = '\r';
        *at++ = '\n';
    }
    at = mempcpy(at, r->prefix.data, r->prefix.len);
    for (int i = 0; i < n_pieces; i++) {
        at = mempcpy(at, pieces[i].s, pieces[i].n);
    }
    if (r->chunked) {
        at = mempcpy(at, "\r\n", 2);
    }
    *at = '\0';
    out->len = (size_t)(at - out->data);
}

static struct piece json_or_null(const char *json)
{
    return json ? (struct piece){json, strlen(json)} : PIECE("null");
}

void openai_reply_put_event(const struct openai_reply *r, struct str *out, const char *text,
                            size_t n, const struct openai_reply_more *more)
{
    const struct piece quote = more->finish_reason ? PIECE("\"") : PIECE("");
    const struct piece pieces[] = {
        r->chat ? PIECE("{\"index\":0,\"delta\":{\"content\":\"")
                : PIECE("{\"index\":0,\"text\":\""),
        {text, n},
        r->chat ? PIECE("\"},\"logprobs\":") : PIECE("\",\"logprobs\":"),
        json_or_null(more->logprobs),
        PIECE(",\"finish_reason\":"),
        quote,
        json_or_null(more->finish_reason),
        quote,
        r->chat && !more->stop_reason ? PIECE("") : PIECE(",\"stop_reason\":"),
        r->chat && !more->stop_reason ? PIECE("") : json_or_null(more->stop_reason),
        r->chat ? PIECE("}]}\n\n") : PIECE("}],\"usage\":null}\n\n"),
    };
    put_event(r, out, pieces, sizeof pieces / sizeof pieces[0]);
}

void openai_reply_put_role(const struct openai_reply *r, struct str *out)
{
    const struct piece role =
        PIECE("{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
              "\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    put_event(r, out, &role, 1);
}

static void put_usage(struct str *out, const struct openai_reply_usage *u)
{
    str_printf(
        out, "\"usage\":{\"prompt_tokens\":%lld,\"total_tokens\":%lld,\"completion_tokens\":%lld}",
        (long long)u->prompt_tokens, (long long)(u->prompt_tokens + u->completion_tokens),
        (long long)u->completion_tokens);
}

void openai_reply_put_end(const struct openai_reply *r, struct str *out,
                          const struct openai_reply_usage *usage)
{
    static const char done[] = "data: [DONE]\n\n";
    if (usage) {
        struct str tail = {0};
        str_puts(&tail, "],");
        put_usage(&tail, usage);
        str_puts(&tail, "}\n\n");
        const struct piece piece = {tail.data, tail.len};
        put_event(r, out, &piece, 1);
        str_free(&tail);
    }
    if (r->chunked) {
        http_reply_put_chunk(out, done, sizeof done - 1);
        str_puts(out, HTTP_REPLY_LAST_CHUNK);
    } else {
        str_puts(out, done);
    }
}

void openai_reply_put_whole(const struct openai_reply *r, struct str *out, const char *text,
                            size_t n, const struct openai_reply_more *more,
                            const struct openai_reply_usage *usage)
{
    put_opening(r, out, r->chat ? "chat.completion" : "text_completion");
    str_puts(out, "{\"index\":0,");
    str_puts(out, r->chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"");
    str_append(out, text, n);
    str_puts(out, r->chat ? "\"},\"logprobs\":" : "\",\"logprobs\":");
    str_puts(out, json_or_null(more->logprobs).s);
    str_printf(out, ",\"finish_reason\":\"%s\",\"stop_reason\":", more->finish_reason);
    str_puts(out, json_or_null(more->stop_reason).s);
    str_puts(out, "}],");
    put_usage(out, usage);
    str_puts(out, "}");
}

void openai_reply_put_error(struct str *out, int status, const char *message)
{
    static const struct {
        int status;
        const char *type;
    } types[] = {{401, "AuthenticationError"}, {404, "NotFoundError"}, {405, "MethodNotAllowed"}};
    const char *type = status >= 500 ? "InternalServerError" : "BadRequestError";
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        type = types[i].status == status ? types[i].type : type;
    }
    str_puts(out, "{\"error\":{\"message\":");
    openai_reply_put_quoted(out, message);
    str_printf(out, ",\"type\":\"%s\",\"param\":null,\"code\":%d}}", type, status);
}
