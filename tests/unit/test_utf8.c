/* Every character, and every beginning of two bytes, against the definition of UTF-8 spelt out. */
#include "model/utf8.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static size_t spell(uint32_t c, uint8_t out[4])
{
    size_t n = c < 0x80 ? 1 : (c < 0x800 ? 2 : (c < 0x10000 ? 3 : 4));
    for (size_t i = n; i-- > 1; c >>= 6) {
        out[i] = (uint8_t)(0x80 | (c & 0x3F));
    }
    static const uint8_t marks[5] = {0, 0, 0xC0, 0xE0, 0xF0};
    out[0] = (uint8_t)(marks[n] | c);
    return n;
}

static bool is_character(uint32_t c)
{
    return c < 0x110000 && (c < 0xD800 || c > 0xDFFF);
}

static void test_every_character(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x200000; c++) {
        uint8_t text[4];
        uint32_t code;
        size_t n = spell(c, text), got = utf8_next((const char *)text, n, &code);
        assert_int_equal(got, is_character(c) ? n : 1);
        assert_int_equal(code, is_character(c) ? c : UTF8_INVALID);
        if (n > 1) {
            assert_int_equal(utf8_next((const char *)text, n - 1, &code), 1);
            assert_int_equal(code, UTF8_INVALID);
        }
    }
}

/* What is read is what would be written: everything else is a stray byte. */
static void test_every_beginning(void **state)
{
    (void)state;
    static const uint8_t thirds[] = {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
    for (uint32_t i = 0; i < 0x10000 * sizeof thirds * sizeof thirds; i++) {
        uint32_t code, ends = i >> 16;
        uint8_t text[4] = {(uint8_t)(i >> 8), (uint8_t)i, thirds[ends / sizeof thirds],
                           thirds[ends % sizeof thirds]};
        uint8_t again[4];
        size_t n = utf8_next((const char *)text, 4, &code);
        if (code == UTF8_INVALID) {
            assert_int_equal(n, 1);
        } else {
            assert_true(is_character(code) && spell(code, again) == n);
            assert_memory_equal(again, text, n);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_every_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
