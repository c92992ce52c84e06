/*
 * The verdict of a step, the first that holds:
 *
 *   errors          more than 1 % of the scheduled requests failed
 *   client_limited  sent/scheduled < 0.99 (what the user's own cap held back to the end is not counted), or p99 send lag > max(1 ms, 1 % of the median TTFT), decided by
 *                   the 95 % lower bound of the p99: in a step of 60 requests the p99 is the largest
 *                   value, and one late wake-up is no proof that 1 % are late; or the users of a closed
 *                   loop waited more than 1 % of their time for late sends
 *   unstable        clear overload: in-flight requests grow and TTFT drifts, and either less than 90 %
 *                   of the offered tokens was served or more than 5 % were unfinished after the drain;
 *                   or more than 5 % had not even a first token when the drain ended; or the step was
 *                   stopped early by a test of its own (loadgen/overload.h)
 *   too_short       fewer than 30 finished, window < 2 x median E2E, or more than 5 % unfinished
 *   unstable        in-flight requests grow and TTFT drifts
 *   stable
 *
 * In-flight grows: the one-sided 95 % lower bound of its slope (AR(1) effective sample size) is above
 * 1 % of the offered rate. TTFT drifts: the median of the last third of the window is more than 1.5
 * times that of the first. A request without a first token when the drain ended enters these medians
 * with the time it had waited, a lower bound; when that is the median of the last third, TTFT drifts
 * without a number.
 *
 * Clear overload comes before too_short because overload itself makes E2E long against the window: a
 * short step far beyond capacity says `unstable` with certainty however short it is. What was merely
 * unfinished when the drain ended (cancelled) is a symptom of overload, or of a short drain, but not an
 * error: it counts as failed in the tables, and never makes the verdict `errors`.
 *
 * A closed loop offers only what it is served: it can be errors, client_limited, too_short or stable,
 * and never unstable. Its q is when the reply before has ended and the think time is over, so that s - q is
 * the client's own there too. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/stats.h"
#include "results/record.h"

struct verdict_evidence {
    bool closed_loop;
    uint64_t n_scheduled, n_failed; // of the whole step; failed: neither ok nor cancelled
    uint64_t n_due, n_sent,
        n_held; // due in the window; of these, sent; held back by the user's cap
    uint64_t n_finished, n_unfinished; // of those due, ok; cancelled
    uint64_t n_starved;                // of those cancelled, without a first token
    double window_s, offered_rps;
    double offered_tokens_per_s, served_tokens_per_s; // output
    double lag_p99_lo_ms;
    double late_share;                  // closed loop: of its users' time, waited for late sends
    double ttft_p50_ms;                 // with lower bounds for what has none
    double ttft_first_ms, ttft_last_ms; // the same over the first and the last third
    bool ttft_last_unknown;             // the latter is a lower bound
    double e2e_p50_ms;                  // of finished requests
    double stopped_s, planned_s;        // stopped early after so long; 0: not
    struct stats_slope in_flight;       // requests per s
};

struct verdict_result {
    enum verdict verdict;
    bool growing, drifting; // the two parts of the slope rule: growing and drifting = overloaded
    bool short_window;      // window < 2 x median E2E: rates in it are not those of a steady state
    char reason[160];
};

void verdict_judge(const struct verdict_evidence *v, struct verdict_result *out);
