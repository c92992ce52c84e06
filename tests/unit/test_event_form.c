/* Events known by the form of another: which are, what they say, and which are not. */
#include "loadgen/event_form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CHAT                                                                                       \
    "{\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"%s\":\"%s\"},\"finish_reason\":%s}]}"

static void chat(char *out, size_t n, const char *key, const char *text, const char *finish)
{
    snprintf(out, n, CHAT, key, text, finish);
}

static void learn(struct event_form *f, const char *data)
{
    struct reply r;
    assert_true(reply_scan(data, strlen(data), &r));
    event_form_learn(f, data, strlen(data), &r);
}

static size_t match(const struct event_form *f, const char *bytes, struct reply *r)
{
    return event_form_match(f, bytes, bytes + strlen(bytes), r);
}

static void assert_says(struct json_text t, const char *said)
{
    assert_int_equal(t.len, strlen(said));
    assert_memory_equal(t.data, said, t.len);
}

static void test_alike(void **state)
{
    static const char *const texts[] = {" tide", "", "x", "schöne Flut", "a longer piece of text"};
    struct event_form f = {0};
    char data[512], event[600];
    struct reply r;
    (void)state;
    chat(data, sizeof data, "content", "first", "null");
    learn(&f, data);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        chat(data, sizeof data, "content", texts[i], "null");
        int n = snprintf(event, sizeof event, "data: %s\n\n", data);
        snprintf(event + n, sizeof event - (size_t)n, "data: more");
        assert_int_equal(match(&f, event, &r), n);
        assert_says(r.content, texts[i]);
        assert_true(r.has_choice && !r.is_finished && r.reasoning.len == 0);
        assert_int_equal(r.completion_tokens, -1);
    }
}

static void test_reasoning(void **state)
{
    struct event_form f = {0};
    char data[512], event[600];
    struct reply r;
    (void)state;
    chat(data, sizeof data, "reasoning_content", "so", "\"stop\"");
    learn(&f, data);
    chat(data, sizeof data, "reasoning_content", "hence", "\"stop\"");
    snprintf(event, sizeof event, "data: %s\n\n", data);
    assert_int_equal(match(&f, event, &r), strlen(event));
    assert_says(r.reasoning, "hence");
    assert_true(r.content.len == 0 && r.is_finished);
}

static void test_not_alike(void **state)
{
    static const char *const wrong[][3] = {
        // key, text, finish reason
        {"content", "a", "\"stop\""},        {"reasoning", "a", "null"},
        {"content", "a\\n", "null"},         {"content", "a\\u00e9", "null"},
        {"content", "a\"", "null"},          {"content", "a\t", "null"},
        {"content", "a\",\"x\":\"", "null"},
    };
    struct event_form f = {0};
    char data[512], event[600];
    struct reply r;
    (void)state;
    chat(data, sizeof data, "content", "a", "null");
    snprintf(event, sizeof event, "data: %s\n\n", data);
    assert_int_equal(match(&f, event, &r), 0); // nothing was learnt
    learn(&f, data);
    assert_int_equal(match(&f, event, &r), strlen(event));
    for (size_t n = 0; n < strlen(event); n++) { // not whole
        assert_int_equal(event_form_match(&f, event, event + n, &r), 0);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        chat(data, sizeof data, wrong[i][0], wrong[i][1], wrong[i][2]);
        snprintf(event, sizeof event, "data: %s\n\n", data);
        assert_int_equal(match(&f, event, &r), 0);
    }
}

static void test_other_framing(void **state)
{
    static const char *const framing[][2] = {{"data:", "\n\n"},
                                             {"data: ", "\r\n\r\n"},
                                             {"id: 1\ndata: ", "\n\n"},
                                             {"data: ", "\ndata: \n\n"},
                                             {" data: ", "\n\n"}};
    struct event_form f = {0};
    char data[512], event[600];
    struct reply r;
    (void)state;
    chat(data, sizeof data, "content", "a", "null");
    learn(&f, data);
    for (size_t i = 0; i < sizeof framing / sizeof *framing; i++) {
        snprintf(event, sizeof event, "%s%s%s", framing[i][0], data, framing[i][1]);
        assert_int_equal(match(&f, event, &r), 0);
    }
}

/* What has no text, two of them, an error's message, several lines or too many bytes is no form. */
static void test_no_form(void **state)
{
    static const char *const forms[] = {
        "{\"choices\":[{\"delta\":{\"content\":\"\"}}]",
        "{\"choices\":[{\"delta\":{\"content\":\"a\",\"reasoning\":\"b\"}}]",
        "{\"choices\":[{\"text\":\"a\"}],\"message\":\"m\"",
        "{\"choices\":[\n{\"text\":\"a\"}]",
    };
    char data[EVENT_FORM_BYTES + 200], event[sizeof data + 16], pad[EVENT_FORM_BYTES] = "";
    struct reply r;
    (void)state;
    for (size_t i = 0; i <= sizeof forms / sizeof *forms; i++) {
        bool is_long = i == sizeof forms / sizeof *forms;
        struct event_form f = {0};
        memset(pad, 'p', is_long ? sizeof pad - 1 : 0);
        snprintf(data, sizeof data, "%s,\"pad\":\"%s\"}",
                 is_long ? "{\"choices\":[{\"text\":\"a\"}]" : forms[i], pad);
        learn(&f, data);
        snprintf(event, sizeof event, "data: %s\n\n", data);
        assert_int_equal(match(&f, event, &r), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alike),     cmocka_unit_test(test_reasoning),
        cmocka_unit_test(test_not_alike), cmocka_unit_test(test_other_framing),
        cmocka_unit_test(test_no_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
