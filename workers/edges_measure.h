/*
 * Measuring the edges between all ranks of a job (workers/edges.h): in rounds of disjoint pairs
 * (workers/edges_plan.h), each pair in both directions over each transport (workers/edges_wire.h).
 * Before that each rank copies within its own memory, one rank of a host at a time. Ranks wait as
 * those of a run do, so that what a wait adds where ranks share cores is part of the figures.
 *
 * Edges between GPUs are those of pairs that have them (edges_wire.h); a pair makes its hops, and sends a message each
 * way by each, before its turns begin: NCCL's communicators take seconds.
 *
 * Collective, the main thread of all ranks. No wait is without a deadline; a rank that answers nothing
 * is named by whoever notices first, and by the heartbeats that the caller has armed.
 */
#pragma once

#include "core/comm.h"
#include "core/err.h"
#include "workers/backend.h"
#include "workers/edges.h"

#define EDGES_MEASURE_MESSAGE_BYTES ((size_t)128 << 10) // for comm_start: the longest message

struct edges_measure {
    size_t max_bytes;    // of a message
    int64_t budget_ns;   // for everything
    struct backend *gpu; // of this rank, for edges between GPUs; NULL: it has none
    /* Rank 0, before each round: true ends it all with an error. May be NULL. */
    bool (*stop)(void *arg, int round, int n_rounds, int64_t left_ns);
    void *arg;
};

/* Rank 0 gets everything, judged; on other ranks `out` stays empty. */
int edges_measure(const struct edges_measure *m, struct comm *comm, struct edges *out,
                  struct err *e) ERR_CHECKED;
