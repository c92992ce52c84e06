/*
 * The early end of an overloaded step: load ranks say four times a second how many of their requests wait
 * (WIRE_WAITING); rank 0 adds them up, asks loadgen/overload.h, and brings the step's end forward on all
 * of them (WIRE_STEP_STOP), so that the same requests are offered whatever the number of ranks. Owned
 * by the coordinator; one per rank.
 */
#pragma once

#include <stdbool.h>

#include "core/comm.h"
#include "loadgen/loop.h"
#include "loadgen/overload.h"
#include "model/wire.h"

struct early_stop { // zeroed, then early_stop_init
    struct comm *comm;
    int n_load_ranks;
    struct wire_step step;
    int64_t t_told_ns;        // other load ranks
    struct overload overload; // rank 0
    uint64_t *n_waiting;      // (n_load_ranks) last told, rank 0
    bool is_stopped;
};

void early_stop_init(struct early_stop *s, struct comm *comm, int n_load_ranks);
void early_stop_free(struct early_stop *s);

/* A step begins. cv of the gaps between arrivals; ttft_s as overload_begin takes it. */
void early_stop_begin(struct early_stop *s, const struct wire_step *step, double cv, double ttft_s);

/* Each turn of the loop, every load rank: tells, or (rank 0) looks. 1: the step stops now, *stop says
 * when; the caller keeps it. 0: nothing. -1: a peer failed. */
int early_stop_tick(struct early_stop *s, struct loop *loop, int64_t now_ns,
                    struct wire_step_stop *stop, struct err *e);

/* A WIRE_WAITING (rank 0) or WIRE_STEP_STOP (others) message; false: it is malformed. One of an earlier
 * step is passed over. */
bool early_stop_message(struct early_stop *s, struct loop *loop, const struct comm_msg *m);
