/*
 * When events are due. Event i of a Poisson process is the sum of i + 1 exponential gaps, each a pure
 * function of (seed, i); event i of a constant rate is i / rate, not a sum, so that it cannot drift;
 * a trace has its own times. The draw is never rescaled to hit the nominal rate: that would make the
 * arrivals a bridge, without a Poisson process's variance of counts.
 *
 * Pure: the same arguments give the same times on every rank.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "datasets/dataset.h"
#include "loadgen/load.h"

struct arrival {
    enum load_arrival kind;
    double rate_rps;
    uint64_t seed;
    const struct dataset *ds; // of LOAD_TRACE, else unused
    uint64_t i;               // next event
    double sum_ns;            // of the gaps so far
};

/* rate_rps > 0 for poisson and constant; ds with arrival times for a trace. */
void arrival_init(struct arrival *a, enum load_arrival kind, double rate_rps, uint64_t seed,
                  const struct dataset *ds);

/* Time of the next event since the step's begin, never before the last one. False: no more. */
bool arrival_next(struct arrival *a, int64_t *t_ns);
