#include "workers/openai_request.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static struct openai_request parse(bool chat, const char *body)
{
    struct openai_request r;
    struct err e = {0};
    if (openai_request_parse(&r, chat, body, strlen(body), &e)) {
        fail_msg("%s: %s", body, e.msg);
    }
    return r;
}

static void counts_prompts(void **state)
{
    (void)state;
    static const struct {
        bool chat;
        const char *body;
        int64_t n;
    } cases[] = {
        {false, "{\"model\":\"m\",\"prompt\":\"one  two\\nthree \"}", 3},
        {false, "{\"model\":\"m\",\"prompt\":\"\"}", 0},
        {false, "{\"model\":\"m\",\"prompt\":[5,6,7,8]}", 4},
        {false, "{\"model\":\"m\",\"prompt\":[7]}", 1},
        {false, "{\"model\":\"m\",\"prompt\":[[7,8]]}", 2},
        {false, "{\"model\":\"m\",\"prompt\":[\"one two\"]}", 2},
        {true,
         "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"a b\"},"
         "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"c d e\"},"
         "{\"type\":\"image_url\"}]}]}",
         5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct openai_request r = parse(cases[i].chat, cases[i].body);
        assert_int_equal(r.prompt_tokens, cases[i].n);
        openai_request_free(&r);
    }
}

static void takes_settings(void **state)
{
    (void)state;
    struct openai_request r =
        parse(false, "{\"model\":\"m\",\"prompt\":\"a\",\"stream\":true,\"max_tokens\":9,"
                     "\"min_tokens\":9,\"ignore_eos\":true,\"temperature\":0.5,\"n\":1,"
                     "\"stream_options\":{\"include_usage\":true}}");
    assert_string_equal(r.model, "m");
    assert_true(r.stream && r.include_usage);
    assert_int_equal(r.max_tokens, 9);
    assert_int_equal(r.min_tokens, 9);
    openai_request_free(&r);
    r = parse(false, "{\"model\":\"m\",\"prompt\":\"a\",\"max_completion_tokens\":3,"
                     "\"max_tokens\":null,\"stream\":null,\"stream_options\":null}");
    assert_false(r.stream || r.include_usage);
    assert_int_equal(r.max_tokens, 3);
    openai_request_free(&r);
}

static void takes_sampling(void **state)
{
    (void)state;
    struct openai_request r = parse(false, "{\"model\":\"m\",\"prompt\":\"a\"}");
    assert_true(r.sampling.temperature == 1 && r.sampling.top_p == 1 && r.sampling.min_p == 0);
    assert_true(r.sampling.top_k == 0 && r.sampling.logprobs == 0 && !r.has_seed);
    assert_true(r.stops.n == 0 && r.sampling.n_stop_ids == 0 && !r.ignore_eos);
    assert_string_equal(json_string_value(r.prompt), "a");
    openai_request_free(&r);
    r = parse(false,
              "{\"model\":\"m\",\"prompt\":[[3,4]],\"temperature\":0,\"top_p\":0.5,\"top_k\":-1,"
              "\"min_p\":0.25,\"seed\":-7,\"stop\":[\"x\",\"\\n\"],\"stop_token_ids\":[9,8],"
              "\"logprobs\":0,\"min_tokens\":2,\"ignore_eos\":true,\"n\":1,\"best_of\":1,"
              "\"presence_penalty\":0,\"frequency_penalty\":0.0,\"logit_bias\":{},"
              "\"repetition_penalty\":1.0,\"echo\":false,\"suffix\":null}");
    assert_true(r.sampling.temperature == 0 && r.sampling.top_p == 0.5F);
    assert_true(r.sampling.min_p == 0.25F && r.sampling.top_k == 0 && r.ignore_eos);
    assert_true(r.has_seed && r.sampling.seed == (uint64_t)-7 && r.sampling.min_out == 2);
    assert_int_equal(r.sampling.logprobs, 1);
    assert_int_equal(r.stops.n, 2);
    assert_string_equal(r.stops.texts[1], "\n");
    assert_int_equal(r.sampling.n_stop_ids, 2);
    assert_int_equal(r.sampling.stop_ids[1], 8);
    assert_int_equal(json_array_size(r.prompt), 2);
    openai_request_free(&r);
    r = parse(true,
              "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"top_k\":5,"
              "\"stop\":\"END\",\"logprobs\":true,\"top_logprobs\":20,\"seed\":null}");
    assert_int_equal(r.sampling.top_k, 5);
    assert_int_equal(r.sampling.logprobs, 21);
    assert_true(r.stops.n == 1 && !r.has_seed && r.messages != NULL);
    openai_request_free(&r);
}

/* What follows model and prompt (or messages), and the key that the refusal must name. */
struct refusal {
    const char *more, *key;
};

static const struct refusal refusals[] = {
    {"\"temperature\":-0.1", "temperature"},
    {"\"temperature\":101", "temperature"},
    {"\"temperature\":\"1\"", "temperature"},
    {"\"temperature\":true", "temperature"},
    {"\"top_p\":0", "top_p"},
    {"\"top_p\":1e-60", "top_p"},
    {"\"top_p\":1.01", "top_p"},
    {"\"top_p\":[]", "top_p"},
    {"\"min_p\":-1", "min_p"},
    {"\"min_p\":1.5", "min_p"},
    {"\"top_k\":-2", "top_k"},
    {"\"top_k\":1.5", "top_k"},
    {"\"top_k\":1000000000", "top_k"},
    {"\"seed\":1.5", "seed"},
    {"\"seed\":\"a\"", "seed"},
    {"\"stop\":\"\"", "stop"},
    {"\"stop\":[\"a\",\"\"]", "stop"},
    {"\"stop\":[\"a\",1]", "stop"},
    {"\"stop\":[\"a\",\"b\",\"c\",\"d\",\"e\"]", "stop"},
    {"\"stop\":7", "stop"},
    {"\"stop_token_ids\":[-1]", "stop_token_ids"},
    {"\"stop_token_ids\":[1.5]", "stop_token_ids"},
    {"\"stop_token_ids\":[99999999999]", "stop_token_ids"},
    {"\"stop_token_ids\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "stop_token_ids"},
    {"\"stop_token_ids\":5", "stop_token_ids"},
    {"\"n\":2", "n:"},
    {"\"best_of\":3", "best_of"},
    {"\"logit_bias\":{\"5\":1}", "logit_bias"},
    {"\"presence_penalty\":0.1", "presence_penalty"},
    {"\"frequency_penalty\":-2", "frequency_penalty"},
    {"\"repetition_penalty\":1.1", "repetition_penalty"},
    {"\"prompt_logprobs\":2", "prompt_logprobs"},
    {"\"echo\":true", "echo"},
    {"\"suffix\":\"x\"", "suffix"},
    {"\"ignore_eos\":1", "ignore_eos"},
    {"\"min_tokens\":-1", "min_tokens"},
};

static void refuses_settings(void **state)
{
    (void)state;
    static const struct refusal apart[2][3] = {
        {{"\"logprobs\":21", "logprobs"},
         {"\"logprobs\":true", "logprobs"},
         {"\"logprobs\":-1", "logprobs"}},
        {{"\"logprobs\":1", "logprobs"},
         {"\"top_logprobs\":2", "top_logprobs"},
         {"\"logprobs\":true,\"top_logprobs\":21", "top_logprobs"}},
    };
    static const char *const bases[] = {"\"prompt\":\"a\"",
                                        "\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]"};
    const size_t n = sizeof refusals / sizeof refusals[0];
    for (size_t i = 0; i < 2 * (n + 3); i++) {
        const bool chat = i % 2;
        const char *more = i / 2 < n ? refusals[i / 2].more : apart[chat][i / 2 - n].more;
        const char *key = i / 2 < n ? refusals[i / 2].key : apart[chat][i / 2 - n].key;
        char body[400];
        struct openai_request r;
        struct err e = {0};
        snprintf(body, sizeof body, "{\"model\":\"m\",%s,%s}", bases[chat], more);
        if (openai_request_parse(&r, chat, body, strlen(body), &e) == 0) {
            fail_msg("taken: %s", body);
        }
        assert_int_equal(strncmp(e.msg, key, strlen(key)), 0);
    }
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        bool chat;
        const char *body, *says;
    } cases[] = {
        {false, "", "JSON"},
        {false, "{", "JSON"},
        {false, "[]", "object"},
        {false, "{\"prompt\":\"a\"}", "model"},
        {false, "{\"model\":\"m\"}", "prompt"},
        {false, "{\"model\":\"m\",\"prompt\":[]}", "prompt"},
        {false, "{\"model\":\"m\",\"prompt\":[1,\"a\"]}", "prompt"},
        {false, "{\"model\":\"m\",\"prompt\":[[1],[2]]}", "prompt"},
        {false, "{\"model\":\"m\",\"prompt\":\"a\",\"max_tokens\":0}", "max_tokens"},
        {false, "{\"model\":\"m\",\"prompt\":\"a\",\"max_tokens\":1.5}", "max_tokens"},
        {false, "{\"model\":\"m\",\"prompt\":\"a\",\"max_tokens\":1,\"min_tokens\":2}",
         "min_tokens"},
        {false, "{\"model\":\"m\",\"prompt\":\"a\",\"n\":2}", "n:"},
        {false, "{\"model\":\"m\",\"prompt\":\"a\",\"stream\":1}", "stream"},
        {true, "{\"model\":\"m\",\"messages\":[]}", "messages"},
        {true, "{\"model\":\"m\",\"messages\":[{\"content\":\"a\"}]}", "messages[0]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct openai_request r;
        struct err e = {0};
        assert_int_equal(
            openai_request_parse(&r, cases[i].chat, cases[i].body, strlen(cases[i].body), &e), -1);
        assert_non_null(strstr(e.msg, cases[i].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_prompts), cmocka_unit_test(takes_settings),
        cmocka_unit_test(takes_sampling), cmocka_unit_test(refuses_settings),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
