/*
 * The table of requests in flight: tickets that have gone stale, token times across chunks, and that
 * slots and chunks come back, so that a long step takes no more memory than what is in flight.
 */
#include "core/clock.h"
#include "loadgen/live.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#define MAX_TOKENS 1000

static struct live_table *open_table(uint32_t n_slots, size_t n_chunks)
{
    struct live_table *t = NULL;
    struct err e = {0};
    assert_int_equal(live_create(&t, n_slots, MAX_TOKENS, &e), 0);
    assert_int_equal(live_reserve(t, n_chunks, &e), 0);
    return t;
}

static struct live *take(struct live_table *t, uint64_t id, uint32_t n_out)
{
    struct plan_event ev = {.id = id, .n_in = 3, .n_out = n_out};
    struct live *l = live_take(t, &ev, 500);
    live_sent(l, 1000);
    return l;
}

static void end_and_free(struct live_table *t, struct live *l)
{
    live_end(t, l, OUTCOME_OK, 0, 2000);
    assert_ptr_equal(live_next_ended(t), l);
    live_free(t, l);
}

static void test_stale_and_foreign_tickets_are_nobody(void **state)
{
    (void)state;
    struct live_table *t = open_table(4, 100);
    struct wire_ticket far = {.slot = 3}, outside = {.slot = UINT32_MAX};
    assert_null(live_find(t, (struct wire_ticket){0}));
    struct live *l = take(t, 1, 5);
    struct wire_ticket ticket = l->ticket;
    assert_ptr_equal(live_find(t, ticket), l);
    assert_null(live_find(t, far)); // never taken
    assert_null(live_find(t, outside));
    live_end(t, l, OUTCOME_OK, 0, 2000);
    assert_null(live_find(t, ticket)); // ended, not freed yet
    live_free(t, l);
    assert_null(live_find(t, ticket));
    struct live *again = take(t, 2, 5);
    assert_ptr_equal(again, l);        // last in, first out
    assert_null(live_find(t, ticket)); // the slot's former tenant
    assert_ptr_equal(live_find(t, again->ticket), again);
    live_destroy(t);
}

static void test_a_full_table_frees_up(void **state)
{
    (void)state;
    struct live_table *t = open_table(3, 100);
    struct live *l[3];
    for (uint64_t i = 0; i < 3; i++) {
        assert_false(live_is_full(t));
        l[i] = take(t, i, 1);
    }
    assert_true(live_is_full(t));
    assert_int_equal(live_in_flight(t), 3);
    assert_ptr_equal(live_busy_from(t, 0), l[0]);
    live_end(t, l[2], OUTCOME_OK, 0, 2000);
    live_end(t, l[0], OUTCOME_CONNECT, 111, 3000);
    assert_ptr_equal(live_busy_from(t, 0), l[1]);
    assert_null(live_busy_from(t, l[1]->ticket.slot + 1));
    assert_int_equal(live_in_flight(t), 1);
    assert_true(live_is_full(t));               // until the records are out
    assert_ptr_equal(live_next_ended(t), l[2]); // in the order of their ends
    live_free(t, l[2]);
    assert_ptr_equal(live_next_ended(t), l[0]);
    assert_int_equal(l[0]->rec.outcome, OUTCOME_CONNECT);
    assert_int_equal(l[0]->rec.error, 111);
    assert_int_equal(l[0]->t_end_ns, 3000);
    live_free(t, l[0]);
    assert_null(live_next_ended(t));
    assert_false(live_is_full(t));
    live_destroy(t);
}

/* One token every 1.5 us, in chunks of 1, 2, 3, ...: the gaps add up to the times, to the us. */
static void test_token_times(void **state)
{
    (void)state;
    static uint32_t dt_us[MAX_TOKENS];
    struct live_table *t = open_table(2, live_chunks(MAX_TOKENS));
    struct live *l = take(t, 1, MAX_TOKENS);
    int64_t t_ns = 1000;
    uint32_t n_chunks = 0, n = 0;
    live_byte(l, 2000);
    for (uint32_t k = 1; n < MAX_TOKENS; k++, n_chunks++) {
        k = k <= MAX_TOKENS - n ? k : MAX_TOKENS - n;
        t_ns += 1500;
        assert_true(live_tokens(t, l, k, t_ns));
        n += k;
    }
    assert_int_equal(l->rec.n_out, MAX_TOKENS);
    assert_int_equal(l->rec.n_chunks, n_chunks);
    assert_int_equal(l->rec.itl_max_us, 2);
    assert_true(l->rec.t_byte_ns == 2000 && l->rec.t_first_ns == 2500);
    assert_true(l->rec.t_content_ns == 2500 && l->rec.t_last_ns == t_ns);
    assert_false(live_tokens(t, l, live_room(MAX_TOKENS) - MAX_TOKENS + 1, t_ns)); // no room
    assert_int_equal(l->rec.n_out, MAX_TOKENS);
    live_copy_tokens(t, l, dt_us);
    int64_t sum_us = 0;
    uint32_t i = 0;
    for (uint32_t k = 1, chunk = 1; i < MAX_TOKENS; k++, chunk++) {
        k = k <= MAX_TOKENS - i ? k : MAX_TOKENS - i;
        sum_us += dt_us[i];
        assert_true(sum_us == chunk * 1500 / NS_PER_US);
        for (uint32_t j = 1; j < k; j++) {
            assert_int_equal(dt_us[i + j], 0);
        }
        i += k;
    }
    live_destroy(t);
}

/* A clock that steps back by a clock correction, and a gap of hours, are held to what fits. */
static void test_odd_times(void **state)
{
    (void)state;
    uint32_t dt_us[3];
    struct live_table *t = open_table(1, 1);
    struct live *l = take(t, 1, 3);
    assert_true(live_tokens(t, l, 1, 500)); // before it was sent
    assert_true(live_tokens(t, l, 1, 5000000));
    assert_true(live_tokens(t, l, 1, 7200 * NS_PER_S));
    live_copy_tokens(t, l, dt_us);
    assert_int_equal(dt_us[0], 0);
    assert_int_equal(dt_us[1], 4999);
    assert_int_equal(dt_us[2], UINT32_MAX);
    live_destroy(t);
}

/* Room for exactly two replies, used 2,000 times over: a chunk that leaked would end the pool. */
static void test_chunks_come_back(void **state)
{
    (void)state;
    static uint32_t dt_us[MAX_TOKENS];
    struct live_table *t = open_table(2, 2 * live_chunks(200));
    for (uint64_t id = 0; id < 2000; id++) {
        uint32_t n = 1 + (uint32_t)(id * 37 % 200);
        struct live *a = take(t, id, 200), *b = take(t, id, n);
        for (uint32_t i = 0; i < n; i++) { // interleaved, so that chunks alternate
            assert_true(live_tokens(t, a, 1, 1000 + (i + 1) * 3000));
            assert_true(live_tokens(t, b, 1, 1000 + (i + 1) * 5000));
        }
        live_copy_tokens(t, a, dt_us);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(dt_us[i], 3);
        }
        live_copy_tokens(t, b, dt_us);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(dt_us[i], 5);
        }
        end_and_free(t, b);
        end_and_free(t, a);
    }
    live_destroy(t);
}

static void test_a_new_record_is_clean(void **state)
{
    (void)state;
    struct live_table *t = open_table(1, 10);
    struct live *l = take(t, 1, 4);
    assert_true(live_tokens(t, l, 4, 9000));
    l->rec.n_stages = 3;
    end_and_free(t, l);
    struct plan_event ev = {.id = 2, .t_ns = 77, .n_in = 5, .n_out = 6};
    l = live_take(t, &ev, 1234);
    struct record expected;
    record_init(&expected);
    expected.id = 2;
    expected.t_sched_ns = 1234;
    expected.n_in = 5;
    expected.n_out_req = 6;
    assert_memory_equal(&l->rec, &expected, sizeof expected);
    live_destroy(t);
}

static void assert_tokens(struct live_table *t, struct live *l, uint32_t n, const uint32_t *wanted)
{
    uint32_t dt_us[MAX_TOKENS];
    assert_int_equal(l->rec.n_out, n);
    live_copy_tokens(t, l, dt_us);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(dt_us[i], wanted[i]);
    }
}

/* Messages at 10, 30 and 60 us after the request. */
static struct live *three_messages(struct live_table *t, uint32_t n_out_req)
{
    struct live *l = take(t, 1, n_out_req);
    assert_true(live_tokens(t, l, 1, 11000));
    assert_true(live_tokens(t, l, 1, 31000));
    assert_true(live_tokens(t, l, 1, 61000));
    return l;
}

static void test_recounted_messages(void **state)
{
    (void)state;
    static const struct {
        uint32_t counts[3], n, dt_us[8], longest_us;
    } cases[] = {
        {{1, 1, 1}, 3, {10, 20, 30}, 30},
        {{3, 1, 2}, 6, {10, 0, 0, 20, 30, 0}, 30},
        {{1, 0, 1}, 2, {10, 50}, 50}, // the gap of a message without a token is the next one's
        {{1, 0, 0}, 1, {10}, 0},
    };
    struct live_table *t = open_table(1, 10);
    uint32_t gaps_us[MAX_TOKENS];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct live *l = three_messages(t, 8);
        live_recount(t, l, cases[i].counts, gaps_us);
        assert_tokens(t, l, cases[i].n, cases[i].dt_us);
        assert_int_equal(l->rec.n_chunks, 3);
        assert_int_equal(l->rec.itl_max_us, cases[i].longest_us);
        assert_int_equal(l->rec.t_last_ns, 61000);
        end_and_free(t, l);
    }
    live_destroy(t);
}

static void test_more_than_there_is_room_for(void **state)
{
    (void)state;
    struct live_table *t = open_table(1, live_chunks(3));
    uint32_t gaps_us[MAX_TOKENS];
    struct live *l = three_messages(t, 3);
    live_recount(t, l, (uint32_t[]){2, 1000000, 5}, gaps_us);
    assert_int_equal(l->rec.n_out, live_room(3));
    end_and_free(t, l);
    l = three_messages(t, 3); // and its chunks have come back
    end_and_free(t, l);
    live_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stale_and_foreign_tickets_are_nobody),
        cmocka_unit_test(test_a_full_table_frees_up),
        cmocka_unit_test(test_token_times),
        cmocka_unit_test(test_odd_times),
        cmocka_unit_test(test_chunks_come_back),
        cmocka_unit_test(test_a_new_record_is_clean),
        cmocka_unit_test(test_recounted_messages),
        cmocka_unit_test(test_more_than_there_is_room_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
