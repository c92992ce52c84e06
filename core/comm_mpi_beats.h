/*
 * The heartbeat plane: empty messages between rank 0 and every other rank, sent and collected.
 * Who has been silent is beat.h's to say.
 */
#pragma once

#include "core/beat.h"
#include "core/comm_mpi_request.h"

enum {
    COMM_MPI_BEATS_SLOTS = 16,
};

struct comm_mpi_beats {
    MPI_Comm comm;
    struct beat beat;
    MPI_Request in[COMM_MPI_BEATS_SLOTS]; // a ring: matched, and so tested, in the order posted
    int head;
    MPI_Request *out; // (size) the last one sent to each
};

void comm_mpi_beats_init(struct comm_mpi_beats *b, int size);
int comm_mpi_beats_arm(struct comm_mpi_beats *b, const struct comm *c, int64_t timeout_ns,
                       struct err *e) ERR_CHECKED;

/* Collect, send, and fail with the name of a silent rank; `judge` false: accuse nobody. */
int comm_mpi_beats_turn(struct comm_mpi_beats *b, const struct comm *c, bool judge,
                        struct err *e) ERR_CHECKED;

void comm_mpi_beats_drop(struct comm_mpi_beats *b, int size); // what is still under way
void comm_mpi_beats_free(struct comm_mpi_beats *b);
