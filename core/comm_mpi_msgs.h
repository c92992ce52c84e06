/*
 * The message plane: small messages, copied on the way out, received into a ring of buffers posted
 * ahead. What a peer has not taken is bounded.
 */
#pragma once

#include "core/comm_mpi_request.h"

struct comm_mpi_msgs_slot;
struct comm_mpi_msgs_outgoing;

struct comm_mpi_msgs {
    MPI_Comm comm;
    struct comm_mpi_msgs_slot *slots; // (n_slots), a ring: matched, and so tested, as posted
    unsigned char *slots_mem;
    int n_slots, head;
    struct comm_mpi_msgs_slot *handed_out; // by the last take; posted again by the next

    struct comm_mpi_msgs_outgoing *out; // (comm.n_unsent of cap_out), any order
    int cap_out, next_out;
    size_t *backlog_bytes; // (size) sent to each and not yet taken
};

void comm_mpi_msgs_init(struct comm_mpi_msgs *m, int size);

/* Post the receives, each of c->max_msg_bytes. */
int comm_mpi_msgs_start(struct comm_mpi_msgs *m, const struct comm *c, struct err *e) ERR_CHECKED;

int comm_mpi_msgs_post(struct comm_mpi_msgs *m, struct comm *c, int dst, int tag, const void *data,
                       size_t n_bytes, struct err *e) ERR_CHECKED;

/* Give back the copies of sends that have ended; tests a few at a time, in turns. */
int comm_mpi_msgs_reap(struct comm_mpi_msgs *m, struct comm *c, struct err *e) ERR_CHECKED;

/* 1 with *msg, valid until the next call, 0 when the oldest receive is still open. */
int comm_mpi_msgs_take(struct comm_mpi_msgs *m, const struct comm *c, struct comm_msg *msg,
                       struct err *e) ERR_CHECKED;

void comm_mpi_msgs_drop(struct comm_mpi_msgs *m); // the posted receives
void comm_mpi_msgs_free(struct comm_mpi_msgs *m);
