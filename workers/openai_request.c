#include "workers/openai_request.h"

#include <jansson.h>
#include <stdlib.h>

#include "core/mem.h"

#define MAX_TOKENS (1 << 24)

static int64_t count_words(const json_t *text)
{
    const char *s = json_string_value(text);
    int64_t n = 0;
    bool in_word = false;
    for (size_t i = 0; i < json_string_length(text); i++) {
        bool blank = s[i] == ' ' || (s[i] >= '\t' && s[i] <= '\r');
        n += !blank && !in_word;
        in_word = !blank;
    }
    return n;
}

static bool all_integers(const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!json_is_integer(json_array_get(list, i))) {
            return false;
        }
    }
    return json_array_size(list) > 0;
}

/* A text, a list of ids, or a list of one of these. */
static int count_prompt(const json_t *prompt, int64_t *n, struct err *e)
{
    if (json_array_size(prompt) == 1 && !json_is_integer(json_array_get(prompt, 0))) {
        prompt = json_array_get(prompt, 0);
    }
    if (json_is_string(prompt)) {
        *n = count_words(prompt);
        return 0;
    }
    if (!json_is_array(prompt) || !all_integers(prompt)) {
        return err_set(e, ERR_INPUT, "prompt: one text or one list of token ids is wanted");
    }
    *n = (int64_t)json_array_size(prompt);
    return 0;
}

/* A message's content: a text, or parts of which those with a text count. */
static int64_t count_content(const json_t *content)
{
    int64_t n = 0;
    if (json_is_string(content)) {
        return count_words(content);
    }
    for (size_t i = 0; i < json_array_size(content); i++) {
        n += count_words(json_object_get(json_array_get(content, i), "text"));
    }
    return n;
}

static int count_messages(const json_t *messages, int64_t *n, struct err *e)
{
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        return err_set(e, ERR_INPUT, "messages: a list of at least one message is wanted");
    }
    *n = 0;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i);
        if (!json_is_string(json_object_get(m, "role"))) {
            return err_set(e, ERR_INPUT, "messages[%zu]: has no role", i);
        }
        *n += count_content(json_object_get(m, "content"));
    }
    return 0;
}

/* An integer lo..MAX_TOKENS; absent or null leaves *v. */
static int take_int(const json_t *root, const char *key, int64_t lo, int64_t *v, struct err *e)
{
    const json_t *x = json_object_get(root, key);
    if (!x || json_is_null(x)) {
        return 0;
    }
    if (!json_is_integer(x) || json_integer_value(x) < lo || json_integer_value(x) > MAX_TOKENS) {
        return err_set(e, ERR_INPUT, "%s: must be a whole number %lld..%d", key, (long long)lo,
                       MAX_TOKENS);
    }
    *v = json_integer_value(x);
    return 0;
}

static int take_bool(const json_t *root, const char *key, bool *v, struct err *e)
{
    const json_t *x = json_object_get(root, key);
    if (!x || json_is_null(x)) {
        return 0;
    }
    if (!json_is_boolean(x)) {
        return err_set(e, ERR_INPUT, "%s: must be true or false", key);
    }
    *v = json_is_true(x);
    return 0;
}

static int take_all(struct openai_request *r, bool chat, const json_t *root, struct err *e)
{
    int64_t choices = 1;
    if (!json_is_object(root)) {
        return err_set(e, ERR_INPUT, "the body must be a JSON object");
    }
    if (take_int(root, "n", 1, &choices, e) || take_int(root, "max_tokens", 1, &r->max_tokens, e) ||
        take_int(root, "max_completion_tokens", 1, &r->max_tokens, e) ||
        take_int(root, "min_tokens", 0, &r->min_tokens, e) ||
        take_bool(root, "stream", &r->stream, e) ||
        take_bool(json_object_get(root, "stream_options"), "include_usage", &r->include_usage, e)) {
        return -1;
    }
    if (choices != 1) {
        return err_set(e, ERR_INPUT, "n: only 1 is served");
    }
    if (r->max_tokens && r->min_tokens > r->max_tokens) {
        return err_set(e, ERR_INPUT, "min_tokens: %lld over max_tokens %lld",
                       (long long)r->min_tokens, (long long)r->max_tokens);
    }
    const char *model = json_string_value(json_object_get(root, "model"));
    if (!model) {
        return err_set(e, ERR_INPUT, "model: missing");
    }
    r->model = xstrdup(model);
    return chat ? count_messages(json_object_get(root, "messages"), &r->prompt_tokens, e)
                : count_prompt(json_object_get(root, "prompt"), &r->prompt_tokens, e);
}

int openai_request_parse(struct openai_request *r, bool chat, const char *body, size_t n,
                         struct err *e)
{
    json_error_t je;
    json_t *root = json_loadb(body, n, 0, &je);
    *r = (struct openai_request){0};
    if (!root) {
        return err_set(e, ERR_INPUT, "the body is no JSON: %.120s", je.text);
    }
    int rc = take_all(r, chat, root, e);
    json_decref(root);
    if (rc) {
        openai_request_free(r);
    }
    return rc;
}

void openai_request_free(struct openai_request *r)
{
    free(r->model);
    *r = (struct openai_request){0};
}
