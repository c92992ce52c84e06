/*
 * The settings of offered load: `load.*` and what a step is. Transparent; owned by the run's config.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/opt.h"
#include "loadgen/ramp.h"

enum load_arrival {
    LOAD_POISSON,
    LOAD_CONSTANT,
    LOAD_GAMMA,  // renewal process, gaps of load.arrival.cv
    LOAD_TRACE,  // arrival times of the dataset
    LOAD_CLOSED, // load.users users, each sends when its reply has ended
};

struct load_config {
    int64_t ranks;                 // L
    int arrival;                   // enum load_arrival
    double arrival_cv;             // of gamma gaps: standard deviation over mean
    struct ramp ramp;              // of the rate within each step
    int64_t users;                 // of a closed loop and of the probe; 0: probe picks
    struct opt_numbers rates_list; // rates as a list; empty: geometric
    char *rates_start;             // "auto" or a rate
    double rates_factor;           // > 1
    int rates_until;               // enum load_until
    int64_t rates_max_steps;
    double rates_bisect;           // (high - low) / low at which a bracket is narrow enough; 0: any
    struct opt_numbers rates_fill; // multiples of the knee
    bool rates_revisit;
    bool rates_slo;       // search the objectives' rate, not saturation
    int64_t rates_extend; // doublings of an undecided rate
    bool rates_stop_early;
    int concurrency;                     // enum load_concurrency
    struct opt_numbers concurrency_list; // a ladder of users; empty: none
    int64_t repeats;                     // passes, >= 1
    int64_t step_ns;
    int64_t drain_ns;
    double warmup; // share of the step
    int64_t probe_ns;
    int64_t seed;
    bool ignore_eos;         // outputs have exactly the length asked for
    int64_t max_concurrency; // requests in flight of the whole run, 0: no cap; what is due waits
    int64_t max_in_flight;   // live requests per load rank; what is due beyond it waits and is late
};

enum load_until {
    LOAD_UNTIL_SATURATED, // two unstable rates in a row, or max_steps
    LOAD_UNTIL_MAX_STEPS,
};

enum load_concurrency {
    LOAD_CONCURRENCY_OFF,
    LOAD_CONCURRENCY_BEST,
};

extern const struct opt_table load_options;

/* Checks across keys (arrival trace needs a trace, rates rise, ...). ERR_INPUT. */
int load_check(const struct load_config *c, struct err *e) ERR_CHECKED;
/* Before a run: a list of rates has no keys of a search beside it, which would say nothing. */
int load_check_rates(const struct load_config *c, struct err *e) ERR_CHECKED;

/* Whether the steps are closed loops of several sizes (load.concurrency). */
bool load_is_ladder(const struct load_config *c);

/* Whether steps go by a rate: not at a trace's own times, not in a closed loop. */
bool load_has_rate(const struct load_config *c);

/* Expected requests of a step at this nominal rate: its ramp counts. */
double load_expected(const struct load_config *c, double rate_rps, int64_t step_ns);

/* Seed of step k: f(run seed, k). */
uint64_t load_step_seed(const struct load_config *c, uint32_t step);

/* load.rates.start as a rate; 0: auto. */
double load_start_rps(const struct load_config *c);
