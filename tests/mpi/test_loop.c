/*
 * Two load ranks, two replicas of one stage that only pretend: the loop and the client of the
 * internal target over real messages. Rank 0 gathers the journal of both and checks that the step's
 * schedule was answered, each request exactly once, and that both ranks hashed the same schedule.
 */
#include "core/clock.h"
#include "core/mem.h"
#include "loadgen/client_stages.h"
#include "loadgen/loop.h"
#include "loadgen/plan.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOAD_RANKS = 2,
    REPLICAS = 2,
    CONTEXT = 2048,
    MAX_MESSAGE = 64 << 10,
};

#define RATE_RPS    800.0
#define TRACE_BYTES (sizeof(struct wire_trace) + sizeof(uint32_t)) // of one stage
#define STEP_NS     (250 * NS_PER_MS)

static struct comm *c;
static const struct layout layout = {
    .load_ranks = LOAD_RANKS, .replicas = REPLICAS, .pipeline = 1, .tensor = 1};

static void must(int rc, const struct err *e)
{
    if (rc != 0) {
        comm_abort(c, 1, "%s", e->msg);
    }
}

/* --- a pretended replica ----------------------------------------------------------------------- */

static void reply(const struct comm_msg *m, struct err *e)
{
    const struct wire_request *q = m->data;
    CHECK(m->n_bytes == sizeof *q + q->n_in * sizeof q->ids[0]);
    struct {
        struct wire_trace head;
        uint32_t stage_us[1];
    } trace = {.head = {.ticket = q->ticket, .n_stages = 1}};
    int64_t now_ns = clock_now_ns();
    trace.head.t_recv_ns = trace.head.t_admit_ns = trace.head.t_prefill_ns = now_ns;
    for (uint32_t i = 0; i < q->n_out; i++) {
        uint32_t flags = (i == 0 ? WIRE_FIRST : 0) | (i + 1 == q->n_out ? WIRE_LAST : 0);
        struct wire_token t = {.ticket = q->ticket, .flags = flags, .t_emit_ns = clock_now_ns()};
        for (uint32_t phase = WIRE_FIRST; phase <= WIRE_LAST; phase++) {
            trace.head.phase = phase;
            if (flags & phase) {
                must(comm_post(c, m->src, WIRE_TRACE, &trace, TRACE_BYTES, e), e);
            }
        }
        must(comm_post(c, m->src, WIRE_TOKENS, &t, sizeof t, e), e);
    }
}

static void serve(void)
{
    struct err e = {0};
    for (int idle = 0;;) {
        struct comm_msg m;
        int got = comm_poll(c, &m, &e);
        must(got < 0, &e);
        if (got == 0) {
            must(comm_pause(c, idle++, &e), &e);
            continue;
        }
        idle = 0;
        if (m.tag == WIRE_SHUTDOWN) {
            return;
        }
        CHECK(m.tag == WIRE_REQUEST || m.tag == WIRE_CANCEL);
        if (m.tag == WIRE_REQUEST) {
            reply(&m, &e);
        }
    }
}

/* --- what rank 0 gathers ------------------------------------------------------------------------ */

static struct record *records; // (n_expected) by id
static uint64_t n_expected, n_records, n_done, schedule_hash;

static int on_message(void *arg, const struct comm_msg *m, struct err *e)
{
    (void)arg, (void)e;
    if (m->tag == WIRE_STEP_DONE) {
        const struct wire_step_done *done = m->data;
        CHECK(m->n_bytes == sizeof *done && done->schedule_hash == schedule_hash);
        CHECK(done->n_records == done->n_scheduled);
        n_done++;
        return 0;
    }
    CHECK(m->tag == WIRE_JOURNAL && m->n_bytes > sizeof(struct wire_journal));
    const struct wire_journal *j = m->data;
    size_t left = m->n_bytes - sizeof *j;
    for (const uint8_t *at = j->bytes; left > 0;) {
        struct record r;
        const uint32_t *stage_us, *dt_us;
        size_t n = record_decode(at, left, &r, &stage_us, &dt_us);
        CHECK(n > 0 && r.id < n_expected && records[r.id].outcome == OUTCOME_LOST);
        CHECK(r.load_rank == m->src && r.id % LOAD_RANKS == (uint64_t)m->src);
        records[r.id] = r;
        n_records++;
        at += n;
        left -= n;
    }
    return 0;
}

static void check_records(const struct plan *whole)
{
    uint64_t per_replica[REPLICAS] = {0};
    CHECK(n_records == whole->n && whole->n > 100);
    for (size_t i = 0; i < whole->n; i++) {
        const struct record *r = &records[i];
        const struct plan_event *ev = &whole->events[i];
        CHECK(r->outcome == OUTCOME_OK && r->n_out == ev->n_out && r->n_in == ev->n_in);
        CHECK(r->n_stages == 1 && r->replica < REPLICAS);
        CHECK(r->t_send_ns >= r->t_sched_ns && r->t_last_ns >= r->t_first_ns);
        per_replica[r->replica]++;
    }
    CHECK(per_replica[0] > whole->n / 4 && per_replica[1] > whole->n / 4);
}

static void offer(int rank)
{
    struct err e = {0};
    struct dataset_config dataset;
    struct load_config load;
    struct dataset *ds;
    struct loop *loop;
    struct client *client;
    struct plan whole;
    memset(&dataset, 0, sizeof dataset);
    memset(&load, 0, sizeof load);
    opt_defaults(dataset_options, &dataset);
    opt_defaults(load_options, &load);
    struct dataset_model model = {.vocab = 512, .context = CONTEXT};
    must(dataset_open(&ds, &dataset, &model, &e), &e);
    must(plan_build(&whole, &load, ds, RATE_RPS, STEP_NS, 11, 0, 1, &e), &e);
    n_expected = whole.n;
    schedule_hash = whole.hash;
    records = xcalloc(whole.n, sizeof *records);
    for (size_t i = 0; i < whole.n; i++) {
        records[i].outcome = OUTCOME_LOST;
    }
    struct loop_hooks hooks = {.message = on_message};
    must(loop_create(&loop, c, &layout, &load, ds, CONTEXT, hooks, &e), &e);
    client = client_stages_create(c, &layout, loop_live_table(loop), CONTEXT, true,
                                  ROUTING_LEAST_TOKENS);
    struct wire_step step = {.kind = STEP_SWEEP, .rate_rps = RATE_RPS, .seed = 11};
    step.t_begin_ns = step.t_warm_ns = clock_now_ns() + 20 * NS_PER_MS;
    must(comm_bcast(c, &step, sizeof step, 0, &e), &e);
    step.t_end_ns = step.t_begin_ns + STEP_NS;
    step.t_drain_ns = step.t_end_ns + 20 * NS_PER_S;
    must(loop_plan_step(loop, &step, &e), &e);
    must(loop_run_step(loop, client, &e), &e);
    for (int idle = 0; rank == 0 && n_done < LOAD_RANKS; idle++) {
        struct comm_msg m;
        int got = comm_poll(c, &m, &e);
        must(got < 0 || (got == 1 && on_message(NULL, &m, &e)), &e);
        must(comm_pause(c, idle, &e), &e);
    }
    if (rank == 0) {
        check_records(&whole);
    }
    client->ops->destroy(client);
    loop_destroy(loop);
    plan_free(&whole);
    free(records);
    dataset_close(ds);
    opt_free(load_options, &load);
    opt_free(dataset_options, &dataset);
}

int main(void)
{
    struct err e = {0};
    if (comm_open(&c, &e) != 0) {
        return 1;
    }
    int rank = comm_rank(c);
    CHECK(comm_size(c) == layout_size(&layout));
    must(comm_start(c, MAX_MESSAGE, &e), &e);
    must(comm_watch(c, 20 * NS_PER_S, &e), &e);
    if (layout_is_load(&layout, rank)) {
        offer(rank);
        for (int r = LOAD_RANKS; rank == 0 && r < comm_size(c); r++) {
            must(comm_post(c, r, WIRE_SHUTDOWN, "", 1, &e), &e);
        }
    } else {
        struct wire_step step;
        must(comm_bcast(c, &step, sizeof step, 0, &e), &e);
        serve();
    }
    comm_close(c);
    return 0;
}
