/*
 * The critical path of requests of an internal target: where the time from due to first token, and to
 * last token, went. Means over the finished requests due in the window, in ms, on one clock. The parts
 * of a request cover it without gaps; what they miss is `unexplained`: the sum of absolute misses over
 * the sum of times. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "results/store.h"

struct critical {
    uint64_t n; // requests with a trace
    double total_ms;
    double client_lag_ms;               // s - q
    double transport_ms;                // to the leader
    double queue_ms;                    // there, until admitted to a lane; again after a preemption
    double stage_ms[RECORD_MAX_STAGES]; // (n_stages) compute
    double hops_ms;                     // between stages and back to the leader
    double bubble_ms;                   // waiting for a busy stage or a free lane
    double return_ms;                   // from the last stage to the load rank
    double unexplained_share;
};

/* phase 0: up to the first token, 1: up to the last. */
void critical_path(const struct step_data *d, int phase, struct critical *out);
