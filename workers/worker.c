#include "workers/worker.h"

#include "core/clock.h"
#include "core/hist.h"
#include "core/mem.h"
#include "model/routing.h"
#include "model/wire.h"
#include "workers/backend.h"
#include "workers/load_teller.h"
#include "workers/patience.h"
#include "workers/sampler.h"
#include "workers/sched.h"
#include "workers/sim/costs.h"
#include "workers/spans.h"
#include "workers/stage.h"
#include "workers/telemetry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SAMPLE_NS         (100 * NS_PER_MS)
#define WORKER_NICE       5 // of the main thread
#define BATCH_DEADLINE_NS (30 * NS_PER_S)
#define MESSAGES_PER_TURN 64

enum phase {
    BETWEEN_STEPS,
    IN_STEP,
    ENDING, // rank 0 has ended the step; batches in flight are on their way out
};

struct worker {
    struct layout layout;
    struct layout_worker place;
    struct arch arch;
    struct tp_group *tp; // NULL where a stage is one rank
    struct backend *backend;
    struct hop *in, *out; // the backend's own, until the stage has them
    struct stage *stage;
    struct sched *sched;       // leader only
    struct load_teller teller; // same
    struct spans *spans;
    struct telemetry *telemetry; // NULL: it looks at no GPUs
    struct comm *comm;
    int rank;
    bool is_leader;
    int first_layer, n_layers; // of the stage
    const char *placement;     // of its threads
    const char *sums;          // on GPUs: what they go by
    bool cpus_given;           // that they were to be pinned to

    enum phase phase;
    bool shutdown;
    uint64_t drained; // 1 + the step of which every batch has come back to the leader; 0: none
    uint32_t step;
    int64_t t_turn_ns, t_sample_ns;
    int64_t batch_deadline_ns;
    struct patience trips; // leader: batches that have been sent down
    int64_t t_cpu_ns;      // of the process when the step began
    struct hist *gaps;     // between two turns, in this step
};

/* --- creation ----------------------------------------------------------------------------------- */

static struct batch_limits limits_of(const struct target_config *t, const struct arch *a)
{
    struct sched_config cfg = target_sched(t, a);
    struct batch_limits lim = sched_batch_limits(&cfg);
    lim.n_stages = (uint32_t)t->pipeline;
    return lim;
}

size_t worker_max_message_bytes(const struct target_config *t, const struct arch *a)
{
    if (t->kind != TARGET_STAGES) {
        return sizeof(struct wire_step);
    }
    struct batch_limits lim = limits_of(t, a);
    size_t sizes[] = {
        sizeof(struct wire_request) + (size_t)a->max_context * sizeof(int32_t) +
            sizeof(struct wire_sampling),
        stage_max_message_bytes(&lim),
        spans_max_message_bytes(),
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        most = sizes[i] > most ? sizes[i] : most;
    }
    return most;
}

/* Sums are of a batch's hidden states, in rows that a backend may pad. */
static int create_group(struct worker *w, const struct target_config *t, struct err *e)
{
    const struct layout *l = &w->layout;
    if (l->tensor == 1) {
        return 0;
    }
    int *ranks = xcalloc((size_t)l->tensor, sizeof *ranks);
    for (int i = 0; i < l->tensor; i++) {
        ranks[i] = layout_rank(l, w->place.replica, w->place.stage, i);
    }
    const struct tp_group_config cfg = {
        .ranks = ranks,
        .size = l->tensor,
        .index = w->place.tensor,
        .max_n_values = (size_t)t->max_batch_tokens * (size_t)(w->arch.hidden + BACKEND_ROW_PAD),
    };
    int rc = tp_group_create(&w->tp, &cfg, e);
    free(ranks);
    return rc;
}

static int create_backend(struct worker *w, const struct target_config *t,
                          const struct worker_cores *cores, struct err *e)
{
    int first[RECORD_MAX_STAGES + 1];
    struct costs costs;
    bool is_sim = t->backend == TARGET_BACKEND_SIM;
    if (target_split(t, &w->arch, first, e) != 0 ||
        (is_sim && target_costs(t, &w->arch, &costs, e) != 0)) {
        return -1;
    }
    int s = w->place.stage;
    w->first_layer = first[s];
    w->n_layers = first[s + 1] - first[s];
    struct batch_limits lim = limits_of(t, &w->arch);
    const bool waits =
        target_backend(t) == TARGET_BACKEND_CUDA; // for what all stages have room for
    struct backend_config cfg = {
        .backend = target_backend_name(t),
        .timing = is_sim ? &costs : NULL,
        .model = t->model,
        .arch = &w->arch,
        .first_layer = w->first_layer,
        .n_layers = w->n_layers,
        .has_embed = s == 0,
        .has_head = s == w->layout.pipeline - 1,
        .max_tokens = lim.max_tokens,
        .max_rows = lim.max_rows,
        .n_slots = lim.n_slots,
        .slot_blocks = ((uint32_t)w->arch.max_context + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK,
        .n_blocks = waits ? 0 : lim.n_kv_blocks,
        .kv_dtype = target_kv_dtype(t, &w->arch),
        .routing = {.kind = (enum router_kind)t->moe_routing, .s = t->moe_zipf},
        .weight_bits = target_weight_bits(t),
        .group = tp_group_shard(w->tp),
        .sums = cores->sums,
        .n_threads = cores->n_threads,
        .cpus = cores->cpus,
        .idle_class = t->idle_class,
        .kernels = target_kernels(t),
        .rank = w->rank,
        .index = cores->index,
        .n_neighbours = cores->n_neighbours,
        .memory_fraction = t->memory_fraction,
    };
    return backend_create(&w->backend, &cfg, e);
}

static int create_hop(struct worker *w, const struct target_config *t, bool sends, const char *kind,
                      struct hop **out, struct err *e)
{
    if (!kind) {
        return 0;
    }
    const int stage = w->place.stage + (sends ? 1 : -1);
    const struct hop_config cfg = {
        .sends = sends,
        .rank = w->rank,
        .peer = layout_rank(&w->layout, w->place.replica, stage, w->place.tensor),
        .max_bytes = shard_hidden(&w->arch, limits_of(t, &w->arch).max_tokens, w->place.tensor,
                                  w->layout.tensor)
                         .each_bytes,
    };
    return backend_hop(w->backend, kind, &cfg, out, e);
}

static int create_hops(struct worker *w, const struct target_config *t,
                       const struct worker_cores *cores, struct err *e)
{
    return create_hop(w, t, false, cores->hop_in, &w->in, e) ||
                   create_hop(w, t, true, cores->hop_out, &w->out, e)
               ? -1
               : 0;
}

static int create_stage(struct worker *w, const struct target_config *t, struct err *e)
{
    struct stage_config cfg = {
        .in = w->in,
        .out = w->out,
        .layout = &w->layout,
        .rank = w->rank,
        .arch = &w->arch,
        .backend = w->backend,
        .tp = w->tp,
        .limits = limits_of(t, &w->arch),
    };
    cfg.limits.n_load_ranks = (uint32_t)w->layout.load_ranks;
    w->in = w->out = NULL; // they are the stage's, whatever comes of it
    return stage_create(&w->stage, &cfg, e);
}

static int create_rest(struct worker *w, const struct target_config *t, struct err *e)
{
    struct sched_config cfg = target_sched(t, &w->arch);
    cfg.n_load_ranks = w->layout.load_ranks;
    return create_stage(w, t, e) != 0 || (w->is_leader && sched_create(&w->sched, &cfg, e) != 0)
               ? -1
               : 0;
}

int worker_create(struct worker **out, const struct layout *layout, int rank,
                  const struct worker_cores *cores, const struct target_config *t,
                  const struct arch *a, struct err *e)
{
    CHECK(layout->pipeline <= RECORD_MAX_STAGES);
    struct worker *w = xcalloc(1, sizeof *w);
    w->layout = *layout;
    w->place = layout_worker(layout, rank);
    w->arch = *a;
    w->rank = rank;
    w->placement = cores->placement;
    w->sums = cores->sums ? cores->sums : "ipc";
    w->cpus_given = cores->cpus != NULL;
    w->spans = xcalloc(1, sizeof *w->spans);
    w->gaps = xcalloc(1, sizeof *w->gaps);
    w->batch_deadline_ns = BATCH_DEADLINE_NS;
    w->is_leader = rank == layout_leader(layout, w->place.replica);
    if (w->is_leader && t->routing == ROUTING_LEAST_TOKENS) {
        load_teller_init(&w->teller, layout, w->place.replica);
    }
    if (create_group(w, t, e) != 0 || create_backend(w, t, cores, e) != 0 ||
        create_hops(w, t, cores, e) != 0 ||
        (backend_room(w->backend) < 0 && create_rest(w, t, e) != 0)) {
        worker_destroy(w);
        return -1;
    }
    *out = w;
    return 0;
}

int64_t worker_room(const struct worker *w)
{
    return w->stage != NULL ? -1 : backend_room(w->backend);
}

int worker_settle(struct worker *w, const struct target_config *t, struct err *e)
{
    return backend_take_cache(w->backend, (uint32_t)target_kv_blocks(t, &w->arch), e) != 0 ||
                   create_rest(w, t, e) != 0
               ? -1
               : 0;
}

void worker_destroy(struct worker *w)
{
    if (w == NULL) {
        return;
    }
    sched_destroy(w->sched);
    load_teller_free(&w->teller);
    stage_destroy(w->stage);
    hop_destroy(w->in);
    hop_destroy(w->out);
    if (w->backend != NULL) {
        backend_destroy(w->backend);
    }
    tp_group_destroy(w->tp);
    free(w->gaps);
    free(w->spans);
    free(w);
}

void worker_about(const struct worker *w, struct engine *out)
{
    backend_about(w->backend, out);
    out->rank = w->rank;
    out->first_layer = w->first_layer;
    out->n_layers = w->n_layers;
    const bool refused = w->cpus_given && out->cores[0] == '\0';
    snprintf(out->placement, sizeof out->placement, "%s",
             out->n_threads == 0 ? "none"
             : refused           ? "not permitted"
                                 : w->placement);
    const bool has_peers = w->layout.tensor > 1, on_gpus = strcmp(out->backend, "cuda") == 0;
    const bool has_next = w->place.stage + 1 < w->layout.pipeline;
    snprintf(out->to_next, sizeof out->to_next, "%s", has_next ? stage_hop_name(w->stage) : "");
    snprintf(out->in_group, sizeof out->in_group, "%s",
             !has_peers ? ""
             : on_gpus  ? w->sums
                        : "memory");
    const bool alone = w->layout.pipeline == 1 && !has_peers;
    snprintf(out->transport, sizeof out->transport, "%s",
             alone                    ? "none"
             : w->layout.pipeline > 1 ? stage_hop_name(w->stage)
                                      : out->in_group);
}

void worker_set_deadline(struct worker *w, int64_t batch_ns)
{
    w->batch_deadline_ns = batch_ns;
}

void worker_set_telemetry(struct worker *w, struct telemetry *t)
{
    w->telemetry = t;
}

bool worker_idle_class(const struct worker *w)
{
    return backend_idle_class(w->backend);
}

/* --- steps ---------------------------------------------------------------------------------------- */

/* The payload when the message has exactly this size, else NULL with the error set. */
static const void *payload(const struct comm_msg *m, size_t n_bytes, struct err *e)
{
    if (m->n_bytes != n_bytes) {
        err_set(e, ERR_ENV, "message %d of %zu bytes, not %zu", m->tag, m->n_bytes, n_bytes);
        return NULL;
    }
    return m->data;
}

static int from_rank_0(const struct comm_msg *m, struct err *e)
{
    return m->src == 0 ? 0 : err_set(e, ERR_ENV, "message %d is rank 0's to send", m->tag);
}

static int begin_step(struct worker *w, const struct comm_msg *m, struct err *e)
{
    const struct wire_step *step = payload(m, sizeof *step, e);
    if (step == NULL || from_rank_0(m, e) != 0) {
        return -1;
    }
    if (w->phase != BETWEEN_STEPS) {
        return err_set(e, ERR_ENV, "step %u announced inside step %u", step->index, w->step);
    }
    if (w->drained != 0 && w->drained != (uint64_t)step->index + 1) {
        return err_set(e, ERR_ENV, "step %u announced, but the leader has drained step %llu",
                       step->index, (unsigned long long)w->drained - 1);
    }
    int64_t now_ns = clock_now_ns();
    w->phase = IN_STEP;
    w->step = step->index;
    w->t_sample_ns = w->t_turn_ns = now_ns;
    w->t_cpu_ns = clock_process_cpu_ns();
    hist_reset(w->gaps);
    spans_begin_step(w->spans, w->comm, w->step, now_ns);
    telemetry_begin_step(w->telemetry, w->comm, w->step, now_ns);
    stage_begin_step(w->stage, w->step, w->spans, now_ns);
    if (w->sched != NULL) {
        sched_begin_step(w->sched, w->step);
        load_teller_begin_step(&w->teller, w->step, now_ns);
    }
    return 0;
}

static int end_step(struct worker *w, const struct comm_msg *m, struct err *e)
{
    const struct wire_step_end *end = payload(m, sizeof *end, e);
    if (end == NULL || from_rank_0(m, e) != 0) {
        return -1;
    }
    if (w->phase != IN_STEP || end->index != w->step) {
        return err_set(e, ERR_ENV, "end of step %u, which is not under way", end->index);
    }
    w->phase = ENDING;
    stage_mute(w->stage);
    if (w->sched != NULL) {
        sched_drop_all(w->sched);
    }
    return 0;
}

/* The leader's word may overtake all of rank 0's: it counts once the step has ended here too. */
static int take_drained(struct worker *w, const struct comm_msg *m, struct err *e)
{
    const struct worker_drained *d = payload(m, sizeof *d, e);
    if (d == NULL) {
        return -1;
    }
    if (m->src != layout_leader(&w->layout, w->place.replica) || w->sched != NULL ||
        w->drained != 0 || (w->phase != BETWEEN_STEPS && d->step != w->step)) {
        return err_set(e, ERR_ENV, "says that step %u is drained", d->step);
    }
    w->drained = (uint64_t)d->step + 1;
    return 0;
}

static int tell_drained(struct worker *w, struct err *e)
{
    struct worker_drained d = {.step = w->step};
    for (int s = 0; s < w->layout.pipeline; s++) {
        for (int t = 0; t < w->layout.tensor; t++) {
            int rank = layout_rank(&w->layout, w->place.replica, s, t);
            if (rank != w->rank && comm_post(w->comm, rank, WORKER_DRAINED, &d, sizeof d, e) != 0) {
                return -1;
            }
        }
    }
    w->drained = (uint64_t)w->step + 1;
    return 0;
}

static int finish_step(struct worker *w, struct err *e)
{
    struct wire_step_done done = {
        .index = w->step,
        .poll_gap_ns = {(uint64_t)hist_quantile(w->gaps, 0.5),
                        (uint64_t)hist_quantile(w->gaps, 0.99)},
        .t_cpu_ns = clock_process_cpu_ns() - w->t_cpu_ns,
    };
    w->phase = BETWEEN_STEPS;
    w->drained = 0;
    stage_end_step(w->stage);
    return spans_flush(w->spans, e) != 0 || telemetry_end_step(w->telemetry, e) != 0
               ? -1
               : comm_post(w->comm, 0, WIRE_STEP_DONE, &done, sizeof done, e);
}

/*
 * A stage is through when rank 0 has ended the step and no batch can come any more. Only the leader
 * knows that: once all its lanes are back, every stage has passed on every batch.
 */
static int try_finish_step(struct worker *w, struct err *e)
{
    if (w->phase != ENDING || !stage_is_quiet(w->stage)) {
        return 0;
    }
    if (w->sched != NULL && sched_counts(w->sched).in_flight == 0 && tell_drained(w, e) != 0) {
        return -1;
    }
    return w->drained == (uint64_t)w->step + 1 ? finish_step(w, e) : 0;
}

/* --- requests --------------------------------------------------------------------------------------- */

static int from_load_rank(const struct worker *w, const struct comm_msg *m, struct err *e)
{
    if (w->sched == NULL) {
        return err_set(e, ERR_ENV, "message %d is for a leader", m->tag);
    }
    return layout_is_load(&w->layout, m->src)
               ? 0
               : err_set(e, ERR_ENV, "message %d is a load rank's to send", m->tag);
}

static int check_request(const struct worker *w, const struct comm_msg *m, struct err *e)
{
    const struct wire_request *q = m->data;
    bool has_head = m->n_bytes >= sizeof *q;
    size_t tail = has_head && (q->flags & WIRE_SAMPLED) ? sizeof(struct wire_sampling) : 0;
    if (!has_head || m->n_bytes != sizeof *q + (size_t)q->n_in * sizeof(int32_t) + tail ||
        q->n_in == 0 || q->n_out == 0) {
        return err_set(e, ERR_ENV, "request of %zu bytes: size and lengths do not fit", m->n_bytes);
    }
    for (uint32_t i = 0; i < q->n_in; i++) {
        if (q->ids[i] < 0 || q->ids[i] >= w->arch.vocab) {
            return err_set(e, ERR_ENV, "prompt id %d: the vocabulary has %d", q->ids[i],
                           w->arch.vocab);
        }
    }
    return 0;
}

/* What follows the ids, into *how; NULL: nothing does. */
static int take_sampling(const struct wire_request *q, struct wire_sampling *how,
                         const struct wire_sampling **out, struct err *e)
{
    *out = NULL;
    if ((q->flags & WIRE_SAMPLED) == 0) {
        return 0;
    }
    memcpy(how, q->ids + q->n_in, sizeof *how);
    *out = how;
    return sampler_check(how, ERR_ENV, e);
}

static int take_request(struct worker *w, const struct comm_msg *m, struct err *e)
{
    const struct wire_request *q = m->data;
    struct wire_sampling sampling;
    const struct wire_sampling *how;
    if (from_load_rank(w, m, e) != 0 || check_request(w, m, e) != 0 ||
        take_sampling(q, &sampling, &how, e) != 0) {
        return -1;
    }
    int64_t now_ns = clock_now_ns();
    struct sched_request r = {
        .load_rank = m->src,
        .ticket = q->ticket,
        .n_in = q->n_in,
        .n_out = q->n_out,
        .flags = q->flags,
        .ids = q->ids,
        .how = how,
        .t_recv_ns = now_ns,
    };
    if (sched_submit(w->sched, &r, now_ns)) {
        return 0;
    }
    struct wire_reject reject = {.ticket = q->ticket};
    return comm_post(w->comm, m->src, WIRE_REJECT, &reject, sizeof reject, e);
}

static int take_cancel(struct worker *w, const struct comm_msg *m, struct err *e)
{
    const struct wire_cancel *c = payload(m, sizeof *c, e);
    if (c == NULL || from_load_rank(w, m, e) != 0) {
        return -1;
    }
    // One that has ended meanwhile is not an error: its last token and the cancel have crossed.
    (void)sched_cancel(w->sched, m->src, c->ticket, clock_now_ns());
    return 0;
}

static int take_ids(struct worker *w, const struct comm_msg *m, struct err *e)
{
    const struct worker_ids *r = m->data;
    int last = layout_rank(&w->layout, w->place.replica, w->layout.pipeline - 1, 0);
    if (w->sched == NULL || m->src != last || m->n_bytes < sizeof *r ||
        (m->n_bytes - sizeof *r) / sizeof(int32_t) != r->n_rows) {
        return err_set(e, ERR_ENV, "sampled ids of %zu bytes, not expected here", m->n_bytes);
    }
    if (sched_complete(w->sched, r->lane, r->seq, r->ids, r->n_rows, clock_now_ns(), e) != 0) {
        return -1;
    }
    patience_end(&w->trips, clock_local_ns());
    return 0;
}

/* --- the loop ------------------------------------------------------------------------------------------ */

static int dispatch(struct worker *w, const struct comm_msg *m, struct err *e)
{
    switch (m->tag) {
    case WIRE_STEP:
        return begin_step(w, m, e);
    case WIRE_STEP_END:
        return end_step(w, m, e);
    case WIRE_SHUTDOWN:
        w->shutdown = true;
        return from_rank_0(m, e);
    case WIRE_REQUEST:
        return take_request(w, m, e);
    case WIRE_CANCEL:
        return take_cancel(w, m, e);
    case WORKER_BATCH:
        return stage_take_message(w->stage, m, e);
    case WORKER_IDS:
        return take_ids(w, m, e);
    case WORKER_DRAINED:
        return take_drained(w, m, e);
    default:
        return err_set(e, ERR_ENV, "message %d means nothing to a worker", m->tag);
    }
}

/* Up to MESSAGES_PER_TURN of them: 1 when there was any. */
static int take_messages(struct worker *w, struct err *e)
{
    for (int n = 0; n < MESSAGES_PER_TURN && !w->shutdown; n++) {
        struct comm_msg m;
        int got = comm_poll(w->comm, &m, e);
        if (got != 1) {
            return got < 0 ? -1 : n > 0;
        }
        if (dispatch(w, &m, e) != 0) {
            return err_wrap(e, "from rank %d", m.src);
        }
    }
    return 1;
}

static int build(struct worker *w, int64_t now_ns, struct err *e)
{
    struct batch *b = w->phase == IN_STEP ? stage_free_batch(w->stage) : NULL;
    if (b == NULL || !sched_build(w->sched, b, now_ns)) {
        return 0;
    }
    patience_begin(&w->trips, b->n_tokens, clock_local_ns());
    return stage_enqueue(w->stage, e) != 0 ? -1 : 1;
}

static int sample(struct worker *w, int64_t now_ns, struct err *e)
{
    if (w->phase != IN_STEP || now_ns < w->t_sample_ns) {
        return 0;
    }
    w->t_sample_ns += SAMPLE_NS;
    w->t_sample_ns = w->t_sample_ns < now_ns ? now_ns + SAMPLE_NS : w->t_sample_ns;
    struct sched_counts c = sched_counts(w->sched);
    struct series_point p = {
        .t_ns = now_ns,
        .in_flight = c.waiting + c.running,
        .waiting = c.waiting,
        .running = c.running,
        .kv_used = (float)c.kv_taken / (float)c.kv_size,
        .n_preempted = (uint32_t)c.n_preempted,
        .prefix_query_tokens = c.n_queried_tokens,
        .prefix_hit_tokens = c.n_cached_tokens,
        .replica = (uint16_t)w->place.replica,
    };
    return spans_add_point(w->spans, &p, e);
}

/* Heartbeats find a rank that is silent, and stages a batch that is stuck in one; this finds what they do not. */
static int check_deadline(struct worker *w, struct err *e)
{
    struct patience_late late;
    char text[160], label[96];
    if (!patience_is_over(&w->trips, clock_local_ns(), 2 * PATIENCE_HEARSAY_NS, &late)) {
        return 0;
    }
    int last = layout_rank(&w->layout, w->place.replica, w->layout.pipeline - 1, 0);
    return err_set(e, ERR_ENV, "%s has not returned the ids of %s",
                   layout_label(&w->layout, last, label, sizeof label),
                   patience_text(&late, text, sizeof text));
}

static int lead(struct worker *w, int64_t now_ns, struct err *e)
{
    if (check_deadline(w, e) != 0 || sample(w, now_ns, e) != 0 ||
        (w->phase == IN_STEP && load_teller_turn(&w->teller, w->comm, w->sched, now_ns, e) != 0)) {
        return -1;
    }
    return build(w, now_ns, e);
}

/* 1 when anything happened. */
static int turn(struct worker *w, struct err *e)
{
    int64_t now_ns = clock_now_ns();
    if (w->phase == IN_STEP) {
        hist_record(w->gaps, now_ns - w->t_turn_ns);
    }
    w->t_turn_ns = now_ns;
    int heard = take_messages(w, e);
    if (heard < 0 || w->shutdown) {
        return heard;
    }
    int built = w->sched != NULL ? lead(w, clock_now_ns(), e) : 0;
    int moved = built < 0 ? -1 : stage_turn(w->stage, e);
    if (moved < 0 || try_finish_step(w, e) != 0 || telemetry_tick(w->telemetry, now_ns, e) != 0 ||
        (w->phase != BETWEEN_STEPS && spans_tick(w->spans, now_ns, e) != 0)) {
        return -1;
    }
    return heard | built | moved;
}

/* On shared cores a load rank's stamps matter more than when a worker looks at its messages: a lower
 * weight lets the load rank preempt at once. Needs no privilege. */
static void give_way(void)
{
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), WORKER_NICE);
}

int worker_serve(struct worker *w, struct comm *comm, struct err *e)
{
    give_way();
    w->comm = comm;
    w->shutdown = false;
    patience_init(&w->trips, w->batch_deadline_ns * w->layout.pipeline);
    if (stage_start(w->stage, comm, w->batch_deadline_ns, e) != 0) {
        return -1;
    }
    for (int idle = 0; !w->shutdown;) {
        int rc = turn(w, e);
        if (rc < 0 || (rc == 0 && comm_pause(comm, idle, e) != 0)) {
            char label[96];
            return err_wrap(e, "%s", layout_label(&w->layout, w->rank, label, sizeof label));
        }
        idle = rc > 0 ? 0 : idle + 1;
    }
    return stage_stop(w->stage, e);
}
