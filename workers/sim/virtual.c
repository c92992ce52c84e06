#include "workers/sim/virtual.h"

#include <stdlib.h>

#include "core/mem.h"

/* A batch under way: when it is back is known when it is built. */
struct flight {
    int64_t t_back_ns;
    uint64_t seq;
    uint32_t lane, n_rows;
    struct row {
        uint32_t request, flags;
    } * rows;     // (max_rows)
    int32_t *ids; // (max_rows)
    int64_t begin_ns[RECORD_MAX_STAGES], end_ns[RECORD_MAX_STAGES];
};

struct run {
    const struct virtual_config *cfg;
    struct virtual_request *requests; // (n)
    size_t n, n_sent, n_over;         // over: ended or rejected
    struct virtual_result *out;
    struct sched *sched;
    struct batch *batch;
    struct flight *flights; // ring of lanes
    uint32_t first_flight, n_flights;
    int32_t *prompt; // (max_context) ids of any prompt
    int64_t now_ns;
    int64_t stage_free_ns[RECORD_MAX_STAGES], link_free_ns[RECORD_MAX_STAGES];
};

/* --- batches ------------------------------------------------------------------------------------- */

static const struct costs *costs_at(const struct virtual_config *c, int s)
{
    return c->stages ? &c->stages[s] : c->costs;
}

/* From stage s, where it has been computed at t, to where it goes next. */
static int64_t travel(struct run *r, int s, int64_t t_ns, double n_bytes)
{
    int64_t begin_ns = t_ns > r->link_free_ns[s] ? t_ns : r->link_free_ns[s];
    const struct costs *c = costs_at(r->cfg, s);
    r->link_free_ns[s] = begin_ns + (int64_t)(c->hop_byte_ns * n_bytes);
    return r->link_free_ns[s] + (int64_t)c->hop_ns;
}

/* Through all stages; returns when its ids are back. */
static int64_t carry(struct run *r, struct flight *f)
{
    const struct virtual_config *c = r->cfg;
    const struct costs_load load = costs_load_batch(c->arch, r->batch);
    const double hidden_bytes = (double)arch_carried_bytes(c->arch, r->batch->n_tokens);
    int64_t t_ns = r->now_ns;
    for (int s = 0; s < c->n_stages; s++) {
        bool is_last = s == c->n_stages - 1;
        double ns = costs_stage_ns(costs_at(c, s), c->arch, c->first[s],
                                   c->first[s + 1] - c->first[s], s == 0, is_last, &load);
        f->begin_ns[s] = t_ns > r->stage_free_ns[s] ? t_ns : r->stage_free_ns[s];
        f->end_ns[s] = r->stage_free_ns[s] = t_ns = f->begin_ns[s] + (int64_t)ns;
        r->out->stages[s].busy_ns += (double)(int64_t)ns;
        r->out->stages[s].n_batches++;
        if (c->n_stages > 1) {
            t_ns = travel(r, s, t_ns, is_last ? r->batch->n_rows * sizeof(int32_t) : hidden_bytes);
        }
    }
    return t_ns;
}

static void launch(struct run *r)
{
    const struct batch *b = r->batch;
    struct flight *f = &r->flights[(r->first_flight + r->n_flights++) % r->cfg->sched.lanes];
    f->t_back_ns = carry(r, f);
    f->seq = b->seq;
    f->lane = b->lane;
    f->n_rows = b->n_rows;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        struct virtual_request *q = &r->requests[b->rows[i].ticket.slot];
        f->rows[i] = (struct row){b->rows[i].ticket.slot, b->rows[i].flags};
        f->ids[i] = b->rows[i].flags & BATCH_SAMPLE ? 0 : -1;
        q->t_begin_ns = q->t_begin_ns == VIRTUAL_NEVER ? r->now_ns : q->t_begin_ns;
    }
    r->out->n_batches++;
}

static int land(struct run *r, struct err *e)
{
    const struct flight *f = &r->flights[r->first_flight];
    for (uint32_t i = 0; i < f->n_rows; i++) {
        struct virtual_request *q = &r->requests[f->rows[i].request];
        if (f->rows[i].flags & BATCH_FIRST) {
            q->t_first_ns = r->now_ns;
            r->out->n_tokens_in += q->n_in;
        }
        if (f->rows[i].flags & BATCH_LAST) {
            q->t_last_ns = r->now_ns;
            r->n_over++;
        }
        if (f->rows[i].flags & BATCH_SAMPLE) {
            q->t_latest_ns = r->now_ns;
            q->n_done++;
            r->out->n_tokens_out++;
        }
    }
    r->first_flight = (r->first_flight + 1) % r->cfg->sched.lanes;
    r->n_flights--;
    return sched_complete(r->sched, f->lane, f->seq, f->ids, f->n_rows, r->now_ns, e);
}

/* --- requests ------------------------------------------------------------------------------------ */

static void send_next(struct run *r)
{
    struct virtual_request *q = &r->requests[r->n_sent];
    if (r->cfg->users > 0) {
        q->t_due_ns = r->now_ns;
    }
    const struct sched_request s = {
        .ticket = {.slot = (uint32_t)r->n_sent},
        .n_in = q->n_in,
        .n_out = q->n_out,
        .ids = r->prompt,
        .t_recv_ns = r->now_ns,
    };
    q->rejected = q->n_in > r->cfg->sched.max_context || !sched_submit(r->sched, &s, r->now_ns);
    r->n_over += q->rejected;
    r->n_sent++;
}

static bool is_due(const struct run *r)
{
    if (r->n_sent == r->n) {
        return false;
    }
    return r->cfg->users > 0 ? r->n_sent - r->n_over < r->cfg->users
                             : r->requests[r->n_sent].t_due_ns <= r->now_ns;
}

static int64_t next_event_ns(const struct run *r)
{
    int64_t t_ns = VIRTUAL_NEVER;
    if (r->cfg->users == 0 && r->n_sent < r->n) {
        t_ns = r->requests[r->n_sent].t_due_ns;
    }
    if (r->n_flights > 0) {
        int64_t back_ns = r->flights[r->first_flight].t_back_ns;
        t_ns = back_ns < t_ns ? back_ns : t_ns;
    }
    if (r->stage_free_ns[0] > r->now_ns && r->stage_free_ns[0] < t_ns) {
        t_ns = r->stage_free_ns[0];
    }
    return t_ns;
}

/* --- the run ------------------------------------------------------------------------------------- */

static void look(struct run *r, int64_t until_ns)
{
    struct sched_counts c = sched_counts(r->sched);
    struct virtual_result *o = r->out;
    double ns = (double)(until_ns - r->now_ns), kv = (double)c.kv_taken / (double)c.kv_size;
    o->held_ns += c.running + c.waiting > 0 ? ns : 0;
    o->mean_running += c.running * ns;
    o->most_waiting = c.waiting > o->most_waiting ? c.waiting : o->most_waiting;
    o->most_running = c.running > o->most_running ? c.running : o->most_running;
    o->most_kv = kv > o->most_kv ? kv : o->most_kv;
}

/* Everything that happens now. */
static int happen(struct run *r, struct err *e)
{
    while (r->n_flights > 0 && r->flights[r->first_flight].t_back_ns <= r->now_ns) {
        if (land(r, e) != 0) {
            return -1;
        }
    }
    while (is_due(r)) {
        send_next(r);
    }
    if (r->stage_free_ns[0] <= r->now_ns && sched_build(r->sched, r->batch, r->now_ns)) {
        launch(r);
    }
    return 0;
}

/* What is under way has not been computed whole. */
static void stop_counting(struct run *r)
{
    r->out->t_end_ns = r->now_ns;
    for (uint32_t i = 0; i < r->n_flights; i++) {
        const struct flight *f = &r->flights[(r->first_flight + i) % r->cfg->sched.lanes];
        for (int s = 0; s < r->cfg->n_stages; s++) {
            int64_t from_ns = f->begin_ns[s] > r->now_ns ? f->begin_ns[s] : r->now_ns;
            if (f->end_ns[s] > from_ns) {
                r->out->stages[s].busy_ns -= (double)(f->end_ns[s] - from_ns);
            }
        }
    }
}

static int play(struct run *r, struct err *e)
{
    int64_t until_ns = r->cfg->t_until_ns > 0 ? r->cfg->t_until_ns : VIRTUAL_NEVER;
    sched_begin_step(r->sched, 0);
    while (r->n_over < r->n) {
        if (happen(r, e) != 0) {
            return -1;
        }
        int64_t next_ns = next_event_ns(r);
        if (next_ns > until_ns || (next_ns == VIRTUAL_NEVER && r->n_over == r->n)) {
            break;
        }
        CHECK(next_ns != VIRTUAL_NEVER && next_ns >= r->now_ns);
        look(r, next_ns);
        r->now_ns = next_ns;
    }
    stop_counting(r);
    r->out->mean_running /= r->now_ns > 0 ? (double)r->now_ns : 1;
    return 0;
}

static int prepare(struct run *r, struct err *e)
{
    const struct sched_config *sched = &r->cfg->sched;
    struct batch_limits limits = sched_batch_limits(sched);
    limits.n_stages = (uint32_t)r->cfg->n_stages;
    r->prompt = xcalloc(sched->max_context, sizeof *r->prompt);
    r->flights = xcalloc(sched->lanes, sizeof *r->flights);
    for (uint32_t i = 0; i < sched->lanes; i++) {
        r->flights[i].rows = xcalloc(limits.max_rows, sizeof *r->flights[i].rows);
        r->flights[i].ids = xcalloc(limits.max_rows, sizeof *r->flights[i].ids);
    }
    for (size_t i = 0; i < r->n; i++) {
        struct virtual_request *q = &r->requests[i];
        q->t_begin_ns = q->t_first_ns = q->t_last_ns = q->t_latest_ns = VIRTUAL_NEVER;
        q->n_done = 0;
        q->rejected = false;
    }
    return sched_create(&r->sched, sched, e) != 0 ? -1 : batch_create(&r->batch, &limits, e);
}

static void clean_up(struct run *r)
{
    for (uint32_t i = 0; i < r->cfg->sched.lanes; i++) {
        free(r->flights[i].rows);
        free(r->flights[i].ids);
    }
    free(r->flights);
    free(r->prompt);
    batch_destroy(r->batch);
    sched_destroy(r->sched);
}

int virtual_run(const struct virtual_config *cfg, struct virtual_request *requests, size_t n,
                struct virtual_result *out, struct err *e)
{
    CHECK(cfg->n_stages >= 1 && cfg->n_stages <= RECORD_MAX_STAGES && n < UINT32_MAX);
    struct run r = {.cfg = cfg, .requests = requests, .n = n, .out = out};
    *out = (struct virtual_result){0};
    int rc = prepare(&r, e) != 0 ? -1 : play(&r, e);
    clean_up(&r);
    return rc;
}
