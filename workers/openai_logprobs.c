#include "workers/openai_logprobs.h"

#include <string.h>

#include "core/json_text.h"

#define LEAST (-9999.0) // instead of minus infinity, which JSON has not; as vLLM does

void openai_logprobs_free(struct openai_logprobs *p)
{
    str_free(&p->tokens);
    str_free(&p->values);
    str_free(&p->tops);
    str_free(&p->offsets);
}

void openai_logprobs_text(const struct tokenizer *t, int32_t id, struct str *text)
{
    if (t) {
        tokenizer_piece(t, id, text);
    } else {
        str_printf(text, " %d", id);
    }
}

static void put_value(struct str *out, float logprob)
{
    str_printf(out, "%.6g", (double)logprob > LEAST ? (double)logprob : LEAST);
}

static void put_quoted(struct str *out, const struct str *text)
{
    str_puts(out, "\"");
    json_text_escape(out, text->data ? text->data : "", text->len);
    str_puts(out, "\"");
}

static int64_t characters(const struct str *text)
{
    int64_t n = 0;
    for (size_t i = 0; i < text->len; i++) {
        n += ((unsigned char)text->data[i] & 0xC0) != 0x80;
    }
    return n;
}

static void put_comma(struct str *list)
{
    str_puts(list, list->len ? "," : "");
}

/* --- chats ------------------------------------------------------------------------------------------ */

/* The members of an object, without its closing brace. */
static void put_object(const struct openai_logprobs *p, const struct wire_logprob *l,
                       struct str *out)
{
    struct str text = {0};
    openai_logprobs_text(p->tokenizer, l->id, &text);
    str_puts(out, "{\"token\":");
    put_quoted(out, &text);
    str_puts(out, ",\"logprob\":");
    put_value(out, l->logprob);
    str_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < text.len; i++) {
        str_printf(out, "%s%u", i ? "," : "", (unsigned)(unsigned char)text.data[i]);
    }
    str_puts(out, "]");
    str_free(&text);
}

static void add_chat(struct openai_logprobs *p, const struct wire_logprobs *l)
{
    put_comma(&p->tokens);
    put_object(p, &l->token, &p->tokens);
    str_puts(&p->tokens, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < l->n_top; i++) {
        str_puts(&p->tokens, i ? "," : "");
        put_object(p, &l->top[i], &p->tokens);
        str_puts(&p->tokens, "}");
    }
    str_puts(&p->tokens, "]}");
}

/* --- completions ------------------------------------------------------------------------------------ */

/* Whether the unfinished object has this key: a quote inside a string stands behind a backslash. */
static bool has_key(const char *object, size_t n, const struct str *key)
{
    const char *at = object, *end = object + n;
    while ((at = memmem(at, (size_t)(end - at), key->data, key->len)) != NULL) {
        if (at[-1] == '{' || at[-1] == ',') {
            return true;
        }
        at++;
    }
    return false;
}

/* "text":value into the object that began at `from`, unless it has one of this text already. */
static void put_member(const struct openai_logprobs *p, const struct wire_logprob *l, size_t from,
                       struct str *out)
{
    struct str text = {0}, key = {0};
    openai_logprobs_text(p->tokenizer, l->id, &text);
    put_quoted(&key, &text);
    str_puts(&key, ":");
    if (!has_key(out->data + from + 1, out->len - from - 1, &key)) {
        str_puts(out, out->len > from + 1 ? "," : "");
        str_append(out, key.data, key.len);
        put_value(out, l->logprob);
    }
    str_free(&text);
    str_free(&key);
}

static void add_completion(struct openai_logprobs *p, const struct wire_logprobs *l)
{
    struct str text = {0};
    openai_logprobs_text(p->tokenizer, l->token.id, &text);
    put_comma(&p->tokens);
    put_quoted(&p->tokens, &text);
    put_comma(&p->values);
    put_value(&p->values, l->token.logprob);
    put_comma(&p->offsets);
    str_printf(&p->offsets, "%lld", (long long)p->offset);
    p->offset += characters(&text);
    put_comma(&p->tops);
    const size_t from = p->tops.len;
    str_puts(&p->tops, "{");
    for (uint32_t i = 0; i < l->n_top; i++) {
        put_member(p, &l->top[i], from, &p->tops);
    }
    put_member(p, &l->token, from, &p->tops);
    str_puts(&p->tops, "}");
    str_free(&text);
}

void openai_logprobs_add(struct openai_logprobs *p, const struct wire_logprobs *l)
{
    if (p->chat) {
        add_chat(p, l);
    } else {
        add_completion(p, l);
    }
}

bool openai_logprobs_put(struct openai_logprobs *p, struct str *out)
{
    if (p->tokens.len == 0) {
        return false;
    }
    if (p->chat) {
        str_printf(out, "{\"content\":[%s]}", p->tokens.data);
    } else {
        str_printf(out,
                   "{\"text_offset\":[%s],\"token_logprobs\":[%s],\"tokens\":[%s],"
                   "\"top_logprobs\":[%s]}",
                   p->offsets.data, p->values.data, p->tokens.data, p->tops.data);
    }
    str_clear(&p->tokens);
    str_clear(&p->values);
    str_clear(&p->tops);
    str_clear(&p->offsets);
    return true;
}
