/*
 * MPI requests: an MPI error in our words, and a request given up when the world is left. Like the
 * planes (comm_mpi_msgs.h, comm_mpi_bulk.h, comm_mpi_beats.h), for comm_mpi*.c only.
 */
#pragma once

#include "core/comm_impl.h"

#include <mpi.h>

/* Both return -1. The second names the peer in front. */
int comm_mpi_request_fail(int rc, const char *call, struct err *e);
int comm_mpi_request_fail_peer(const struct comm *c, int rc, const char *call, int peer,
                               struct err *e);

void comm_mpi_request_drop(MPI_Request *r);
