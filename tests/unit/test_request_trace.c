/* Synthetic stamps through P stages: the parts of a trace must add up to t_emit - t_recv, exactly. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/rng.h"
#include "workers/request_trace.h"

struct walk { // what the test adds up on its own
    int64_t hop_ns, bubble_ns, requeue_ns, stage_ns[4];
};

static int64_t draw(uint64_t n, uint64_t a, uint64_t b)
{
    return (int64_t)rng_below(n, 3, RNG_SHUFFLE, a, b);
}

static void start(struct batch *b, struct batch_stage_times *times, struct batch_row *row,
                  uint16_t n_stages)
{
    *b = (struct batch){.seq = 1, .n_stages = n_stages, .times = times, .rows = row, .n_rows = 1};
    *row = (struct batch_row){
        .flags = BATCH_BEGIN | BATCH_PREFILL,
        .ticket = {.slot = 5, .generation = 6},
        .t_recv_ns = 1000,
        .t_admit_ns = 4000,
        .pos = 32,
    };
}

/* One batch from t_ns on; returns its emit stamp. */
static int64_t pass(struct batch *b, struct walk *w, int64_t t_ns, uint64_t seed)
{
    b->t_build_ns = t_ns;
    for (uint32_t s = 0; s < b->n_stages; s++) {
        int64_t hop_ns = s == 0 ? 0 : draw(9000, seed, 10 * s);
        int64_t wait_ns = draw(70000, seed, 10 * s + 1), run_ns = draw(900000, seed, 10 * s + 2);
        int64_t send_ns = draw(4000, seed, 10 * s + 3);
        b->times[s].t_recv_ns = t_ns += hop_ns;
        b->times[s].t_begin_ns = t_ns += wait_ns;
        b->times[s].t_end_ns = t_ns += run_ns;
        b->times[s].t_send_ns = t_ns += send_ns;
        w->hop_ns += hop_ns + send_ns;
        w->bubble_ns += wait_ns;
        w->stage_ns[s] += run_ns;
    }
    return t_ns;
}

static int64_t total_ns(const struct request_trace *t, uint32_t n_stages)
{
    int64_t sum = t->t_admit_ns - t->t_recv_ns + t->sum.hop_ns + t->sum.bubble_ns + t->requeue_ns;
    for (uint32_t s = 0; s < n_stages; s++) {
        sum += t->sum.stage_ns[s];
    }
    return sum;
}

static void run_request(uint64_t seed, uint16_t n_stages)
{
    struct batch b;
    struct batch_stage_times times[4];
    struct batch_row row;
    struct request_trace t;
    struct request_trace_parts parts;
    struct walk w = {0};
    memset(&t, 0xAB, sizeof t); // whoever had the slot before
    start(&b, times, &row, n_stages);
    int64_t wait_ns = draw(5000, seed, 1);
    int64_t emit_ns = pass(&b, &w, row.t_admit_ns + wait_ns, seed);
    w.bubble_ns += wait_ns;
    request_trace_measure(&b, &parts);
    request_trace_add(&t, &b, &parts, &row);
    assert_int_equal(t.t_prefill_ns, b.t_build_ns);
    for (uint64_t k = 1; k < 40; k++) {
        assert_int_equal(total_ns(&t, n_stages), emit_ns - 1000);
        int64_t back_ns = draw(3000, seed, 1000 + k), idle_ns = draw(80000, seed, 2000 + k);
        b.t_ready_ns = emit_ns + back_ns;
        row.flags = BATCH_SAMPLE;
        int64_t t_ns = b.t_ready_ns + idle_ns;
        if (k % 7 == 3) { // preempted: idle, queued, and idle again
            row.flags = BATCH_BEGIN | BATCH_AGAIN | BATCH_PREFILL;
            row.pos = 0;
            row.t_recv_ns = t_ns;
            row.t_admit_ns = t_ns + draw(500000, seed, 3000 + k);
            w.requeue_ns += row.t_admit_ns - row.t_recv_ns;
            t_ns = row.t_admit_ns + 77;
            w.bubble_ns += back_ns + idle_ns + 77;
        } else {
            w.hop_ns += back_ns;
            w.bubble_ns += idle_ns;
        }
        emit_ns = pass(&b, &w, t_ns, seed * 100 + k);
        request_trace_measure(&b, &parts);
        request_trace_add(&t, &b, &parts, &row);
    }
    assert_int_equal(total_ns(&t, n_stages), emit_ns - 1000);
    assert_true(t.n_preempted == 6 && t.n_cached == 32 && t.requeue_ns == w.requeue_ns);
    assert_int_equal(t.sum.hop_ns, w.hop_ns);
    assert_int_equal(t.sum.bubble_ns, w.bubble_ns);
    assert_memory_equal(t.sum.stage_ns, w.stage_ns, n_stages * sizeof w.stage_ns[0]);
}

static void test_parts_add_up(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 200; seed++) {
        run_request(seed, (uint16_t)(1 + seed % 4));
    }
}

/* Stage 1's clock runs early: its hop is negative, the sum still exact. */
static void test_clock_error_cancels(void **state)
{
    (void)state;
    struct batch b;
    struct batch_stage_times times[2] = {
        {.t_recv_ns = 5000, .t_begin_ns = 5000, .t_end_ns = 7000, .t_send_ns = 7100},
        {.t_recv_ns = 6900, .t_begin_ns = 6900, .t_end_ns = 8000, .t_send_ns = 8001},
    };
    struct batch_row row;
    start(&b, times, &row, 2);
    b.t_build_ns = 5000;
    struct request_trace t;
    struct request_trace_parts parts;
    request_trace_measure(&b, &parts);
    request_trace_add(&t, &b, &parts, &row);
    assert_int_equal(t.sum.hop_ns, 100 - 200 + 1);
    assert_int_equal(total_ns(&t, 2), 8001 - 1000);
}

/* The lane it moved to was ready before its own token was out, or long after: both stay inside the gap. */
static void test_change_of_lane(void **state)
{
    (void)state;
    const int64_t ready_ns[] = {0, 9000, 20000};
    const int64_t hop_ns[] = {0, 1000, 4000}; // of a gap from 8000 to 12000
    for (int i = 0; i < 3; i++) {
        struct batch b;
        struct batch_stage_times times[1] = {
            {.t_recv_ns = 5000, .t_begin_ns = 5000, .t_end_ns = 8000, .t_send_ns = 8000}};
        struct batch_row row;
        start(&b, times, &row, 1);
        b.t_build_ns = 5000;
        struct request_trace t;
        struct request_trace_parts parts;
        request_trace_measure(&b, &parts);
        request_trace_add(&t, &b, &parts, &row);
        row.flags = BATCH_SAMPLE;
        b.t_build_ns = 12000;
        b.t_ready_ns = ready_ns[i];
        times[0] = (struct batch_stage_times){12000, 12000, 15000, 15000};
        request_trace_measure(&b, &parts);
        request_trace_add(&t, &b, &parts, &row);
        assert_int_equal(t.sum.hop_ns, hop_ns[i]);
        assert_int_equal(total_ns(&t, 1), 15000 - 1000);
    }
}

static void test_message(void **state)
{
    (void)state;
    struct request_trace t = {
        .ticket = {.slot = 1, .generation = 2},
        .t_recv_ns = 10,
        .t_admit_ns = 20,
        .t_prefill_ns = 30,
        .requeue_ns = 7600,
        .n_preempted = 3,
        .n_cached = 48,
        .sum = {.hop_ns = 1499, .bubble_ns = -5, .stage_ns = {2500, INT64_C(1) << 50}},
    };
    assert_int_equal(request_trace_bytes(2), sizeof(struct wire_trace) + 8);
    struct wire_trace *m = malloc(request_trace_bytes(2));
    request_trace_encode(&t, 2, WIRE_LAST, m);
    assert_int_equal(m->phase, WIRE_LAST);
    assert_int_equal(m->n_stages, 2);
    assert_int_equal(m->ticket.generation, 2);
    assert_int_equal(m->t_prefill_ns, 30);
    assert_int_equal(m->hop_us, 1); // rounded
    assert_int_equal(m->bubble_us, 0);
    assert_true(m->requeue_us == 8 && m->n_preempted == 3 && m->n_cached == 48);
    assert_int_equal(m->stage_us[0], 3);
    assert_int_equal(m->stage_us[1], UINT32_MAX); // saturates
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_add_up),
        cmocka_unit_test(test_clock_error_cancels),
        cmocka_unit_test(test_change_of_lane),
        cmocka_unit_test(test_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
