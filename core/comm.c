#include "core/comm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/comm_impl.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/spin.h"

#define SPIN_NS          (50 * NS_PER_US)
#define SLEEP_NS         (50 * NS_PER_US)
#define COPIES_CAP_BYTES ((size_t)256 << 20) // of posted messages, in all
#define COPIES_AT_LEAST  16                  // of the largest message

static const char *library; // in use; NULL before comm_open

bool comm_launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK");
}

int comm_launched_rank(void)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    rank = rank ? rank : getenv("PMIX_RANK");
    return rank ? atoi(rank) : 0;
}

/* --- who the ranks are ---------------------------------------------------------------------- */

static struct comm_peer describe_self(void)
{
    struct comm_peer me;
    memset(&me, 0, sizeof me); // padding too: it travels
    me.pid = (int)getpid();
    if (gethostname(me.host, sizeof me.host - 1)) {
        snprintf(me.host, sizeof me.host, "unknown");
    }
    if (sched_getaffinity(0, sizeof me.cpus, &me.cpus)) {
        CPU_ZERO(&me.cpus);
    }
    return me;
}

static int learn_peers(struct comm *c, struct err *e)
{
    struct comm_peer me = describe_self();
    struct comm_peer *peers = xcalloc((size_t)c->size, sizeof *peers);
    if (c->ops->gather(c, &me, sizeof me, peers, COMM_WAIT_NS, e) ||
        c->ops->bcast(c, peers, (size_t)c->size * sizeof *peers, 0, COMM_WAIT_NS, e)) {
        free(peers);
        return -1;
    }
    c->peers = peers;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (int r = 0; r < c->size; r++) {
        peers[r].host[sizeof peers[r].host - 1] = '\0';
        if (strcmp(peers[r].host, me.host) == 0) {
            c->index_on_host += r < c->rank;
            c->n_on_host++;
            CPU_OR(&cpus, &cpus, &peers[r].cpus);
        }
    }
    c->spin_ns = c->n_on_host <= CPU_COUNT(&cpus) ? SPIN_NS : 0;
    return 0;
}

int comm_open(struct comm **out, struct err *e)
{
    struct comm *c;
    bool launched = comm_launched();
    if (launched ? comm_mpi_open(&c, e) : comm_self_open(&c, e)) {
        return -1;
    }
    library = launched ? comm_mpi_library() : "none (single process)";
    log_set_rank(c->size > 1 ? c->rank : -1);
    clock_tight_timers();
    // After a failure the process ends without closing: the library may still use the buffers.
    if (learn_peers(c, e)) {
        return -1;
    }
    *out = c;
    return 0;
}

static void drop_self_messages(struct comm *c)
{
    if (c->self_out) {
        msgbuf_put(&c->bufs, c->self_out);
    }
    while (c->self_head) {
        struct msgbuf *b = c->self_head;
        c->self_head = b->next;
        msgbuf_put(&c->bufs, b);
    }
}

void comm_close(struct comm *c)
{
    c->ops->close(c);
    drop_self_messages(c);
    msgbuf_trim(&c->bufs);
    free(c->peers);
    free(c);
}

void comm_abort(struct comm *c, int exit_code, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    log_error("comm", "%s", line);
    c->ops->abort(c, exit_code);
    _exit(exit_code);
}

int comm_rank(const struct comm *c)
{
    return c->rank;
}

int comm_size(const struct comm *c)
{
    return c->size;
}

const char *comm_host(const struct comm *c, int rank)
{
    CHECK(rank >= 0 && rank < c->size);
    return c->peers[rank].host;
}

int comm_pid(const struct comm *c, int rank)
{
    CHECK(rank >= 0 && rank < c->size);
    return c->peers[rank].pid;
}

int comm_ranks_on_this_host(const struct comm *c)
{
    return c->n_on_host;
}

int comm_index_on_this_host(const struct comm *c)
{
    return c->index_on_host;
}

bool comm_spins(const struct comm *c)
{
    return c->spin_ns > 0;
}

const char *comm_library(void)
{
    return library ? library : comm_mpi_library();
}

const char *comm_label(const struct comm *c, int rank, char *buf, size_t cap)
{
    if (c->peers) {
        snprintf(buf, cap, "rank %d (pid %d on %s)", rank, c->peers[rank].pid, c->peers[rank].host);
    } else {
        snprintf(buf, cap, "rank %d", rank);
    }
    return buf;
}

/* --- messages ------------------------------------------------------------------------------- */

int comm_start(struct comm *c, size_t max_msg_bytes, struct err *e)
{
    CHECK(c->max_msg_bytes == 0 && max_msg_bytes > 0);
    size_t at_least = COPIES_AT_LEAST * 2 * max_msg_bytes; // a size class rounds up to twice
    c->bufs.cap_bytes = at_least > COPIES_CAP_BYTES ? at_least : COPIES_CAP_BYTES;
    c->max_msg_bytes = max_msg_bytes;
    return c->ops->start(c, e);
}

static int post_to_self(struct comm *c, int tag, const void *data, size_t n_bytes, struct err *e)
{
    struct msgbuf *b = msgbuf_get(&c->bufs, data, n_bytes);
    if (!b) {
        return err_set(e, ERR_ENV, "rank %d: %zu MiB of messages to itself are waiting", c->rank,
                       c->bufs.held_bytes >> 20);
    }
    b->peer = c->rank;
    b->tag = tag;
    if (c->self_head) {
        c->self_tail->next = b;
    } else {
        c->self_head = b;
    }
    c->self_tail = b;
    return 0;
}

int comm_post(struct comm *c, int dst, int tag, const void *data, size_t n_bytes, struct err *e)
{
    CHECK(c->max_msg_bytes > 0 && n_bytes <= c->max_msg_bytes);
    CHECK(dst >= 0 && dst < c->size && tag >= 0);
    if (dst == c->rank) {
        return post_to_self(c, tag, data, n_bytes, e);
    }
    return c->ops->post(c, dst, tag, data, n_bytes, e);
}

static int poll_self(struct comm *c, struct comm_msg *m)
{
    struct msgbuf *b = c->self_head;
    if (!b) {
        return 0;
    }
    c->self_head = b->next;
    c->self_out = b;
    *m = (struct comm_msg){.src = b->peer, .tag = b->tag, .data = b->data, .n_bytes = b->n_bytes};
    return 1;
}

int comm_poll(struct comm *c, struct comm_msg *m, struct err *e)
{
    CHECK(c->max_msg_bytes > 0);
    if (c->self_out) {
        msgbuf_put(&c->bufs, c->self_out);
        c->self_out = NULL;
    }
    // In turns, so that neither a stream from oneself nor one from others holds up the other.
    c->self_first = !c->self_first;
    int got = c->self_first ? poll_self(c, m) : 0;
    if (!got) {
        got = c->ops->poll(c, m, e);
    }
    if (!got) {
        got = poll_self(c, m);
    }
    if (got) {
        c->idle_since_ns = 0;
    }
    return got;
}

int comm_unsent(struct comm *c)
{
    return c->n_unsent;
}

/* --- bulk ----------------------------------------------------------------------------------- */

int comm_isend(struct comm *c, const void *buf, size_t n_bytes, int dst, int tag,
               struct comm_req *r, struct err *e)
{
    CHECK(dst >= 0 && dst < c->size && tag >= 0);
    return c->ops->isend(c, buf, n_bytes, dst, tag, r, e);
}

int comm_irecv(struct comm *c, void *buf, size_t cap_bytes, int src, int tag, struct comm_req *r,
               struct err *e)
{
    CHECK(src >= 0 && src < c->size && tag >= 0);
    return c->ops->irecv(c, buf, cap_bytes, src, tag, r, e);
}

int comm_test(struct comm *c, struct comm_req *r, struct err *e)
{
    int done = r->handle ? c->ops->test(c, r, e) : 1;
    if (done) {
        c->idle_since_ns = 0;
    }
    return done;
}

void comm_cancel(struct comm *c, struct comm_req *r)
{
    if (r->handle) {
        c->ops->cancel(c, r);
        r->handle = NULL;
    }
}

/* --- waiting and liveness ------------------------------------------------------------------- */

int comm_watch(struct comm *c, int64_t timeout_ns, struct err *e)
{
    CHECK(timeout_ns > 0);
    return c->ops->watch(c, timeout_ns, e);
}

void comm_backoff(struct comm *c, int idle_turns)
{
    int64_t now_ns = clock_local_ns();
    if (idle_turns == 0 || c->idle_since_ns == 0) {
        c->idle_since_ns = now_ns;
    }
    if (now_ns - c->idle_since_ns >= c->spin_ns) {
        clock_sleep_until_ns(now_ns + SLEEP_NS);
        return;
    }
    spin_pause();
}

int comm_pause(struct comm *c, int idle_turns, struct err *e)
{
    if (c->ops->turn(c, e)) {
        return -1;
    }
    comm_backoff(c, idle_turns);
    return 0;
}

/* --- collectives ---------------------------------------------------------------------------- */

/* Through rank 0, not a tree: when a rank stays away, rank 0 can say which. */
int comm_barrier(struct comm *c, int64_t timeout_ns, struct err *e)
{
    char here = 1;
    char *all = c->rank == 0 ? xcalloc((size_t)c->size, 1) : NULL;
    int rc = c->ops->gather(c, &here, 1, all, timeout_ns, e);
    free(all);
    return rc ? -1 : c->ops->bcast(c, &here, 1, 0, timeout_ns, e);
}

int comm_bcast(struct comm *c, void *buf, size_t n_bytes, int root, struct err *e)
{
    CHECK(root >= 0 && root < c->size);
    return c->ops->bcast(c, buf, n_bytes, root, COMM_WAIT_NS, e);
}

int comm_gather(struct comm *c, const void *mine, size_t n_bytes, void *all, struct err *e)
{
    return c->ops->gather(c, mine, n_bytes, all, COMM_WAIT_NS, e);
}

static int spread_verdict(struct comm *c, const struct err *mine, struct err *verdict,
                          struct err *e)
{
    struct err *all = c->rank == 0 ? xcalloc((size_t)c->size, sizeof *all) : NULL;
    int rc = c->ops->gather(c, mine, sizeof *mine, all, COMM_WAIT_NS, e);
    for (int r = 0; rc == 0 && all && r < c->size; r++) {
        if (all[r].code) {
            *verdict = all[r];
            break;
        }
    }
    free(all);
    return rc ? -1 : c->ops->bcast(c, verdict, sizeof *verdict, 0, COMM_WAIT_NS, e);
}

int comm_agree(struct comm *c, struct err *e)
{
    struct err mine, verdict, broken;
    memset(&mine, 0, sizeof mine);
    memset(&verdict, 0, sizeof verdict);
    mine.code = e->code;
    if (mine.code) {
        snprintf(mine.msg, sizeof mine.msg, "%s", e->msg);
    }
    if (spread_verdict(c, &mine, &verdict, &broken)) {
        if (!e->code) {
            *e = broken; // an error of one's own says more than that the others could not hear it
        }
        return -1;
    }
    if (!verdict.code) {
        return 0;
    }
    *e = verdict;
    e->msg[sizeof e->msg - 1] = '\0';
    return -1;
}
