#include "workers/openai_request.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

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
        cmocka_unit_test(counts_prompts),
        cmocka_unit_test(takes_settings),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
