#include "workers/choices.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

enum {
    EOS = 2,
    N_ROWS = 4,
};

static const struct batch_limits limits = {
    .max_rows = N_ROWS, .max_tokens = 64, .max_blocks = 8, .n_stages = 1, .n_slots = 6};
static const struct arch arch = {.eos_ids = {EOS}, .n_eos = 1};

struct world {
    struct choices *choices;
    struct batch *batch;
};

static void open_world(struct world *w)
{
    struct err e;
    assert_int_equal(choices_create(&w->choices, &limits, &arch, &e), 0);
    assert_int_equal(batch_create(&w->batch, &limits, &e), 0);
    w->batch->n_rows = w->batch->n_params = 0;
}

static void close_world(struct world *w)
{
    choices_destroy(w->choices);
    batch_destroy(w->batch);
}

/* A row of n tokens from pos on; `how` with the first batch of a request of 10 prompt tokens. */
static void add(struct world *w, uint32_t slot, uint32_t flags, uint32_t pos, uint32_t n,
                const struct wire_sampling *how)
{
    struct batch *b = w->batch;
    b->rows[b->n_rows++] = (struct batch_row){
        .slot = slot, .flags = flags | (how ? BATCH_PARAMS : 0), .pos = pos, .n_tokens = n};
    if (how) {
        b->params[b->n_params++] = (struct batch_params){.how = *how, .n_in = 10};
    }
}

static const struct sampler_jobs *apply(struct world *w)
{
    choices_apply(w->choices, w->batch);
    w->batch->n_rows = w->batch->n_params = 0;
    return choices_jobs(w->choices);
}

static void test_jobs_by_slot(void **state)
{
    (void)state;
    struct world w;
    const struct wire_sampling warm = {.temperature = 1, .top_p = 1, .seed = 11};
    const struct wire_sampling told = {.top_p = 1, .logprobs = 1};
    open_world(&w);
    add(&w, 5, BATCH_BEGIN | BATCH_PREFILL, 0, 4, &warm); // half a prompt: no token yet
    add(&w, 1, BATCH_BEGIN | BATCH_PREFILL | BATCH_SAMPLE, 0, 10, NULL);
    add(&w, 0, BATCH_BEGIN | BATCH_PREFILL | BATCH_SAMPLE, 0, 10, &told);
    const struct sampler_jobs *jobs = apply(&w);
    assert_int_equal(jobs->n, 1);
    assert_int_equal(jobs->v[0].row, 2);
    assert_int_equal(jobs->v[0].index, 0);
    assert_int_equal(jobs->v[0].how->logprobs, 1);
    add(&w, 1, BATCH_SAMPLE, 10, 1, NULL);
    add(&w, 5, BATCH_PREFILL | BATCH_SAMPLE, 4, 6, NULL);
    jobs = apply(&w);
    assert_int_equal(jobs->n, 1);
    assert_int_equal(jobs->v[0].row, 1);
    assert_int_equal(jobs->v[0].index, 0);
    assert_int_equal(jobs->v[0].how->seed, 11);
    add(&w, 5, BATCH_SAMPLE, 13, 1, NULL);
    assert_int_equal(apply(&w)->v[0].index, 4);
    // Begun again after a preemption, prompt and output so far in one: the same place in the output.
    add(&w, 3, BATCH_BEGIN | BATCH_PREFILL | BATCH_SAMPLE, 0, 14, &warm);
    assert_int_equal(apply(&w)->v[0].index, 4);
    assert_non_null(choices_how(w.choices, 5));
    add(&w, 5, BATCH_BEGIN | BATCH_PREFILL | BATCH_SAMPLE, 0, 10,
        NULL); // a greedy one takes the slot
    assert_int_equal(apply(&w)->n, 0);
    assert_null(choices_how(w.choices, 5));
    close_world(&w);
}

static void test_ends_that_come_too_early(void **state)
{
    (void)state;
    struct world w;
    const struct wire_sampling how = {.top_p = 1, .min_out = 2, .n_stop_ids = 1, .stop_ids = {40}};
    open_world(&w);
    add(&w, 0, BATCH_BEGIN | BATCH_PREFILL | BATCH_SAMPLE, 0, 10, &how);
    const struct sampler_jobs *jobs = apply(&w);
    assert_int_equal(jobs->n, 1);
    assert_int_equal(jobs->v[0].n_banned, 2);
    assert_int_equal(jobs->v[0].banned[0], EOS);
    assert_int_equal(jobs->v[0].banned[1], 40);
    add(&w, 0, BATCH_SAMPLE, 10, 1, NULL);
    assert_int_equal(apply(&w)->v[0].n_banned, 2);
    add(&w, 0, BATCH_SAMPLE, 11, 1, NULL); // the third token may end it, and is greedy
    assert_int_equal(apply(&w)->n, 0);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs_by_slot),
        cmocka_unit_test(test_ends_that_come_too_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
