/*
 * The scanner of JSON: what is JSON and what is not, values taken or skipped, escapes, and nesting up to
 * its limit. Texts lie in blocks of their own size, so that a sanitizer sees a step outside.
 */
#include "core/json_scan.h"
#include "core/str.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

static char *block_of(const char *text)
{
    char *block = malloc(strlen(text) + 1);
    assert_non_null(block);
    memcpy(block, text, strlen(text));
    return block;
}

static bool is_json(const char *text)
{
    struct json_scan s;
    char *block = block_of(text);
    json_scan_init(&s, block, strlen(text));
    json_scan_skip(&s);
    bool is_good = json_scan_end(&s);
    free(block);
    return is_good;
}

static void test_what_json_is(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",  "[]",     " [ 1 , 2 ] ", "\"\"", "-0",
        "1e9", "1.5E-3", "null",        "true", "{\"a\":{\"b\":[[],{}]},\"c\":\"\\u00e9\"}",
        "0.0", "false",  "\"\xff\xfe\"" // bytes that are not UTF-8 are the caller's
    };
    static const char *const bad[] = {
        "",      "{",     "}",       "[1,]",       "[,1]",     "{\"a\"}", "{\"a\":}",
        "{a:1}", "01",    "1.",      ".5",         "+1",       "1e",      "-",
        "nul",   "truex", "\"\\x\"", "\"\\u12\"",  "\"a\nb\"", "\"a",     "[1 2]",
        "{} {}", "[1}",   "{]",      "{\"a\":1,}", "'a'",      "\"\\",    "{\"a\" 1}"};
    for (size_t i = 0; i < N_OF(good); i++) {
        if (!is_json(good[i])) {
            fail_msg("refused: %s", good[i]);
        }
    }
    for (size_t i = 0; i < N_OF(bad); i++) {
        if (is_json(bad[i])) {
            fail_msg("taken: %s", bad[i]);
        }
    }
}

static bool is_nested_json(size_t depth, char open, char close)
{
    struct str text = {0};
    for (size_t i = 0; i < depth; i++) {
        str_append(&text, &open, 1);
    }
    for (size_t i = 0; i < depth; i++) {
        str_append(&text, &close, 1);
    }
    bool is_good = is_json(text.data);
    str_free(&text);
    return is_good;
}

static void test_depth(void **state)
{
    (void)state;
    assert_true(is_nested_json(JSON_SCAN_DEPTH, '[', ']'));
    assert_false(is_nested_json(JSON_SCAN_DEPTH + 1, '[', ']'));
    assert_false(is_nested_json(100000, '[', ']'));
}

/* The value of the key "n" of an object as a whole number, or as any if that is NULL. */
static bool number(const char *text, int64_t *whole, double *any)
{
    struct json_scan s;
    struct json_text key;
    json_scan_init(&s, text, strlen(text));
    json_scan_object(&s);
    while (json_scan_key(&s, &key)) {
        if (json_text_is(key, "n")) {
            whole != NULL ? json_scan_whole(&s, whole) : json_scan_number(&s, any);
        } else {
            json_scan_skip(&s);
        }
    }
    return json_scan_end(&s);
}

static bool whole(const char *text, int64_t *n)
{
    return number(text, n, NULL);
}

static bool fraction(const char *text, double *x)
{
    return number(text, NULL, x);
}

static void test_whole_numbers(void **state)
{
    (void)state;
    int64_t n;
    assert_true(whole("{\"n\":0}", &n) && n == 0);
    assert_true(whole("{\"other\":[1.5,{\"n\":7}],\"n\": -12 }", &n) && n == -12);
    assert_true(whole("{\"n\":999999999999999999}", &n) && n == 999999999999999999);
    assert_false(whole("{\"n\":9999999999999999999}", &n));
    assert_false(whole("{\"n\":1.0}", &n));
    assert_false(whole("{\"n\":1e3}", &n));
    assert_false(whole("{\"n\":\"1\"}", &n));
    assert_false(whole("{\"n\":null}", &n));
    assert_false(whole("{\"n\":1", &n));
}

static void test_fractions(void **state)
{
    (void)state;
    double x;
    assert_true(fraction("{\"n\": 27.5}", &x) && x == 27.5);
    assert_true(fraction("{\"n\":-12}", &x) && x == -12.0);
    assert_true(fraction("{\"n\":5e-05,\"m\":1}", &x) && x == 5e-05);
    assert_true(fraction("{\"n\":1e999}", &x) && x > 1e300);
    assert_false(fraction("{\"n\":27.}", &x));
    assert_false(fraction("{\"n\":\"27.5\"}", &x));
    assert_false(fraction("{\"n\":nan}", &x));
    assert_false(fraction("{\"n\":27.5", &x));
    assert_false(
        fraction("{\"n\":1.00000000000000000000000000000000000000000000000000000000000000}",
                 &x)); // 64 bytes
}

static void test_keys_and_items_in_turn(void **state)
{
    (void)state;
    static const char text[] = "{\"list\":[\"a\",\"b\\\"c\",[]],\"last\":\"d\"}";
    struct json_scan s;
    struct json_text key, item;
    json_scan_init(&s, text, sizeof text - 1);
    json_scan_object(&s);
    assert_true(json_scan_key(&s, &key) && json_text_is(key, "list"));
    json_scan_list(&s);
    assert_true(json_scan_item(&s));
    json_scan_string(&s, &item);
    assert_true(json_text_is(item, "a"));
    assert_true(json_scan_item(&s));
    json_scan_string(&s, &item);
    assert_true(json_text_is(item, "b\\\"c")); // as it stands
    assert_true(json_scan_item(&s));
    assert_int_equal(json_scan_type(&s), JSON_SCAN_LIST);
    json_scan_skip(&s);
    assert_false(json_scan_item(&s));
    assert_true(json_scan_key(&s, &key) && json_text_is(key, "last"));
    json_scan_string(&s, &item);
    assert_false(json_scan_key(&s, &key));
    assert_true(json_scan_end(&s));
}

static void test_an_error_ends_all(void **state)
{
    (void)state;
    static const char text[] = "{\"a\":1,\"b\":2}";
    struct json_scan s;
    struct json_text key, value;
    json_scan_init(&s, text, sizeof text - 1);
    json_scan_object(&s);
    assert_true(json_scan_key(&s, &key));
    json_scan_string(&s, &value); // it is a number
    assert_int_equal(value.len, 0);
    assert_false(json_scan_key(&s, &key));
    assert_int_equal(json_scan_type(&s), JSON_SCAN_NONE);
    assert_false(json_scan_end(&s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_json_is),           cmocka_unit_test(test_depth),
        cmocka_unit_test(test_whole_numbers),          cmocka_unit_test(test_fractions),
        cmocka_unit_test(test_keys_and_items_in_turn), cmocka_unit_test(test_an_error_ends_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
