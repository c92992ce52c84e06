#include "workers/stage.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/mem.h"
#include "workers/choices.h"
#include "workers/emit.h"
#include "workers/hop_mpi.h"
#include "workers/kv.h"
#include "workers/patience.h"
#include "workers/shard.h"
#include "workers/transport.h"

/* A batch on its way through the stage. */
struct passing {
    struct batch *batch;
    void *in; // this rank's part of (n_tokens, hidden), on loan from the transport; NULL at stage 0
};

struct stage {
    struct stage_config cfg;
    struct layout_worker place;
    int n_stages;
    int leader;     // ranks; -1: none
    int source;     // of batches; none at the leader, whose scheduler makes them
    int prev, next; // of hidden states
    struct comm *comm;
    struct transport *transport;
    struct emit *emit;       // where ids leave: last stage, tensor 0
    struct choices *choices; // last stage only
    struct spans *spans;
    struct kv_tables tables;
    uint32_t step;
    bool active; // inside a step
    bool muted;

    // Batch k passes through ring[k % cap]: announced >= arrived >= begun >= finished.
    struct passing *ring; // (cap)
    uint64_t cap, n_announced, n_arrived, n_begun, n_finished;
    struct span leaving[HOP_DEPTH]; // spans of hidden states on their way out, oldest first
    uint64_t n_leaving, n_left;

    uint8_t *wire;          // (batch_max_bytes) encoded batch
    struct worker_ids *ids; // (max_rows) last stage only
    int64_t t_free_ns;      // the backend has been free since
    struct patience computing;
    struct patience arriving; // hidden states of batches that are announced
};

/* --- creation ----------------------------------------------------------------------------------- */

static size_t ids_bytes(uint32_t n_rows)
{
    return sizeof(struct worker_ids) + n_rows * sizeof(int32_t);
}

size_t stage_max_message_bytes(const struct batch_limits *lim)
{
    size_t most = batch_max_bytes(lim);
    size_t emitted = emit_max_message_bytes(lim);
    most = emitted > most ? emitted : most;
    return ids_bytes(lim->max_rows) > most ? ids_bytes(lim->max_rows) : most;
}

/* This rank's part of a batch's hidden states. */
static struct shard_slice slice_of(const struct stage *st, uint32_t n_tokens)
{
    return shard_hidden(st->cfg.arch, n_tokens, st->place.tensor, st->cfg.layout->tensor);
}

static void place_stage(struct stage *st)
{
    const struct layout *l = st->cfg.layout;
    st->place = layout_worker(l, st->cfg.rank);
    int r = st->place.replica, s = st->place.stage, t = st->place.tensor;
    st->n_stages = l->pipeline;
    st->leader = layout_leader(l, r);
    st->prev = s > 0 ? layout_rank(l, r, s - 1, t) : -1;
    st->next = s + 1 < l->pipeline ? layout_rank(l, r, s + 1, t) : -1;
    st->source = s > 0 ? st->prev : t > 0 ? st->leader : -1;
}

static int create_ring(struct stage *st, struct err *e)
{
    const struct batch_limits *lim = &st->cfg.limits;
    // The leader may hear of a batch's end through tensor rank 0 before another one has looked.
    st->cap = st->source < 0 ? 1 : lim->n_lanes + (st->place.tensor > 0);
    st->ring = xcalloc(st->cap, sizeof *st->ring);
    for (uint64_t i = 0; i < st->cap; i++) {
        if (batch_create(&st->ring[i].batch, lim, e) != 0) {
            return -1;
        }
    }
    st->wire = xmalloc(batch_max_bytes(lim));
    return 0;
}

/* The hop from or to a neighbour where there is one and nothing better has been given. */
static int create_hop(struct stage *st, bool sends, int peer, struct hop **hop, struct err *e)
{
    const struct hop_config cfg = {
        .sends = sends,
        .rank = st->cfg.rank,
        .peer = peer,
        .max_bytes = slice_of(st, st->cfg.limits.max_tokens).each_bytes,
    };
    return peer < 0 || *hop ? 0 : hop_mpi_create(hop, &cfg, e);
}

static int create_transport(struct stage *st, struct err *e)
{
    struct hop *in = st->cfg.in, *out = st->cfg.out;
    const int rc =
        create_hop(st, false, st->prev, &in, e) || create_hop(st, true, st->next, &out, e) ? -1 : 0;
    st->transport = transport_create(in, out); // with what there is, when the other failed
    return rc;
}

int stage_create(struct stage **out, const struct stage_config *cfg, struct err *e)
{
    struct stage *st = xcalloc(1, sizeof *st);
    st->cfg = *cfg;
    place_stage(st);
    const struct batch_limits *lim = &st->cfg.limits;
    uint32_t context = (uint32_t)cfg->arch->max_context;
    // The transport first: hops that have been given are its to destroy, whatever fails.
    if (create_transport(st, e) != 0 || create_ring(st, e) != 0 ||
        kv_tables_init(&st->tables, lim->n_slots, (context + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK,
                       e) != 0) {
        goto fail;
    }
    if (st->next < 0) {
        st->ids = xcalloc(1, ids_bytes(lim->max_rows));
        if (choices_create(&st->choices, lim, cfg->arch, e) != 0 ||
            (st->place.tensor == 0 && emit_create(&st->emit, lim, cfg->arch, e) != 0)) {
            goto fail;
        }
    }
    *out = st;
    return 0;
fail:
    stage_destroy(st);
    return -1;
}

void stage_destroy(struct stage *st)
{
    if (st == NULL) {
        return;
    }
    for (uint64_t i = 0; i < st->cap; i++) {
        batch_destroy(st->ring[i].batch);
    }
    emit_destroy(st->emit);
    choices_destroy(st->choices);
    transport_destroy(st->transport);
    kv_tables_free(&st->tables);
    free(st->ring);
    free(st->wire);
    free(st->ids);
    free(st);
}

int stage_start(struct stage *st, struct comm *comm, int64_t batch_ns, struct err *e)
{
    st->comm = comm;
    patience_init(&st->computing, batch_ns);
    patience_init(&st->arriving, batch_ns);
    if (st->cfg.tp && tp_group_start(st->cfg.tp, comm, e) != 0) {
        return -1;
    }
    return transport_start(st->transport, comm, e);
}

static int turn_group(struct stage *st, struct err *e)
{
    return st->cfg.tp ? tp_group_turn(st->cfg.tp, e) : 0;
}

/* --- deadlines ------------------------------------------------------------------------------------ */

/* Where the batch is stuck in an exchange, the peer has its own say first: its backend may be the cause. */
static int check_computing(struct stage *st, int64_t now_ns, struct err *e)
{
    struct patience_late late;
    char text[160], label[96];
    int peer = st->cfg.tp ? tp_group_waits_for(st->cfg.tp) : -1;
    if (!patience_is_over(&st->computing, now_ns, peer < 0 ? 0 : PATIENCE_HEARSAY_NS, &late)) {
        return 0;
    }
    patience_text(&late, text, sizeof text);
    if (peer >= 0) {
        return err_set(e, ERR_ENV, "%s has not sent its part of a sum for %s",
                       layout_label(st->cfg.layout, peer, label, sizeof label), text);
    }
    return err_set(e, ERR_ENV, "its backend (%s) has been computing %s",
                   backend_name(st->cfg.backend), text);
}

/* While batches that have come are still here, their buffers may be all there are: nobody is waited for. */
static int check_arriving(struct stage *st, int64_t now_ns, struct err *e)
{
    struct patience_late late;
    char text[160], label[96];
    if (st->n_arrived > st->n_finished) {
        patience_restart(&st->arriving, now_ns);
    }
    if (!patience_is_over(&st->arriving, now_ns, 0, &late)) {
        return 0;
    }
    return err_set(e, ERR_ENV, "%s has not sent the hidden states of %s",
                   layout_label(st->cfg.layout, st->prev, label, sizeof label),
                   patience_text(&late, text, sizeof text));
}

static int check_deadlines(struct stage *st, struct err *e)
{
    int64_t now_ns = clock_local_ns();
    return check_computing(st, now_ns, e) != 0 || check_arriving(st, now_ns, e) != 0 ? -1 : 0;
}

int stage_stop(struct stage *st, struct err *e)
{
    for (int idle = 0; st->n_begun > st->n_finished && !backend_poll(st->cfg.backend); idle++) {
        if (turn_group(st, e) < 0 || check_deadlines(st, e) != 0 ||
            comm_pause(st->comm, idle, e) != 0) {
            return -1;
        }
    }
    transport_stop(st->transport);
    return 0;
}

void stage_begin_step(struct stage *st, uint32_t step, struct spans *spans, int64_t now_ns)
{
    st->step = step;
    st->spans = spans;
    st->active = true;
    st->muted = false;
    st->t_free_ns = now_ns;
}

void stage_mute(struct stage *st)
{
    st->muted = true;
}

void stage_end_step(struct stage *st)
{
    st->active = false;
}

/* --- in ------------------------------------------------------------------------------------------ */

static struct passing *passing(struct stage *st, uint64_t k)
{
    return &st->ring[k % st->cap];
}

static bool can_begin(struct stage *st)
{
    return st->active && st->n_begun == st->n_finished &&
           (st->next < 0 || transport_send_buffer(st->transport) != NULL);
}

struct batch *stage_free_batch(struct stage *st)
{
    CHECK(st->source < 0);
    return st->n_announced == st->n_finished && can_begin(st) ? passing(st, st->n_announced)->batch
                                                              : NULL;
}

int stage_enqueue(struct stage *st, struct err *e)
{
    struct batch *b = passing(st, st->n_announced)->batch;
    b->times[0].t_recv_ns = b->t_build_ns;
    st->n_announced++;
    st->n_arrived++;
    size_t n_wire = st->cfg.layout->tensor > 1 ? batch_encode(b, st->wire) : 0;
    for (int t = 1; t < st->cfg.layout->tensor; t++) {
        int rank = layout_rank(st->cfg.layout, st->place.replica, 0, t);
        if (comm_post(st->comm, rank, WORKER_BATCH, st->wire, n_wire, e) != 0) {
            return -1;
        }
    }
    return 0;
}

int stage_take_message(struct stage *st, const struct comm_msg *m, struct err *e)
{
    if (m->src != st->source) {
        return err_set(e, ERR_ENV, "a batch, but this rank's batches come from rank %d",
                       st->source);
    }
    if (st->n_announced - st->n_finished == st->cap) {
        return err_set(e, ERR_ENV, "a batch beyond the %llu lanes", (unsigned long long)st->cap);
    }
    struct batch *b = passing(st, st->n_announced)->batch;
    if (batch_decode(b, &st->cfg.limits, m->data, m->n_bytes, e) != 0) {
        return -1;
    }
    st->n_announced++;
    if (st->prev >= 0) {
        patience_begin(&st->arriving, b->n_tokens, clock_local_ns());
    } else { // no hidden states to wait for
        b->times[0].t_recv_ns = clock_now_ns();
        st->n_arrived++;
    }
    return 0;
}

static int receive(struct stage *st, struct err *e)
{
    if (st->n_arrived == st->n_announced) {
        return 0;
    }
    struct passing *p = passing(st, st->n_arrived);
    int got = transport_recv(st->transport, slice_of(st, p->batch->n_tokens).n_bytes, &p->in, e);
    if (got == 1) {
        p->batch->times[st->place.stage].t_recv_ns = clock_now_ns();
        st->n_arrived++;
        patience_end(&st->arriving, clock_local_ns());
    }
    return got;
}

/* --- compute -------------------------------------------------------------------------------------- */

static int begin(struct stage *st, struct err *e)
{
    if (st->n_begun == st->n_arrived || !can_begin(st)) {
        return 0;
    }
    struct passing *p = passing(st, st->n_begun);
    const int source = st->source < 0 ? st->leader : st->source;
    if (p->batch->step != st->step) {
        return err_set(e, ERR_ENV, "rank %d sent a batch of step %u in step %u", source,
                       p->batch->step, st->step);
    }
    if (kv_tables_check(&st->tables, p->batch, e) != 0) {
        return err_wrap(e, "rank %d", source);
    }
    kv_tables_apply(&st->tables, p->batch);
    if (st->choices != NULL) {
        choices_apply(st->choices, p->batch);
    }
    void *out = st->next < 0 ? NULL : transport_send_buffer(st->transport);
    backend_submit(st->cfg.backend, p->batch, &st->tables, p->in, out,
                   st->ids != NULL ? st->ids->ids : NULL,
                   st->choices != NULL ? choices_jobs(st->choices) : NULL);
    st->n_begun++;
    patience_begin(&st->computing, p->batch->n_tokens, clock_local_ns());
    return 1;
}

static enum span_op span_op_of(const struct batch *b)
{
    uint32_t n_prefill = 0;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        n_prefill += (b->rows[i].flags & BATCH_PREFILL) != 0;
    }
    return n_prefill == 0 ? SPAN_DECODE : n_prefill == b->n_rows ? SPAN_PREFILL : SPAN_MIXED;
}

static struct span span_of(const struct stage *st, const struct batch *b, enum span_op op,
                           int64_t t_begin_ns)
{
    return (struct span){
        .t_begin_ns = t_begin_ns,
        .batch_seq = b->seq,
        .n_tokens = b->n_tokens,
        .rank = (uint16_t)st->cfg.rank,
        .n_rows = (uint16_t)b->n_rows,
        .op = (uint8_t)op,
        .lane = (uint8_t)b->lane,
    };
}

/* Waiting and computing: what is known when a batch's compute has ended. */
static int record_compute(struct stage *st, const struct batch *b, struct err *e)
{
    const struct batch_stage_times *t = &b->times[st->place.stage];
    if (t->t_recv_ns > st->t_free_ns) {
        struct span wait = span_of(st, b, SPAN_WAIT_RECV, st->t_free_ns);
        if (spans_add(st->spans, &wait, t->t_recv_ns - st->t_free_ns, e) != 0) {
            return -1;
        }
    }
    st->t_free_ns = t->t_end_ns;
    struct span compute = span_of(st, b, span_op_of(b), t->t_begin_ns);
    return spans_add(st->spans, &compute, t->t_end_ns - t->t_begin_ns, e);
}

/* --- out ------------------------------------------------------------------------------------------ */

static int pass_on(struct stage *st, struct batch *b, struct err *e)
{
    struct batch_stage_times *t = &b->times[st->place.stage];
    size_t n_bytes = slice_of(st, b->n_tokens).n_bytes;
    t->t_send_ns = clock_now_ns();
    struct span leaving = span_of(st, b, SPAN_SEND, t->t_send_ns);
    leaving.n_bytes = (uint32_t)n_bytes;
    st->leaving[st->n_leaving++ % HOP_DEPTH] = leaving;
    size_t n_wire = batch_encode(b, st->wire);
    return comm_post(st->comm, st->next, WORKER_BATCH, st->wire, n_wire, e) != 0 ||
                   transport_send(st->transport, n_bytes, e) != 0
               ? -1
               : 0;
}

static int see_off(struct stage *st, struct err *e)
{
    int gone = transport_sent(st->transport, e);
    if (gone == 1) {
        struct span *s = &st->leaving[st->n_left++ % HOP_DEPTH];
        return spans_add(st->spans, s, clock_now_ns() - s->t_begin_ns, e) != 0 ? -1 : 1;
    }
    return gone;
}

static int check_ids(const struct stage *st, const struct batch *b, struct err *e)
{
    for (uint32_t i = 0; i < b->n_rows; i++) {
        if (st->ids->ids[i] == BATCH_NOT_FINITE) {
            return err_set(e, ERR_ENV,
                           "rank %d: a request's logits are not finite numbers: its weights or "
                           "their arithmetic (kernels %s) are broken",
                           st->cfg.rank, backend_kernels(st->cfg.backend));
        }
    }
    return 0;
}

static int return_ids(struct stage *st, struct batch *b, struct err *e)
{
    if (check_ids(st, b, e) != 0) {
        return -1;
    }
    struct batch_stage_times *t = &b->times[st->place.stage];
    t->t_send_ns = clock_now_ns(); // the tokens' emit stamp
    st->ids->seq = b->seq;
    st->ids->lane = b->lane;
    st->ids->n_rows = b->n_rows;
    size_t n_bytes = ids_bytes(b->n_rows);
    if (comm_post(st->comm, st->leader, WORKER_IDS, st->ids, n_bytes, e) != 0) {
        return -1;
    }
    if (!st->muted && emit_batch(st->emit, st->comm, b, st->ids->ids, st->choices, e) != 0) {
        return -1;
    }
    struct span send = span_of(st, b, SPAN_SEND, t->t_send_ns);
    send.n_bytes = (uint32_t)n_bytes;
    return spans_add(st->spans, &send, clock_now_ns() - t->t_send_ns, e);
}

/* Of the last stage's ranks all have the ids; the first of them says so. */
static int send_on(struct stage *st, struct batch *b, struct err *e)
{
    if (st->next >= 0) {
        return pass_on(st, b, e);
    }
    return st->place.tensor == 0 ? return_ids(st, b, e) : 0;
}

static int finish(struct stage *st, struct err *e)
{
    if (st->n_begun == st->n_finished || !backend_poll(st->cfg.backend)) {
        return 0;
    }
    if (backend_error(st->cfg.backend, e) != 0) {
        return -1;
    }
    struct batch *b = passing(st, st->n_finished)->batch;
    struct batch_stage_times *t = &b->times[st->place.stage];
    backend_times(st->cfg.backend, &t->t_begin_ns, &t->t_end_ns);
    if (send_on(st, b, e) != 0 || record_compute(st, b, e) != 0 ||
        (st->prev >= 0 && transport_release(st->transport, e) != 0)) {
        return -1;
    }
    st->n_finished++;
    patience_end(&st->computing, clock_local_ns());
    return 1;
}

int stage_turn(struct stage *st, struct err *e)
{
    int moved = 0;
    int (*const parts[])(struct stage *, struct err *) = {turn_group, finish, see_off,
                                                          receive,    begin,  check_deadlines};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        int rc = parts[i](st, e);
        if (rc < 0) {
            return -1;
        }
        moved |= rc;
    }
    return moved;
}

bool stage_is_quiet(const struct stage *st)
{
    return st->n_announced == st->n_finished && transport_is_quiet(st->transport);
}

const char *stage_hop_name(const struct stage *st)
{
    return transport_name(st->transport);
}
