/*
 * Which step comes next: a pure state machine, verdicts in, rates out. Rank 0 asks search_next, runs
 * the step, and tells search_report what came of it; a run that is resumed reports the steps that
 * its file holds, in order, and goes on from there. Replaying the rates as a list gives the same
 * schedules, since a step's seed depends on its index alone.
 *
 *   list          the rates as given, all of them
 *   start auto    first a closed-loop probe (kind base): its output tokens/s over the mean output of
 *                 a request is the rate it sustained; the sweep starts at 0.2 of that
 *   geometric     start, times factor, ..., until saturated or max_steps rates
 *   trace         one step as long as the trace, at the mean rate of its arrivals
 *   closed        one step of load.users users (kind base: it offers no rate)
 *
 * Saturated: two overloaded steps in a row. unstable, errors and client_limited are overloaded: the
 * target queues, refuses, or more cannot be offered. stable starts the count again; too_short says
 * nothing and leaves it as it is, since a window goes short of long requests just when they queue; and so
 * does an unstable step that served nearly all it was offered: a burst, not the plateau that the fit of the
 * saturation point needs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "loadgen/load.h"
#include "results/record.h"

#define SEARCH_PROBE_USERS 32  // per replica, where load.users does not say
#define SEARCH_KEPT_UP     0.9 // of what was offered: no sign of saturation
#define SEARCH_PROBE_SHARE 0.2 // of the probe's rate, where the sweep starts

struct search_step {
    enum step_kind kind;
    double rate_rps;     // nominal; 0 in a closed loop
    uint32_t users;      // closed loop, else 0
    int64_t duration_ns; // t_end - t_begin
};

struct search_result { // of a finished step
    enum step_kind kind;
    double rate_rps;
    enum verdict verdict;
    double output_tokens_per_s;         // served in its window
    double offered_output_tokens_per_s; // due in its window; 0: not known
    double output_tokens_per_request;   // mean length asked for
};

struct search {
    const struct load_config *cfg; // borrowed
    uint32_t users;                // of probe and closed loop
    int64_t trace_ns;
    double trace_rps;
    bool is_probed; // or needs no probe
    double start_rps;
    int64_t n_rates; // steps of the sweep done
    int n_over;      // the last so many of them were overloaded
};

/* trace_ns and n_arrivals of the dataset's trace (plan_trace_ns), used by load.arrival: trace. */
void search_init(struct search *s, const struct load_config *cfg, int replicas, int64_t trace_ns,
                 uint64_t n_arrivals);

/* False when there is nothing left to do; search_ending then says why. */
bool search_next(const struct search *s, struct search_step *out);
void search_report(struct search *s, const struct search_result *r);

/* Why search_next says no, as the end of a sentence: "two overloaded steps in a row". */
const char *search_ending(const struct search *s);

/* Most steps a run can have, probe included: for progress and for estimates. */
int64_t search_most_steps(const struct search *s);
