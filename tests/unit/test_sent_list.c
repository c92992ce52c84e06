/* Requests by time of sending: removed from anywhere, the first is always the one sent first. */
#include "loadgen/sent_list.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static void test_in_order(void **state)
{
    (void)state;
    struct sent_list l;
    struct sent_link k[4] = {0};
    sent_list_init(&l);
    assert_int_equal(sent_list_first(&l), SENT_NONE);
    for (uint32_t i = 0; i < 4; i++) {
        sent_list_add(&l, &k[i], 10 + i);
        assert_int_equal(sent_list_first(&l), 10);
    }
    sent_list_remove(&k[1]); // from the middle
    sent_list_remove(&k[0]); // the first
    assert_int_equal(sent_list_first(&l), 12);
    sent_list_remove(&k[3]); // the last
    sent_list_add(&l, &k[0], 20);
    assert_int_equal(sent_list_first(&l), 12);
    sent_list_remove(&k[2]);
    assert_int_equal(sent_list_first(&l), 20);
    sent_list_remove(&k[0]);
    assert_int_equal(sent_list_first(&l), SENT_NONE);
}

static void test_removing_twice_is_nothing(void **state)
{
    (void)state;
    struct sent_list l;
    struct sent_link never = {0}, a = {0}, b = {0};
    sent_list_init(&l);
    sent_list_remove(&never);
    sent_list_add(&l, &a, 1);
    sent_list_add(&l, &b, 2);
    sent_list_remove(&a);
    sent_list_remove(&a);
    assert_int_equal(sent_list_first(&l), 2);
    sent_list_add(&l, &a, 3);
    sent_list_remove(&b);
    assert_int_equal(sent_list_first(&l), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_removing_twice_is_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
