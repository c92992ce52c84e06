/* Prepared requests: found by event, bounded by count and bytes, overtaken by what was sent without. */
#include "loadgen/ready.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void begin(struct ready *r, size_t cap, size_t max_bytes)
{
    struct err e = {0};
    assert_int_equal(ready_begin(r, cap, max_bytes, &e), 0);
}

static size_t make(struct ready *r, const char *text)
{
    size_t event;
    struct str *s = ready_next(r, &event);
    assert_int_equal(s->len, 0);
    str_puts(s, text);
    ready_done(r);
    return event;
}

static void test_ring(void **state)
{
    (void)state;
    struct ready r = {0};
    begin(&r, 3, 1000);
    assert_null(ready_find(&r, 0));
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(make(&r, i == 1 ? "one" : "x"), i);
    }
    assert_false(ready_has_room(&r));
    assert_string_equal(ready_find(&r, 1)->data, "one");
    assert_null(ready_find(&r, 3));
    ready_drop(&r, 1); // 0 goes with it
    assert_null(ready_find(&r, 1));
    assert_non_null(ready_find(&r, 2));
    assert_int_equal(make(&r, "three"), 3);
    assert_int_equal(make(&r, "four"), 4);
    assert_string_equal(ready_find(&r, 3)->data, "three");
    assert_int_equal(r.n_bytes, 1 + 5 + 4);
    ready_free(&r);
}

static void test_bytes(void **state)
{
    (void)state;
    struct ready r = {0};
    begin(&r, 100, 6);
    make(&r, "12345");
    assert_true(ready_has_room(&r)); // what the next one takes is not known yet
    make(&r, "12345");
    assert_false(ready_has_room(&r));
    ready_drop(&r, 0);
    assert_true(ready_has_room(&r));
    ready_free(&r);
}

/* What a client takes away was as large as it was. */
static void test_payloads_taken_by_the_client(void **state)
{
    (void)state;
    struct ready r = {0};
    begin(&r, 3, 12);
    make(&r, "12345");
    for (size_t event = 0; event < 20; event++) {
        make(&r, "12345"); // so that the ring is never empty
        assert_int_equal(r.n_bytes, 10);
        struct str *payload = ready_find(&r, event);
        assert_string_equal(payload->data, "12345");
        str_free(payload);
        ready_drop(&r, event);
    }
    ready_free(&r);
}

static void test_sent_before_it_was_ready(void **state)
{
    (void)state;
    struct ready r = {0};
    begin(&r, 4, 1000);
    ready_drop(&r, 6);
    assert_int_equal(make(&r, "seven"), 7);
    ready_drop(&r, 3); // long past
    assert_non_null(ready_find(&r, 7));
    begin(&r, 4, 1000); // the next step
    assert_null(ready_find(&r, 7));
    assert_int_equal(make(&r, "zero"), 0);
    assert_int_equal(r.n_bytes, 4);
    ready_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_payloads_taken_by_the_client),
        cmocka_unit_test(test_sent_before_it_was_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
