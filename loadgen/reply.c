#include "loadgen/reply.h"

#include <string.h>

static void scan_text(struct json_scan *s, struct json_text *out)
{
    if (json_scan_type(s) == JSON_SCAN_STRING) {
        json_scan_string(s, out);
    } else {
        json_scan_skip(s); // null, mostly
    }
}

/* A "delta" or a "message". */
static void scan_message(struct json_scan *s, struct reply *r)
{
    if (json_scan_type(s) != JSON_SCAN_OBJECT) {
        json_scan_skip(s);
        return;
    }
    json_scan_object(s);
    for (struct json_text key; json_scan_key(s, &key);) {
        if (json_text_is(key, "content")) {
            scan_text(s, &r->content);
        } else if (json_text_is(key, "reasoning_content") || json_text_is(key, "reasoning")) {
            scan_text(s, &r->reasoning);
        } else {
            json_scan_skip(s);
        }
    }
}

static void scan_choice(struct json_scan *s, struct reply *r)
{
    json_scan_object(s);
    r->has_choice = true;
    for (struct json_text key; json_scan_key(s, &key);) {
        if (json_text_is(key, "text")) {
            scan_text(s, &r->content);
        } else if (json_text_is(key, "delta") || json_text_is(key, "message")) {
            scan_message(s, r);
        } else if (json_text_is(key, "finish_reason")) {
            r->is_finished = json_scan_type(s) == JSON_SCAN_STRING;
            json_scan_skip(s);
        } else {
            json_scan_skip(s);
        }
    }
}

static void scan_choices(struct json_scan *s, struct reply *r)
{
    if (json_scan_type(s) != JSON_SCAN_LIST) {
        json_scan_skip(s);
        return;
    }
    json_scan_list(s);
    for (int i = 0; json_scan_item(s); i++) {
        if (i == 0 && json_scan_type(s) == JSON_SCAN_OBJECT) {
            scan_choice(s, r);
        } else {
            json_scan_skip(s);
        }
    }
}

static void scan_count(struct json_scan *s, int64_t *out)
{
    const struct json_scan before = *s;
    int64_t count;
    if (json_scan_type(s) == JSON_SCAN_NUMBER) {
        json_scan_whole(s, &count);
        if (!s->bad) {
            *out = count;
            return;
        }
        *s = before; // 7.0, or more than fits: no count that can be used
    }
    json_scan_skip(s);
}

static void scan_usage(struct json_scan *s, struct reply *r)
{
    if (json_scan_type(s) != JSON_SCAN_OBJECT) {
        json_scan_skip(s);
        return;
    }
    json_scan_object(s);
    for (struct json_text key; json_scan_key(s, &key);) {
        if (json_text_is(key, "prompt_tokens")) {
            scan_count(s, &r->prompt_tokens);
        } else if (json_text_is(key, "completion_tokens")) {
            scan_count(s, &r->completion_tokens);
        } else {
            json_scan_skip(s);
        }
    }
}

/* {"message": ...}, or the message alone. */
static void scan_error(struct json_scan *s, struct reply *r)
{
    enum json_type type = json_scan_type(s);
    if (type == JSON_SCAN_OBJECT) {
        r->is_error = true;
        json_scan_object(s);
        for (struct json_text key; json_scan_key(s, &key);) {
            if (json_text_is(key, "message")) {
                scan_text(s, &r->message);
            } else {
                json_scan_skip(s);
            }
        }
        return;
    }
    r->is_error = r->is_error || type == JSON_SCAN_STRING;
    scan_text(s, &r->message);
}

static void scan_member(struct json_scan *s, struct json_text key, struct reply *r)
{
    struct json_text object = {"", 0};
    if (json_text_is(key, "choices")) {
        scan_choices(s, r);
    } else if (json_text_is(key, "usage")) {
        scan_usage(s, r);
    } else if (json_text_is(key, "error")) {
        scan_error(s, r);
    } else if (json_text_is(key, "object")) {
        scan_text(s, &object);
        r->is_error = r->is_error || json_text_is(object, "error");
    } else if (json_text_is(key, "message")) {
        scan_text(s, &r->message);
    } else {
        json_scan_skip(s);
    }
}

bool reply_scan(const char *text, size_t len, struct reply *out)
{
    *out = (struct reply){.prompt_tokens = -1, .completion_tokens = -1};
    struct json_scan s;
    json_scan_init(&s, text, len);
    while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t')) {
        len--;
    }
    if (len == 6 && memcmp(text, "[DONE]", 6) == 0) {
        out->is_done = true;
        return true;
    }
    json_scan_object(&s);
    for (struct json_text key; json_scan_key(&s, &key);) {
        scan_member(&s, key, out);
    }
    return json_scan_end(&s);
}
