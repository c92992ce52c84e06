/* What servers say, by their shapes: text, reasoning, ends, usage, errors, and what is none of it. */
#include "loadgen/reply.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static void assert_text(struct json_text t, const char *wanted)
{
    if (t.len != strlen(wanted) ||
        (t.len > 0 && !json_text_is(t, wanted))) { // an empty one is nowhere
        fail_msg("%.*s should be %s", (int)t.len, t.data, wanted);
    }
}

static struct reply scan(const char *text)
{
    struct reply r;
    if (!reply_scan(text, strlen(text), &r)) {
        fail_msg("refused: %s", text);
    }
    return r;
}

static void test_where_the_text_is(void **state)
{
    (void)state;
    static const struct {
        const char *event, *content, *reasoning;
    } cases[] = {
        {"{\"choices\":[{\"text\":\" a\"}]}", " a", ""},
        {"{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\\n\"}}]}", "b\\n", ""},
        {"{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"c\"}}]}", "c", ""},
        {"{\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\",\"content\":null}}]}", "", "hm"},
        {"{\"choices\":[{\"delta\":{\"reasoning\":\"hm\",\"content\":\"d\"}}]}", "d", "hm"},
        {"{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}", "", ""},
        {"{\"choices\":[{\"delta\":{}},{\"delta\":{\"content\":\"second\"}}]}", "", ""},
        {"{\"choices\":[]}", "", ""},
        {"{\"choices\":null}", "", ""},
        {"{\"choices\":[{\"delta\":\"text\"}]}", "", ""},
        {"{\"content\":\"not of a choice\"}", "", ""},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        struct reply r = scan(cases[i].event);
        assert_text(r.content, cases[i].content);
        assert_text(r.reasoning, cases[i].reasoning);
        assert_false(r.is_done || r.is_error || r.is_finished);
    }
}

static void test_ends(void **state)
{
    (void)state;
    assert_true(scan("[DONE]").is_done);
    assert_true(scan("[DONE] \t").is_done);
    assert_true(scan("{\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}").is_finished);
    assert_false(scan("{\"choices\":[{\"text\":\"\",\"finish_reason\":null}]}").is_finished);
}

static void test_usage(void **state)
{
    (void)state;
    static const struct {
        const char *event;
        int64_t prompt, completion;
    } cases[] = {
        {"{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}", 7, 9},
        {"{\"usage\":{\"completion_tokens\":9,\"details\":{\"prompt_tokens\":1}}}", -1, 9},
        {"{\"usage\":null}", -1, -1},
        {"{\"usage\":{\"prompt_tokens\":null,\"completion_tokens\":\"9\"}}", -1, -1},
        {"{\"usage\":{\"prompt_tokens\":7.0,\"completion_tokens\":9}}", -1, 9}, // no count, no end
        {"{\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":99999999999999999999}}", 7, -1},
        {"{\"prompt_tokens\":7}", -1, -1},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        struct reply r = scan(cases[i].event);
        assert_int_equal(r.prompt_tokens, cases[i].prompt);
        assert_int_equal(r.completion_tokens, cases[i].completion);
    }
}

static void test_errors(void **state)
{
    (void)state;
    static const char *const errors[] = {
        "{\"error\":{\"message\":\"why\",\"code\":500}}",
        "{\"error\":\"why\",\"error_type\":\"overloaded\"}",
        "{\"object\":\"error\",\"message\":\"why\",\"code\":40303}",
    };
    for (size_t i = 0; i < N_OF(errors); i++) {
        struct reply r = scan(errors[i]);
        assert_true(r.is_error);
        assert_text(r.message, "why");
    }
    assert_false(scan("{\"error\":null,\"choices\":[{\"text\":\"a\"}]}").is_error);
    assert_false(scan("{\"object\":\"text_completion\"}").is_error);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "null",
        "DONE",
        "[DONE",
        "{\"choices\":[{\"text\":\"a\"}]",
        "{} {}",
        "{\"choices\":[{\"text\":\" wo",
        "{\"usage\":{\"prompt_tokens\":7.}}",
    };
    struct reply r;
    for (size_t i = 0; i < N_OF(bad); i++) {
        assert_false(reply_scan(bad[i], strlen(bad[i]), &r));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_the_text_is),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
