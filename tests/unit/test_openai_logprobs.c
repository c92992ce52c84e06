#include "workers/openai_logprobs.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <string.h>

enum {
    A,
    QUOTE,
    ACUTE,
    SAME, // shown as A is
    EOS,
};

static const char tokens[] =
    "{\"added_tokens\":[{\"id\":4,\"content\":\"</s>\",\"special\":true,\"normalized\":false,"
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false}],"
    "\"decoder\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\"\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"\\\"a\":1,\"\\u00e9\":2,\"_a\":3},\"merges\":[]}}";

static struct {
    struct wire_logprobs head;
    struct wire_logprob top[3];
} message;

/* A token and its alternatives. */
static const struct wire_logprobs *say(int32_t id, float logprob, uint32_t n_top, int32_t first,
                                       int32_t second)
{
    message.head.token = (struct wire_logprob){id, logprob};
    message.head.n_top = n_top;
    message.head.top[0] = (struct wire_logprob){first, -0.5F};
    message.head.top[1] = (struct wire_logprob){second, -1.5F};
    return &message.head;
}

static json_t *take(struct openai_logprobs *p)
{
    struct str out = {0};
    assert_true(openai_logprobs_put(p, &out));
    json_t *root = json_loads(out.data, JSON_REJECT_DUPLICATES, NULL);
    if (!root) {
        fail_msg("no JSON: %s", out.data);
    }
    str_free(&out);
    return root;
}

static struct tokenizer *open_tokenizer(void)
{
    struct err e = {0};
    struct tokenizer *t;
    if (tokenizer_parse(&t, tokens, strlen(tokens), "test", 5, &e)) {
        fail_msg("%s", e.msg);
    }
    return t;
}

static void test_completions(void **state)
{
    (void)state;
    struct tokenizer *t = open_tokenizer();
    struct openai_logprobs p = {.tokenizer = t};
    struct str none = {0};
    assert_false(openai_logprobs_put(&p, &none));
    openai_logprobs_add(&p, say(ACUTE, -0.5F, 2, ACUTE, QUOTE));
    openai_logprobs_add(&p, say(A, -3, 2, QUOTE, SAME));
    json_t *root = take(&p), *lists[4];
    static const char *const names[] = {"tokens", "token_logprobs", "text_offset", "top_logprobs"};
    for (int i = 0; i < 4; i++) {
        lists[i] = json_object_get(root, names[i]);
        assert_int_equal(json_array_size(lists[i]), 2);
    }
    assert_string_equal(json_string_value(json_array_get(lists[0], 0)), "\xc3\xa9");
    assert_true(json_number_value(json_array_get(lists[1], 1)) == -3);
    assert_int_equal(json_integer_value(json_array_get(lists[2], 1)), 1); // characters, not bytes
    assert_int_equal(json_object_size(json_array_get(lists[3], 0)), 2);
    // The token itself is shown as its second alternative is, which is likelier.
    const json_t *top = json_array_get(lists[3], 1);
    assert_int_equal(json_object_size(top), 2);
    assert_true(json_number_value(json_object_get(top, "a")) == -1.5);
    json_decref(root);
    openai_logprobs_add(&p, say(EOS, -INFINITY, 0, 0, 0));
    root = take(&p);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(root, "text_offset"), 0)),
                     2);
    assert_string_equal(json_string_value(json_array_get(json_object_get(root, "tokens"), 0)),
                        "</s>");
    const json_t *least = json_array_get(json_object_get(root, "token_logprobs"), 0);
    assert_true(json_number_value(least) == -9999);
    json_decref(root);
    openai_logprobs_free(&p);
    tokenizer_close(t);
}

static void test_chats(void **state)
{
    (void)state;
    struct tokenizer *t = open_tokenizer();
    struct openai_logprobs p = {.chat = true, .tokenizer = t};
    openai_logprobs_add(&p, say(QUOTE, -1.5F, 2, A, QUOTE));
    openai_logprobs_add(&p, say(ACUTE, -0.5F, 0, 0, 0));
    json_t *root = take(&p), *content = json_object_get(root, "content");
    assert_int_equal(json_array_size(content), 2);
    const json_t *first = json_array_get(content, 0), *top = json_object_get(first, "top_logprobs");
    assert_string_equal(json_string_value(json_object_get(first, "token")), "\"a");
    assert_int_equal(json_array_size(json_object_get(first, "bytes")), 2);
    assert_int_equal(json_array_size(top), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(top, 0), "token")), "a");
    const json_t *bytes = json_object_get(json_array_get(content, 1), "bytes");
    assert_int_equal(json_integer_value(json_array_get(bytes, 0)), 0xC3);
    json_decref(root);
    openai_logprobs_free(&p);
    tokenizer_close(t);
}

static void test_without_a_tokenizer(void **state)
{
    (void)state;
    struct openai_logprobs p = {0};
    openai_logprobs_add(&p, say(31, -1, 1, 31, 0));
    json_t *root = take(&p);
    assert_string_equal(json_string_value(json_array_get(json_object_get(root, "tokens"), 0)),
                        " 31");
    json_decref(root);
    openai_logprobs_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_completions),
        cmocka_unit_test(test_chats),
        cmocka_unit_test(test_without_a_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
