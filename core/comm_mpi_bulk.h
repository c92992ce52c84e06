/*
 * The bulk plane: transfers from and into the caller's own buffers, any number under way.
 */
#pragma once

#include "core/comm_mpi_request.h"

struct comm_mpi_bulk_transfer;

struct comm_mpi_bulk {
    MPI_Comm comm;
    struct comm_mpi_bulk_transfer *idle, *newest; // to be used again; all there are
};

int comm_mpi_bulk_isend(struct comm_mpi_bulk *b, const struct comm *c, const void *buf,
                        size_t n_bytes, int dst, int tag, struct comm_req *r,
                        struct err *e) ERR_CHECKED;
int comm_mpi_bulk_irecv(struct comm_mpi_bulk *b, const struct comm *c, void *buf, size_t cap_bytes,
                        int src, int tag, struct comm_req *r, struct err *e) ERR_CHECKED;
int comm_mpi_bulk_test(struct comm_mpi_bulk *b, const struct comm *c, struct comm_req *r,
                       struct err *e) ERR_CHECKED;
void comm_mpi_bulk_cancel(struct comm_mpi_bulk *b, struct comm *c, struct comm_req *r);
void comm_mpi_bulk_free(struct comm_mpi_bulk *b);
