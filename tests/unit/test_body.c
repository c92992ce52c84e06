/* Bodies of requests as JSON: what goes along with which settings, and the prompt as text or as ids. */
#include "core/mem.h"
#include "loadgen/body.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <stdlib.h>
#include <string.h>

#define SEED 5
#define N_IN 8

static struct dataset *dataset;

static int set_up(void **state)
{
    (void)state;
    struct dataset_config c = {0};
    struct err e = {0};
    const struct dataset_model model = {.vocab = 400, .context = 4096, .may_estimate = true};
    json_t *root = json_pack("{s:{s:i, s:i}}", "load", "input_tokens", N_IN, "output_tokens", 3);
    opt_defaults(dataset_options, &c);
    int rc = opt_apply(dataset_options, &c, root, &e);
    rc = rc ? rc : dataset_open(&dataset, &c, &model, &e);
    if (rc != 0) {
        print_message("%s\n", e.msg);
    }
    opt_free(dataset_options, &c);
    json_decref(root);
    return rc;
}

static int tear_down(void **state)
{
    (void)state;
    dataset_close(dataset);
    return 0;
}

/* The body of one event under these settings, as jansson reads it. */
static json_t *body_of(const struct endpoint_config *c, bool ignore_eos, uint64_t event)
{
    struct body b;
    struct str out = {0};
    struct prompt p;
    json_error_t why;
    body_init(&b, c, "the \"model\"", ignore_eos);
    dataset_get(dataset, SEED, event, 0, &p);
    body_write(&b, dataset, SEED, event, &p, &out);
    json_t *root = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, &why);
    if (!root) {
        fail_msg("%s in %s", why.text, out.data);
    }
    assert_string_equal(json_string_value(json_object_get(root, "model")), "the \"model\"");
    str_free(&out);
    body_free(&b);
    return root;
}

static bool has(const json_t *root, const char *key)
{
    return json_object_get(root, key) != NULL;
}

static json_int_t whole(const json_t *root, const char *key)
{
    assert_true(json_is_integer(json_object_get(root, key)));
    return json_integer_value(json_object_get(root, key));
}

static void test_chat(void **state)
{
    (void)state;
    const struct endpoint_config c = {.api = ENDPOINT_CHAT, .stream = true, .min_tokens = true};
    json_t *root = body_of(&c, true, 0);
    const json_t *messages = json_object_get(root, "messages");
    const json_t *last = json_array_get(messages, json_array_size(messages) - 1);
    assert_string_equal(json_string_value(json_object_get(last, "role")), "user");
    assert_true(json_string_length(json_object_get(last, "content")) > 0);
    assert_true(json_is_true(json_object_get(root, "stream")));
    const json_t *options = json_object_get(root, "stream_options");
    assert_true(json_is_true(json_object_get(options, "include_usage")));
    assert_false(has(options, "continuous_usage_stats"));
    assert_int_equal(whole(root, "max_tokens"), 3);
    assert_int_equal(whole(root, "min_tokens"), 3);
    assert_true(json_is_true(json_object_get(root, "ignore_eos")));
    assert_false(has(root, "prompt"));
    json_decref(root);
}

static void test_completions(void **state)
{
    (void)state;
    const struct endpoint_config c = {.api = ENDPOINT_COMPLETIONS,
                                      .max_tokens_key = 1,
                                      .min_tokens = true,
                                      .temperature = 0.5,
                                      .top_p = 0.25,
                                      .top_k = 7,
                                      .min_p = 0.125};
    json_t *root = body_of(&c, false, 1);
    assert_true(json_string_length(json_object_get(root, "prompt")) > 0);
    assert_int_equal(whole(root, "max_completion_tokens"), 3);
    assert_true(json_real_value(json_object_get(root, "temperature")) == 0.5);
    assert_true(json_real_value(json_object_get(root, "top_p")) == 0.25);
    assert_true(json_real_value(json_object_get(root, "min_p")) == 0.125);
    assert_int_equal(whole(root, "top_k"), 7);
    assert_true(json_is_false(json_object_get(root, "stream")));
    assert_false(has(root, "stream_options") || has(root, "ignore_eos") || has(root, "messages"));
    assert_false(has(root, "min_tokens") || has(root, "max_tokens"));
    json_decref(root);
}

static void test_ids(void **state)
{
    (void)state;
    const struct endpoint_config c = {.api = ENDPOINT_COMPLETIONS, .prompt = ENDPOINT_IDS};
    struct prompt p;
    int32_t scratch[N_IN];
    json_t *root = body_of(&c, false, 2), *id;
    size_t i;
    dataset_get(dataset, SEED, 2, 0, &p);
    const int32_t *ids = dataset_ids(dataset, SEED, 2, &p, scratch);
    const json_t *list = json_object_get(root, "prompt");
    assert_int_equal(json_array_size(list), N_IN);
    json_array_foreach(list, i, id)
    {
        assert_int_equal(json_integer_value(id), ids[i]);
    }
    json_decref(root);
}

static void test_usage(void **state)
{
    (void)state;
    struct endpoint_config c = {.stream = true, .usage = ENDPOINT_USAGE_CONTINUOUS};
    json_t *root = body_of(&c, false, 0);
    const json_t *options = json_object_get(root, "stream_options");
    assert_true(json_is_true(json_object_get(options, "continuous_usage_stats")));
    json_decref(root);
    c.usage = ENDPOINT_USAGE_NONE;
    root = body_of(&c, false, 0);
    assert_false(has(root, "stream_options"));
    json_decref(root);
}

static void test_the_users_keys_win(void **state)
{
    (void)state;
    char extra[] = "{\"temperature\": null, \"max_tokens\": 77, \"min_tokens\": 1, "
                   "\"stop\": [\"\\n\", \"caf\xc3\xa9\"], \"ignore_eos\": false}";
    const struct endpoint_config c = {.stream = true, .min_tokens = true, .extra_body = extra};
    json_t *root = body_of(&c, true, 0);
    assert_false(has(root, "temperature"));
    assert_int_equal(whole(root, "max_tokens"), 77);
    assert_int_equal(whole(root, "min_tokens"), 1);
    assert_true(json_is_false(json_object_get(root, "ignore_eos")));
    assert_int_equal(json_array_size(json_object_get(root, "stop")), 2);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_completions),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_the_users_keys_win),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
