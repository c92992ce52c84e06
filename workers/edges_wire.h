/*
 * One way in which bytes go from rank to rank, as edges_measure.h uses it: a name and a few functions. A
 * row is a transport, and of those that carry hidden states a run takes the first one that both ranks have:
 *
 *   ipc         memory that GPUs of a host share, where they reach each other's
 *   nccl        between GPUs that are not the same one, where all ranks find it
 *   mpi         the bulk plane, from and into host memory: hidden states, and sums between ranks
 *   messages    the message plane: batches, ids, tokens, requests; copied at both ends
 *
 * One message is received and one sent at a time; buffers belong to the wire and their content means
 * nothing. Main thread of the rank.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/comm.h"
#include "core/err.h"
#include "workers/edges_hops.h"

#define EDGES_WIRE_MAX_MESSAGE ((size_t)128 << 10) // of the message plane

struct edges_wire {
    struct comm *comm;
    void *large;                  // (max_bytes) what is measured, in or out
    char answer_in[8], answer[8]; // what goes back
    struct comm_req in, out;
    size_t n_in; // bytes expected
    int peer;
    struct edges_hops *hops; // with the peer; of rows on devices
};

enum edges_need {
    EDGES_NEED_NOTHING,
    EDGES_NEED_REACH, // two GPUs that reach each other's memory
    EDGES_NEED_NCCL,  // two GPUs that are not the same one, and NCCL for all ranks
};

struct edges_wire_kind {
    const char *name;
    bool carries_hidden;
    enum edges_need needs; // but for the first, it goes from GPU to GPU
    size_t max_bytes;      // of a message; 0: any
    /* Begin to receive, or to send, n_bytes from or to w->peer. */
    int (*recv)(struct edges_wire *w, size_t n_bytes, struct err *e);
    int (*send)(struct edges_wire *w, size_t n_bytes, struct err *e);
    /* 1 when that is over, 0 not yet, -1 error. */
    int (*received)(struct edges_wire *w, struct err *e);
    int (*sent)(struct edges_wire *w, struct err *e);
};

/* Row i, NULL behind the last one. */
const struct edges_wire_kind *edges_wire_row(int i);
