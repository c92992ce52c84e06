#include "loadgen/client_stages.h"

#include "core/clock.h"
#include "core/mem.h"
#include "core/rng.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct client_stages {
    struct client base;
    struct comm *comm;
    struct layout layout;
    struct live_table *table;
    bool ignore_eos;
    bool is_sampled;
    struct wire_sampling how; // with the run's seed
    uint32_t context;
    struct routing routing;
    uint32_t step; // under way
};

static struct client_stages *stages_of(struct client *c)
{
    return (struct client_stages *)c;
}

/* Prompt and output tokens still to come; a prompt is through when its first token is here. */
static uint64_t tokens_left(const struct live *l)
{
    const struct record *r = &l->rec;
    return (r->n_out == 0 ? (uint64_t)r->n_in : 0) + r->n_out_req - r->n_out;
}

static void finish(struct client_stages *s, struct live *l, enum outcome outcome, int error,
                   int64_t t_ns)
{
    routing_done(&s->routing, l->rec.replica, tokens_left(l));
    live_end(s->table, l, outcome, error, t_ns);
}

/* The payload is the whole message, but for what is known only when it is sent. */
static void stages_prepare(struct client *c, const struct dataset *ds, uint64_t seed,
                           uint64_t event, const struct prompt *p, struct str *payload)
{
    struct client_stages *s = stages_of(c);
    size_t n_bytes = sizeof(struct wire_request) + p->n_in * sizeof(int32_t) +
                     (s->is_sampled ? sizeof s->how : 0);
    str_reserve(payload, n_bytes);
    payload->len = n_bytes;
    struct wire_request *q = (struct wire_request *)(void *)payload->data;
    *q = (struct wire_request){
        .n_in = p->n_in,
        .n_out = p->n_out,
        .flags = s->ignore_eos ? 0 : WIRE_STOP_AT_EOS,
    };
    const int32_t *ids = dataset_ids(ds, seed, event, p, q->ids);
    if (ids != q->ids) {
        memcpy(q->ids, ids, p->n_in * sizeof *ids);
    }
    if (s->is_sampled) {
        struct wire_sampling how = s->how;
        how.seed = rng_u64(rng_u64(how.seed, RNG_SEED, seed, 0), RNG_SEED, event, 1);
        q->flags |= WIRE_SAMPLED;
        memcpy(q->ids + p->n_in, &how, sizeof how);
    }
}

static void stages_submit(struct client *c, struct live *l, struct str *payload)
{
    struct client_stages *s = stages_of(c);
    struct wire_request *q = (struct wire_request *)(void *)payload->data;
    CHECK(tokens_left(l) <= s->context && q->n_in == l->rec.n_in);
    int replica = routing_pick(&s->routing, tokens_left(l));
    q->ticket = l->ticket;
    l->rec.replica = (uint16_t)replica;
    struct err unused;
    live_sent(l, clock_now_ns());
    if (comm_post(s->comm, layout_leader(&s->layout, replica), WIRE_REQUEST, q, payload->len,
                  &unused) != 0) {
        // A dead rank is found by the next comm_poll.
        finish(s, l, OUTCOME_CONNECT, ENOBUFS, clock_now_ns());
    }
}

static int bad_message(const struct comm_msg *m, const char *what, struct err *e)
{
    return err_set(e, ERR_ENV, "rank %d sent a malformed message: %s of %zu bytes", m->src, what,
                   m->n_bytes);
}

static int take_reject(struct client_stages *s, const struct comm_msg *m, int64_t now_ns,
                       struct err *e)
{
    if (m->n_bytes != sizeof(struct wire_reject)) {
        return bad_message(m, "reject", e);
    }
    struct wire_reject reject;
    memcpy(&reject, m->data, sizeof reject);
    struct live *l = live_find(s->table, reject.ticket);
    if (l) {
        live_byte(l, now_ns);
        finish(s, l, OUTCOME_REJECTED, 0, now_ns);
    }
    return 1;
}

static int take_trace(struct client_stages *s, const struct comm_msg *m, int64_t now_ns,
                      struct err *e)
{
    struct wire_trace t;
    if (m->n_bytes < sizeof t) {
        return bad_message(m, "trace", e);
    }
    memcpy(&t, m->data, sizeof t);
    if (t.n_stages == 0 || t.n_stages > RECORD_MAX_STAGES ||
        m->n_bytes != sizeof t + t.n_stages * sizeof t.stage_us[0] ||
        (t.phase != WIRE_FIRST && t.phase != WIRE_LAST)) {
        return bad_message(m, "trace", e);
    }
    struct live *l = live_find(s->table, t.ticket);
    if (!l) {
        return 1;
    }
    int k = t.phase == WIRE_LAST;
    if (k == 0) {
        l->rec.n_stages = (uint8_t)t.n_stages;
        memset(l->stage_us, 0, 2 * t.n_stages * sizeof l->stage_us[0]);
        l->rec.t_recv_ns = t.t_recv_ns;
        l->rec.t_admit_ns = t.t_admit_ns;
        l->rec.t_prefill_ns = t.t_prefill_ns;
    } else if (t.n_stages != l->rec.n_stages) {
        return bad_message(m, "last trace without its first", e);
    }
    live_byte(l, now_ns);
    l->rec.hop_us[k] = t.hop_us;
    l->rec.bubble_us[k] = t.bubble_us;
    l->rec.requeue_us[k] = t.requeue_us;
    l->rec.n_preempted = t.n_preempted;
    l->rec.n_cached = t.n_cached;
    memcpy(&l->stage_us[k * t.n_stages], (const uint8_t *)m->data + sizeof t,
           t.n_stages * sizeof t.stage_us[0]);
    return 1;
}

static void take_token(struct client_stages *s, const struct wire_token *t, int64_t now_ns)
{
    struct live *l = live_find(s->table, t->ticket);
    if (!l) {
        return;
    }
    uint64_t n_left = tokens_left(l);
    if (l->rec.n_out == l->rec.n_out_req || !live_tokens(s->table, l, 1, now_ns)) {
        finish(s, l, OUTCOME_BAD_STREAM, 0, now_ns);
        return;
    }
    routing_done(&s->routing, l->rec.replica, n_left - tokens_left(l));
    if (l->rec.n_out == 1) {
        l->rec.t_emit_first_ns = t->t_emit_ns;
    }
    l->rec.t_emit_last_ns = t->t_emit_ns;
    if (t->flags & WIRE_LAST) {
        bool is_short = s->ignore_eos && l->rec.n_out < l->rec.n_out_req;
        finish(s, l, is_short ? OUTCOME_TRUNCATED : OUTCOME_OK, 0, now_ns);
    }
}

static int take_tokens(struct client_stages *s, const struct comm_msg *m, int64_t now_ns,
                       struct err *e)
{
    struct wire_token t;
    if (m->n_bytes == 0 || m->n_bytes % sizeof t != 0) {
        return bad_message(m, "tokens", e);
    }
    for (size_t at = 0; at < m->n_bytes; at += sizeof t) {
        memcpy(&t, (const uint8_t *)m->data + at, sizeof t);
        take_token(s, &t, now_ns);
    }
    return 1;
}

/* Of another step it says nothing about this one. */
static int take_load(struct client_stages *s, const struct comm_msg *m, struct err *e)
{
    struct wire_load load;
    if (m->n_bytes != sizeof load) {
        return bad_message(m, "load", e);
    }
    memcpy(&load, m->data, sizeof load);
    if (load.replica >= (uint32_t)s->layout.replicas ||
        m->src != layout_leader(&s->layout, (int)load.replica)) {
        return bad_message(m, "load of a replica that is not its own", e);
    }
    if (load.step == s->step) {
        routing_tell(&s->routing, (int)load.replica, load.n_tokens);
    }
    return 1;
}

static int stages_message(struct client *c, const struct comm_msg *m, struct err *e)
{
    int64_t now_ns = clock_now_ns(); // first of all: it is the arrival of what the message brings
    switch (m->tag) {
    case WIRE_TOKENS:
        return take_tokens(stages_of(c), m, now_ns, e);
    case WIRE_TRACE:
        return take_trace(stages_of(c), m, now_ns, e);
    case WIRE_REJECT:
        return take_reject(stages_of(c), m, now_ns, e);
    case WIRE_LOAD:
        return take_load(stages_of(c), m, e);
    default:
        return 0;
    }
}

static void stages_begin_step(struct client *c, const struct wire_step *step)
{
    struct client_stages *s = stages_of(c);
    s->step = step->index;
    routing_tell_none(&s->routing);
}

static void stages_cancel(struct client *c, struct live *l)
{
    struct client_stages *s = stages_of(c);
    struct wire_cancel cancel = {.ticket = l->ticket};
    struct err unused; // the end of the step drops the request at the leader in any case
    routing_done(&s->routing, l->rec.replica, tokens_left(l));
    if (comm_post(s->comm, layout_leader(&s->layout, l->rec.replica), WIRE_CANCEL, &cancel,
                  sizeof cancel, &unused) != 0) {
        return;
    }
}

static void stages_destroy(struct client *c)
{
    struct client_stages *s = stages_of(c);
    routing_free(&s->routing);
    free(s);
}

static const struct client_ops stages_ops = {
    .name = "stages",
    .prepare = stages_prepare,
    .submit = stages_submit,
    .message = stages_message,
    .begin_step = stages_begin_step,
    .cancel = stages_cancel,
    .destroy = stages_destroy,
};

struct client *client_stages_create(struct comm *comm, const struct layout *layout,
                                    struct live_table *t, int context, bool ignore_eos,
                                    enum routing_kind routing)
{
    CHECK(layout->replicas > 0 && context > 0);
    struct client_stages *s = xcalloc(1, sizeof *s);
    s->base.ops = &stages_ops;
    s->comm = comm;
    s->layout = *layout;
    s->table = t;
    s->context = (uint32_t)context;
    s->ignore_eos = ignore_eos;
    routing_init(&s->routing, routing, layout->replicas, comm_rank(comm));
    return &s->base;
}

void client_stages_sample(struct client *c, const struct wire_sampling *how)
{
    struct client_stages *s = stages_of(c);
    s->how = *how;
    s->is_sampled = true;
}
