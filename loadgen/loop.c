#include "loadgen/loop.h"

#include "core/clock.h"
#include "core/hist.h"
#include "core/mem.h"
#include "core/spin.h"
#include "loadgen/cap.h"
#include "loadgen/drafts.h"
#include "loadgen/live.h"
#include "loadgen/outbox.h"
#include "loadgen/pace.h"
#include "loadgen/plan.h"
#include "loadgen/ready.h"
#include "loadgen/turns.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SENDS_PER_TURN    64
#define MESSAGES_PER_TURN 64
#define RECORDS_PER_PUMP  64
#define UNSENT_MOST       16 // messages under way while the last records are handed over
#define HANDOVER_NS       (60 * NS_PER_S)
#define AHEAD_NS          (3 * NS_PER_S) // of schedule that is made ready before it is due
#define AHEAD_MAX_BYTES   ((size_t)256 << 20)
#define PREPARE_NS        (2 * NS_PER_US) // to make a request ready: so much, and for each token
#define PREPARE_TOKEN_NS  10
#define AWAKE_NS          NS_PER_MS        // after a client's news, where the core is ours
#define REST_NS           (50 * NS_PER_US) // after news whose stamps do not wait for us
#define WAIT_MOST_NS      NS_PER_MS // for a client's own news, so that messages do not wait long
#define SHORT_SLICE_NS    100000    // the least that Linux takes

struct loop {
    struct comm *comm;
    struct layout layout;
    const struct load_config *cfg;
    const struct dataset *ds;
    struct loop_hooks hooks;
    uint32_t context;
    struct live_table *table;
    struct outbox outbox;

    struct wire_step step;
    struct client *client;
    bool is_planned, is_stopped;
    bool has_looked;   // the client has just waited for its news
    int64_t t_news_ns; // when it last had some
    struct pace pace;
    struct cap cap;
    struct plan plan;     // open loop
    size_t n_chunks;      // of token times, if all were in flight at once
    size_t next;          // index in plan.events
    struct ready ready;   // of plan.events from `next` on
    struct str payload;   // of an event that was not made ready
    struct turns turns;   // closed loop: all; open loop: what follows in conversations
    struct drafts drafts; // of what probably comes into `turns`
    uint64_t n_turns;     // open loop: such turns so far

    struct loop_live live;
    uint64_t n_filtered; // closed loop
    int64_t t_turn_ns;
    int idle_turns;
    struct hist gap_ns, ttft_us;
};

size_t loop_max_message_bytes(int context)
{
    CHECK(context > 0);
    return outbox_message_bytes((uint32_t)context);
}

int loop_create(struct loop **out, struct comm *comm, const struct layout *layout,
                const struct load_config *cfg, const struct dataset *ds, int context,
                struct loop_hooks hooks, struct err *e)
{
    CHECK(context > 0 && layout_is_load(layout, comm_rank(comm)));
    struct loop *l = xcalloc(1, sizeof *l);
    l->comm = comm;
    l->layout = *layout;
    l->cfg = cfg;
    l->ds = ds;
    l->hooks = hooks;
    l->context = (uint32_t)context;
    if (live_create(&l->table, (uint32_t)cfg->max_in_flight, l->context, e) != 0) {
        goto free_loop;
    }
    if (outbox_init(&l->outbox, comm, l->context, e) != 0) {
        goto destroy_table;
    }
    if (cap_init(&l->cap, cfg->max_concurrency, comm_rank(comm), layout->load_ranks, e) != 0) {
        goto free_outbox;
    }
    hist_reset(&l->gap_ns);
    hist_reset(&l->ttft_us);
    *out = l;
    return 0;
free_outbox:
    outbox_free(&l->outbox);
destroy_table:
    live_destroy(l->table);
free_loop:
    free(l);
    return -1;
}

void loop_destroy(struct loop *l)
{
    if (l) {
        plan_free(&l->plan);
        turns_free(&l->turns);
        live_destroy(l->table);
        outbox_free(&l->outbox);
        cap_free(&l->cap);
        ready_free(&l->ready);
        drafts_free(&l->drafts);
        str_free(&l->payload);
        free(l);
    }
}

const struct loop_live *loop_live(const struct loop *l)
{
    return &l->live;
}

const struct hist *loop_ttft(const struct loop *l)
{
    return &l->ttft_us;
}

struct live_table *loop_live_table(struct loop *l)
{
    return l->table;
}

void loop_stop(struct loop *l)
{
    l->is_stopped = true;
}

void loop_end_at(struct loop *l, int64_t t_end_ns, int64_t t_drain_ns)
{
    int64_t duration_ns = t_end_ns - l->step.t_begin_ns;
    if (t_end_ns >= l->step.t_end_ns) {
        return;
    }
    l->step.t_end_ns = t_end_ns;
    l->step.t_drain_ns = t_drain_ns;
    while (l->plan.n > l->next && l->plan.events[l->plan.n - 1].t_ns >= duration_ns) {
        l->plan.n--;
    }
}

uint64_t loop_waiting(const struct loop *l, int64_t now_ns)
{
    uint64_t n = 0;
    uint32_t slot = 0;
    for (const struct live *v; (v = live_busy_from(l->table, slot)) != NULL;) {
        slot = v->ticket.slot + 1;
        n += v->rec.t_first_ns == RECORD_NONE;
    }
    int64_t since_ns = now_ns - l->step.t_begin_ns;
    for (size_t i = l->next; i < l->plan.n && l->plan.events[i].t_ns <= since_ns; i++) {
        n++;
    }
    return n;
}

/* --- planning ------------------------------------------------------------------------------------- */

static int plan_open(struct loop *l, int rank, struct err *e)
{
    const struct wire_step *s = &l->step;
    if (plan_build(&l->plan, l->cfg, l->ds, s->rate_rps, s->t_end_ns - s->t_begin_ns, s->seed, rank,
                   l->layout.load_ranks, e) != 0) {
        return -1;
    }
    for (size_t i = 0; i < l->plan.n; i++) {
        const struct plan_event *ev = &l->plan.events[i];
        l->n_chunks += live_chunks(ev->n_turns > 1 ? l->context : ev->n_out);
    }
    return turns_init(&l->turns, l->plan.n_conversations, e);
}

static int plan_closed(struct loop *l, int rank, struct err *e)
{
    const struct wire_step *s = &l->step;
    plan_build_closed(&l->plan, l->ds, s->seed, s->users);
    if (turns_init_users(&l->turns, s->users, rank, l->layout.load_ranks, s->t_begin_ns, e) != 0) {
        return -1;
    }
    l->n_chunks = l->turns.cap * live_chunks(l->context);
    return 0;
}

int loop_plan_step(struct loop *l, const struct wire_step *step, struct err *e)
{
    CHECK(step->t_begin_ns <= step->t_end_ns && step->t_end_ns <= step->t_drain_ns);
    int rank = comm_rank(l->comm);
    plan_free(&l->plan);
    turns_free(&l->turns);
    l->step = *step;
    l->n_chunks = 0;
    l->next = 0;
    if (step->users > 0 ? plan_closed(l, rank, e) : plan_open(l, rank, e)) {
        return -1;
    }
    l->is_planned = true;
    return 0;
}

/* --- sending -------------------------------------------------------------------------------------- */

/* When the next event of the schedule is due; INT64_MAX: none is left. */
static int64_t next_planned_ns(const struct loop *l)
{
    return l->next < l->plan.n ? l->step.t_begin_ns + l->plan.events[l->next].t_ns : INT64_MAX;
}

/* The same of turns that the run itself decides: INT64_MAX when all wait for replies. */
static int64_t next_turn_ns(const struct loop *l)
{
    int64_t t_ns = turns_next_ns(&l->turns);
    return t_ns < l->step.t_end_ns ? t_ns : INT64_MAX;
}

static int64_t next_due_ns(const struct loop *l)
{
    int64_t planned_ns = next_planned_ns(l), turn_ns = next_turn_ns(l);
    return planned_ns < turn_ns ? planned_ns : turn_ns;
}

/* What the client will send for this event. */
static void prepare(struct loop *l, const struct plan_event *ev, struct str *payload)
{
    struct prompt p;
    struct turn turn = turns_of_id(ev->id);
    if (l->client->ops->prepare) {
        dataset_get(l->ds, l->step.seed, turn.event, turn.turn, &p);
        l->client->ops->prepare(l->client, l->ds, l->step.seed, turn.event, &p, payload);
    }
}

static bool has_time(uint32_t n_in, int64_t left_ns)
{
    return PREPARE_NS + PREPARE_TOKEN_NS * (int64_t)n_in <= left_ns;
}

/* Make the next event of the schedule ready, if there is time enough before something is due. */
static bool prepare_event(struct loop *l, int64_t left_ns)
{
    size_t i;
    if (l->step.users > 0 || !l->client->ops->prepare || !ready_has_room(&l->ready)) {
        return false;
    }
    struct str *payload = ready_next(&l->ready, &i);
    if (i >= l->plan.n || !has_time(l->plan.events[i].n_in, left_ns)) {
        return false;
    }
    prepare(l, &l->plan.events[i], payload);
    ready_done(&l->ready);
    return true;
}

/* The same of turns that will probably be due. */
static bool prepare_turn(struct loop *l, int64_t left_ns)
{
    uint64_t id;
    struct plan_event ev;
    if (!drafts_next(&l->drafts, &id)) {
        return false;
    }
    struct turn turn = turns_of_id(id);
    (void)plan_turn(l->ds, l->step.seed, turn.event, turn.turn, &ev);
    if (!has_time(ev.n_in, left_ns)) {
        return false;
    }
    prepare(l, &ev, drafts_make(&l->drafts));
    drafts_done(&l->drafts);
    return true;
}

/* What a user, or a conversation, does after this request has ended at end_ns. */
static bool follow(const struct loop *l, uint64_t id, int64_t end_ns, bool is_failed,
                   struct turn *next)
{
    return turns_follow(l->ds, l->step.seed, l->step.users, turns_of_id(id), end_ns, is_failed,
                        next);
}

/* Whose turn it is: a user of this rank, or a conversation. */
static uint64_t owner(const struct loop *l, const struct turn *turn)
{
    uint64_t i = l->step.users > 0 ? turn->event % l->step.users : turn->event;
    return i / (uint64_t)l->layout.load_ranks;
}

static void want_turn(struct loop *l, const struct turn *turn)
{
    if (l->client->ops->prepare) {
        drafts_want(&l->drafts, owner(l, turn), turns_id(turn->event, turn->turn));
    }
}

static struct str *take_draft(struct loop *l, const struct turn *turn)
{
    return drafts_take(&l->drafts, owner(l, turn), turns_id(turn->event, turn->turn));
}

/* How long something due at due_ns waited at the cap, when that let it go at free_ns. */
static uint32_t cap_wait_us(int64_t due_ns, int64_t free_ns)
{
    int64_t us = free_ns > due_ns ? (free_ns - due_ns) / NS_PER_US : 0;
    return us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static void describe(const struct loop *l, const struct plan_event *ev, struct record *r)
{
    struct turn turn = turns_of_id(ev->id);
    r->load_rank = (uint16_t)comm_rank(l->comm);
    r->turn = turn.turn;
    r->conversation = ev->n_turns > 0 ? turn.event + 1 : 0;
}

static struct live *take(struct loop *l, const struct plan_event *ev, int64_t due_ns)
{
    struct live *v = live_take(l->table, ev, due_ns);
    describe(l, ev, &v->rec);
    v->rec.cap_wait_us = cap_wait_us(due_ns, cap_take(&l->cap));
    return v;
}

/* payload NULL: it was not made ready. */
static void send_event(struct loop *l, const struct plan_event *ev, int64_t due_ns,
                       struct str *payload)
{
    struct turn next;
    if (!payload) {
        payload = &l->payload;
        str_clear(payload);
        prepare(l, ev, payload);
    }
    struct live *v = take(l, ev, due_ns);
    l->client->ops->submit(l->client, v, payload);
    if ((l->step.users > 0 || ev->n_turns > 0) && follow(l, ev->id, 0, false, &next)) {
        want_turn(l, &next);
    }
}

static void send_open(struct loop *l, int64_t due_ns)
{
    send_event(l, &l->plan.events[l->next], due_ns, ready_find(&l->ready, l->next));
    ready_drop(&l->ready, l->next++);
}

static void send_turn(struct loop *l)
{
    struct plan_event ev;
    struct turn turn = turns_pop(&l->turns);
    uint32_t redrawn = plan_turn(l->ds, l->step.seed, turn.event, turn.turn, &ev);
    l->n_filtered += turn.turn == 0 ? redrawn : 0;
    l->n_turns++;
    send_event(l, &ev, turn.t_ns, take_draft(l, &turn));
}

/* Nothing can be sent, whatever is due. */
static bool is_full(const struct loop *l)
{
    return live_is_full(l->table) || cap_is_full(&l->cap);
}

/* Send what is due, a bounded number so that arrivals do not wait for a long backlog of sends. */
static int send_due(struct loop *l, int64_t now_ns)
{
    int n = 0;
    for (; n < SENDS_PER_TURN && !is_full(l); n++) {
        int64_t due_ns = next_due_ns(l);
        if (due_ns > now_ns) {
            break;
        }
        if (due_ns == next_planned_ns(l)) {
            send_open(l, due_ns);
        } else {
            send_turn(l);
        }
        l->live.n_sent++;
    }
    return n;
}

/* --- receiving ------------------------------------------------------------------------------------ */

/* How many messages were taken, or -1. */
static int take_messages(struct loop *l, struct err *e)
{
    for (int n = 0; n < MESSAGES_PER_TURN; n++) {
        struct comm_msg m;
        int got = comm_poll(l->comm, &m, e);
        if (got <= 0) {
            return got < 0 ? -1 : n;
        }
        int taken = l->client->ops->message ? l->client->ops->message(l->client, &m, e) : 0;
        if (taken < 0 ||
            (taken == 0 && l->hooks.message && l->hooks.message(l->hooks.arg, &m, e) < 0)) {
            return -1;
        }
    }
    return MESSAGES_PER_TURN;
}

/* The next turn, if there is one, is known. */
static void go_on(struct loop *l, const struct live *v)
{
    struct turn next;
    bool is_ok = v->rec.outcome == OUTCOME_OK;
    if (!is_ok && follow(l, v->rec.id, 0, false, &next)) {
        (void)take_draft(l, &next); // which hoped for more
    }
    if (follow(l, v->rec.id, v->t_end_ns, !is_ok, &next)) {
        turns_push(&l->turns, next);
        want_turn(l, &next);
    }
}

static void count_ended(struct loop *l, const struct live *v)
{
    bool is_ok = v->rec.outcome == OUTCOME_OK;
    cap_give(&l->cap, v->t_end_ns);
    l->live.n_done++;
    l->live.n_ok += is_ok;
    if (is_ok) {
        hist_record(&l->ttft_us, (v->rec.t_first_ns - v->rec.t_sched_ns) / NS_PER_US);
    }
    if (l->step.users > 0 || v->rec.conversation > 0) {
        go_on(l, v);
    }
}

/* Records of what has ended go to the outbox. How many, or -1. */
static int collect(struct loop *l, struct err *e)
{
    int n = 0;
    for (struct live *v; (v = live_next_ended(l->table)) != NULL; n++) {
        v->rec.late = record_lag_ns(&v->rec) > RECORD_LATE_NS;
        if (outbox_add(&l->outbox, l->table, v, e) != 0) {
            return -1;
        }
        count_ended(l, v);
        live_free(l->table, v);
    }
    return n;
}

/* --- one turn ------------------------------------------------------------------------------------- */

/* More news is taken in one look some time later: a look for each costs the target, too, which shares with
 * us the sockets that we keep taking from. */
static int64_t rest_left_ns(const struct loop *l, int64_t now_ns)
{
    int64_t left_ns = l->client->is_stamped ? l->t_news_ns + REST_NS - now_ns : 0;
    return left_ns > 0 ? left_ns : 0;
}

/* A wake-up takes longer than the next news may, and its stamp waits for us. */
static bool stays_awake(struct loop *l, int64_t now_ns)
{
    return !l->client->is_stamped && now_ns - l->t_news_ns < AWAKE_NS &&
           pace_sleep_ns(&l->pace, now_ns, 1) == 0;
}

/* Far from what is due: wait as everybody does, or for the client's own news where it knows how to. */
static int wait_long(struct loop *l, int64_t left_ns, struct err *e)
{
    if (!l->client->ops->wait) {
        return comm_pause(l->comm, l->idle_turns++, e);
    }
    int64_t most_ns = left_ns == INT64_MAX ? WAIT_MOST_NS : left_ns - PACE_NEAR_NS;
    most_ns = most_ns < WAIT_MOST_NS ? most_ns : WAIT_MOST_NS;
    if (comm_pause(l->comm, 0, e) != 0) {
        return -1;
    }
    int64_t now_ns = clock_now_ns();
    if (stays_awake(l, now_ns)) {
        return 0;
    }
    int64_t rest_ns = rest_left_ns(l, now_ns);
    if (rest_ns > 0) {
        clock_sleep_until_ns(clock_local_ns() + rest_ns);
    }
    l->has_looked = true;
    int n = l->client->ops->wait(l->client, most_ns, e);
    l->t_news_ns = n > 0 ? clock_now_ns() : l->t_news_ns;
    return n < 0 ? -1 : 0;
}

/* Nothing to do until the next request is due: make later ones ready; far from it, wait. */
static int wait(struct loop *l, int64_t now_ns, struct err *e)
{
    int64_t due_ns = is_full(l) ? INT64_MAX : next_due_ns(l);
    int64_t left_ns = due_ns == INT64_MAX ? INT64_MAX : due_ns - now_ns;
    if (prepare_turn(l, left_ns) || prepare_event(l, left_ns)) {
        return 0;
    }
    if (left_ns > PACE_NEAR_NS) {
        return wait_long(l, left_ns, e);
    }
    int64_t sleep_ns = pace_sleep_ns(&l->pace, now_ns, left_ns);
    if (sleep_ns > 0) {
        clock_sleep_until_ns(clock_local_ns() + sleep_ns);
    } else {
        spin_pause();
    }
    return 0;
}

static void note_gap(struct loop *l, int64_t now_ns)
{
    if (l->t_turn_ns >= l->step.t_begin_ns) {
        hist_record(&l->gap_ns, now_ns - l->t_turn_ns);
    }
    l->t_turn_ns = now_ns;
}

static int turn(struct loop *l, struct err *e)
{
    int64_t now_ns = clock_now_ns();
    note_gap(l, now_ns);
    int n_sent = send_due(l, now_ns);
    int n_messages = take_messages(l, e);
    bool polls = l->client->ops->poll && !l->has_looked && rest_left_ns(l, now_ns) == 0;
    int n_polled = polls ? l->client->ops->poll(l->client, e) : 0;
    l->has_looked = false;
    l->t_news_ns = n_polled > 0 ? now_ns : l->t_news_ns;
    if (n_messages < 0 || n_polled < 0) {
        return -1;
    }
    int n_ended = collect(l, e);
    if (n_ended < 0 ||
        (outbox_is_due(&l->outbox, now_ns) && outbox_post(&l->outbox, now_ns, e) != 0)) {
        return -1;
    }
    l->live.n_in_flight = live_in_flight(l->table);
    if (l->hooks.tick && l->hooks.tick(l->hooks.arg, now_ns, e) != 0) {
        return -1;
    }
    if (n_sent + n_messages + n_polled + n_ended > 0) {
        l->idle_turns = 0;
        return 0;
    }
    return wait(l, now_ns, e);
}

static bool is_over(const struct loop *l)
{
    int64_t now_ns = clock_now_ns();
    bool is_idle = next_due_ns(l) == INT64_MAX && live_in_flight(l->table) == 0;
    return l->is_stopped || now_ns >= l->step.t_drain_ns || (now_ns >= l->step.t_end_ns && is_idle);
}

/* --- the end of a step ------------------------------------------------------------------------------ */

/* Let messages flow, so that many last records do not pile up between here and rank 0. */
static int pump(struct loop *l, struct err *e)
{
    int64_t deadline_ns = clock_local_ns() + HANDOVER_NS;
    int n = take_messages(l, e);
    for (int idle = 0; n >= 0 && comm_unsent(l->comm) > UNSENT_MOST; idle++) {
        if (clock_local_ns() > deadline_ns) {
            return err_set(e, ERR_ENV, "rank 0 does not take the records of rank %d",
                           comm_rank(l->comm));
        }
        if (comm_pause(l->comm, idle, e) != 0) {
            return -1;
        }
        n = take_messages(l, e);
    }
    return n < 0 ? -1 : 0;
}

static int cancel_rest(struct loop *l, struct err *e)
{
    uint32_t n = 0;
    uint32_t slot = 0;
    for (struct live *v; (v = live_busy_from(l->table, slot)) != NULL;) {
        slot = v->ticket.slot + 1;
        l->client->ops->cancel(l->client, v);
        live_end(l->table, v, OUTCOME_CANCELLED, 0, clock_now_ns());
        if (++n % RECORDS_PER_PUMP == 0 && (collect(l, e) < 0 || pump(l, e) != 0)) {
            return -1;
        }
    }
    return collect(l, e) < 0 ? -1 : 0;
}

/* Without a time of sending; what the cap held back waited there until free_ns. */
static int record_unsent(struct loop *l, const struct plan_event *ev, int64_t due_ns,
                         int64_t free_ns, struct err *e)
{
    struct record r;
    record_init(&r);
    describe(l, ev, &r);
    r.id = ev->id;
    r.t_sched_ns = due_ns;
    r.n_in = ev->n_in;
    r.n_out_req = ev->n_out;
    r.cap_wait_us = cap_wait_us(due_ns, free_ns);
    r.outcome = OUTCOME_CANCELLED;
    if (outbox_add_unsent(&l->outbox, &r, e) != 0) {
        return -1;
    }
    return ++l->live.n_done % RECORDS_PER_PUMP == 0 ? pump(l, e) : 0;
}

/* What was due and found no slot, or no place at the cap, to the very end is cancelled, too. (In a closed
 * loop nothing was promised to users who wait.) */
static int record_rest(struct loop *l, bool is_capped, struct err *e)
{
    int64_t free_ns = is_capped ? clock_now_ns() : INT64_MIN;
    for (int64_t due_ns; (due_ns = next_planned_ns(l)) != INT64_MAX; l->next++) {
        if (record_unsent(l, &l->plan.events[l->next], due_ns, free_ns, e) != 0) {
            return -1;
        }
    }
    for (; l->step.users == 0 && next_turn_ns(l) != INT64_MAX; l->n_turns++) {
        struct plan_event ev;
        struct turn turn = turns_pop(&l->turns);
        (void)plan_turn(l->ds, l->step.seed, turn.event, turn.turn, &ev);
        if (record_unsent(l, &ev, turn.t_ns, free_ns, e) != 0) {
            return -1;
        }
    }
    return 0;
}

static int post_done(struct loop *l, int64_t t_cpu_ns, int64_t t_wall_ns, struct err *e)
{
    bool is_closed = l->step.users > 0;
    const struct client_ops *ops = l->client->ops;
    struct client_times times = ops->times ? ops->times(l->client) : (struct client_times){0};
    struct wire_step_done done = {
        .index = l->step.index,
        .n_records = l->outbox.n_records,
        .n_scheduled = is_closed ? l->live.n_sent : l->plan.n + l->n_turns,
        .n_filtered = is_closed ? l->n_filtered : l->plan.n_filtered,
        .schedule_hash = l->plan.hash,
        .poll_gap_ns = {(uint64_t)hist_quantile(&l->gap_ns, 0.5),
                        (uint64_t)hist_quantile(&l->gap_ns, 0.99)},
        .t_cpu_ns = t_cpu_ns,
        .t_wall_ns = t_wall_ns,
        .stamp_ns = {times.stamp_ns[0], times.stamp_ns[1]},
        .chunk_ns = {times.chunk_ns[0], times.chunk_ns[1]},
    };
    return comm_post(l->comm, 0, WIRE_STEP_DONE, &done, sizeof done, e);
}

/* How many events of the schedule AHEAD_NS holds, where it is densest. */
static size_t ahead(const struct loop *l)
{
    const struct plan_event *v = l->plan.events;
    size_t most = 1;
    for (size_t first = 0, i = 0; i < l->plan.n; i++) {
        while (v[i].t_ns - v[first].t_ns > AHEAD_NS) {
            first++;
        }
        most = i - first + 1 > most ? i - first + 1 : most;
    }
    return most;
}

/* Room for what is made ready, and what users begin with. */
static int begin_ahead(struct loop *l, struct err *e)
{
    if (ready_begin(&l->ready, ahead(l), AHEAD_MAX_BYTES, e) != 0 ||
        drafts_begin(&l->drafts, l->turns.cap, AHEAD_MAX_BYTES, e) != 0) {
        return -1;
    }
    for (size_t i = 0; i < l->turns.n; i++) {
        want_turn(l, &l->turns.v[i]);
    }
    return 0;
}

static int begin_step(struct loop *l, struct client *client, struct err *e)
{
    CHECK(l->is_planned);
    l->is_planned = false;
    l->is_stopped = false;
    l->client = client;
    l->live = (struct loop_live){0};
    l->n_filtered = 0;
    l->n_turns = 0;
    l->idle_turns = 0;
    l->t_turn_ns = clock_now_ns();
    hist_reset(&l->gap_ns);
    hist_reset(&l->ttft_us);
    outbox_begin_step(&l->outbox, l->step.index, l->t_turn_ns);
    cap_reset(&l->cap);
    pace_begin(&l->pace, comm_ranks_on_this_host(l->comm), l->t_turn_ns);
    if (client->ops->begin_step) {
        client->ops->begin_step(client, &l->step);
    }
    return begin_ahead(l, e) != 0 || live_reserve(l->table, l->n_chunks, e) != 0 ? -1 : 0;
}

int loop_run_step(struct loop *l, struct client *client, struct err *e)
{
    if (begin_step(l, client, e) != 0) {
        return -1;
    }
    int64_t t_cpu_ns = clock_process_cpu_ns(), t_begin_ns = clock_local_ns();
    while (!is_over(l)) {
        if (turn(l, e) != 0) {
            return -1;
        }
    }
    bool is_capped = cap_is_full(&l->cap);
    if (cancel_rest(l, e) != 0 || record_rest(l, is_capped, e) != 0 ||
        outbox_post(&l->outbox, clock_now_ns(), e) != 0) {
        return -1;
    }
    l->live.n_in_flight = 0;
    if (l->hooks.end && l->hooks.end(l->hooks.arg, e) != 0) {
        return -1;
    }
    return post_done(l, clock_process_cpu_ns() - t_cpu_ns, clock_local_ns() - t_begin_ns, e);
}

/* Where SCHED_FIFO is not permitted: a short slice, which needs no privilege, lets a waking thread
 * preempt one with a longer slice (EEVDF, Linux 6.12); older kernels refuse or ignore it. */
static void shorten_slice(void)
{
    struct { // sched_setattr(2), which glibc does not declare yet
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } a = {.size = sizeof a, .policy = SCHED_OTHER, .runtime_ns = SHORT_SLICE_NS};
    (void)syscall(SYS_sched_setattr, 0, &a, 0);
}

bool loop_realtime(bool want)
{
    struct sched_param p = {.sched_priority = want ? 1 : 0};
    if (sched_setscheduler(0, want ? SCHED_FIFO : SCHED_OTHER, &p) == 0) {
        return want;
    }
    shorten_slice();
    return sched_getscheduler(0) == SCHED_FIFO;
}
