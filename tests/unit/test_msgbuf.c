#include "core/msgbuf.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static void copies_and_reuses(void **state)
{
    (void)state;
    struct msgbuf_pool p = {.cap_bytes = 1 << 20};
    struct msgbuf *a = msgbuf_get(&p, "abc", 3);
    assert_non_null(a);
    assert_memory_equal(a->data, "abc", 3);
    assert_int_equal((uintptr_t)a->data % 16, 0);
    size_t held = p.held_bytes;
    msgbuf_put(&p, a);
    struct msgbuf *b = msgbuf_get(&p, "defg", 4);
    assert_ptr_equal(a, b);
    assert_int_equal(b->n_bytes, 4);
    assert_int_equal(p.held_bytes, held);
    struct msgbuf *empty = msgbuf_get(&p, NULL, 0);
    assert_int_equal(empty->n_bytes, 0);
    msgbuf_put(&p, b);
    msgbuf_put(&p, empty);
    msgbuf_trim(&p);
    assert_int_equal(p.held_bytes, 0);
}

static void holds_its_bound(void **state)
{
    (void)state;
    static const char kib[1024];
    struct msgbuf_pool p = {.cap_bytes = 4096};
    struct msgbuf *got[4];
    for (int i = 0; i < 4; i++) {
        got[i] = msgbuf_get(&p, kib, sizeof kib);
        assert_non_null(got[i]);
    }
    assert_null(msgbuf_get(&p, kib, 1));
    for (int i = 0; i < 4; i++) {
        msgbuf_put(&p, got[i]);
    }
    // Idle buffers of another class make room.
    struct msgbuf *large = msgbuf_get(&p, kib, 300);
    assert_non_null(large);
    assert_true(p.held_bytes <= p.cap_bytes);
    msgbuf_put(&p, large);
    msgbuf_trim(&p);
    assert_int_equal(p.held_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_and_reuses),
        cmocka_unit_test(holds_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
