/*
 * A step's whole schedule, before the step starts: event i = f(seed of the step, i), the same for
 * any number of load ranks. Rank r of L owns the events with i % L == r. Every rank walks the whole
 * schedule (arrivals are prefix sums), keeps its own events, and hashes all of them.
 *
 * An event may be a conversation: the schedule has its first turn, and later ones are due when the reply
 * before them has ended and their think time is over (turns.h). Their contents are no less decided.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/dataset.h"
#include "loadgen/load.h"

struct plan_event {
    int64_t t_ns; // since the step's begin
    uint64_t id;  // i; of a later turn: turns_id
    uint32_t n_in, n_out;
    uint32_t n_turns; // of its conversation; 0: none
    uint32_t reserved;
};

struct plan {
    struct plan_event *events; // (n) own events by time
    size_t n;
    uint64_t n_total;       // of all ranks
    uint64_t n_filtered;    // draws that did not fit the context, own share
    size_t n_conversations; // own events of more than one turn
    uint64_t hash; // xxh64 over (id, t_ns, n_in, n_out) of all events, and n_turns of conversations
    uint64_t n_tokens; // sum of n_out over own events
};

/* What no single table of settings can check: arrivals of a trace need a trace. ERR_INPUT. */
int plan_check(const struct load_config *cfg, const struct dataset *ds, struct err *e) ERR_CHECKED;

/* Open loop: all events with t < duration_ns. rate_rps is the nominal rate (ignored for traces). */
int plan_build(struct plan *p, const struct load_config *cfg, const struct dataset *ds,
               double rate_rps, int64_t duration_ns, uint64_t seed, int rank, int n_ranks,
               struct err *e) ERR_CHECKED;
/* Closed loop: no events before the step; the hash is over every user's first turn. */
void plan_build_closed(struct plan *p, const struct dataset *ds, uint64_t seed, uint32_t users);
void plan_free(struct plan *p);

/* Turn `turn` of event `event`, without a time. How many draws of the conversation did not fit. */
uint32_t plan_turn(const struct dataset *ds, uint64_t seed, uint64_t event, uint32_t turn,
                   struct plan_event *ev);

/* How long a trace lasts: its last arrival and one mean gap. 0 for a dataset without arrivals. */
int64_t plan_trace_ns(const struct dataset *ds);
