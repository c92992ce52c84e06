#include "workers/openai_request.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS      (1 << 24)
#define MAX_TEMPERATURE 100

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

/* A text or a list of ids. */
static int count_prompt(const json_t *prompt, int64_t *n, struct err *e)
{
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

/* A number from lo to hi, or above lo where it is open; absent or null leaves *v. */
static int take_number(const json_t *root, const char *key, bool open, double hi, float *v,
                       struct err *e)
{
    const json_t *x = json_object_get(root, key);
    if (!x || json_is_null(x)) {
        return 0;
    }
    const double d = json_number_value(x);
    if (!json_is_number(x) || d < 0 || (open && d <= 0) || d > hi || (open && (float)d <= 0)) {
        return err_set(e, ERR_INPUT, "%s: must be a number %s 0 and at most %g", key,
                       open ? "above" : "of at least", hi);
    }
    *v = (float)d;
    return 0;
}

/* Whole, lo..hi; absent or null leaves *v. */
static int take_whole(const json_t *root, const char *key, int64_t lo, int64_t hi, int64_t *v,
                      struct err *e)
{
    const json_t *x = json_object_get(root, key);
    if (!x || json_is_null(x)) {
        return 0;
    }
    if (!json_is_integer(x) || json_integer_value(x) < lo || json_integer_value(x) > hi) {
        return err_set(e, ERR_INPUT, "%s: must be a whole number %lld..%lld", key, (long long)lo,
                       (long long)hi);
    }
    *v = json_integer_value(x);
    return 0;
}

/* --- how tokens are chosen, and what ends a reply ------------------------------------------------- */

static int take_sampling(struct openai_request *r, const json_t *root, struct err *e)
{
    int64_t top_k = 0, seed = 0;
    const json_t *given = json_object_get(root, "seed");
    r->sampling.temperature = r->sampling.top_p = 1;
    if (take_number(root, "temperature", false, MAX_TEMPERATURE, &r->sampling.temperature, e) ||
        take_number(root, "top_p", true, 1, &r->sampling.top_p, e) ||
        take_number(root, "min_p", false, 1, &r->sampling.min_p, e) ||
        take_whole(root, "top_k", -1, MAX_TOKENS, &top_k, e) ||
        take_whole(root, "seed", INT64_MIN, INT64_MAX, &seed, e)) {
        return -1;
    }
    r->sampling.top_k = top_k > 0 ? (uint32_t)top_k : 0; // -1 as others have it: no bound
    r->sampling.seed = (uint64_t)seed;
    r->has_seed = given && !json_is_null(given);
    r->sampling.min_out = (uint32_t)r->min_tokens;
    return 0;
}

static int take_stop_text(struct stops *s, const json_t *text, struct err *e)
{
    const size_t n = json_string_length(text);
    if (!json_is_string(text) || n == 0 || n > STOPS_MAX_BYTES || s->n == STOPS_MAX) {
        return err_set(e, ERR_INPUT, "stop: at most %d texts of 1 to %d bytes are served",
                       STOPS_MAX, STOPS_MAX_BYTES);
    }
    s->texts[s->n++] = json_string_value(text);
    return 0;
}

static int take_stops(struct openai_request *r, const json_t *root, struct err *e)
{
    const json_t *stop = json_object_get(root, "stop");
    if (!stop || json_is_null(stop)) {
        return 0;
    }
    if (!json_is_array(stop)) {
        return take_stop_text(&r->stops, stop, e);
    }
    for (size_t i = 0; i < json_array_size(stop); i++) {
        if (take_stop_text(&r->stops, json_array_get(stop, i), e)) {
            return -1;
        }
    }
    return 0;
}

static int take_stop_ids(struct openai_request *r, const json_t *root, struct err *e)
{
    const json_t *ids = json_object_get(root, "stop_token_ids");
    bool fit = !ids || json_is_null(ids) || json_is_array(ids);
    fit = fit && json_array_size(ids) <= WIRE_MAX_STOP_IDS;
    for (size_t i = 0; fit && i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        fit =
            json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) <= INT_MAX;
        r->sampling.stop_ids[i] = fit ? (int32_t)json_integer_value(id) : 0;
        r->sampling.n_stop_ids++;
    }
    return fit ? 0
               : err_set(e, ERR_INPUT, "stop_token_ids: at most %d token ids are served",
                         WIRE_MAX_STOP_IDS);
}

/* Completions say how many alternatives; chats whether, and then how many. */
static int take_logprobs(struct openai_request *r, const json_t *root, struct err *e)
{
    int64_t n_top = -1;
    bool wanted = false;
    if (!r->chat) {
        if (take_whole(root, "logprobs", 0, WIRE_MAX_TOP, &n_top, e)) {
            return -1;
        }
        r->sampling.logprobs = (uint32_t)(n_top + 1);
        return 0;
    }
    if (take_bool(root, "logprobs", &wanted, e) ||
        take_whole(root, "top_logprobs", 0, WIRE_MAX_TOP, &n_top, e)) {
        return -1;
    }
    if (n_top > 0 && !wanted) {
        return err_set(e, ERR_INPUT, "top_logprobs: asks for logprobs: true");
    }
    r->sampling.logprobs = wanted ? (uint32_t)(n_top < 0 ? 0 : n_top) + 1 : 0;
    return 0;
}

/* Members that would change the answer: only what changes nothing is served. */
static int refuse_others(const json_t *root, struct err *e)
{
    static const struct {
        const char *key;
        double neutral;
    } numbers[] = {{"n", 1},
                   {"best_of", 1},
                   {"presence_penalty", 0},
                   {"frequency_penalty", 0},
                   {"repetition_penalty", 1}};
    static const char *const empty[] = {"logit_bias", "suffix", "prompt_logprobs", "tools",
                                        "functions"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const json_t *x = json_object_get(root, numbers[i].key);
        if (x && !json_is_null(x) &&
            (!json_is_number(x) || json_number_value(x) != numbers[i].neutral)) {
            return err_set(e, ERR_INPUT, "%s: only %g is served", numbers[i].key,
                           numbers[i].neutral);
        }
    }
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        const json_t *x = json_object_get(root, empty[i]);
        bool is_empty = !x || json_is_null(x) || (json_is_string(x) && !json_string_length(x)) ||
                        (json_is_array(x) && json_array_size(x) == 0) ||
                        (json_is_object(x) && json_object_size(x) == 0);
        if (!is_empty) {
            return err_set(e, ERR_INPUT, "%s: is not served", empty[i]);
        }
    }
    return json_is_true(json_object_get(root, "echo"))
               ? err_set(e, ERR_INPUT, "echo: only false is served")
               : 0;
}

/* --- the whole -------------------------------------------------------------------------------------- */

static int take_lengths(struct openai_request *r, const json_t *root, struct err *e)
{
    if (take_int(root, "max_tokens", 1, &r->max_tokens, e) ||
        take_int(root, "max_completion_tokens", 1, &r->max_tokens, e) ||
        take_int(root, "min_tokens", 0, &r->min_tokens, e) ||
        take_bool(root, "ignore_eos", &r->ignore_eos, e)) {
        return -1;
    }
    if (r->max_tokens && r->min_tokens > r->max_tokens) {
        return err_set(e, ERR_INPUT, "min_tokens: %lld over max_tokens %lld",
                       (long long)r->min_tokens, (long long)r->max_tokens);
    }
    return 0;
}

static int take_prompt(struct openai_request *r, const json_t *root, struct err *e)
{
    if (r->chat) {
        r->messages = json_object_get(root, "messages");
        return count_messages(r->messages, &r->prompt_tokens, e);
    }
    const json_t *prompt = json_object_get(root, "prompt");
    if (json_array_size(prompt) == 1 && !json_is_integer(json_array_get(prompt, 0))) {
        prompt = json_array_get(prompt, 0);
    }
    r->prompt = prompt;
    return count_prompt(prompt, &r->prompt_tokens, e);
}

static int take_all(struct openai_request *r, const json_t *root, struct err *e)
{
    if (!json_is_object(root)) {
        return err_set(e, ERR_INPUT, "the body must be a JSON object");
    }
    if (take_lengths(r, root, e) || take_bool(root, "stream", &r->stream, e) ||
        take_bool(json_object_get(root, "stream_options"), "include_usage", &r->include_usage, e) ||
        take_sampling(r, root, e) || take_stops(r, root, e) || take_stop_ids(r, root, e) ||
        take_logprobs(r, root, e) || refuse_others(root, e)) {
        return -1;
    }
    r->model = json_string_value(json_object_get(root, "model"));
    if (!r->model) {
        return err_set(e, ERR_INPUT, "model: missing");
    }
    return take_prompt(r, root, e);
}

int openai_request_parse(struct openai_request *r, bool chat, const char *body, size_t n,
                         struct err *e)
{
    json_error_t je;
    *r = (struct openai_request){.chat = chat, .body = json_loadb(body, n, 0, &je)};
    if (!r->body) {
        return err_set(e, ERR_INPUT, "the body is no JSON: %.120s", je.text);
    }
    int rc = take_all(r, r->body, e);
    if (rc) {
        openai_request_free(r);
    }
    return rc;
}

void openai_request_free(struct openai_request *r)
{
    json_decref(r->body);
    *r = (struct openai_request){0};
}
