#include "loadgen/body.h"

#include "core/err.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const roles[] = {
    [PROMPT_SYSTEM] = "system",
    [PROMPT_USER] = "user",
    [PROMPT_ASSISTANT] = "assistant",
};

static const char *max_key(const struct endpoint_config *c)
{
    return c->max_tokens_key == 0 ? "max_tokens" : "max_completion_tokens";
}

static json_t *shared_part(const struct endpoint_config *c, const char *model, bool ignore_eos)
{
    json_t *o = json_pack("{s:s, s:b, s:f}", "model", model, "stream", c->stream, "temperature",
                          c->temperature);
    CHECK(o);
    if (c->top_p > 0 && c->top_p < 1) {
        json_object_set_new(o, "top_p", json_real(c->top_p));
    }
    if (c->top_k > 0) {
        json_object_set_new(o, "top_k", json_integer(c->top_k));
    }
    if (c->min_p > 0) {
        json_object_set_new(o, "min_p", json_real(c->min_p));
    }
    if (c->stream && c->usage != ENDPOINT_USAGE_NONE) {
        json_t *options = json_pack("{s:b}", "include_usage", 1);
        if (c->usage == ENDPOINT_USAGE_CONTINUOUS) {
            json_object_set_new(options, "continuous_usage_stats", json_true());
        }
        json_object_set_new(o, "stream_options", options);
    }
    if (ignore_eos) {
        json_object_set_new(o, "ignore_eos", json_true());
    }
    return o;
}

/* The user's keys over ours; null takes a key away. */
static void merge(json_t *o, const char *extra_body)
{
    const char *key;
    json_t *v, *extra = json_loads(extra_body, 0, NULL);
    CHECK(json_is_object(extra)); // endpoint_check
    json_object_foreach(extra, key, v)
    {
        if (json_is_null(v)) {
            json_object_del(o, key);
        } else {
            json_object_set(o, key, v);
        }
    }
    json_decref(extra);
}

void body_init(struct body *b, const struct endpoint_config *c, const char *model, bool ignore_eos)
{
    *b = (struct body){.cfg = c};
    json_t *o = shared_part(c, model, ignore_eos);
    b->with_min = ignore_eos && c->min_tokens;
    if (c->extra_body) {
        json_t *extra = json_loads(c->extra_body, 0, NULL);
        b->fixed_max = json_object_get(extra, max_key(c)) != NULL;
        b->with_min = b->with_min && !json_object_get(extra, "min_tokens");
        json_decref(extra);
        merge(o, c->extra_body);
    }
    char *text = json_dumps(o, JSON_COMPACT);
    CHECK(text);
    str_append(&b->head, text, strlen(text) - 1); // without the brace that ends it
    str_puts(&b->head, ",");
    free(text);
    json_decref(o);
}

void body_free(struct body *b)
{
    str_free(&b->head);
    str_free(&b->ids);
    prompt_text_free(&b->text);
    *b = (struct body){0};
}

/* A whole number in decimal: printf would be most of the work of a body of ids. */
static void put_number(struct str *out, uint32_t v)
{
    char digits[10];
    size_t n = 0;
    do {
        digits[sizeof digits - ++n] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    str_append(out, digits + sizeof digits - n, n);
}

static void put_length(struct str *out, const char *key, uint32_t n)
{
    str_puts(out, "\"");
    str_puts(out, key);
    str_puts(out, "\":");
    put_number(out, n);
    str_puts(out, ",");
}

static void put_ids(struct body *b, const struct dataset *ds, uint64_t seed, uint64_t event,
                    const struct prompt *p, struct str *out)
{
    str_clear(&b->ids);
    str_reserve(&b->ids, p->n_in * sizeof(int32_t));
    const int32_t *ids = dataset_ids(ds, seed, event, p, (int32_t *)(void *)b->ids.data);
    str_puts(out, "\"prompt\":[");
    for (uint32_t i = 0; i < p->n_in; i++) {
        str_append(out, ",", i > 0);
        put_number(out, (uint32_t)ids[i]);
    }
    str_puts(out, "]}");
}

static void put_text(const struct body *b, struct str *out)
{
    str_puts(out, "\"prompt\":\"");
    str_append(out, b->text.json.data, b->text.json.len);
    str_puts(out, "\"}");
}

static void put_messages(const struct body *b, struct str *out)
{
    size_t at = 0;
    str_puts(out, "\"messages\":[");
    for (size_t i = 0; i < b->text.n; i++) {
        const struct prompt_part *part = &b->text.parts[i];
        str_puts(out, i > 0 ? ",{\"role\":\"" : "{\"role\":\"");
        str_puts(out, roles[part->role]);
        str_puts(out, "\",\"content\":\"");
        str_append(out, b->text.json.data + at, part->end - at);
        str_puts(out, "\"}");
        at = part->end;
    }
    str_puts(out, "]}");
}

void body_write(struct body *b, const struct dataset *ds, uint64_t seed, uint64_t event,
                const struct prompt *p, struct str *out)
{
    str_append(out, b->head.data, b->head.len);
    if (!b->fixed_max) {
        put_length(out, max_key(b->cfg), p->n_out);
    }
    if (b->with_min) {
        put_length(out, "min_tokens", p->n_out);
    }
    if (b->cfg->prompt == ENDPOINT_IDS) {
        put_ids(b, ds, seed, event, p, out);
        return;
    }
    dataset_text(ds, seed, event, p, &b->text);
    if (b->cfg->api == ENDPOINT_CHAT) {
        put_messages(b, out);
    } else {
        put_text(b, out);
    }
}
