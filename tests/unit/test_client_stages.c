/*
 * The client of the internal target against replies made by hand: what a leader and a last stage may
 * say, and what nobody may. Rank 0 of one plays the leader itself.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"
#include "loadgen/client_stages.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

enum {
    CONTEXT = 64,
    N_SLOTS = 8,
    N_STAGES = 3,
    MAX_MESSAGE = 4096,
    SEED = 7,
};

static struct comm *comm;
static struct live_table *table;
static struct client *client;
static struct dataset *ds;

static int set_up(void **state)
{
    struct err e = {0};
    struct dataset_config config = {0};
    struct dataset_model model = {.vocab = 512, .context = 8192};
    opt_defaults(dataset_options, &config);
    struct layout layout = {.replicas = 1, .pipeline = 1, .tensor = 1}; // its leader is rank 0
    bool ignore_eos = !*state;
    if (comm_open(&comm, &e) || comm_start(comm, MAX_MESSAGE, &e) ||
        live_create(&table, N_SLOTS, CONTEXT, &e) || live_reserve(table, 100, &e) ||
        dataset_open(&ds, &config, &model, &e)) {
        return -1;
    }
    opt_free(dataset_options, &config);
    client = client_stages_create(comm, &layout, table, CONTEXT, ignore_eos, ROUTING_LEAST_TOKENS);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    client->ops->destroy(client);
    dataset_close(ds);
    live_destroy(table);
    comm_close(comm);
    return 0;
}

static struct live *submit(uint64_t id, uint32_t n_in, uint32_t n_out)
{
    struct plan_event ev = {.id = id, .n_in = n_in, .n_out = n_out};
    struct prompt prompt = {.n_in = n_in, .n_out = n_out};
    struct str payload = {0};
    client->ops->prepare(client, ds, SEED, id, &prompt, &payload);
    struct live *l = live_take(table, &ev, 1);
    client->ops->submit(client, l, &payload);
    str_free(&payload);
    return l;
}

static int deliver(int tag, const void *data, size_t n_bytes)
{
    // A copy of exactly this size, so that the sanitizer sees a read past its end.
    void *copy = xmalloc(n_bytes + 1);
    if (n_bytes > 0) {
        memcpy(copy, data, n_bytes);
    }
    void *exact = xrealloc(copy, n_bytes > 0 ? n_bytes : 1);
    struct comm_msg m = {.tag = tag, .data = exact, .n_bytes = n_bytes};
    struct err e = {0};
    int rc = client->ops->message(client, &m, &e);
    assert_true((rc < 0) == (e.code != ERR_NONE));
    free(exact);
    return rc;
}

static int deliver_token(struct wire_ticket ticket, uint32_t flags, int64_t t_emit_ns)
{
    struct wire_token t = {.ticket = ticket, .id = 5, .flags = flags, .t_emit_ns = t_emit_ns};
    return deliver(WIRE_TOKENS, &t, sizeof t);
}

struct trace_message {
    struct wire_trace head;
    uint32_t stage_us[N_STAGES];
};

#define TRACE_BYTES (sizeof(struct wire_trace) + N_STAGES * sizeof(uint32_t)) // without padding

static void make_trace(struct trace_message *t, struct wire_ticket ticket, uint32_t phase)
{
    *t = (struct trace_message){.head = {.ticket = ticket,
                                         .phase = phase,
                                         .n_stages = N_STAGES,
                                         .t_recv_ns = 10,
                                         .t_admit_ns = 20,
                                         .t_prefill_ns = 30,
                                         .hop_us = 40 + phase,
                                         .bubble_us = 50 + phase}};
    for (uint32_t i = 0; i < N_STAGES; i++) {
        t->stage_us[i] = 100 * phase + i;
    }
}

static int deliver_trace(struct wire_ticket ticket, uint32_t phase)
{
    struct trace_message t;
    make_trace(&t, ticket, phase);
    return deliver(WIRE_TRACE, &t, TRACE_BYTES);
}

static struct live *ended(enum outcome outcome)
{
    struct live *l = live_next_ended(table);
    assert_non_null(l);
    assert_int_equal(l->rec.outcome, outcome);
    return l;
}

/* Each event has its own seed, the same one every time. */
static void test_sampled_requests(void **state)
{
    (void)state;
    const struct wire_sampling how = {.temperature = 0.5F, .top_p = 0.9F, .top_k = 3, .seed = 8};
    uint64_t seeds[3];
    client_stages_sample(client, &how);
    for (int i = 0; i < 3; i++) {
        struct comm_msg m;
        struct err e = {0};
        struct wire_sampling got;
        struct live *l = submit(i == 1 ? 4 : 3, 4, 10);
        assert_int_equal(comm_poll(comm, &m, &e), 1);
        const struct wire_request *q = m.data;
        assert_int_equal(m.n_bytes, sizeof *q + 4 * sizeof(int32_t) + sizeof got);
        assert_int_equal(q->flags, WIRE_SAMPLED);
        memcpy(&got, q->ids + 4, sizeof got);
        assert_true(got.temperature == 0.5F && got.top_p == 0.9F && got.top_k == 3);
        seeds[i] = got.seed;
        assert_true(l->busy);
    }
    assert_true(seeds[0] != seeds[1] && seeds[0] == seeds[2]);
}

static void test_the_leader_gets_the_request(void **state)
{
    (void)state;
    struct live *l = submit(3, 4, 10);
    struct comm_msg m;
    struct err e = {0};
    assert_int_equal(comm_poll(comm, &m, &e), 1);
    assert_int_equal(m.tag, WIRE_REQUEST);
    const struct wire_request *q = m.data;
    assert_int_equal(m.n_bytes, sizeof *q + 4 * sizeof(int32_t));
    assert_memory_equal(&q->ticket, &l->ticket, sizeof q->ticket);
    assert_true(q->n_in == 4 && q->n_out == 10 && q->flags == 0);
    struct prompt prompt = {.n_in = 4, .n_out = 10};
    int32_t scratch[4];
    assert_memory_equal(q->ids, dataset_ids(ds, SEED, 3, &prompt, scratch), sizeof scratch);
    assert_true(l->rec.t_send_ns != RECORD_NONE && l->busy);
    client->ops->cancel(client, l);
    assert_int_equal(comm_poll(comm, &m, &e), 1);
    assert_int_equal(m.tag, WIRE_CANCEL);
    assert_memory_equal(m.data, &l->ticket, sizeof l->ticket);
}

static void test_a_whole_reply(void **state)
{
    (void)state;
    struct live *l = submit(1, 4, 3);
    struct wire_ticket ticket = l->ticket;
    assert_int_equal(deliver_trace(ticket, WIRE_FIRST), 1);
    assert_int_equal(deliver_token(ticket, WIRE_FIRST, 1000), 1);
    assert_int_equal(deliver_token(ticket, 0, 2000), 1);
    assert_int_equal(deliver_trace(ticket, WIRE_LAST), 1);
    assert_int_equal(deliver_token(ticket, WIRE_LAST, 3000), 1);
    const struct record *r = &ended(OUTCOME_OK)->rec;
    assert_true(r->n_out == 3 && r->n_chunks == 3 && r->n_stages == N_STAGES);
    assert_true(r->t_recv_ns == 10 && r->t_admit_ns == 20 && r->t_prefill_ns == 30);
    assert_true(r->t_emit_first_ns == 1000 && r->t_emit_last_ns == 3000);
    assert_true(r->t_byte_ns >= r->t_send_ns && r->t_first_ns >= r->t_byte_ns);
    assert_true(r->t_last_ns >= r->t_first_ns);
    for (uint32_t k = 0; k < 2; k++) {
        assert_int_equal(r->hop_us[k], 41 + k);
        assert_int_equal(r->bubble_us[k], 51 + k);
        for (uint32_t i = 0; i < N_STAGES; i++) {
            assert_int_equal(l->stage_us[k * N_STAGES + i], 100 * (k + 1) + i);
        }
    }
}

/* One message with tokens of several requests, one of them long gone. */
static void test_tokens_of_many_requests(void **state)
{
    (void)state;
    struct live *a = submit(1, 1, 1), *b = submit(2, 1, 1), *c = submit(3, 1, 2);
    struct wire_ticket gone = {.slot = 7, .generation = 99};
    const struct wire_ticket tickets[] = {a->ticket, gone, c->ticket, b->ticket, c->ticket};
    struct wire_token t[5];
    memset(t, 0, sizeof t);
    for (int i = 0; i < 5; i++) {
        t[i].ticket = tickets[i];
        t[i].flags = i == 2 ? WIRE_FIRST : WIRE_LAST;
    }
    assert_int_equal(deliver(WIRE_TOKENS, t, sizeof t), 1);
    struct live *const order[] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(ended(OUTCOME_OK), order[i]);
        live_free(table, order[i]);
    }
    assert_null(live_next_ended(table));
}

static void test_stale_tickets_are_dropped(void **state)
{
    (void)state;
    struct live *l = submit(1, 1, 5);
    struct wire_ticket stale = l->ticket, outside = {.slot = N_SLOTS}, far = {.slot = UINT32_MAX};
    stale.generation++;
    const struct wire_ticket bad[] = {stale, outside, far};
    for (int i = 0; i < 3; i++) {
        struct wire_reject reject = {.ticket = bad[i]};
        assert_int_equal(deliver_token(bad[i], WIRE_LAST, 1), 1);
        assert_int_equal(deliver_trace(bad[i], WIRE_FIRST), 1);
        assert_int_equal(deliver(WIRE_REJECT, &reject, sizeof reject), 1);
    }
    assert_true(l->busy && l->rec.n_out == 0 && l->rec.n_stages == 0);
    assert_true(l->rec.t_byte_ns == RECORD_NONE);
    assert_null(live_next_ended(table));
}

static void test_rejected(void **state)
{
    (void)state;
    struct live *l = submit(1, 1, 5);
    struct wire_reject reject = {.ticket = l->ticket};
    assert_int_equal(deliver(WIRE_REJECT, &reject, sizeof reject), 1);
    assert_ptr_equal(ended(OUTCOME_REJECTED), l);
    assert_int_equal(deliver(WIRE_REJECT, &reject, sizeof reject), 1); // again: nobody
    live_free(table, l);
    assert_null(live_next_ended(table));
}

static void test_more_tokens_than_asked_for(void **state)
{
    (void)state;
    struct live *l = submit(1, 1, 2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(deliver_token(l->ticket, 0, 1), 1);
    }
    assert_ptr_equal(ended(OUTCOME_BAD_STREAM), l);
    assert_int_equal(l->rec.n_out, 2);
}

static void test_fewer_tokens_than_asked_for(void **state)
{
    (void)state;
    struct live *l = submit(1, 1, 2);
    assert_int_equal(deliver_token(l->ticket, WIRE_FIRST | WIRE_LAST, 1), 1);
    assert_ptr_equal(ended(OUTCOME_TRUNCATED), l);
}

static void test_an_eos_may_end_it_early(void **state)
{
    (void)state;
    struct comm_msg m;
    struct err e = {0};
    struct live *l = submit(1, 1, 2);
    assert_int_equal(comm_poll(comm, &m, &e), 1);
    assert_int_equal(((const struct wire_request *)m.data)->flags, WIRE_STOP_AT_EOS);
    assert_int_equal(deliver_token(l->ticket, WIRE_FIRST | WIRE_LAST, 1), 1);
    assert_ptr_equal(ended(OUTCOME_OK), l);
}

static void test_malformed_messages_are_errors(void **state)
{
    (void)state;
    struct live *l = submit(1, 1, 5);
    struct trace_message t;
    make_trace(&t, l->ticket, WIRE_FIRST);
    struct wire_token tokens[2] = {{.ticket = l->ticket}, {.ticket = l->ticket}};
    for (size_t n = 0; n < TRACE_BYTES; n++) { // cut anywhere
        assert_int_equal(deliver(WIRE_TRACE, &t, n), -1);
        assert_true(n == sizeof tokens[0] || n >= sizeof tokens ||
                    deliver(WIRE_TOKENS, tokens, n) == -1);
        assert_true(n == sizeof(struct wire_reject) || deliver(WIRE_REJECT, &t, n) == -1);
        assert_true(n == sizeof(struct wire_load) || deliver(WIRE_LOAD, &t, n) == -1);
    }
    const uint32_t n_stages[] = {0, RECORD_MAX_STAGES + 1, UINT32_MAX, UINT32_MAX / 4};
    for (int i = 0; i < 4; i++) {
        t.head.n_stages = n_stages[i];
        assert_int_equal(deliver(WIRE_TRACE, &t, TRACE_BYTES), -1);
    }
    const struct wire_load elsewhere = {.replica = 1}; // there is one
    assert_int_equal(deliver(WIRE_LOAD, &elsewhere, sizeof elsewhere), -1);
    const struct wire_load load = {.n_tokens = 1000}, of_another_step = {.step = 7};
    assert_int_equal(deliver(WIRE_LOAD, &load, sizeof load), 1);
    assert_int_equal(deliver(WIRE_LOAD, &of_another_step, sizeof of_another_step), 1);
    make_trace(&t, l->ticket, 3); // of no phase
    assert_int_equal(deliver(WIRE_TRACE, &t, TRACE_BYTES), -1);
    assert_int_equal(deliver_trace(l->ticket, WIRE_LAST), -1); // without its first
    assert_true(l->busy && l->rec.n_out == 0);
    assert_int_equal(deliver(WIRE_JOURNAL, &t, sizeof t), 0); // not this client's business
}

/* Random bytes under every tag: an error or nothing, never a wrong record. */
static void test_noise(void **state)
{
    (void)state;
    struct live *l = submit(1, 1, 5);
    for (uint64_t i = 0; i < 20000; i++) {
        uint8_t bytes[128];
        for (size_t k = 0; k < sizeof bytes; k++) {
            bytes[k] = (uint8_t)rng_below(4, 1, RNG_BOOTSTRAP, i, k); // small numbers hit more
        }
        size_t n = rng_below(sizeof bytes, 1, RNG_BOOTSTRAP, i, 1000);
        int tag = WIRE_REJECT + (int)rng_below(3, 1, RNG_BOOTSTRAP, i, 1001);
        (void)deliver(tag, bytes, n);
        if (live_next_ended(table)) {
            live_free(table, live_next_ended(table));
            l = submit(i, 1, 5);
        }
        assert_true(l->rec.n_out <= 5 && l->rec.n_stages <= RECORD_MAX_STAGES);
    }
}

int main(void)
{
    static bool stops_at_eos = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_leader_gets_the_request, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_sampled_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_whole_reply, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_tokens_of_many_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stale_tickets_are_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rejected, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_more_tokens_than_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_fewer_tokens_than_asked_for, set_up, tear_down),
        cmocka_unit_test_prestate_setup_teardown(test_an_eos_may_end_it_early, set_up, tear_down,
                                                 &stops_at_eos),
        cmocka_unit_test_setup_teardown(test_malformed_messages_are_errors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_noise, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
