/*
 * The loop of one load rank against clients that answer at once, never, or refuse: whatever the
 * client does, every event of the schedule has exactly one record, and the journal is complete when
 * WIRE_STEP_DONE arrives. Real clock, tiny steps; nothing is asserted about how long things take.
 */
#include "core/clock.h"
#include "core/hist.h"
#include "core/mem.h"
#include "loadgen/client_null.h"
#include "loadgen/loop.h"
#include "loadgen/plan.h"
#include "loadgen/turns.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CONTEXT = 2048,
    MAX_RECORDS = 200000,
};

#define RATE_RPS 4000.0
#define STEP_NS  (60 * NS_PER_MS)

struct rig {
    struct comm *comm;
    struct dataset *ds;
    struct dataset_config dataset;
    struct load_config load;
    struct loop *loop;
    struct wire_step step;
    /* what rank 0 got: */
    struct record *records; // (MAX_RECORDS)
    uint32_t n_records, n_wrong_gaps;
    struct wire_step_done done;
    int n_done;
    bool stop_at_once;
};

static struct rig rig;

static void check_gaps(const struct record *r, const uint32_t *dt_us)
{
    uint64_t sum_us = 0;
    for (uint32_t i = 0; i < r->n_out; i++) {
        sum_us += dt_us[i];
    }
    int64_t us = r->n_out ? (r->t_last_ns - r->t_send_ns) / NS_PER_US : 0;
    rig.n_wrong_gaps += sum_us != (uint64_t)us;
}

static void take_journal(const struct comm_msg *m)
{
    const struct wire_journal *j = m->data;
    assert_true(m->n_bytes > sizeof *j && m->n_bytes <= loop_max_message_bytes(CONTEXT));
    assert_int_equal(j->kind, WIRE_JOURNAL_RECORDS);
    assert_int_equal(j->step, rig.step.index);
    assert_int_equal(rig.n_done, 0); // nothing after the last word
    size_t left = m->n_bytes - sizeof *j;
    for (const uint8_t *at = j->bytes; left > 0;) {
        const uint32_t *stage_us, *dt_us;
        assert_true(rig.n_records < MAX_RECORDS);
        struct record *r = &rig.records[rig.n_records++];
        size_t n = record_decode(at, left, r, &stage_us, &dt_us);
        assert_true(n > 0 && n <= left && n % 8 == 0);
        check_gaps(r, dt_us);
        at += n;
        left -= n;
    }
}

static int on_message(void *arg, const struct comm_msg *m, struct err *e)
{
    (void)arg, (void)e;
    if (m->tag == WIRE_JOURNAL) {
        take_journal(m);
    } else {
        assert_int_equal(m->tag, WIRE_STEP_DONE);
        assert_int_equal(m->n_bytes, sizeof rig.done);
        memcpy(&rig.done, m->data, sizeof rig.done);
        rig.n_done++;
    }
    return 0;
}

static int on_tick(void *arg, int64_t now_ns, struct err *e)
{
    (void)arg, (void)now_ns, (void)e;
    if (rig.stop_at_once && loop_live(rig.loop)->n_sent > 0) {
        loop_stop(rig.loop);
    }
    return 0;
}

/* With the settings that `set` has changed. */
static int set_up_with(void (*set)(void))
{
    struct err e = {0};
    struct layout layout = {.load_ranks = 1};
    memset(&rig, 0, sizeof rig);
    rig.records = xcalloc(MAX_RECORDS, sizeof *rig.records);
    opt_defaults(dataset_options, &rig.dataset);
    opt_defaults(load_options, &rig.load);
    rig.load.max_in_flight = 64;
    if (set) {
        set();
    }
    struct loop_hooks hooks = {.message = on_message, .tick = on_tick};
    struct dataset_model model = {.vocab = 512, .context = CONTEXT, .may_estimate = true};
    return dataset_open(&rig.ds, &rig.dataset, &model, &e) || comm_open(&rig.comm, &e) ||
           comm_start(rig.comm, loop_max_message_bytes(CONTEXT), &e) ||
           loop_create(&rig.loop, rig.comm, &layout, &rig.load, rig.ds, CONTEXT, hooks, &e);
}

static int set_up(void **state)
{
    (void)state;
    return set_up_with(NULL);
}

static int tear_down(void **state)
{
    (void)state;
    loop_destroy(rig.loop);
    comm_close(rig.comm);
    dataset_close(rig.ds);
    opt_free(dataset_options, &rig.dataset);
    opt_free(load_options, &rig.load);
    free(rig.records);
    return 0;
}

static int compare_id(const void *a, const void *b)
{
    uint64_t x = ((const struct record *)a)->id, y = ((const struct record *)b)->id;
    return (x > y) - (x < y);
}

/* Plan and run one step, take what is left of its messages, and sort the records by id. */
static void run_step(struct client *c, uint32_t users, int64_t drain_ns)
{
    struct err e = {0};
    struct comm_msg m;
    int64_t t_ns = clock_now_ns() + 2 * NS_PER_MS;
    rig.n_records = 0;
    rig.n_done = 0;
    rig.step = (struct wire_step){.index = rig.step.index + 1,
                                  .rate_rps = users ? 0.0 : RATE_RPS,
                                  .users = users,
                                  .seed = 7,
                                  .t_begin_ns = t_ns,
                                  .t_warm_ns = t_ns,
                                  .t_end_ns = t_ns + STEP_NS,
                                  .t_drain_ns = t_ns + STEP_NS + drain_ns};
    assert_int_equal(loop_plan_step(rig.loop, &rig.step, &e), 0);
    assert_int_equal(loop_run_step(rig.loop, c, &e), 0);
    while (comm_poll(rig.comm, &m, &e) == 1) {
        assert_int_equal(on_message(NULL, &m, &e), 0);
    }
    assert_int_equal(rig.n_done, 1);
    assert_int_equal(rig.done.index, rig.step.index);
    assert_int_equal(rig.done.n_records, rig.n_records);
    assert_int_equal(rig.n_wrong_gaps, 0);
    qsort(rig.records, rig.n_records, sizeof *rig.records, compare_id);
}

/* The records are the plan's events, one each, due when the plan says. */
static void check_against_plan(void)
{
    struct plan p;
    struct err e = {0};
    assert_int_equal(plan_build(&p, &rig.load, rig.ds, RATE_RPS, STEP_NS, rig.step.seed, 0, 1, &e),
                     0);
    assert_true(p.n > 100);
    assert_int_equal(rig.n_records, p.n);
    assert_true(rig.done.n_scheduled == p.n && rig.done.schedule_hash == p.hash);
    assert_true(rig.done.n_filtered == p.n_filtered);
    for (size_t i = 0; i < p.n; i++) {
        const struct record *r = &rig.records[i];
        assert_true(r->id == p.events[i].id);
        assert_true(r->t_sched_ns == rig.step.t_begin_ns + p.events[i].t_ns);
        assert_true(r->n_in == p.events[i].n_in && r->n_out_req == p.events[i].n_out);
        assert_true(r->load_rank == 0 && r->n_out_usage == UINT32_MAX);
    }
    plan_free(&p);
}

static void test_every_event_is_answered_once(void **state)
{
    (void)state;
    struct client *c = client_null_create(loop_live_table(rig.loop));
    for (int i = 0; i < 2; i++) { // a second step starts clean
        run_step(c, 0, NS_PER_S);
        check_against_plan();
        for (uint32_t k = 0; k < rig.n_records; k++) {
            const struct record *r = &rig.records[k];
            assert_int_equal(r->outcome, OUTCOME_OK);
            assert_int_equal(r->n_out, r->n_out_req);
            assert_int_equal(r->n_chunks, 1);
            assert_true(r->t_send_ns >= r->t_sched_ns && r->t_first_ns >= r->t_send_ns);
            assert_true(r->t_last_ns == r->t_first_ns && r->t_byte_ns == r->t_first_ns);
        }
        const struct loop_live *live = loop_live(rig.loop);
        assert_true(live->n_sent == rig.n_records && live->n_done == rig.n_records);
        assert_true(live->n_ok == rig.n_records && live->n_in_flight == 0);
        assert_true(loop_ttft(rig.loop)->n == rig.n_records);
        assert_true(rig.done.poll_gap_ns[0] > 0 &&
                    rig.done.poll_gap_ns[1] >= rig.done.poll_gap_ns[0]);
    }
    c->ops->destroy(c);
}

/* --- a client that answers nothing, or refuses all ------------------------------------------------ */

struct deaf {
    struct client base;
    bool refuses;
    int n_cancelled;
};

static void deaf_submit(struct client *c, struct live *l, struct str *payload)
{
    struct deaf *d = (struct deaf *)c;
    (void)payload;
    live_sent(l, clock_now_ns());
    if (d->refuses) {
        live_end(loop_live_table(rig.loop), l, OUTCOME_REJECTED, 0, clock_now_ns());
    }
}

static void deaf_cancel(struct client *c, struct live *l)
{
    assert_true(l->busy);
    ((struct deaf *)c)->n_cancelled++;
}

static const struct client_ops deaf_ops = {
    .name = "deaf", .submit = deaf_submit, .cancel = deaf_cancel};

/* 64 are sent and cancelled, the others stay due to the end and never have a time of sending. */
static void test_what_gets_no_answer_is_cancelled(void **state)
{
    (void)state;
    struct deaf deaf = {.base.ops = &deaf_ops};
    run_step(&deaf.base, 0, 5 * NS_PER_MS);
    check_against_plan();
    assert_int_equal(deaf.n_cancelled, 64);
    for (uint32_t i = 0; i < rig.n_records; i++) {
        const struct record *r = &rig.records[i];
        assert_int_equal(r->outcome, OUTCOME_CANCELLED);
        assert_true((i < 64) == (r->t_send_ns != RECORD_NONE));
        assert_true(r->t_first_ns == RECORD_NONE && r->n_out == 0);
    }
    struct client *c = client_null_create(loop_live_table(rig.loop));
    run_step(c, 0, NS_PER_S); // the slots are free again
    check_against_plan();
    assert_true(loop_live(rig.loop)->n_ok == rig.n_records);
    c->ops->destroy(c);
}

static void test_a_stopped_step_is_complete(void **state)
{
    (void)state;
    struct deaf deaf = {.base.ops = &deaf_ops};
    rig.stop_at_once = true;
    run_step(&deaf.base, 0, 3600 * NS_PER_S); // nobody waits for this drain
    check_against_plan();
    assert_true(deaf.n_cancelled >= 1);
    for (uint32_t i = 0; i < rig.n_records; i++) {
        assert_int_equal(rig.records[i].outcome, OUTCOME_CANCELLED);
    }
}

/* --- a client whose answers go on after their last token ------------------------------------------ */

#define LINGER_NS (2 * NS_PER_MS)

struct linger {
    struct client base;
    struct live *open[64]; // (n_open) by time of sending
    uint32_t n_open;
    int64_t *t_end_ns; // (MAX_RECORDS) by id
};

static void linger_submit(struct client *c, struct live *l, struct str *payload)
{
    struct linger *g = (struct linger *)c;
    (void)payload;
    live_sent(l, clock_now_ns());
    assert_true(live_tokens(loop_live_table(rig.loop), l, l->rec.n_out_req, clock_now_ns()));
    g->open[g->n_open++] = l;
}

static int linger_poll(struct client *c, struct err *e)
{
    struct linger *g = (struct linger *)c;
    (void)e;
    int64_t now_ns = clock_now_ns();
    if (g->n_open == 0 || now_ns - g->open[0]->rec.t_last_ns < LINGER_NS) {
        return 0;
    }
    g->t_end_ns[g->open[0]->rec.id] = now_ns;
    live_end(loop_live_table(rig.loop), g->open[0], OUTCOME_OK, 0, now_ns);
    g->n_open--;
    memmove(g->open, g->open + 1, g->n_open * sizeof *g->open);
    return 1;
}

static const struct client_ops linger_ops = {
    .name = "linger", .submit = linger_submit, .poll = linger_poll, .cancel = deaf_cancel};

static void test_users_wait_for_the_end_of_an_answer(void **state)
{
    (void)state;
    enum {
        USERS = 3
    };
    struct linger linger = {.base.ops = &linger_ops,
                            .t_end_ns = xcalloc(MAX_RECORDS, sizeof *linger.t_end_ns)};
    run_step(&linger.base, USERS, NS_PER_S);
    assert_true(rig.n_records > USERS);
    for (uint32_t i = 0; i < rig.n_records; i++) {
        const struct record *r = &rig.records[i];
        assert_true(r->t_sched_ns ==
                    (r->id < USERS ? rig.step.t_begin_ns : linger.t_end_ns[r->id - USERS]));
    }
    free(linger.t_end_ns);
}

/* --- closed loop ---------------------------------------------------------------------------------- */

/* Each user's next request is due the moment its last reply ended. */
static void check_turns(uint32_t users)
{
    for (uint32_t i = 0; i < rig.n_records; i++) {
        const struct record *r = &rig.records[i];
        const struct record *before = NULL;
        for (uint32_t k = i; k-- > 0 && !before;) {
            before = rig.records[k].id + users == r->id ? &rig.records[k] : NULL;
            if (rig.records[k].id + users < r->id) {
                break;
            }
        }
        if (r->id < users) {
            assert_true(r->t_sched_ns == rig.step.t_begin_ns);
        } else {
            assert_non_null(before);
            assert_true(r->t_sched_ns == before->t_last_ns);
        }
        assert_true(i == 0 || r->id != rig.records[i - 1].id);
        assert_true(r->t_sched_ns < rig.step.t_end_ns);
        assert_int_equal(r->outcome, OUTCOME_OK);
    }
}

static void test_closed_loop(void **state)
{
    (void)state;
    struct client *c = client_null_create(loop_live_table(rig.loop));
    run_step(c, 3, NS_PER_S);
    assert_true(rig.n_records > 9 && rig.done.n_scheduled == rig.n_records);
    check_turns(3);
    c->ops->destroy(c);
}

/* Refused at once, a user waits before it tries again: no flood of records. */
static void test_refused_users_wait(void **state)
{
    (void)state;
    struct deaf deaf = {.base.ops = &deaf_ops, .refuses = true};
    run_step(&deaf.base, 5, NS_PER_S);
    assert_int_equal(rig.n_records, 5); // the step is shorter than the wait
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(rig.records[i].outcome, OUTCOME_REJECTED);
    }
}

/* --- the cap ------------------------------------------------------------------------------------------ */

static void set_cap(void)
{
    rig.load.max_concurrency = 2;
}

static int set_up_cap(void **state)
{
    (void)state;
    return set_up_with(set_cap);
}

/* Two places, never given back: what is due afterwards is held to the end, and nothing of that is lag. */
static void test_the_cap_holds_back(void **state)
{
    (void)state;
    struct deaf deaf = {.base.ops = &deaf_ops};
    run_step(&deaf.base, 0, 5 * NS_PER_MS);
    check_against_plan();
    assert_int_equal(deaf.n_cancelled, 2);
    for (uint32_t i = 0; i < rig.n_records; i++) {
        const struct record *r = &rig.records[i];
        assert_true((i < 2) == (r->t_send_ns != RECORD_NONE));
        int64_t waited_ns = i < 2 ? 0 : rig.step.t_drain_ns - r->t_sched_ns;
        assert_true((int64_t)r->cap_wait_us >= waited_ns / NS_PER_US);
        assert_true(i >= 2 || r->cap_wait_us == 0);
        assert_int_equal(r->late, record_lag_ns(r) > RECORD_LATE_NS);
    }
}

/* What waits for a place waits to the end of the answer that held it, and that is no lag. */
static void test_a_place_is_free_at_the_end_of_an_answer(void **state)
{
    (void)state;
    struct linger linger = {.base.ops = &linger_ops,
                            .t_end_ns = xcalloc(MAX_RECORDS, sizeof *linger.t_end_ns)};
    run_step(&linger.base, 0, 5 * NS_PER_S);
    check_against_plan();
    for (uint32_t i = 0; i < rig.n_records; i++) {
        const struct record *r = &rig.records[i];
        int64_t wait_ns = i < 2 ? 0 : linger.t_end_ns[i - 2] - r->t_sched_ns;
        assert_int_equal(r->outcome, OUTCOME_OK);
        assert_true(r->cap_wait_us == (wait_ns > 0 ? wait_ns / NS_PER_US : 0));
    }
    free(linger.t_end_ns);
}

/* --- conversations ------------------------------------------------------------------------------------ */

#define TALK_PATH "test_loop_talks.json"
#define THINK_NS  (4 * NS_PER_MS)

/* Conversations of one to four turns. */
static void set_talks(void)
{
    FILE *f = fopen(TALK_PATH, "w");
    assert_non_null(f);
    fputs("[", f);
    for (int n_turns = 1; n_turns <= 4; n_turns++) {
        fputs(n_turns > 1 ? ",{\"conversations\": [" : "{\"conversations\": [", f);
        for (int i = 0; i < n_turns; i++) {
            fprintf(f, "%s{\"from\": \"human\", \"value\": \"what is %d of %d\"},",
                    i > 0 ? "," : "", i, n_turns);
            fputs("{\"from\": \"gpt\", \"value\": \"the answer to that\"}", f);
        }
        fputs("]}", f);
    }
    fputs("]", f);
    fclose(f);
    free(rig.dataset.source);
    rig.dataset.source = xstrdup(TALK_PATH);
    rig.dataset.turns = DATASET_TURNS_MULTI;
    rig.dataset.use_cache = false;
    rig.dataset.think.mean_ns = THINK_NS;
}

static int set_up_talks(void **state)
{
    (void)state;
    int status = set_up_with(set_talks);
    unlink(TALK_PATH);
    return status;
}

static const struct record *find(uint64_t event, uint32_t turn)
{
    struct record key = {.id = turns_id(event, turn)};
    return bsearch(&key, rig.records, rig.n_records, sizeof key, compare_id);
}

/* A later turn is due when its user has read the reply before it; what it says was decided before. */
static void check_turn(const struct record *r)
{
    struct plan_event ev;
    struct turn turn = turns_of_id(r->id);
    (void)plan_turn(rig.ds, rig.step.seed, turn.event, turn.turn, &ev);
    assert_true(r->n_in == ev.n_in && r->n_out_req == ev.n_out);
    assert_true(r->turn == turn.turn && turn.turn < ev.n_turns);
    assert_true(r->conversation == turn.event + 1);
    assert_true(r->t_sched_ns < rig.step.t_end_ns);
    const struct record *before = turn.turn > 0 ? find(turn.event, turn.turn - 1) : NULL;
    assert_true((turn.turn > 0) == (before != NULL));
    assert_true(!before || r->t_sched_ns == before->t_last_ns + THINK_NS);
    if (turn.turn + 1 < ev.n_turns && !find(turn.event, turn.turn + 1)) { // the step was over
        assert_true(r->t_last_ns + THINK_NS >= rig.step.t_end_ns);
    }
}

static void test_conversations_go_on(void **state)
{
    (void)state;
    struct client *c = client_null_create(loop_live_table(rig.loop));
    for (int i = 0; i < 2; i++) {
        run_step(c, 0, NS_PER_S);
        struct plan p;
        struct err e = {0};
        assert_int_equal(
            plan_build(&p, &rig.load, rig.ds, RATE_RPS, STEP_NS, rig.step.seed, 0, 1, &e), 0);
        assert_true(p.n_conversations > p.n / 2 && rig.done.schedule_hash == p.hash);
        assert_true(rig.n_records > p.n + p.n / 2 && rig.done.n_scheduled == rig.n_records);
        for (size_t k = 0; k < p.n; k++) {
            assert_true(rig.records[k].id == p.events[k].id); // later turns have larger ids
        }
        plan_free(&p);
        for (uint32_t k = 0; k < rig.n_records; k++) {
            check_turn(&rig.records[k]);
        }
    }
    c->ops->destroy(c);
}

static void test_a_failed_turn_ends_its_conversation(void **state)
{
    (void)state;
    struct deaf deaf = {.base.ops = &deaf_ops, .refuses = true};
    run_step(&deaf.base, 0, NS_PER_S);
    assert_true(rig.n_records > 100 && rig.done.n_scheduled == rig.n_records);
    for (uint32_t i = 0; i < rig.n_records; i++) {
        assert_int_equal(rig.records[i].turn, 0);
    }
}

/* In a closed loop a user has one conversation after the other, and thinks before each. */
static void test_users_converse(void **state)
{
    (void)state;
    enum {
        USERS = 3
    };
    struct client *c = client_null_create(loop_live_table(rig.loop));
    run_step(c, USERS, NS_PER_S);
    assert_true(rig.n_records > USERS * 5 && rig.done.n_scheduled == rig.n_records);
    for (uint32_t i = 0; i < rig.n_records; i++) {
        const struct record *r = &rig.records[i];
        check_turn(r);
        struct turn turn = turns_of_id(r->id);
        if (turn.turn == 0 && turn.event < USERS) {
            assert_true(r->t_sched_ns == rig.step.t_begin_ns);
        } else if (turn.turn == 0) {
            uint32_t last = 0;
            for (uint32_t k = 1; find(turn.event - USERS, k); k++) {
                last = k;
            }
            assert_true(r->t_sched_ns == find(turn.event - USERS, last)->t_last_ns + THINK_NS);
        }
    }
    c->ops->destroy(c);
}

/* --- requests made ready ------------------------------------------------------------------------------- */

#define PATIENCE_NS (50 * NS_PER_MS)

/* Answers when a request is ready that was not sent yet, or when it has waited for that for too long. */
struct patient {
    struct client base;
    struct live *open[64]; // (n_open)
    uint32_t n_open, n_made, n_sent, n_in_vain;
    uint32_t fail_every; // 0: none fails
};

static void patient_prepare(struct client *c, const struct dataset *ds, uint64_t seed,
                            uint64_t event, const struct prompt *p, struct str *payload)
{
    (void)ds, (void)seed;
    uint64_t id = turns_id(event, p->turn);
    str_append(payload, &id, sizeof id);
    ((struct patient *)c)->n_made++;
}

/* It says what it should say. */
static void patient_submit(struct client *c, struct live *l, struct str *payload)
{
    struct patient *p = (struct patient *)c;
    assert_int_equal(payload->len, sizeof l->rec.id);
    assert_memory_equal(payload->data, &l->rec.id, sizeof l->rec.id);
    if (l->rec.id % 2 == 0) {
        str_free(payload); // kept by the client
    }
    live_sent(l, clock_now_ns());
    p->n_sent++;
    p->open[p->n_open++] = l;
}

static int patient_poll(struct client *c, struct err *e)
{
    struct patient *p = (struct patient *)c;
    (void)e;
    int64_t now_ns = clock_now_ns();
    if (p->n_open == 0) {
        return 0;
    }
    struct live *l = p->open[0];
    bool is_over = now_ns - l->rec.t_send_ns > PATIENCE_NS;
    if (p->n_made <= p->n_sent && !is_over) {
        return 0;
    }
    p->n_in_vain += p->n_made <= p->n_sent;
    bool fails = p->fail_every > 0 && l->rec.id % p->fail_every == 1;
    assert_true(live_tokens(loop_live_table(rig.loop), l, l->rec.n_out_req, now_ns));
    live_end(loop_live_table(rig.loop), l, fails ? OUTCOME_TRUNCATED : OUTCOME_OK, 0, now_ns);
    p->open[0] = p->open[--p->n_open];
    return 1;
}

static const struct client_ops patient_ops = {.name = "patient",
                                              .prepare = patient_prepare,
                                              .submit = patient_submit,
                                              .poll = patient_poll,
                                              .cancel = deaf_cancel};

/* What a user asks next is ready before the reply that it waits for has ended. */
static void test_turns_are_made_ready(void **state)
{
    (void)state;
    struct patient patient = {.base.ops = &patient_ops};
    for (int i = 0; i < 2; i++) {
        patient.n_made = patient.n_sent = 0;
        run_step(&patient.base, 1, NS_PER_S);
        assert_true(rig.n_records > 10);
        assert_int_equal(patient.n_in_vain, 0);
        assert_int_equal(patient.n_made, patient.n_sent + 1);
    }
}

/* Conversations that end sooner than was thought leave nothing behind. */
static void test_what_is_ready_is_of_its_turn(void **state)
{
    (void)state;
    struct patient patient = {.base.ops = &patient_ops, .fail_every = 5};
    run_step(&patient.base, 0, NS_PER_S);
    assert_true(rig.n_records > 100);
    run_step(&patient.base, 4, NS_PER_S);
    assert_true(rig.n_records > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_event_is_answered_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_gets_no_answer_is_cancelled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stopped_step_is_complete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_users_wait_for_the_end_of_an_answer, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_closed_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_users_wait, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_cap_holds_back, set_up_cap, tear_down),
        cmocka_unit_test_setup_teardown(test_a_place_is_free_at_the_end_of_an_answer, set_up_cap,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_conversations_go_on, set_up_talks, tear_down),
        cmocka_unit_test_setup_teardown(test_a_failed_turn_ends_its_conversation, set_up_talks,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_users_converse, set_up_talks, tear_down),
        cmocka_unit_test_setup_teardown(test_turns_are_made_ready, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_ready_is_of_its_turn, set_up_talks, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
