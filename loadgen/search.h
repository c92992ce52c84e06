/*
 * Which step comes next: a pure state machine, results in, steps out. Rank 0 asks search_next, runs
 * the step, and tells search_report what came of it; a run that is resumed reports the steps that
 * its file holds, in order, and goes on from there. The next step is a function of the settings and of
 * what was reported, and of nothing else. Replaying the rates as a list gives the same schedules, since
 * a step's seed depends on its index alone.
 *
 *   rates (search_sweep.h)    a list, or start, times factor, ... and what refines it
 *   slo (search_slo.h)        the highest rate at which the objectives hold
 *   ladder (search_ladder.h)  closed loops of 1, 2, 4, ... users
 *   trace                     one step as long as the trace, at the mean rate of its arrivals
 *   closed                    one step of load.users users (kind base: it offers no rate)
 *
 * start auto: first a closed-loop probe (kind base): its output tokens/s over the mean output of a
 * request is the rate it sustained; the sweep starts at 0.2 of that.
 *
 * load.repeats: the first pass finds the steps, each further one runs the same ones (not the probe) with
 * the seeds of their own indices.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
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
    uint32_t repeat;     // pass, 0-based
    bool may_stop;       // overload beyond doubt ends it early
};

enum search_slo { // whether the objectives hold at a rate, by an interval over all steps at it
    SEARCH_UNDECIDED,
    SEARCH_MET,
    SEARCH_MISSED,
};

struct search_result { // of the step that search_next said
    enum verdict verdict;
    double output_tokens_per_s;         // served in its window
    double offered_output_tokens_per_s; // due in its window; 0: not known
    double output_tokens_per_request;   // mean length asked for
    enum search_slo slo;                // used by slo searches
    bool meets;                         // the objectives, as observed; used by ladders
};

struct search_past {
    struct search_step step;
    struct search_result result;
};

struct search {
    const struct load_config *cfg; // borrowed
    uint32_t users;                // of probe and closed loop
    int64_t trace_ns;
    double trace_rps;
    struct search_past *past; // (n_past), owned
    size_t n_past, n_allocated;
    size_t n_first; // steps of the first pass; 0: not known yet
};

/* trace_ns and n_arrivals of the dataset's trace (plan_trace_ns), used by load.arrival: trace. */
void search_init(struct search *s, const struct load_config *cfg, int replicas, int64_t trace_ns,
                 uint64_t n_arrivals);
void search_free(struct search *s);

/* False when there is nothing left to do; search_ending then says why. */
bool search_next(const struct search *s, struct search_step *out);
/* What came of the step that search_next says; there must be one. */
void search_report(struct search *s, const struct search_result *r);

/* Why search_next says no, as the end of a sentence: "two overloaded steps in a row". */
const char *search_ending(const struct search *s);

/* Most steps a run can have, probe included: for progress and for estimates. */
int64_t search_most_steps(const struct search *s);

/* --- for the parts of the search --------------------------------------------------------------- */

/* How many of `past` are of the first pass. */
size_t search_first_pass(const struct search *s);

/* Where rates start: load.rates.start, or what the probe found; 0: it found nothing. */
double search_start_rps(const struct search *s);

/* Whether the target queued, refused, or more could not be offered. */
bool search_is_over(const struct search_result *r);

/* The next rate between two: their geometric mean to three digits; 0: they are within load.rates.bisect
 * of each other, or next to each other. */
double search_between(const struct search *s, double low_rps, double high_rps);

/* How often search_between says one for a bracket as wide as load.rates.factor, at most. */
int64_t search_most_between(const struct search *s);

/* The lowest rate of the sweep that is good, offered once more at the end; false: done, or none. */
bool search_revisit(const struct search *s, bool (*is_good)(const struct search_result *r),
                    struct search_step *out);

/* A step of load.step at a rate. */
struct search_step search_step_at(const struct search *s, enum step_kind kind, double rate_rps);
