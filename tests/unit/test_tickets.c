#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/rng.h"
#include "workers/tickets.h"

enum {
    N = 100,
};

struct entry {
    bool present;
    int32_t load_rank;
    struct wire_ticket ticket;
};

static uint32_t draw(uint32_t n, uint64_t a, uint64_t b)
{
    return (uint32_t)rng_below(n, 5, RNG_SHUFFLE, a, b);
}

static void check_all(const struct tickets *t, const struct entry *model)
{
    for (uint32_t i = 0; i < N; i++) {
        const struct entry *m = &model[i];
        if (m->present) {
            assert_int_equal(tickets_find(t, m->load_rank, m->ticket), i);
        }
    }
}

/* Slots collide on purpose: few of them, told apart by load rank and generation. */
static void test_against_model(void **state)
{
    (void)state;
    struct err e;
    struct tickets t;
    struct entry model[N] = {0};
    assert_int_equal(tickets_init(&t, N, &e), 0);
    for (uint32_t turn = 0; turn < 20000; turn++) {
        uint32_t i = draw(N, turn, 1);
        struct entry *m = &model[i];
        if (m->present) {
            tickets_remove(&t, i);
            m->present = false;
            assert_int_equal(tickets_find(&t, m->load_rank, m->ticket), TICKETS_NONE);
        } else {
            m->present = true;
            m->load_rank = (int32_t)draw(3, turn, 2);
            m->ticket = (struct wire_ticket){.slot = draw(8, turn, 3), .generation = turn};
            tickets_add(&t, i, m->load_rank, m->ticket);
        }
        if (turn % 100 == 0) {
            check_all(&t, model);
        }
    }
    tickets_free(&t);
}

static void test_latest_of_equals(void **state)
{
    (void)state;
    struct err e;
    struct tickets t;
    struct wire_ticket same = {.slot = 4, .generation = 4};
    assert_int_equal(tickets_init(&t, 3, &e), 0);
    tickets_add(&t, 0, 1, same);
    tickets_add(&t, 2, 1, same);
    assert_int_equal(tickets_find(&t, 1, same), 2);
    tickets_remove(&t, 2);
    assert_int_equal(tickets_find(&t, 1, same), 0);
    assert_int_equal(tickets_find(&t, 0, same), TICKETS_NONE);
    tickets_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_latest_of_equals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
