#include "core/comm_mpi_bulk.h"

#include <limits.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/mem.h"

#define CANCEL_NS (1 * NS_PER_S)

struct comm_mpi_bulk_transfer {
    struct comm_mpi_bulk_transfer *next;  // in the list of idle ones
    struct comm_mpi_bulk_transfer *older; // in the list of all
    MPI_Request req;
    int peer;
    bool is_recv;
};

/* A transfer of at most n_bytes, its handle in r. */
static struct comm_mpi_bulk_transfer *begin(struct comm_mpi_bulk *b, struct comm_req *r,
                                            size_t n_bytes, int peer, bool is_recv)
{
    CHECK(n_bytes <= INT_MAX);
    struct comm_mpi_bulk_transfer *t = b->idle;
    if (t) {
        b->idle = t->next;
    } else {
        t = xcalloc(1, sizeof *t);
        t->older = b->newest;
        b->newest = t;
    }
    t->req = MPI_REQUEST_NULL;
    t->peer = peer;
    t->is_recv = is_recv;
    *r = (struct comm_req){.handle = t, .n_bytes = n_bytes};
    return t;
}

static void end(struct comm_mpi_bulk *b, struct comm_req *r)
{
    struct comm_mpi_bulk_transfer *t = r->handle;
    t->next = b->idle;
    b->idle = t;
    r->handle = NULL;
}

/* rc: what MPI said to the transfer just begun. */
static int begun(struct comm_mpi_bulk *b, const struct comm *c, struct comm_req *r, int rc,
                 struct err *e)
{
    if (!rc) {
        return 0;
    }
    const struct comm_mpi_bulk_transfer *t = r->handle;
    int peer = t->peer;
    const char *what = t->is_recv ? "transfer from" : "transfer to";
    end(b, r);
    return comm_mpi_request_fail_peer(c, rc, what, peer, e);
}

int comm_mpi_bulk_isend(struct comm_mpi_bulk *b, const struct comm *c, const void *buf,
                        size_t n_bytes, int dst, int tag, struct comm_req *r, struct err *e)
{
    struct comm_mpi_bulk_transfer *t = begin(b, r, n_bytes, dst, false);
    int rc = MPI_Isend(buf, (int)n_bytes, MPI_BYTE, dst, tag, b->comm, &t->req);
    return begun(b, c, r, rc, e);
}

int comm_mpi_bulk_irecv(struct comm_mpi_bulk *b, const struct comm *c, void *buf, size_t cap_bytes,
                        int src, int tag, struct comm_req *r, struct err *e)
{
    struct comm_mpi_bulk_transfer *t = begin(b, r, cap_bytes, src, true);
    int rc = MPI_Irecv(buf, (int)cap_bytes, MPI_BYTE, src, tag, b->comm, &t->req);
    return begun(b, c, r, rc, e);
}

int comm_mpi_bulk_test(struct comm_mpi_bulk *b, const struct comm *c, struct comm_req *r,
                       struct err *e)
{
    struct comm_mpi_bulk_transfer *t = r->handle;
    MPI_Status status;
    int done = 0;
    int rc = MPI_Test(&t->req, &done, &status);
    if (rc) {
        int peer = t->peer;
        end(b, r);
        return comm_mpi_request_fail_peer(c, rc, "transfer", peer, e);
    }
    if (!done) {
        return 0;
    }
    int n_bytes = (int)r->n_bytes; // of a send; its status says nothing
    rc = t->is_recv ? MPI_Get_count(&status, MPI_BYTE, &n_bytes) : 0;
    end(b, r);
    if (rc) {
        return comm_mpi_request_fail(rc, "MPI_Get_count", e);
    }
    r->n_bytes = (size_t)n_bytes;
    return 1;
}

void comm_mpi_bulk_cancel(struct comm_mpi_bulk *b, struct comm *c, struct comm_req *r)
{
    struct comm_mpi_bulk_transfer *t = r->handle;
    MPI_Cancel(&t->req);
    // One that is already being received cannot be given up: its bytes must land first.
    int64_t until_ns = clock_local_ns() + CANCEL_NS;
    int done = 0;
    for (int idle = 0; !MPI_Test(&t->req, &done, MPI_STATUS_IGNORE) && !done; idle++) {
        if (clock_local_ns() > until_ns) {
            log_warn("comm", "a transfer from rank %d cannot be cancelled", t->peer);
            return;
        }
        comm_backoff(c, idle);
    }
    end(b, r);
}

void comm_mpi_bulk_free(struct comm_mpi_bulk *b)
{
    while (b->newest) {
        struct comm_mpi_bulk_transfer *t = b->newest;
        b->newest = t->older;
        free(t);
    }
}
