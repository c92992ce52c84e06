/* In one process: rank 0 posts to itself and reads its own journal messages back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "workers/spans.h"

struct world {
    struct comm *comm;
    struct spans *spans;
};

static int setup(void **state)
{
    struct err e;
    struct world *w = calloc(1, sizeof *w);
    w->spans = calloc(1, sizeof *w->spans);
    assert_int_equal(comm_open(&w->comm, &e), 0);
    assert_int_equal(comm_start(w->comm, spans_max_message_bytes(), &e), 0);
    spans_begin_step(w->spans, w->comm, 9, 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    comm_close(w->comm);
    free(w->spans);
    free(w);
    return 0;
}

/* The next journal message: its kind, or 0 when there is none. */
static uint32_t next(struct world *w, size_t *n_bytes, const void **payload)
{
    struct err e;
    struct comm_msg m;
    int got = comm_poll(w->comm, &m, &e);
    if (got == 0) {
        return 0;
    }
    const struct wire_journal *j = m.data;
    assert_int_equal(got, 1);
    assert_int_equal(m.tag, WIRE_JOURNAL);
    assert_int_equal(j->step, 9);
    *n_bytes = m.n_bytes - sizeof *j;
    *payload = j->bytes;
    return j->kind;
}

static void test_due_after_250_ms(void **state)
{
    struct err e;
    struct world *w = *state;
    size_t n;
    const void *p;
    struct span s = {.t_begin_ns = 77, .batch_seq = 3, .op = SPAN_DECODE};
    struct series_point point = {.t_ns = 5, .waiting = 2};
    assert_int_equal(spans_add(w->spans, &s, 1234, &e), 0);
    assert_int_equal(spans_add_point(w->spans, &point, &e), 0);
    assert_int_equal(spans_tick(w->spans, 250 * NS_PER_MS - 1, &e), 0);
    assert_int_equal(next(w, &n, &p), 0);
    assert_int_equal(spans_tick(w->spans, 250 * NS_PER_MS, &e), 0);
    assert_int_equal(next(w, &n, &p), WIRE_JOURNAL_SPANS);
    assert_int_equal(n, sizeof s);
    s.dur_ns = 1234;
    assert_memory_equal(p, &s, sizeof s);
    assert_int_equal(next(w, &n, &p), WIRE_JOURNAL_SERIES);
    assert_int_equal(n, sizeof point);
    assert_memory_equal(p, &point, sizeof point);
    assert_int_equal(spans_tick(w->spans, 600 * NS_PER_MS, &e), 0); // nothing to say
    assert_int_equal(next(w, &n, &p), 0);
}

static void test_full_buffers_leave_at_once(void **state)
{
    struct err e;
    struct world *w = *state;
    size_t n;
    const void *p;
    for (uint32_t i = 0; i < 2 * SPANS_PER_MESSAGE + 3; i++) {
        struct span s = {.batch_seq = i};
        assert_int_equal(spans_add(w->spans, &s, 0, &e), 0);
    }
    assert_int_equal(spans_flush(w->spans, &e), 0);
    uint64_t seq = 0;
    while (next(w, &n, &p) == WIRE_JOURNAL_SPANS) {
        const struct span *s = p;
        for (size_t i = 0; i < n / sizeof *s; i++) {
            assert_int_equal(s[i].batch_seq, seq++); // all of them, in order
        }
    }
    assert_int_equal(seq, 2 * SPANS_PER_MESSAGE + 3);
}

static void test_durations_saturate(void **state)
{
    struct err e;
    struct world *w = *state;
    size_t n;
    const void *p;
    struct span s = {0};
    assert_int_equal(spans_add(w->spans, &s, -5, &e), 0);
    assert_int_equal(spans_add(w->spans, &s, 10 * NS_PER_S, &e), 0);
    assert_int_equal(spans_flush(w->spans, &e), 0);
    assert_int_equal(next(w, &n, &p), WIRE_JOURNAL_SPANS);
    assert_int_equal(((const struct span *)p)[0].dur_ns, 0);
    assert_int_equal(((const struct span *)p)[1].dur_ns, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_due_after_250_ms, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_buffers_leave_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_durations_saturate, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
