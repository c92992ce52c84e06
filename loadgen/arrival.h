/*
 * When events are due: a renewal process. Event i lies at the sum of gaps of mean 1 / rate, each a pure
 * function of (seed, i):
 *
 *   poisson    exponential gaps
 *   gamma      gamma gaps of coefficient of variation cv: shape 1 / cv^2. Bursts for cv > 1, a pulse
 *              for cv < 1, in distribution a Poisson process for cv = 1
 *   constant   i / rate, not a sum, so that it cannot drift
 *   trace      the dataset's own times
 *
 * A ramp (ramp.h) then moves each event within the step. The draw is never rescaled to hit the nominal
 * rate: that would make the arrivals a bridge, without the process's variance of counts.
 *
 * Pure: the same arguments give the same times on every rank.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "datasets/dataset.h"
#include "loadgen/load.h"

struct arrival {
    const struct load_config *cfg; // borrowed
    double rate_rps;
    int64_t step_ns; // over which a ramp goes
    uint64_t seed;
    const struct dataset *ds; // of LOAD_TRACE, else unused
    uint64_t i;               // next event
    double sum_ns;            // of the gaps so far
};

/* rate_rps > 0 where cfg's arrival goes by a rate (load_has_rate); ds with arrival times for a trace. */
void arrival_init(struct arrival *a, const struct load_config *cfg, double rate_rps,
                  int64_t step_ns, uint64_t seed, const struct dataset *ds);

/* Time of the next event since the step's begin, never before the last one. False: no more. */
bool arrival_next(struct arrival *a, int64_t *t_ns);
