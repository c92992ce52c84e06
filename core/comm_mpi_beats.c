#include "core/comm_mpi_beats.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/mem.h"

enum {
    TAG_BEAT = 1,
};

void comm_mpi_beats_init(struct comm_mpi_beats *b, int size)
{
    b->out = xcalloc((size_t)size, sizeof *b->out);
    for (int r = 0; r < size; r++) {
        b->out[r] = MPI_REQUEST_NULL;
    }
    for (int i = 0; i < COMM_MPI_BEATS_SLOTS; i++) {
        b->in[i] = MPI_REQUEST_NULL;
    }
}

static int post_receive(struct comm_mpi_beats *b, MPI_Request *r, struct err *e)
{
    int rc = MPI_Irecv(NULL, 0, MPI_BYTE, MPI_ANY_SOURCE, TAG_BEAT, b->comm, r);
    return rc ? comm_mpi_request_fail(rc, "MPI_Irecv", e) : 0;
}

static int collect(struct comm_mpi_beats *b, int size, int64_t now_ns, struct err *e)
{
    // Bounded, so that a peer that floods cannot hold this rank here.
    for (int i = 0; i < COMM_MPI_BEATS_SLOTS + 4 * size; i++) {
        MPI_Request *r = &b->in[b->head];
        MPI_Status status;
        int got = 0;
        int rc = MPI_Test(r, &got, &status);
        if (rc) {
            return comm_mpi_request_fail(rc, "heartbeat receive", e);
        }
        if (!got) {
            break;
        }
        beat_heard(&b->beat, status.MPI_SOURCE, now_ns);
        if (post_receive(b, r, e)) {
            return -1;
        }
        b->head = (b->head + 1) % COMM_MPI_BEATS_SLOTS;
    }
    return 0;
}

static int send_all(struct comm_mpi_beats *b, const struct comm *c, struct err *e)
{
    int first = c->rank == 0 ? 1 : 0;
    int end = c->rank == 0 ? c->size : 1;
    for (int peer = first; peer < end; peer++) {
        MPI_Request *r = &b->out[peer];
        int gone = 0;
        int rc = MPI_Test(r, &gone, MPI_STATUS_IGNORE);
        if (!rc && gone) { // else the last one is still under way, and says enough
            rc = MPI_Isend(NULL, 0, MPI_BYTE, peer, TAG_BEAT, b->comm, r);
        }
        if (rc) {
            return comm_mpi_request_fail_peer(c, rc, "heartbeat", peer, e);
        }
    }
    return 0;
}

int comm_mpi_beats_turn(struct comm_mpi_beats *b, const struct comm *c, bool judge, struct err *e)
{
    int64_t now_ns = clock_local_ns();
    if (!beat_turn(&b->beat, now_ns)) {
        return 0;
    }
    if (collect(b, c->size, now_ns, e) || (beat_send_due(&b->beat, now_ns) && send_all(b, c, e))) {
        return -1;
    }
    int64_t age_ns = 0;
    int rank = judge ? beat_silent(&b->beat, now_ns, &age_ns) : -1;
    if (rank >= 0) {
        char label[128];
        return err_set(e, ERR_ENV, "%s has been silent for %.1f s",
                       comm_label(c, rank, label, sizeof label), (double)age_ns / 1e9);
    }
    return 0;
}

int comm_mpi_beats_arm(struct comm_mpi_beats *b, const struct comm *c, int64_t timeout_ns,
                       struct err *e)
{
    bool first_time = b->beat.timeout_ns == 0;
    beat_arm(&b->beat, c->rank, c->size, timeout_ns, clock_local_ns());
    for (int i = 0; first_time && i < COMM_MPI_BEATS_SLOTS; i++) {
        if (post_receive(b, &b->in[i], e)) {
            return -1;
        }
    }
    return 0;
}

void comm_mpi_beats_drop(struct comm_mpi_beats *b, int size)
{
    for (int i = 0; i < COMM_MPI_BEATS_SLOTS; i++) {
        comm_mpi_request_drop(&b->in[i]);
    }
    for (int r = 0; r < size; r++) {
        comm_mpi_request_drop(&b->out[r]);
    }
}

void comm_mpi_beats_free(struct comm_mpi_beats *b)
{
    free(b->out);
    beat_free(&b->beat);
}
