/* Requests that are not greedy, from the scheduler's calls to its batches. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "workers/sched.h"

enum {
    EOS = 2,
    STOP = 40,
};

static const int eos_ids[] = {EOS};
static const struct sched_config cfg = {
    .lanes = 1,
    .max_running = 4,
    .max_waiting = 4,
    .max_batch_tokens = 8,
    .max_context = 64,
    .n_kv_blocks = 16,
    .vocab = 100,
    .eos_ids = eos_ids,
    .n_eos = 1,
};

struct world {
    struct sched *s;
    struct batch *b;
};

static void open_world(struct world *w)
{
    struct err e;
    struct batch_limits lim = sched_batch_limits(&cfg);
    lim.n_stages = 1;
    assert_int_equal(sched_create(&w->s, &cfg, &e), 0);
    assert_int_equal(batch_create(&w->b, &lim, &e), 0);
    sched_begin_step(w->s, 0);
}

static void close_world(struct world *w)
{
    sched_destroy(w->s);
    batch_destroy(w->b);
}

static void submit(struct world *w, uint32_t n_in, const struct wire_sampling *how)
{
    static const int32_t ids[64];
    static uint32_t n;
    const struct sched_request r = {.ticket = {.slot = ++n},
                                    .n_in = n_in,
                                    .n_out = 10,
                                    .flags = WIRE_STOP_AT_EOS,
                                    .ids = ids,
                                    .how = how};
    assert_true(sched_submit(w->s, &r, 0));
}

/* The next batch; its rows that sample get `id`. */
static const struct batch *step(struct world *w, int32_t id)
{
    struct err e;
    int32_t ids[8];
    assert_true(sched_build(w->s, w->b, 0));
    for (uint32_t i = 0; i < w->b->n_rows; i++) {
        ids[i] = (w->b->rows[i].flags & BATCH_SAMPLE) ? id : -1;
    }
    assert_int_equal(sched_complete(w->s, 0, w->b->seq, ids, w->b->n_rows, 0, &e), 0);
    return w->b;
}

static void test_parameters_come_with_the_first_batch(void **state)
{
    (void)state;
    struct world w;
    const struct wire_sampling how = {.temperature = 1, .top_p = 0.5F, .seed = 9};
    open_world(&w);
    submit(&w, 3, NULL);
    submit(&w, 9, &how); // in two chunks
    const struct batch *b = step(&w, 5);
    assert_int_equal(b->n_rows, 2);
    assert_int_equal(b->n_params, 1);
    assert_int_equal(b->rows[0].flags & BATCH_PARAMS, 0);
    assert_true(b->rows[1].flags & BATCH_PARAMS);
    assert_true(b->params[0].how.seed == 9 && b->params[0].how.top_p == 0.5F);
    assert_int_equal(b->params[0].n_in, 9);
    b = step(&w, 5);
    assert_int_equal(b->n_rows, 2);
    assert_int_equal(b->n_params, 0);
    assert_int_equal((b->rows[0].flags | b->rows[1].flags) & BATCH_PARAMS, 0);
    close_world(&w);
}

static void test_stop_ids_end_a_request(void **state)
{
    (void)state;
    struct world w;
    const struct wire_sampling how = {.top_p = 1, .n_stop_ids = 1, .stop_ids = {STOP}};
    open_world(&w);
    submit(&w, 2, &how);
    submit(&w, 2, NULL);
    const struct batch *b = step(&w, STOP);
    assert_true(b->rows[0].flags & BATCH_STOP_IDS);
    assert_int_equal(b->rows[1].flags & BATCH_STOP_IDS, 0);
    assert_int_equal(sched_counts(w.s).running, 1); // the other one goes on
    close_world(&w);
}

static void test_no_end_comes_too_early(void **state)
{
    (void)state;
    struct world w;
    const struct wire_sampling how = {
        .top_p = 1, .min_out = 2, .n_stop_ids = 1, .stop_ids = {STOP}};
    open_world(&w);
    submit(&w, 2, &how);
    const uint32_t ends = BATCH_STOP_EOS | BATCH_STOP_IDS;
    assert_int_equal(step(&w, 7)->rows[0].flags & ends, 0);
    assert_int_equal(step(&w, 7)->rows[0].flags & ends, 0);
    assert_int_equal(step(&w, EOS)->rows[0].flags & ends, ends);
    assert_int_equal(sched_counts(w.s).running, 0);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters_come_with_the_first_batch),
        cmocka_unit_test(test_stop_ids_end_a_request),
        cmocka_unit_test(test_no_end_comes_too_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
