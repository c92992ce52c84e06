/* Normal forms beyond utf8proc: what it gets wrong, stray bytes, and NFC that converts only parts. */
#include "model/normal_form.h"
#include "model/unicode.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static void check(const char *form, const char *text, const char *want)
{
    struct str got = {0};
    str_puts(&got, "");
    normal_form_apply((enum normal_form)normal_form_find(form), text, strlen(text), &got);
    assert_string_equal(got.data, want);
    str_free(&got);
}

static void test_hangul(void **state)
{
    (void)state;
    static const char *const composed[] = {"NFC", "NFKC"};
    for (size_t i = 0; i < 2; i++) {
        check(composed[i], "\u1112\u1173\u11A8", "\uD751");
        check(composed[i], "\u1112\u1173\u11A7", "\uD750\u11A7"); // not a consonant: it stays
        check(composed[i], "\uAC00\u11A7\u11A8", "\uAC00\u11A7\u11A8");
        check(composed[i], "\uAC01\u11A8", "\uAC01\u11A8");
    }
    check("NFD", "\uD751\u11A7", "\u1112\u1173\u11A8\u11A7");
}

static void test_parts(void **state)
{
    (void)state;
    check("NFC", "plain", "plain");
    check("NFC", "ae\u0301b", "a\u00E9b");
    check("NFC", "q\u0323\u0307 q\u0307\u0323", "q\u0323\u0307 q\u0323\u0307");
    check("NFC", "\u212B\uFB01", "\u00C5\uFB01");
    check("NFKC", "\u212B\uFB01", "\u00C5fi");
    check("NFKD", "\u00E9\uFB01", "e\u0301fi");
}

static void test_stray_bytes(void **state)
{
    (void)state;
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    for (size_t i = 0; i < 4; i++) {
        check(forms[i], "a\xFF\xCC", "a\xFF\xCC");
        check(forms[i], "e\xFF\u0301", "e\xFF\u0301");
    }
}

static int set_up(void **state)
{
    (void)state;
    unicode_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hangul),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_stray_bytes),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
