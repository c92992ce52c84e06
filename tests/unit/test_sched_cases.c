/* The scheduler, case by case: who is admitted, preempted, cancelled, shared with, and when. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "workers/sched.h"

enum {
    VOCAB = 1000,
    EOS = 17,
};

static const int eos_ids[] = {EOS};

static struct wire_ticket ticket_of(uint32_t request)
{
    return (struct wire_ticket){.slot = request % 50, .generation = request};
}

static struct sched_config small_config(uint32_t lanes)
{
    return (struct sched_config){
        .lanes = lanes,
        .max_running = 4,
        .max_waiting = 3,
        .max_batch_tokens = 8,
        .max_context = 64,
        .n_kv_blocks = 8,
        .vocab = VOCAB,
        .eos_ids = eos_ids,
        .n_eos = 1,
    };
}

static struct sched *open_small(const struct sched_config *cfg, struct batch **b)
{
    struct err e;
    struct sched *s;
    struct batch_limits lim = sched_batch_limits(cfg);
    lim.n_stages = 1;
    assert_int_equal(sched_create(&s, cfg, &e), 0);
    assert_int_equal(batch_create(b, &lim, &e), 0);
    sched_begin_step(s, 0);
    return s;
}

static bool submit(struct sched *s, uint32_t request, uint32_t n_in, uint32_t n_out)
{
    int32_t ids[64] = {0};
    struct sched_request q = {
        .ticket = ticket_of(request),
        .n_in = n_in,
        .n_out = n_out,
        .ids = ids,
    };
    return sched_submit(s, &q, request);
}

/* The built batch comes back with this id wherever one was sampled. */
static int complete(struct sched *s, const struct batch *b, int32_t id)
{
    struct err e;
    int32_t ids[64];
    for (uint32_t i = 0; i < b->n_rows; i++) {
        ids[i] = (b->rows[i].flags & BATCH_SAMPLE) ? id : -1;
    }
    return sched_complete(s, b->lane, b->seq, ids, b->n_rows, 1000, &e);
}

static void test_overload_is_rejected(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(1);
    struct sched *s = open_small(&cfg, &b);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(submit(s, i, 10, 10)); // runs: two blocks each, eight in all
    }
    for (uint32_t i = 4; i < 7; i++) {
        assert_true(submit(s, i, 1, 1)); // waits
    }
    assert_false(submit(s, 7, 1, 1));
    assert_int_equal(sched_counts(s).waiting, 3);
    assert_true(sched_cancel(s, 0, ticket_of(5), 9));
    assert_false(sched_cancel(s, 0, ticket_of(5), 9));
    assert_true(submit(s, 8, 1, 1)); // room in the queue again
    sched_destroy(s);
    batch_destroy(b);
}

static void test_what_never_fits_is_rejected(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(1);
    cfg.n_kv_blocks = 3;
    struct sched *s = open_small(&cfg, &b);
    assert_false(submit(s, 0, 40, 9)); // four blocks of three
    assert_false(submit(s, 1, 60, 5)); // past the context
    assert_true(submit(s, 2, 40, 8));
    assert_int_equal(sched_counts(s).running, 1);
    sched_destroy(s);
    batch_destroy(b);
}

static void test_nobody_overtakes(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(1);
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 40, 24)); // four of eight blocks
    assert_true(submit(s, 1, 40, 24 - 1));
    assert_true(submit(s, 2, 1, 1)); // no block is left unreserved
    assert_int_equal(sched_counts(s).running, 2);
    assert_true(sched_cancel(s, 0, ticket_of(0), 5));
    assert_int_equal(sched_counts(s).running, 2);
    assert_true(submit(s, 3, 48, 16)); // needs four, three are free: waits
    assert_true(submit(s, 4, 1, 1));   // would fit, but waits behind it
    assert_int_equal(sched_counts(s).waiting, 2);
    assert_int_equal(sched_counts(s).kv_taken, 0); // reserved is not taken
    sched_destroy(s);
    batch_destroy(b);
}

static void test_lanes_take_turns_and_keep_balance(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(2);
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 2, 1));
    assert_true(submit(s, 1, 2, 9));
    assert_true(submit(s, 2, 2, 1));
    assert_true(submit(s, 3, 2, 9));
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->lane, 0);
    assert_int_equal(b->n_rows, 2);
    assert_int_equal(b->rows[1].ticket.generation, 2);
    assert_int_equal(complete(s, b, 5), 0); // both of lane 0 end: one of lane 1 comes over
    assert_int_equal(sched_lane_running(s, 0), 1);
    assert_int_equal(sched_lane_running(s, 1), 1);
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->lane, 1); // its turn
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->lane, 0);
    assert_false(sched_build(s, b, 0)); // both lanes are in flight
    sched_destroy(s);
    batch_destroy(b);
}

static void test_stop_at_eos(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(1);
    struct sched *s = open_small(&cfg, &b);
    int32_t ids[2] = {1, 2};
    struct sched_request q = {.n_in = 2, .n_out = 20, .ids = ids, .flags = WIRE_STOP_AT_EOS};
    assert_true(sched_submit(s, &q, 0));
    q.flags = 0;
    q.ticket.generation = 1;
    assert_true(sched_submit(s, &q, 0));
    assert_true(sched_build(s, b, 0));
    assert_int_equal(complete(s, b, EOS), 0);
    assert_int_equal(sched_counts(s).running, 1); // only the one that asked for it has ended
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->tokens[0], EOS);
    assert_int_equal(b->rows[0].ticket.generation, 1);
    sched_destroy(s);
    batch_destroy(b);
}

static void test_ids_that_do_not_fit(void **state)
{
    (void)state;
    struct err e;
    struct batch *b;
    struct sched_config cfg = small_config(2);
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 12, 3)); // the first chunk of 8 samples nothing
    assert_true(sched_build(s, b, 0));
    int32_t none = -1, some = 3;
    assert_int_equal(sched_complete(s, 0, 2, &none, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 1, 1, &none, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 7, 1, &none, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 0, 1, &none, 2, 0, &e), -1);
    assert_int_equal(sched_complete(s, 0, 1, &some, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 0, 1, &none, 1, 0, &e), 0);
    assert_int_equal(sched_complete(s, 0, 1, &none, 1, 0, &e), -1); // twice
    assert_true(sched_build(s, b, 0));
    some = VOCAB;
    assert_int_equal(sched_complete(s, 0, 2, &none, 1, 0, &e), -1);
    assert_int_equal(sched_complete(s, 0, 2, &some, 1, 0, &e), -1);
    assert_int_equal(e.code, ERR_ENV);
    some = VOCAB - 1;
    assert_int_equal(sched_complete(s, 0, 2, &some, 1, 0, &e), 0);
    sched_destroy(s);
    batch_destroy(b);
}

static void test_drop_all_in_mid_flight(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = small_config(2);
    struct sched *s = open_small(&cfg, &b);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 7; i++) {
            assert_true(submit(s, i, 10, 10));
        }
        assert_true(sched_build(s, b, 0));
        assert_int_equal(b->seq, 1);
        assert_int_equal(b->step, round);
        sched_drop_all(s);
        struct sched_counts c = sched_counts(s);
        assert_int_equal(c.waiting + c.running, 0);
        assert_int_equal(c.in_flight, 1);
        assert_true(c.kv_taken > 0); // what is in flight still writes there
        struct batch *other;
        struct err e;
        struct batch_limits lim = sched_batch_limits(&cfg);
        lim.n_stages = 1;
        assert_int_equal(batch_create(&other, &lim, &e), 0);
        assert_false(sched_build(s, other, 0));
        batch_destroy(other);
        assert_int_equal(complete(s, b, 5), 0);
        c = sched_counts(s);
        assert_int_equal(c.in_flight + c.kv_taken, 0);
        sched_begin_step(s, round + 1);
    }
    sched_destroy(s);
    batch_destroy(b);
}

/* --- preemption and the prefix cache ----------------------------------------------------------------- */

static struct sched_config scarce_config(uint32_t lanes, uint32_t n_kv_blocks)
{
    struct sched_config cfg = small_config(lanes);
    cfg.n_kv_blocks = n_kv_blocks;
    cfg.max_batch_tokens = 32;
    return cfg;
}

/* Batches of all lanes, back at once with this id, until the scheduler has preempted. */
static void run_until_preempted(struct sched *s, struct batch *b, int32_t id)
{
    uint64_t n = sched_counts(s).n_preempted;
    for (int i = 0; i < 200 && sched_counts(s).n_preempted == n; i++) {
        assert_true(sched_build(s, b, 100 + i));
        assert_int_equal(complete(s, b, id), 0);
    }
    assert_int_equal(sched_counts(s).n_preempted, n + 1);
}

static void test_blocks_are_taken_as_tokens_come(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = scarce_config(1, 8);
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 15, 30));
    assert_int_equal(sched_counts(s).kv_taken, 0);
    const uint32_t ends[] = {15, 16, 17, 18};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        assert_true(sched_build(s, b, 0));
        assert_int_equal(sched_counts(s).kv_taken, (ends[i] + 15) / 16);
        assert_int_equal(complete(s, b, 5), 0);
    }
    sched_destroy(s);
    batch_destroy(b);
}

static void test_the_youngest_is_preempted_and_computed_again(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = scarce_config(1, 4);
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 15, 45));
    assert_true(submit(s, 1, 15, 45));
    assert_true(submit(s, 2, 1, 1)); // waits: those that run have a block each in reserve
    assert_int_equal(sched_counts(s).running, 2);
    run_until_preempted(s, b, 5);
    assert_int_equal(b->n_rows, 1); // 0 went on with a block of 1's
    assert_int_equal(b->rows[0].ticket.generation, 0);
    uint32_t n_known = b->rows[0].pos; // 0 and 1 were in step: so many had 1 as well
    struct sched_counts c = sched_counts(s);
    assert_true(c.running == 1 && c.waiting == 2 && c.kv_taken == 3);
    while (sched_counts(s).waiting == 2) {
        assert_true(sched_build(s, b, 500));
        assert_int_equal(complete(s, b, 5), 0);
        assert_true(b->rows[0].pos < 60);
    }
    assert_true(sched_build(s, b, 600));
    const struct batch_row *r = &b->rows[b->n_rows - 1];
    assert_int_equal(r->ticket.generation, 1); // before 2, which came later
    assert_int_equal(r->flags, BATCH_BEGIN | BATCH_AGAIN | BATCH_PREFILL);
    assert_true(r->pos == 0 && r->n_tokens == 32 && r->t_recv_ns < r->t_admit_ns);
    assert_int_equal(b->tokens[r->first + 14], 0); // of the prompt
    assert_int_equal(b->tokens[r->first + 15], 5); // what it had said
    assert_int_equal(complete(s, b, 5), 0);
    assert_true(sched_build(s, b, 600));
    assert_int_equal(b->rows[0].flags, BATCH_PREFILL | BATCH_SAMPLE); // not its first token
    assert_int_equal(b->rows[0].pos + b->rows[0].n_tokens, n_known + 1);
    sched_destroy(s);
    batch_destroy(b);
}

static void test_in_flight_nothing_is_preempted(void **state)
{
    (void)state;
    struct err e;
    struct batch *b, *other;
    struct sched_config cfg = scarce_config(2, 4);
    struct batch_limits lim = sched_batch_limits(&cfg);
    lim.n_stages = 1;
    struct sched *s = open_small(&cfg, &b);
    assert_int_equal(batch_create(&other, &lim, &e), 0);
    assert_true(submit(s, 0, 16, 40));
    assert_true(submit(s, 1, 16, 40));
    assert_true(sched_build(s, b, 0) && sched_build(s, other, 0));
    assert_int_equal(complete(s, b, 5), 0);
    assert_int_equal(complete(s, other, 5), 0);
    for (uint32_t k = 0; k < 16; k++) { // each has its second block now
        assert_true(sched_build(s, b, 0) && sched_build(s, other, 0));
        assert_int_equal(complete(s, b, 5), 0);
        assert_int_equal(k < 15 ? complete(s, other, 5) : 0, 0);
    }
    assert_int_equal(sched_counts(s).kv_taken, 4);
    assert_false(sched_build(s, b, 0)); // 0 needs a block, 1 is in flight
    assert_int_equal(sched_counts(s).n_preempted, 0);
    assert_int_equal(complete(s, other, 5), 0);
    assert_true(sched_build(s, b, 0)); // the lane of 0, whose turn it is
    assert_true(b->rows[0].ticket.generation == 0 && b->n_rows == 1);
    assert_int_equal(sched_counts(s).n_preempted, 1);
    sched_destroy(s);
    batch_destroy(b);
    batch_destroy(other);
}

static void test_lanes_keep_balance_in_preemptions(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = scarce_config(2, 9);
    struct sched *s = open_small(&cfg, &b);
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(submit(s, i, 15, 45));
    }
    assert_int_equal(sched_counts(s).running, 4);
    for (uint32_t n = 3; n >= 2; n--) {
        run_until_preempted(s, b, 5);
        assert_int_equal(sched_counts(s).running, n);
        assert_int_equal(sched_lane_running(s, 0), (n + 1) / 2);
        assert_int_equal(sched_lane_running(s, 1), n / 2);
    }
    sched_destroy(s);
    batch_destroy(b);
}

/* Request 1 is cancelled after so many batches; whatever it was doing, nothing of it stays. */
static void cancel_in_state(uint32_t n_batches, bool in_flight, bool preempted)
{
    struct batch *b;
    struct sched_config cfg = scarce_config(1, preempted ? 5 : 40);
    cfg.max_running = 2;
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 15, 45));
    assert_true(submit(s, 1, 15, 45));
    if (preempted) {
        run_until_preempted(s, b, 5);
    }
    for (uint32_t i = 0; i < n_batches; i++) {
        assert_true(sched_build(s, b, 0));
        if (i + 1 < n_batches || !in_flight) {
            assert_int_equal(complete(s, b, 5), 0);
        }
    }
    assert_true(sched_cancel(s, 0, ticket_of(1), 0));
    assert_false(sched_cancel(s, 0, ticket_of(1), 0));
    assert_true(!in_flight || complete(s, b, 5) == 0);
    assert_int_equal(sched_counts(s).waiting + sched_counts(s).running, 1);
    while (sched_counts(s).running > 0) {
        assert_true(sched_build(s, b, 0));
        assert_int_equal(b->rows[0].ticket.generation, 0);
        assert_int_equal(b->n_rows, 1);
        assert_int_equal(complete(s, b, 5), 0);
    }
    assert_int_equal(sched_counts(s).kv_taken, 0);
    for (uint32_t i = 10; i < 10 + cfg.max_running + cfg.max_waiting; i++) {
        assert_true(submit(s, i, 1, 1)); // no slot is lost
    }
    assert_false(submit(s, 20, 1, 1));
    sched_destroy(s);
    batch_destroy(b);
}

static void test_cancel_in_every_state(void **state)
{
    (void)state;
    cancel_in_state(0, false, false); // admitted, nothing computed
    cancel_in_state(1, true, false);  // its prompt in flight
    cancel_in_state(1, false, false); // between batches
    cancel_in_state(3, true, false);  // a token in flight
    cancel_in_state(0, false, true);  // preempted
    cancel_in_state(2, true, true);   // preempted, others in flight
}

static void test_the_prefix_cache_shares_full_blocks(void **state)
{
    (void)state;
    struct batch *b;
    struct sched_config cfg = scarce_config(1, 8);
    cfg.prefix_cache = true;
    struct sched *s = open_small(&cfg, &b);
    assert_true(submit(s, 0, 32, 1));  // all prompts are zeros
    assert_true(submit(s, 1, 32, 20)); // before anything is known
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->rows[0].n_blocks, 2);
    uint32_t first_block = b->blocks[0];
    assert_int_equal(complete(s, b, 5), 0);
    assert_int_equal(sched_counts(s).kv_taken, 0); // 0 has ended; 1 got its blocks promised
    assert_true(submit(s, 2, 32, 20));
    assert_true(submit(s, 3, 40, 20));
    assert_true(sched_build(s, b, 0));
    assert_true(b->rows[0].ticket.generation == 1 && b->rows[0].pos == 0);
    assert_int_equal(complete(s, b, 0), 0);
    assert_true(sched_build(s, b, 0));
    assert_int_equal(b->n_rows, 3);
    const struct batch_row *r = &b->rows[1];
    assert_true(r->ticket.generation == 2 &&
                r->pos == 16); // its last token is computed in any case
    assert_int_equal(r->flags, BATCH_BEGIN | BATCH_PREFILL | BATCH_SAMPLE | BATCH_FIRST);
    assert_int_equal(r->n_blocks, 2);
    assert_int_equal(b->blocks[r->first_block], first_block);
    assert_int_not_equal(b->blocks[r->first_block + 1], first_block);
    r = &b->rows[2];
    assert_true(r->ticket.generation == 3 && r->pos == 32 && r->n_tokens == 8 && r->n_blocks == 3);
    assert_int_equal(b->blocks[r->first_block], first_block);
    struct sched_counts c = sched_counts(s);
    assert_true(c.n_queried_tokens == 136 && c.n_cached_tokens == 48);
    sched_destroy(s);
    batch_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overload_is_rejected),
        cmocka_unit_test(test_what_never_fits_is_rejected),
        cmocka_unit_test(test_nobody_overtakes),
        cmocka_unit_test(test_lanes_take_turns_and_keep_balance),
        cmocka_unit_test(test_stop_at_eos),
        cmocka_unit_test(test_ids_that_do_not_fit),
        cmocka_unit_test(test_drop_all_in_mid_flight),
        cmocka_unit_test(test_blocks_are_taken_as_tokens_come),
        cmocka_unit_test(test_the_youngest_is_preempted_and_computed_again),
        cmocka_unit_test(test_in_flight_nothing_is_preempted),
        cmocka_unit_test(test_lanes_keep_balance_in_preemptions),
        cmocka_unit_test(test_cancel_in_every_state),
        cmocka_unit_test(test_the_prefix_cache_shares_full_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
