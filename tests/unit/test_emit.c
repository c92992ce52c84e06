/* In one process, which is its own and only load rank. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "workers/emit.h"
#include "workers/choices.h"
#include "workers/request_trace.h"

enum {
    EOS = 2,
    EMIT_NS = 9000,
};

static const struct batch_limits limits = {
    .max_rows = 4,
    .max_tokens = 16,
    .max_blocks = 8,
    .n_stages = 2,
    .n_slots = 4,
    .n_load_ranks = 1,
};

struct world {
    struct arch arch;
    struct comm *comm;
    struct emit *emit;
    struct choices *choices;
    struct batch *batch;
};

static int setup(void **state)
{
    struct err e;
    struct world *w = calloc(1, sizeof *w);
    w->arch = (struct arch){.eos_ids = {EOS}, .n_eos = 1};
    assert_int_equal(comm_open(&w->comm, &e), 0);
    assert_int_equal(comm_start(w->comm, emit_max_message_bytes(&limits), &e), 0);
    assert_int_equal(emit_create(&w->emit, &limits, &w->arch, &e), 0);
    assert_int_equal(choices_create(&w->choices, &limits, &w->arch, &e), 0);
    assert_int_equal(batch_create(&w->batch, &limits, &e), 0);
    w->batch->seq = 1;
    w->batch->times[1].t_send_ns = EMIT_NS;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    batch_destroy(w->batch);
    emit_destroy(w->emit);
    choices_destroy(w->choices);
    comm_close(w->comm);
    free(w);
    return 0;
}

static void add_row(struct world *w, uint32_t slot, uint32_t flags)
{
    struct batch *b = w->batch;
    b->rows[b->n_rows] = (struct batch_row){
        .slot = slot,
        .flags = flags,
        .first = b->n_rows,
        .n_tokens = 1,
        .ticket = {.slot = 10 + slot, .generation = 1},
    };
    b->n_rows++;
}

static void emit(struct world *w, const int32_t *ids)
{
    struct err e;
    choices_apply(w->choices, w->batch);
    assert_int_equal(emit_batch(w->emit, w->comm, w->batch, ids, w->choices, &e), 0);
}

static const void *expect(struct world *w, int tag, size_t n_bytes)
{
    struct err e;
    static struct comm_msg m;
    assert_int_equal(comm_poll(w->comm, &m, &e), 1);
    assert_int_equal(m.tag, tag);
    assert_int_equal(m.n_bytes, n_bytes);
    return m.data;
}

static void expect_trace(struct world *w, uint32_t slot, uint32_t phase)
{
    const struct wire_trace *t = expect(w, WIRE_TRACE, request_trace_bytes(2));
    assert_int_equal(t->ticket.slot, 10 + slot);
    assert_int_equal(t->phase, phase);
}

static void expect_nothing(struct world *w)
{
    struct err e;
    struct comm_msg m;
    assert_int_equal(comm_poll(w->comm, &m, &e), 0);
}

static void test_tokens_and_traces(void **state)
{
    struct world *w = *state;
    add_row(w, 3, BATCH_SAMPLE);
    add_row(w, 0, BATCH_BEGIN | BATCH_PREFILL); // a chunk: no token
    add_row(w, 1, BATCH_BEGIN | BATCH_PREFILL | BATCH_SAMPLE | BATCH_FIRST);
    add_row(w, 2, BATCH_SAMPLE | BATCH_LAST);
    const int32_t ids[] = {EOS, -1, 41, 42};
    emit(w, ids);
    expect_trace(w, 1, WIRE_FIRST);
    expect_trace(w, 2, WIRE_LAST);
    const struct wire_token *t = expect(w, WIRE_TOKENS, 3 * sizeof *t);
    assert_int_equal(t[0].ticket.slot, 13);
    assert_int_equal(t[0].id, EOS);
    assert_int_equal(t[0].flags, 0); // it did not ask to stop there
    assert_int_equal(t[1].id, 41);
    assert_int_equal(t[1].flags, WIRE_FIRST);
    assert_int_equal(t[2].flags, WIRE_LAST);
    assert_int_equal(t[2].t_emit_ns, EMIT_NS);
    expect_nothing(w);
}

static void test_stop_at_eos(void **state)
{
    struct world *w = *state;
    add_row(w, 0, BATCH_SAMPLE | BATCH_STOP_EOS);
    add_row(w, 1, BATCH_SAMPLE | BATCH_STOP_EOS);
    const int32_t ids[] = {EOS, EOS + 1};
    emit(w, ids);
    expect_trace(w, 0, WIRE_LAST);
    const struct wire_token *t = expect(w, WIRE_TOKENS, 2 * sizeof *t);
    assert_int_equal(t[0].flags, WIRE_LAST | WIRE_STOPPED);
    assert_int_equal(t[1].flags, 0);
    expect_nothing(w);
}

/* Ahead of their token, for the rows that ask. */
static void test_logprobs(void **state)
{
    struct world *w = *state;
    const struct wire_sampling how = {.top_p = 1, .logprobs = 3, .n_stop_ids = 1, .stop_ids = {50}};
    add_row(w, 0, BATCH_BEGIN | BATCH_SAMPLE | BATCH_PARAMS | BATCH_STOP_IDS);
    add_row(w, 1, BATCH_SAMPLE | BATCH_STOP_IDS); // of a greedy request
    w->batch->params[0] = (struct batch_params){.how = how, .n_in = 1};
    w->batch->n_params = 1;
    choices_apply(w->choices, w->batch);
    struct sampler_job *job = choices_jobs(w->choices)->v;
    assert_int_equal(choices_jobs(w->choices)->n, 1);
    job->id = 50;
    job->logprob = -0.25F;
    job->n_top = 2;
    job->top[1] = (struct wire_logprob){.id = 8, .logprob = -2};
    const int32_t ids[] = {50, 50};
    struct err e;
    assert_int_equal(emit_batch(w->emit, w->comm, w->batch, ids, w->choices, &e), 0);
    expect_trace(w, 0, WIRE_LAST);
    const struct wire_logprobs *l =
        expect(w, WIRE_LOGPROBS, sizeof *l + 2 * sizeof(struct wire_logprob));
    assert_int_equal(l->ticket.slot, 10);
    assert_int_equal(l->token.id, 50);
    assert_true(l->token.logprob == -0.25F);
    assert_int_equal(l->n_top, 2);
    assert_int_equal(l->top[1].id, 8);
    const struct wire_token *t = expect(w, WIRE_TOKENS, 2 * sizeof *t);
    assert_int_equal(t[0].flags, WIRE_LAST | WIRE_STOPPED);
    assert_int_equal(t[1].flags, 0);
    expect_nothing(w);
}

static void test_single_token_has_both_traces(void **state)
{
    struct world *w = *state;
    add_row(w, 0, BATCH_BEGIN | BATCH_PREFILL | BATCH_SAMPLE | BATCH_FIRST | BATCH_LAST);
    const int32_t id = 7;
    emit(w, &id);
    expect_trace(w, 0, WIRE_FIRST);
    expect_trace(w, 0, WIRE_LAST);
    const struct wire_token *t = expect(w, WIRE_TOKENS, sizeof *t);
    assert_int_equal(t->flags, WIRE_FIRST | WIRE_LAST);
    expect_nothing(w);
}

static void test_chunks_only_say_nothing(void **state)
{
    struct world *w = *state;
    add_row(w, 0, BATCH_BEGIN | BATCH_PREFILL);
    const int32_t id = -1;
    emit(w, &id);
    expect_nothing(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tokens_and_traces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_at_eos, setup, teardown),
        cmocka_unit_test_setup_teardown(test_logprobs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_single_token_has_both_traces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chunks_only_say_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
