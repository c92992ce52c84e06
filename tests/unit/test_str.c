/* Growable text, edit distance and reading whole files. */
#include "core/mem.h"
#include "core/str.h"
#include "core/err.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_append(void **state)
{
    (void)state;
    struct str s = {0};
    for (int i = 0; i < 10000; i++) {
        str_append(&s, "ab", 2);
        assert_int_equal(s.data[s.len], '\0');
        assert_true(s.len < s.cap);
    }
    assert_int_equal(s.len, 20000);
    assert_memory_equal(s.data + 19998, "ab", 3);
    size_t cap = s.cap;
    str_clear(&s);
    assert_string_equal(s.data, "");
    assert_int_equal(s.cap, cap);
    str_append(&s, "a\0b", 3);
    str_puts(&s, "c");
    assert_int_equal(s.len, 4);
    assert_memory_equal(s.data, "a\0bc", 5);
    str_free(&s);
    assert_null(s.data);
    str_clear(&s);
    str_append(&s, NULL, 0);
    assert_string_equal(s.data, "");
    str_free(&s);
}

static void test_printf_of_every_length(void **state)
{
    (void)state;
    for (int n = 0; n < 300; n++) {
        struct str s = {0};
        str_puts(&s, "<");
        str_printf(&s, "%*d>", n, 7);
        assert_int_equal(s.len, (size_t)(n < 1 ? 1 : n) + 2);
        assert_int_equal(s.len, strlen(s.data));
        assert_int_equal(s.data[s.len - 1], '>');
        str_free(&s);
    }
}

static void test_reserve_holds(void **state)
{
    (void)state;
    struct str s = {0};
    str_reserve(&s, 1000);
    const char *at = s.data;
    for (int i = 0; i < 1000; i++) {
        str_append(&s, "x", 1);
    }
    assert_ptr_equal(s.data, at);
    str_free(&s);
}

static void test_choices(void **state)
{
    (void)state;
    assert_int_equal(str_choice("text|json|html", "text"), 0);
    assert_int_equal(str_choice("text|json|html", "html"), 2);
    assert_int_equal(str_choice("one", "one"), 0);
    static const char *const none[] = {"", "tex", "texts", "xml", "text|json", "|"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_int_equal(str_choice("text|json|html", none[i]), -1);
    }
    struct str s = {0};
    str_puts(&s, "not one of ");
    str_put_choices(&s, "text|json|html");
    assert_string_equal(s.data, "not one of text, json, html");
    str_free(&s);
}

static void test_distance(void **state)
{
    (void)state;
    assert_int_equal(str_distance("", ""), 0);
    assert_int_equal(str_distance("rates", "rates"), 0);
    assert_int_equal(str_distance("ratez", "rates"), 1);
    assert_int_equal(str_distance("", "rates"), 5);
    assert_int_equal(str_distance("rates", ""), 5);
    assert_int_equal(str_distance("kitten", "sitting"), 3);
    assert_int_equal(str_distance("sitting", "kitten"), 3);
    assert_int_equal(str_distance("laod", "load"), 1); // a swap is one slip
    assert_int_equal(str_distance("pipline", "pipeline"), 1);
    char a[200], b[200];
    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    a[199] = b[199] = '\0';
    assert_int_equal(str_distance(a, b), 63);
}

static char *temp_file(const void *bytes, size_t n)
{
    char *path = xstrdup("/tmp/tidemark-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
    return path;
}

static void test_read_file(void **state)
{
    (void)state;
    struct err e = {0};
    struct str s = {0};
    str_puts(&s, "replaced");
    char *path = temp_file("ab\0cd", 5);
    assert_int_equal(str_read_file(&s, path, 5, &e), 0);
    assert_int_equal(s.len, 5);
    assert_memory_equal(s.data, "ab\0cd", 6);
    assert_int_equal(str_read_file(&s, path, 4, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, path));
    assert_non_null(strstr(e.msg, "5 bytes, larger than 4"));
    assert_int_equal(s.len, 5); // kept on error
    unlink(path);
    assert_int_equal(str_read_file(&s, path, 5, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "No such file"));
    free(path);
    path = temp_file("", 0);
    assert_int_equal(str_read_file(&s, path, 0, &e), 0);
    assert_int_equal(s.len, 0);
    assert_string_equal(s.data, "");
    unlink(path);
    free(path);
    str_free(&s);
}

static void test_read_what_is_no_plain_file(void **state)
{
    (void)state;
    struct err e = {0};
    struct str s = {0};
    assert_int_equal(str_read_file(&s, "/tmp", 100, &e), -1);
    assert_string_equal(e.msg, "/tmp: not a regular file");
    assert_int_equal(e.code, ERR_INPUT);
    char *path = temp_file("", 0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(str_read_file(&s, path, 100, &e), -1); // and does not hang
    assert_non_null(strstr(e.msg, "not a regular file"));
    unlink(path);
    free(path);
    assert_int_equal(str_read_file(&s, "/proc/self/status", 1 << 20, &e), 0); // says size 0
    assert_true(s.len > 100);
    assert_int_equal(str_read_file(&s, "/proc/self/status", 10, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    str_free(&s);
}

static void test_read_large_file(void **state)
{
    (void)state;
    size_t n = (size_t)3 << 20;
    unsigned char *bytes = xmalloc(n);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    }
    char *path = temp_file(bytes, n);
    struct err e = {0};
    struct str s = {0};
    assert_int_equal(str_read_file(&s, path, n, &e), 0);
    assert_int_equal(s.len, n);
    assert_memory_equal(s.data, bytes, n);
    unlink(path);
    free(path);
    free(bytes);
    str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_printf_of_every_length),
        cmocka_unit_test(test_reserve_holds),
        cmocka_unit_test(test_choices),
        cmocka_unit_test(test_distance),
        cmocka_unit_test(test_read_file),
        cmocka_unit_test(test_read_what_is_no_plain_file),
        cmocka_unit_test(test_read_large_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
