/*
 * The world over MPI: joining and leaving, and the collectives. The three planes are
 * comm_mpi_msgs.c, comm_mpi_bulk.c and comm_mpi_beats.c, each on a communicator of its own.
 */
#include "core/comm_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/comm_mpi_beats.h"
#include "core/comm_mpi_bulk.h"
#include "core/comm_mpi_msgs.h"
#include "core/comm_mpi_request.h"
#include "core/guard.h"
#include "core/mem.h"

#include <mpi.h>

#define DISCARDED_PER_TURN 256 // while closing: a peer that floods must not hold this rank
#define CHUNK_BYTES        ((size_t)16 << 20) // of one collective: counts are int
#define ABORT_NS           (5 * NS_PER_S)
#define TAG_GATHER         2

struct comm_mpi {
    struct comm base;
    MPI_Comm world; // collectives
    struct comm_mpi_msgs msgs;
    struct comm_mpi_bulk bulk;
    struct comm_mpi_beats beats;
    bool closing; // keep sending heartbeats, judge nobody
};

struct limit {
    const char *call;
    int64_t timeout_ns, until_ns;
};

static struct limit limit_in(const char *call, int64_t timeout_ns)
{
    return (struct limit){call, timeout_ns, clock_local_ns() + timeout_ns};
}

static struct comm_mpi *mpi_of(struct comm *c)
{
    return (struct comm_mpi *)c;
}

/* --- the planes ----------------------------------------------------------------------------- */

static int mpi_start(struct comm *c, struct err *e)
{
    return comm_mpi_msgs_start(&mpi_of(c)->msgs, c, e);
}

static int mpi_post(struct comm *c, int dst, int tag, const void *data, size_t n_bytes,
                    struct err *e)
{
    return comm_mpi_msgs_post(&mpi_of(c)->msgs, c, dst, tag, data, n_bytes, e);
}

static int mpi_isend(struct comm *c, const void *buf, size_t n_bytes, int dst, int tag,
                     struct comm_req *r, struct err *e)
{
    return comm_mpi_bulk_isend(&mpi_of(c)->bulk, c, buf, n_bytes, dst, tag, r, e);
}

static int mpi_irecv(struct comm *c, void *buf, size_t cap_bytes, int src, int tag,
                     struct comm_req *r, struct err *e)
{
    return comm_mpi_bulk_irecv(&mpi_of(c)->bulk, c, buf, cap_bytes, src, tag, r, e);
}

static int mpi_test(struct comm *c, struct comm_req *r, struct err *e)
{
    return comm_mpi_bulk_test(&mpi_of(c)->bulk, c, r, e);
}

static void mpi_cancel(struct comm *c, struct comm_req *r)
{
    comm_mpi_bulk_cancel(&mpi_of(c)->bulk, c, r);
}

/* What every wait does between looks. */
static int progress(struct comm_mpi *m, struct err *e)
{
    return comm_mpi_beats_turn(&m->beats, &m->base, !m->closing, e) ||
                   comm_mpi_msgs_reap(&m->msgs, &m->base, e)
               ? -1
               : 0;
}

static int mpi_watch(struct comm *c, int64_t timeout_ns, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    return comm_mpi_beats_arm(&m->beats, c, timeout_ns, e) ||
                   comm_mpi_beats_turn(&m->beats, c, !m->closing, e)
               ? -1
               : 0;
}

static int mpi_poll(struct comm *c, struct comm_msg *msg, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    int got = progress(m, e) ? -1 : comm_mpi_msgs_take(&m->msgs, c, msg, e);
    if (got == 1) {
        beat_heard(&m->beats.beat, msg->src, m->beats.beat.last_turn_ns);
    }
    return got;
}

/* While leaving, messages that nobody will read still have to be taken off their senders. */
static int discard_messages(struct comm_mpi *m, struct err *e)
{
    struct comm_msg msg;
    int got = m->msgs.slots ? 1 : 0;
    for (int i = 0; i < DISCARDED_PER_TURN && got > 0; i++) {
        got = comm_mpi_msgs_take(&m->msgs, &m->base, &msg, e);
    }
    return got < 0 ? -1 : 0;
}

static int mpi_turn(struct comm *c, struct err *e)
{
    struct comm_mpi *m = mpi_of(c);
    if (progress(m, e)) {
        return -1;
    }
    return m->closing ? discard_messages(m, e) : 0;
}

/* --- waiting and collectives ---------------------------------------------------------------- */

/* 1 when the request ended, 0 when the limit was reached first. */
static int wait_for(struct comm_mpi *m, MPI_Request *req, const struct limit *limit, struct err *e)
{
    for (int idle = 0;; idle++) {
        int done = 0;
        int rc = MPI_Test(req, &done, MPI_STATUS_IGNORE);
        if (rc) {
            return comm_mpi_request_fail(rc, limit->call, e);
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
            return comm_mpi_request_fail(rc, limit.call, e);
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
            return comm_mpi_request_fail(rc, limit->call, e);
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
            return comm_mpi_request_fail(rc, limit->call, e);
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

static void free_all(struct comm_mpi *m)
{
    comm_mpi_msgs_free(&m->msgs);
    comm_mpi_bulk_free(&m->bulk);
    comm_mpi_beats_free(&m->beats);
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
    comm_mpi_msgs_drop(&m->msgs);
    comm_mpi_beats_drop(&m->beats, c->size);
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
        return comm_mpi_request_fail(rc, "MPI_Comm_idup", e);
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
    return rc ? comm_mpi_request_fail(rc, "MPI_Comm_set_errhandler", e) : 0;
}

static int set_up(struct comm_mpi *m, struct err *e)
{
    int provided = MPI_THREAD_SINGLE;
    int rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    if (rc) {
        return comm_mpi_request_fail(rc, "MPI_Init_thread", e);
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
        return comm_mpi_request_fail(rc, "MPI_COMM_WORLD", e);
    }
    if (duplicate(m, &m->msgs.comm, e) || duplicate(m, &m->bulk.comm, e) ||
        duplicate(m, &m->beats.comm, e)) {
        return -1;
    }
    comm_mpi_msgs_init(&m->msgs, m->base.size);
    comm_mpi_beats_init(&m->beats, m->base.size);
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
