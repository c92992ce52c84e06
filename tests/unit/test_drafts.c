/* Drafts: made in the order they were wanted, found by turn, bounded by bytes, gone when nobody wants them. */
#include "loadgen/drafts.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void begin(struct drafts *d, size_t n, size_t max_bytes)
{
    struct err e = {0};
    assert_int_equal(drafts_begin(d, n, max_bytes, &e), 0);
}

/* Make the next one, which is to be `id`. */
static void make(struct drafts *d, uint64_t id, const char *text)
{
    uint64_t next;
    assert_true(drafts_next(d, &next));
    assert_int_equal(next, id);
    struct str *payload = drafts_make(d);
    assert_int_equal(payload->len, 0);
    str_puts(payload, text);
    drafts_done(d);
}

static void test_in_order(void **state)
{
    (void)state;
    struct drafts d = {0};
    uint64_t next;
    begin(&d, 3, 1000);
    assert_false(drafts_next(&d, &next));
    for (uint64_t round = 0; round < 10; round++) {
        uint64_t id = 10 * round;
        drafts_want(&d, 2, id + 2);
        drafts_want(&d, 0, id);
        drafts_want(&d, 0, id + 7); // another one is wanted there
        make(&d, id + 2, "two");
        drafts_want(&d, 2, id + 8); // another one is ready there
        make(&d, id, "zero");
        assert_false(drafts_next(&d, &next));
        assert_int_equal(d.n_bytes, 7);
        assert_null(drafts_take(&d, 0, id + 7));
        assert_string_equal(drafts_take(&d, 0, id)->data, "zero");
        assert_null(drafts_take(&d, 0, id)); // once
        struct str *payload = drafts_take(&d, 2, id + 2);
        assert_string_equal(payload->data, "two");
        str_free(payload); // the client keeps it
        assert_int_equal(d.n_bytes, 0);
    }
    drafts_free(&d);
}

/* Sent before it was made, or never to be sent: it is not made any more. */
static void test_gone_before_they_are_made(void **state)
{
    (void)state;
    struct drafts d = {0};
    uint64_t next;
    begin(&d, 2, 1000);
    drafts_want(&d, 0, 1);
    drafts_want(&d, 1, 2);
    assert_null(drafts_take(&d, 0, 1));
    make(&d, 2, "two");
    assert_false(drafts_next(&d, &next));
    drafts_want(&d, 0, 3);
    assert_null(drafts_take(&d, 0, 3));
    drafts_want(&d, 0, 4); // in the queue once
    make(&d, 4, "four");
    assert_false(drafts_next(&d, &next));
    assert_string_equal(drafts_take(&d, 0, 4)->data, "four");
    drafts_free(&d);
}

static void test_bytes(void **state)
{
    (void)state;
    struct drafts d = {0};
    uint64_t next;
    begin(&d, 10, 6);
    for (uint64_t i = 0; i < 10; i++) {
        drafts_want(&d, i, i);
    }
    make(&d, 0, "12345");
    make(&d, 1, "12345"); // what it takes was not known before
    assert_false(drafts_next(&d, &next));
    str_free(drafts_take(&d, 0, 0));
    make(&d, 2, "1");
    assert_false(drafts_next(&d, &next));
    drafts_free(&d);
}

static void test_steps(void **state)
{
    (void)state;
    struct drafts d = {0};
    uint64_t next;
    begin(&d, 0, 1000); // a step without turns
    drafts_want(&d, 5, 5);
    assert_false(drafts_next(&d, &next));
    assert_null(drafts_take(&d, 5, 5));
    for (int i = 0; i < 2; i++) {
        begin(&d, 4, 1000);
        assert_null(drafts_take(&d, 1, 1)); // of the last step
        drafts_want(&d, 1, 1);
        drafts_want(&d, 6, 6); // more of them than places
        make(&d, 1, "one");
        make(&d, 6, "six");
        drafts_want(&d, 3, 3);
    }
    drafts_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_gone_before_they_are_made),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
