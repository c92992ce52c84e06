/*
 * The inside of JSON strings: what it stands for, against jansson, and where it may be cut.
 */
#include "datasets/json_text.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <stdio.h>
#include <string.h>

static void test_plain(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "no escape: \xc3\xa4\xe2\x82\xac\xf0\x9f\x8c\x8a",
        "a\\nb\\t\\\"c\\\"\\\\ \\/ \\b\\f\\r",
        "\\u0041\\u00e4\\u20AC\\ud83c\\udf0a",
        "a string longer than a word of eight bytes, \\u00FC, and more of it",
        "12345678\xc3\xa4",
    };
    struct str plain = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char quoted[256];
        struct json_text out;
        snprintf(quoted, sizeof quoted, "[\"%s\"]", texts[i]);
        json_t *root = json_loads(quoted, 0, NULL);
        const char *want = json_string_value(json_array_get(root, 0));
        assert_true(json_text_plain((struct json_text){texts[i], strlen(texts[i])}, &plain, &out));
        assert_int_equal(out.len, strlen(want));
        assert_memory_equal(out.data, want, out.len);
        assert_true((out.data == texts[i]) == (strchr(texts[i], '\\') == NULL)); // no needless copy
        json_decref(root);
    }
    str_free(&plain);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\\ud83c",  "\\ud83c\\n", "\\udf0a",      "\\ud83c\\u0041",
        "\xff",     "\xc3",       "12345678\x80", "\xed\xa0\x80", // a surrogate in UTF-8
        "\xc0\x80",                                               // overlong
    };
    struct str plain = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct json_text out;
        assert_false(json_text_plain((struct json_text){texts[i], strlen(texts[i])}, &plain, &out));
    }
    str_free(&plain);
}

static void test_cut(void **state)
{
    (void)state;
    const char text[] = "ab\\n\xe2\x82\xac\\ud83c\\udf0a.";
    const size_t ends[] = {0, 1, 2, 4, 7, 19, 20}; // a b \n euro wave .
    for (size_t max = 0; max <= strlen(text) + 1; max++) {
        size_t want = 0;
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            want = ends[i] <= max ? ends[i] : want;
        }
        assert_int_equal(json_text_cut(text, strlen(text), max), want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
