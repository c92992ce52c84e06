/*
 * Any bytes as an event's data, against jansson: an object is an object, and what the scanner took out
 * of it is what the tree says. What differs on purpose, beside fuzz_json_scan: token counts that are no
 * whole numbers of at most 18 digits are passed over, a key with escapes is not recognised, and of keys
 * that come twice each one counts. And lines as the events of one stream: known by the form of the one before
 * or not, they say the same.
 */
#include "core/err.h"
#include "core/str.h"
#include "loadgen/event_form.h"
#include "loadgen/reply.h"

#include <jansson.h>
#include <stdint.h>
#include <string.h>

#define WHOLE_MAX 999999999999999999LL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a reply says, by a walk over jansson's tree. */
struct expected {
    json_t *content, *reasoning, *message; // strings
    int64_t prompt_tokens, completion_tokens;
    bool has_choice, is_finished, is_error;
};

static bool is_key(const char *key, const char *word)
{
    return strcmp(key, word) == 0;
}

static void expect_message(struct expected *x, json_t *message)
{
    const char *key;
    json_t *v;
    json_object_foreach(message, key, v)
    {
        if (is_key(key, "content") && json_is_string(v)) {
            x->content = v;
        } else if ((is_key(key, "reasoning_content") || is_key(key, "reasoning")) &&
                   json_is_string(v)) {
            x->reasoning = v;
        }
    }
}

static void expect_choice(struct expected *x, json_t *choice)
{
    const char *key;
    json_t *v;
    x->has_choice = json_is_object(choice);
    json_object_foreach(choice, key, v)
    {
        if (is_key(key, "text") && json_is_string(v)) {
            x->content = v;
        } else if (is_key(key, "delta") || is_key(key, "message")) {
            expect_message(x, v);
        } else if (is_key(key, "finish_reason")) {
            x->is_finished = json_is_string(v);
        }
    }
}

static void expect_count(json_t *v, int64_t *out)
{
    json_int_t count = json_integer_value(v);
    if (json_is_integer(v) && count <= WHOLE_MAX && count >= -WHOLE_MAX) {
        *out = count;
    }
}

static void expect_error(struct expected *x, json_t *error)
{
    json_t *inner = json_object_get(error, "message");
    x->is_error = x->is_error || json_is_object(error) || json_is_string(error);
    x->message = json_is_string(inner) ? inner : json_is_string(error) ? error : x->message;
}

static struct expected expect(json_t *root)
{
    struct expected x = {.prompt_tokens = -1, .completion_tokens = -1};
    const char *key;
    json_t *v;
    json_object_foreach(root, key, v)
    {
        if (is_key(key, "choices")) {
            expect_choice(&x, json_array_get(v, 0));
        } else if (is_key(key, "usage")) {
            expect_count(json_object_get(v, "prompt_tokens"), &x.prompt_tokens);
            expect_count(json_object_get(v, "completion_tokens"), &x.completion_tokens);
        } else if (is_key(key, "error")) {
            expect_error(&x, v);
        } else if (is_key(key, "message") && json_is_string(v)) {
            x.message = v;
        } else if (is_key(key, "object") && json_is_string(v)) {
            x.is_error = x.is_error || is_key(json_string_value(v), "error");
        }
    }
    return x;
}

static void check_text(struct json_text t, json_t *wanted)
{
    struct str said = {0};
    json_text_unescape(t, &said);
    CHECK(said.len == (wanted ? json_string_length(wanted) : 0));
    CHECK(said.len == 0 || memcmp(said.data, json_string_value(wanted), said.len) == 0);
    str_free(&said);
}

static void check_reply(const struct reply *r, const struct expected *x)
{
    check_text(r->content, x->content);
    check_text(r->reasoning, x->reasoning);
    check_text(r->message, x->message);
    CHECK(r->prompt_tokens == x->prompt_tokens && r->completion_tokens == x->completion_tokens);
    CHECK(r->has_choice == x->has_choice && r->is_finished == x->is_finished);
    CHECK(r->is_error == x->is_error && !r->is_done);
}

static bool is_same_text(struct json_text a, struct json_text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static bool is_same(const struct reply *a, const struct reply *b)
{
    return is_same_text(a->content, b->content) && is_same_text(a->reasoning, b->reasoning) &&
           is_same_text(a->message, b->message) && a->prompt_tokens == b->prompt_tokens &&
           a->completion_tokens == b->completion_tokens && a->has_choice == b->has_choice &&
           a->is_finished == b->is_finished && a->is_done == b->is_done &&
           a->is_error == b->is_error;
}

/* A line as an event's data, after a line that was one. */
static void check_form(struct event_form *form, const char *line, size_t len)
{
    struct str event = {0};
    struct reply alone = {0}, by_form;
    bool taken = reply_scan(line, len, &alone);
    str_puts(&event, "data: ");
    str_append(&event, line, len);
    str_puts(&event, "\n\n");
    const char *end = event.data + event.len;
    for (int i = 0; i < 2; i++) { // the second time it has just been learnt
        size_t used = event_form_match(form, event.data, end, &by_form);
        CHECK(used == 0 || (used == event.len && taken && is_same(&alone, &by_form)));
        CHECK(event_form_match(form, event.data, end - 1, &by_form) == 0); // it must be whole
        if (taken) {
            event_form_learn(form, line, len, &alone);
        }
    }
    str_free(&event);
}

static void check_lines(const char *text, size_t size)
{
    struct event_form form = {0};
    for (const char *at = text, *end = text + size; at < end;) {
        size_t len = 0;
        while (at + len < end && at[len] != '\n' && at[len] != '\r') {
            len++;
        }
        check_form(&form, at, len);
        at += len + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct reply r;
    json_error_t why;
    if (memchr(text, '\0', size)) {
        return 0; // jansson 2.14 passes over one behind a number
    }
    check_lines(text, size);
    bool taken = reply_scan(text, size, &r);
    if (r.is_done) {
        CHECK(taken && size >= 6 && memcmp(text, "[DONE]", 6) == 0);
        return 0;
    }
    // Escapes are fuzz_json_scan's: without a backslash every key is recognised.
    json_t *root = json_loadb(text, size, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &why);
    enum json_error_code code = root ? json_error_unknown : json_error_code(&why);
    if (json_is_object(root) && taken && !memchr(text, '\\', size)) {
        struct expected x = expect(root);
        check_reply(&r, &x);
    }
    CHECK(!taken || json_is_object(root) || code == json_error_duplicate_key ||
          code == json_error_invalid_utf8 || code == json_error_null_byte_in_key ||
          code == json_error_numeric_overflow || strstr(why.text, "invalid Unicode"));
    CHECK(taken || !json_is_object(root) || size > 2 * JSON_SCAN_DEPTH); // nested too deep, at most
    json_decref(root);
    return 0;
}
