/*
 * The inside of JSON strings: what it says and how plain text is put, against jansson, and where it may
 * be cut.
 */
#include "core/json_text.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>

#include <stdlib.h>
#include <string.h>

#define N_OF(a) (sizeof(a) / sizeof((a)[0]))

/* A copy of exactly this size, so that the sanitizer sees a read past its end. */
static char *block_of(const char *text)
{
    char *block = malloc(strlen(text) + 1);
    assert_non_null(block);
    memcpy(block, text, strlen(text));
    return realloc(block, strlen(text) > 0 ? strlen(text) : 1);
}

static void test_unescape(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        bool whole; // no half of a surrogate pair stands alone
    } cases[] = {
        {"", "", true},
        {"plain \xc3\xa4\xe2\x82\xac\xf0\x9f\x8c\x8a", "plain \xc3\xa4\xe2\x82\xac\xf0\x9f\x8c\x8a",
         true},
        {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t", true},
        {"caf\\u00e9 \\u6c34", "caf\xc3\xa9 \xe6\xb0\xb4", true},
        {"\\uD83D\\uDE00!", "\xf0\x9f\x98\x80!", true},
        {"\\u007f\\u0080\\u07ff\\u0800", "\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80", true},
        {"\\ufffd", "\xef\xbf\xbd", true},
        {"\\ud83d", "\xef\xbf\xbd", false},
        {"\\ud83dx", "\xef\xbf\xbdx", false},
        {"\\ude00\\ud83d", "\xef\xbf\xbd\xef\xbf\xbd", false},
        {"\\ud83d\\u0041",
         "\xef\xbf\xbd"
         "A",
         false},
    };
    for (size_t i = 0; i < N_OF(cases); i++) {
        struct str out = {0};
        char *block = block_of(cases[i].text);
        struct json_text t = {block, strlen(cases[i].text)};
        str_puts(&out, ">"); // it appends
        assert_int_equal(json_text_unescape(t, &out), cases[i].whole);
        assert_string_equal(out.data + 1, cases[i].says);
        str_free(&out);
        free(block);
    }
}

/* What is escaped reads back, by another reader and by ours. */
static void test_escape(void **state)
{
    (void)state;
    char all[256];
    for (int i = 0; i < 127; i++) {
        all[i] = (char)(i + 1);
    }
    strcpy(all + 127, "\xc3\xa4\xf0\x9f\x8c\x8a");
    struct str quoted = {0}, back = {0};
    str_puts(&quoted, "[\"");
    json_text_escape(&quoted, all, strlen(all));
    struct json_text inside = {quoted.data + 2, quoted.len - 2};
    assert_true(json_text_unescape(inside, &back));
    assert_string_equal(back.data, all);
    str_puts(&quoted, "\"]");
    json_t *root = json_loadb(quoted.data, quoted.len, 0, NULL);
    assert_string_equal(json_string_value(json_array_get(root, 0)), all);
    json_decref(root);
    str_free(&quoted);
    str_free(&back);
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
        cmocka_unit_test(test_unescape),
        cmocka_unit_test(test_escape),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
