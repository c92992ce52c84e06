#include "core/comm_impl.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/beat.h"
#include "core/clock.h"
#include "core/guard.h"
#include "core/log.h"
#include "core/mem.h"

#include <mpi.h>

enum {
    MAX_SLOTS = 64,
    MIN_SLOTS = 8,
    BEAT_SLOTS = 16,
    REAP_PER_TURN = 4, // unfinished sends tested each time
    TAG_BEAT = 1,
    TAG_GATHER = 2,
};

#define DISCARDED_PER_TURN 256 // while closing: a peer that floods must not hold this rank
#define SLOTS_BYTES        ((size_t)16 << 20) // of pre-posted receives, unless MIN_SLOTS need more
#define BACKLOG_BYTES      ((size_t)64 << 20) // of messages that one peer has not taken
#define BACKLOG_MSGS       4                  // of the largest size, if that is more
#define CHUNK_BYTES        ((size_t)16 << 20) // of one collective: counts are int
#define CANCEL_NS          (1 * NS_PER_S)
#define ABORT_NS           (5 * NS_PER_S)

struct slot {
    MPI_Request req;
    unsigned char *data; // (max_msg_bytes)
};

struct outgoing {
    MPI_Request req;
    struct msgbuf *buf;
};

struct bulk {
    struct bulk *next;  // in the free list
    struct bulk *older; // in the list of all
    MPI_Request req;
    int peer;
    bool is_recv;
};

struct limit {
    const char *call;
    int64_t timeout_ns, until_ns;
};

struct comm_mpi {
    struct comm base;
    MPI_Comm world;             // collectives
    MPI_Comm msgs, bulk, beats; // the three planes

    struct slot *slots; // (n_slots), a ring: matched, and so tested, in the order posted
    unsigned char *slots_mem;
    int n_slots, head;
    struct slot *handed_out; // by the last poll; posted again by the next

    struct outgoing *out; // (base.n_unsent of cap_out), any order
    int cap_out, next_out;
    size_t *backlog_bytes; // (size)

    struct bulk *free_bulk, *newest_bulk;

    struct beat beat;
    MPI_Request beat_in[BEAT_SLOTS];
    int beat_head;
    MPI_Request *beat_out; // (size) the last one sent to each
    bool closing;          // keep sending heartbeats, judge nobody
};

static struct limit limit_in(const char *call, int64_t timeout_ns)
{
    return (struct limit){call, timeout_ns, clock_local_ns() + timeout_ns};
}

static struct comm_mpi *mpi_of(struct comm *c)
{
    return (struct comm_mpi *)c;
}

static int fail(int rc, const char *call, struct err *e)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;
    MPI_Error_string(rc, text, &len);
    return err_set(e, ERR_ENV, "%s: %s", call, text);
}

static int fail_peer(struct comm_mpi *m, int rc, const char *call, int peer, struct err *e)
{
    char label[128];
    fail(rc, call, e);
    return err_wrap(e, "%s", comm_label(&m->base, peer, label, sizeof label));
}

/* --- heartbeats ----------------------------------------------------------------------------- */

static int collect_beats(struct comm_mpi *m, int64_t now_ns, struct err *e)
{
    // Bounded, so that a peer that floods cannot hold this rank here.
    for (int i = 0; i < BEAT_SLOTS + 4 * m->base.size; i++) {
        MPI_Request *r = &m->beat_in[m->beat_head];
        MPI_Status status;
        int got = 0;
        int rc = MPI_Test(r, &got, &status);
        if (rc) {
            return fail(rc, "heartbeat receive", e);
        }
        if (!got) {
            break;
        }
        beat_heard(&m->beat, status.MPI_SOURCE, now_ns);
        rc = MPI_Irecv(NULL, 0, MPI_BYTE, MPI_ANY_SOURCE, TAG_BEAT, m->beats, r);
        if (rc) {
            return fail(rc, "MPI_Irecv", e);
        }
        m->beat_head = (m->beat_head + 1) % BEAT_SLOTS;
    }
    return 0;
}

static int send_beats(struct comm_mpi *m, struct err *e)
{
    int first = m->base.rank == 0 ? 1 : 0;
    int end = m->base.rank == 0 ? m->base.size : 1;
    for (int peer = first; peer < end; peer++) {
        MPI_Request *r = &m->beat_out[peer];
        int gone = 0;
        int rc = MPI_Test(r, &gone, MPI_STATUS_IGNORE);
        if (!rc && gone) { // else the last one is still under way, and says enough
            rc = MPI_Isend(NULL, 0, MPI_BYTE, peer, TAG_BEAT, m->beats, r);
        }
        if (rc) {
            return fail_peer(m, rc, "heartbeat", peer, e);
        }
    }
    return 0;
}

static int heartbeat(struct comm_mpi *m, struct err *e)
{
    int64_t now_ns = clock_local_ns();
    if (!beat_turn(&m->beat, now_ns)) {
        return 0;
    }
    if (collect_beats(m, now_ns, e) || (beat_send_due(&m->beat, now_ns) && send_beats(m, e))) {
        return -1;
    }
    int64_t age_ns = 0;
    int rank = m->closing ? -1 : beat_silent(&m->beat, now_ns, &age_ns);
    if (rank >= 0) {
        char label[128];
        return err_set(e, ERR_ENV, "%s has been silent for %.1f s",
                       comm_label(&m->base, rank, label, sizeof label), (double)age_ns / 1e9);
    }
    return 0;
}

static int mpi_watch(struct comm *c, int64_t timeout_ns, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    bool first_time = m->beat.timeout_ns == 0;
    beat_arm(&m->beat, c->rank, c->size, timeout_ns, clock_local_ns());
    for (int i = 0; first_time && i < BEAT_SLOTS; i++) {
        int rc = MPI_Irecv(NULL, 0, MPI_BYTE, MPI_ANY_SOURCE, TAG_BEAT, m->beats, &m->beat_in[i]);
        if (rc) {
            return fail(rc, "MPI_Irecv", e);
        }
    }
    return heartbeat(m, e);
}

/* --- messages ------------------------------------------------------------------------------- */

static int post_slot(struct comm_mpi *m, struct slot *s, struct err *e)
{
    int rc = MPI_Irecv(s->data, (int)m->base.max_msg_bytes, MPI_BYTE, MPI_ANY_SOURCE, MPI_ANY_TAG,
                       m->msgs, &s->req);
    return rc ? fail(rc, "MPI_Irecv", e) : 0;
}

static int mpi_start(struct comm *c, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    CHECK(c->max_msg_bytes <= (size_t)INT_MAX / 2);
    size_t each_bytes = (c->max_msg_bytes + 63) / 64 * 64;
    size_t n = SLOTS_BYTES / each_bytes;
    m->n_slots = n > MAX_SLOTS ? MAX_SLOTS : n < MIN_SLOTS ? MIN_SLOTS : (int)n;
    m->slots_mem = mem_aligned((size_t)m->n_slots * each_bytes);
    if (!m->slots_mem) {
        return err_set(e, ERR_ENV, "no memory for %d messages of %zu bytes", m->n_slots,
                       each_bytes);
    }
    m->slots = xcalloc((size_t)m->n_slots, sizeof *m->slots);
    for (int i = 0; i < m->n_slots; i++) {
        m->slots[i].data = m->slots_mem + (size_t)i * each_bytes;
        if (post_slot(m, &m->slots[i], e)) {
            return -1;
        }
    }
    return 0;
}

/* Give back the copies of sends that have ended; tests a few at a time, in turns. */
static int reap(struct comm_mpi *m, struct err *e)
{
    int *n = &m->base.n_unsent;
    for (int unfinished = 0; *n > 0 && unfinished < REAP_PER_TURN && unfinished < *n;) {
        if (m->next_out >= *n) {
            m->next_out = 0;
        }
        struct outgoing *o = &m->out[m->next_out];
        int gone = 0;
        int rc = MPI_Test(&o->req, &gone, MPI_STATUS_IGNORE);
        if (rc) {
            return fail_peer(m, rc, "message", o->buf->peer, e);
        }
        if (!gone) {
            unfinished++;
            m->next_out++;
            continue;
        }
        m->backlog_bytes[o->buf->peer] -= o->buf->n_bytes;
        msgbuf_put(&m->base.bufs, o->buf);
        *o = m->out[--*n];
    }
    return 0;
}

static int backlog_full(struct comm_mpi *m, int dst, struct err *e)
{
    char label[128];
    return err_set(e, ERR_ENV, "%s takes no messages: %zu MiB are waiting for it",
                   comm_label(&m->base, dst, label, sizeof label), m->backlog_bytes[dst] >> 20);
}

static struct msgbuf *copy_for(struct comm_mpi *m, int dst, const void *data, size_t n_bytes)
{
    size_t limit = BACKLOG_MSGS * m->base.max_msg_bytes;
    if (limit < BACKLOG_BYTES) {
        limit = BACKLOG_BYTES;
    }
    bool full = m->backlog_bytes[dst] + n_bytes > limit;
    return full ? NULL : msgbuf_get(&m->base.bufs, data, n_bytes);
}

static int mpi_post(struct comm *c, int dst, int tag, const void *data, size_t n_bytes,
                    struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    struct msgbuf *b = copy_for(m, dst, data, n_bytes);
    if (!b) {
        return backlog_full(m, dst, e);
    }
    b->peer = dst;
    b->tag = tag;
    MPI_Request req;
    int gone = 0;
    int rc = MPI_Isend(b->data, (int)n_bytes, MPI_BYTE, dst, tag, m->msgs, &req);
    if (!rc) {
        rc = MPI_Test(&req, &gone, MPI_STATUS_IGNORE); // short messages go at once
    }
    if (rc) {
        return fail_peer(m, rc, "message", dst, e);
    }
    if (gone) {
        msgbuf_put(&c->bufs, b);
        return 0;
    }
    if (c->n_unsent == m->cap_out) {
        m->cap_out = m->cap_out ? 2 * m->cap_out : 256;
        m->out = xrealloc(m->out, (size_t)m->cap_out * sizeof *m->out);
    }
    m->out[c->n_unsent++] = (struct outgoing){.req = req, .buf = b};
    m->backlog_bytes[dst] += n_bytes;
    return 0;
}

/* 1 with *status and the slot handed out, 0 when the oldest receive is still open. */
static int take_message(struct comm_mpi *m, MPI_Status *status, struct err *e)
{
    if (m->handed_out) {
        if (post_slot(m, m->handed_out, e)) {
            return -1;
        }
        m->handed_out = NULL;
    }
    struct slot *s = &m->slots[m->head];
    int got = 0;
    int rc = MPI_Test(&s->req, &got, status);
    if (rc) {
        return fail(rc, "message receive", e);
    }
    if (got) {
        m->handed_out = s;
        m->head = (m->head + 1) % m->n_slots;
    }
    return got;
}

static int mpi_poll(struct comm *c, struct comm_msg *msg, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    if (heartbeat(m, e) || reap(m, e)) {
        return -1;
    }
    MPI_Status status;
    int got = take_message(m, &status, e);
    if (got != 1) {
        return got;
    }
    int n_bytes = 0;
    int rc = MPI_Get_count(&status, MPI_BYTE, &n_bytes);
    if (rc) {
        return fail(rc, "MPI_Get_count", e);
    }
    beat_heard(&m->beat, status.MPI_SOURCE, m->beat.last_turn_ns);
    *msg = (struct comm_msg){.src = status.MPI_SOURCE,
                             .tag = status.MPI_TAG,
                             .data = m->handed_out->data,
                             .n_bytes = (size_t)n_bytes};
    return 1;
}

/* --- bulk ----------------------------------------------------------------------------------- */

static struct bulk *new_bulk(struct comm_mpi *m, int peer, bool is_recv)
{
    struct bulk *b = m->free_bulk;
    if (b) {
        m->free_bulk = b->next;
    } else {
        b = xcalloc(1, sizeof *b);
        b->older = m->newest_bulk;
        m->newest_bulk = b;
    }
    b->req = MPI_REQUEST_NULL;
    b->peer = peer;
    b->is_recv = is_recv;
    return b;
}

static void release_bulk(struct comm_mpi *m, struct comm_req *r)
{
    struct bulk *b = r->handle;
    b->next = m->free_bulk;
    m->free_bulk = b;
    r->handle = NULL;
}

static int mpi_isend(struct comm *c, const void *buf, size_t n_bytes, int dst, int tag,
                     struct comm_req *r, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    CHECK(n_bytes <= INT_MAX);
    struct bulk *b = new_bulk(m, dst, false);
    *r = (struct comm_req){.handle = b, .n_bytes = n_bytes};
    int rc = MPI_Isend(buf, (int)n_bytes, MPI_BYTE, dst, tag, m->bulk, &b->req);
    if (rc) {
        release_bulk(m, r);
        return fail_peer(m, rc, "transfer to", dst, e);
    }
    return 0;
}

static int mpi_irecv(struct comm *c, void *buf, size_t cap_bytes, int src, int tag,
                     struct comm_req *r, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    CHECK(cap_bytes <= INT_MAX);
    struct bulk *b = new_bulk(m, src, true);
    *r = (struct comm_req){.handle = b, .n_bytes = cap_bytes};
    int rc = MPI_Irecv(buf, (int)cap_bytes, MPI_BYTE, src, tag, m->bulk, &b->req);
    if (rc) {
        release_bulk(m, r);
        return fail_peer(m, rc, "transfer from", src, e);
    }
    return 0;
}

static int mpi_test(struct comm *c, struct comm_req *r, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    struct bulk *b = r->handle;
    MPI_Status status;
    int done = 0;
    int rc = MPI_Test(&b->req, &done, &status);
    if (rc) {
        int peer = b->peer;
        release_bulk(m, r);
        return fail_peer(m, rc, "transfer", peer, e);
    }
    if (!done) {
        return 0;
    }
    int n_bytes = (int)r->n_bytes; // of a send; its status says nothing
    rc = b->is_recv ? MPI_Get_count(&status, MPI_BYTE, &n_bytes) : 0;
    release_bulk(m, r);
    if (rc) {
        return fail(rc, "MPI_Get_count", e);
    }
    r->n_bytes = (size_t)n_bytes;
    return 1;
}

static void mpi_cancel(struct comm *c, struct comm_req *r)
{
    struct comm_mpi *m = mpi_of(c);
    struct bulk *b = r->handle;
    MPI_Cancel(&b->req);
    // One that is already being received cannot be given up: its bytes must land first.
    int64_t until_ns = clock_local_ns() + CANCEL_NS;
    int done = 0;
    for (int idle = 0; !MPI_Test(&b->req, &done, MPI_STATUS_IGNORE) && !done; idle++) {
        if (clock_local_ns() > until_ns) {
            log_warn("comm", "a transfer from rank %d cannot be cancelled", b->peer);
            return;
        }
        comm_backoff(c, idle);
    }
    release_bulk(m, r);
}

/* --- waiting and collectives ---------------------------------------------------------------- */

/* While leaving, messages that nobody will read still have to be taken off their senders. */
static int discard_messages(struct comm_mpi *m, struct err *e)
{
    MPI_Status status;
    int got = m->slots ? 1 : 0;
    for (int i = 0; i < DISCARDED_PER_TURN && got > 0; i++) {
        got = take_message(m, &status, e);
    }
    return got < 0 ? -1 : 0;
}

static int mpi_turn(struct comm *c, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    if (heartbeat(m, e) || reap(m, e)) {
        return -1;
    }
    return m->closing ? discard_messages(m, e) : 0;
}

/* 1 when the request ended, 0 when the limit was reached first. */
static int wait_for(struct comm_mpi *m, MPI_Request *req, const struct limit *limit, struct err *e)
{
    for (int idle = 0;; idle++) {
        int done = 0;
        int rc = MPI_Test(req, &done, MPI_STATUS_IGNORE);
        if (rc) {
            return fail(rc, limit->call, e);
        }
        if (done) {
            return 1;
        }
        if (mpi_turn(&m->base, e)) {
            return -1;
        }
        if (clock_local_ns() > limit->until_ns) {
            return 0;
        }
        comm_backoff(&m->base, idle);
    }
}

/* The same, where `peer` is the one being waited for. */
static int wait_for_peer(struct comm_mpi *m, MPI_Request *req, int peer, const struct limit *limit,
                         struct err *e)
{
    int done = wait_for(m, req, limit, e);
    if (done == 0) {
        char label[128];
        return err_set(e, ERR_ENV, "%s did not come to the %s of all ranks within %.1f s",
                       comm_label(&m->base, peer, label, sizeof label), limit->call,
                       (double)limit->timeout_ns / 1e9);
    }
    return done > 0 ? 0 : -1;
}

static int chunk_of(size_t n_bytes, size_t at)
{
    size_t left = n_bytes - at;
    return (int)(left < CHUNK_BYTES ? left : CHUNK_BYTES);
}

static int mpi_bcast(struct comm *c, void *buf, size_t n_bytes, int root, int64_t timeout_ns,
                     struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    struct limit limit = limit_in("broadcast", timeout_ns);
    for (size_t at = 0; at < n_bytes; at += CHUNK_BYTES) {
        MPI_Request req;
        int rc =
            MPI_Ibcast((char *)buf + at, chunk_of(n_bytes, at), MPI_BYTE, root, m->world, &req);
        if (rc) {
            return fail(rc, limit.call, e);
        }
        if (wait_for_peer(m, &req, root, &limit, e)) {
            return -1;
        }
    }
    return 0;
}

static int send_mine(struct comm_mpi *m, const void *mine, size_t n_bytes,
                     const struct limit *limit, struct err *e)
{
    for (size_t at = 0; at < n_bytes; at += CHUNK_BYTES) {
        MPI_Request req;
        int rc = MPI_Isend((const char *)mine + at, chunk_of(n_bytes, at), MPI_BYTE, 0, TAG_GATHER,
                           m->world, &req);
        if (rc) {
            return fail(rc, limit->call, e);
        }
        if (wait_for_peer(m, &req, 0, limit, e)) {
            return -1;
        }
    }
    return 0;
}

static int recv_theirs(struct comm_mpi *m, int peer, char *to, size_t n_bytes,
                       const struct limit *limit, struct err *e)
{
    for (size_t at = 0; at < n_bytes; at += CHUNK_BYTES) {
        MPI_Request req;
        int rc =
            MPI_Irecv(to + at, chunk_of(n_bytes, at), MPI_BYTE, peer, TAG_GATHER, m->world, &req);
        if (rc) {
            return fail(rc, limit->call, e);
        }
        if (wait_for_peer(m, &req, peer, limit, e)) {
            return -1;
        }
    }
    return 0;
}

/*
 * Rank by rank instead of MPI_Igather: no limit on sizes, no second copy of everything at rank 0,
 * and rank 0 can name the one that did not come.
 */
static int mpi_gather(struct comm *c, const void *mine, size_t n_bytes, void *all,
                      int64_t timeout_ns, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    struct limit limit = limit_in("gathering", timeout_ns);
    if (c->rank != 0) {
        return send_mine(m, mine, n_bytes, &limit, e);
    }
    memcpy(all, mine, n_bytes);
    for (int peer = 1; peer < c->size; peer++) {
        if (recv_theirs(m, peer, (char *)all + (size_t)peer * n_bytes, n_bytes, &limit, e)) {
            return -1;
        }
    }
    return 0;
}

/* --- joining and leaving -------------------------------------------------------------------- */

static void drop_request(MPI_Request *r)
{
    if (*r == MPI_REQUEST_NULL) {
        return;
    }
    int done = 0;
    MPI_Cancel(r);
    MPI_Test(r, &done, MPI_STATUS_IGNORE);
    if (!done) {
        MPI_Request_free(r);
    }
}

static void free_all(struct comm_mpi *m)
{
    free(m->slots);
    free(m->slots_mem);
    free(m->out);
    free(m->backlog_bytes);
    free(m->beat_out);
    beat_free(&m->beat);
    while (m->newest_bulk) {
        struct bulk *b = m->newest_bulk;
        m->newest_bulk = b->older;
        free(b);
    }
}

static int drain_sends(struct comm_mpi *m, int64_t until_ns, struct err *e)
{
    for (int idle = 0; m->base.n_unsent > 0; idle++) {
        if (mpi_turn(&m->base, e)) {
            return -1;
        }
        if (clock_local_ns() > until_ns) {
            return err_set(e, ERR_ENV, "%d messages could not be delivered", m->base.n_unsent);
        }
        comm_backoff(&m->base, idle);
    }
    return 0;
}

static void mpi_close(struct comm *c)
{
    struct comm_mpi *m = mpi_of(c);
    struct err e;
    int64_t until_ns = clock_local_ns() + COMM_CLOSE_NS;
    m->closing = true;
    if (drain_sends(m, until_ns, &e) || comm_barrier(c, until_ns - clock_local_ns(), &e)) {
        comm_abort(c, ERR_ENV, "at the end of the run: %s", e.msg);
    }
    for (int i = 0; i < m->n_slots; i++) {
        drop_request(&m->slots[i].req);
    }
    for (int i = 0; i < BEAT_SLOTS; i++) {
        drop_request(&m->beat_in[i]);
    }
    for (int r = 0; r < c->size; r++) {
        drop_request(&m->beat_out[r]);
    }
    struct guard g;
    guard_start(&g, "MPI_Finalize", COMM_CLOSE_NS, ERR_ENV);
    MPI_Finalize();
    guard_end(&g);
    free_all(m);
}

static void mpi_abort(struct comm *c, int exit_code)
{
    static struct guard g; // outlives this call, which does not return
    guard_start(&g, "MPI_Abort", ABORT_NS, exit_code);
    MPI_Abort(mpi_of(c)->world, exit_code);
}

static const struct comm_ops mpi_ops = {
    .close = mpi_close,
    .abort = mpi_abort,
    .start = mpi_start,
    .post = mpi_post,
    .poll = mpi_poll,
    .isend = mpi_isend,
    .irecv = mpi_irecv,
    .test = mpi_test,
    .cancel = mpi_cancel,
    .watch = mpi_watch,
    .turn = mpi_turn,
    .bcast = mpi_bcast,
    .gather = mpi_gather,
};

static int duplicate(struct comm_mpi *m, MPI_Comm *out, struct err *e)
{
    MPI_Request req;
    int rc = MPI_Comm_idup(m->world, out, &req);
    if (rc) {
        return fail(rc, "MPI_Comm_idup", e);
    }
    struct limit limit = limit_in("MPI_Comm_idup", COMM_WAIT_NS);
    int done = wait_for(m, &req, &limit, e);
    if (done == 0) {
        return err_set(e, ERR_ENV, "the ranks did not all start within %lld s",
                       COMM_WAIT_NS / NS_PER_S);
    }
    if (done < 0) {
        return -1;
    }
    rc = MPI_Comm_set_errhandler(*out, MPI_ERRORS_RETURN);
    return rc ? fail(rc, "MPI_Comm_set_errhandler", e) : 0;
}

static int set_up(struct comm_mpi *m, struct err *e)
{
    int provided = MPI_THREAD_SINGLE;
    int rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (rc) {
        return fail(rc, "MPI_Init_thread", e);
    }
    if (provided < MPI_THREAD_FUNNELED) {
        return err_set(e, ERR_ENV, "this MPI library has no MPI_THREAD_FUNNELED");
    }
    m->world = MPI_COMM_WORLD;
    rc = MPI_Comm_set_errhandler(m->world, MPI_ERRORS_RETURN);
    if (!rc) {
        rc = MPI_Comm_rank(m->world, &m->base.rank);
    }
    if (!rc) {
        rc = MPI_Comm_size(m->world, &m->base.size);
    }
    if (rc) {
        return fail(rc, "MPI_COMM_WORLD", e);
    }
    if (duplicate(m, &m->msgs, e) || duplicate(m, &m->bulk, e) || duplicate(m, &m->beats, e)) {
        return -1;
    }
    m->backlog_bytes = xcalloc((size_t)m->base.size, sizeof *m->backlog_bytes);
    m->beat_out = xcalloc((size_t)m->base.size, sizeof *m->beat_out);
    for (int r = 0; r < m->base.size; r++) {
        m->beat_out[r] = MPI_REQUEST_NULL;
    }
    for (int i = 0; i < BEAT_SLOTS; i++) {
        m->beat_in[i] = MPI_REQUEST_NULL;
    }
    return 0;
}

int comm_mpi_open(struct comm **out, struct err *e)
{
    struct comm_mpi *m = xcalloc(1, sizeof *m);
    m->base.ops = &mpi_ops;
    if (set_up(m, e)) {
        free_all(m);
        free(m);
        return -1;
    }
    *out = &m->base;
    return 0;
}

/* "Open MPI v4.1.4, package: ..." becomes "Open MPI 4.1.4". */
const char *comm_mpi_library(void)
{
    static char name[MPI_MAX_LIBRARY_VERSION_STRING];
    if (!name[0]) {
        char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
        int len = 0;
        MPI_Get_library_version(text, &len);
        text[strcspn(text, ",\n")] = '\0';
        char *v = strstr(text, " v");
        if (v) {
            memmove(v + 1, v + 2, strlen(v + 2) + 1);
        }
        snprintf(name, sizeof name, "%s", text);
    }
    return name;
}
