/*
 * Clock offsets between ranks, by ping-pong with rank 0 over the bulk plane: of `n_rounds` round
 * trips the shortest decides: offset = rank 0's stamp - midpoint of the two local stamps, bound =
 * half of that round trip (Cristian 1989). Ranks of rank 0's host share its clock: offset and bound
 * are 0 unless the measurement contradicts that. Collective. Before a run the offset goes to
 * clock_set_offset_ns; after the run it is measured again, and the difference is the drift.
 */
#pragma once

#include <stdint.h>

#include "core/comm.h"

struct clocksync {
    int64_t offset_ns; // rank 0's clock minus this rank's CLOCK_MONOTONIC
    int64_t bound_ns;  // the true offset is within +- this
};

int clocksync_measure(struct comm *c, int n_rounds, struct clocksync *out,
                      struct err *e) ERR_CHECKED;
