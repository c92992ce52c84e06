/*
 * A replica on a virtual clock, in one process and without any: the real scheduler (sched.h) over
 * simulated stages and links, from event to event. What hours of traffic would do to a pipeline is
 * known in seconds; the same calls give the same times, bit for bit.
 *
 * Stages compute one batch at a time, in order, each for the time that the costs say; a link carries
 * one message at a time; stage 0 takes a new batch when it is free. Beside the costs nothing takes
 * time: neither the scheduler nor a rank that looks late. Formulas that it meets exactly: one stage and
 * fixed service is the queue M/D/1; with as many lanes as stages the throughput is 1 / slowest stage;
 * m batches through p equal stages take m + p - 1 of them.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "results/record.h"
#include "workers/sched.h"
#include "workers/sim/costs.h"

#define VIRTUAL_NEVER INT64_MAX

struct virtual_request {
    int64_t t_due_ns; // in: rising; in a closed loop out: when it was sent
    uint32_t n_in, n_out;
    // out; VIRTUAL_NEVER where it did not come to that
    int64_t t_begin_ns; // its first batch was built
    int64_t t_first_ns, t_last_ns;
    int64_t t_latest_ns; // the last token that there was, when the run ended
    uint32_t n_done;     // tokens by then
    bool rejected;
};

struct virtual_config {
    struct sched_config sched;
    const struct arch *arch;
    const struct costs *costs;
    const struct costs *stages; // (n_stages) of each, with the edge behind it; NULL: `costs` of all
    int n_stages;
    const int *first;   // (n_stages + 1)
    uint32_t users;     // a closed loop of so many; 0: requests come when due
    int64_t t_until_ns; // what is not done by then stays so; 0: until all are
};

struct virtual_stage {
    double busy_ns;
    uint64_t n_batches;
};

struct virtual_result {
    int64_t t_end_ns; // of the last event
    uint64_t n_batches, n_tokens_in, n_tokens_out;
    double held_ns; // in which the replica had work
    struct virtual_stage stages[RECORD_MAX_STAGES];
    uint32_t most_waiting, most_running;
    double most_kv;      // share of the blocks
    double mean_running; // over t_end_ns
};

/* ERR_ENV: no memory. */
int virtual_run(const struct virtual_config *cfg, struct virtual_request *requests, size_t n,
                struct virtual_result *out, struct err *e) ERR_CHECKED;
