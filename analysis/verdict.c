#include "analysis/verdict.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define MAX_FAILED      0.01
#define MIN_SENT        0.99
#define MIN_LAG_MS      1.0
#define MAX_LAG_OF_TTFT 0.01
#define MAX_LATE        0.01 // of the time of a closed loop's users
#define MIN_FINISHED    30
#define MIN_E2E_WINDOWS 2.0
#define MIN_GROWTH      0.01 // of the offered rate
#define MIN_DRIFT       1.5
#define MIN_SERVED      0.9
#define MAX_UNFINISHED  0.05

static double share(uint64_t part, uint64_t whole)
{
    return whole ? (double)part / (double)whole : 0;
}

static bool decide(struct verdict_result *out, enum verdict v, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static bool decide(struct verdict_result *out, enum verdict v, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    out->verdict = v;
    vsnprintf(out->reason, sizeof out->reason, fmt, ap);
    va_end(ap);
    return true;
}

static double drift(const struct verdict_evidence *v)
{
    return v->ttft_first_ms > 0 ? v->ttft_last_ms / v->ttft_first_ms : STATS_NONE;
}

static bool has_errors(const struct verdict_evidence *v, struct verdict_result *out)
{
    double failed = share(v->n_failed, v->n_scheduled);
    return failed > MAX_FAILED &&
           decide(out, VERDICT_ERRORS, "%.1f %% of %llu scheduled requests failed (limit 1 %%)",
                  100 * failed, (unsigned long long)v->n_scheduled);
}

static bool is_client_limited(const struct verdict_evidence *v, struct verdict_result *out)
{
    double limit_ms = fmax(MIN_LAG_MS, MAX_LAG_OF_TTFT * v->ttft_p50_ms);
    uint64_t n_free = v->n_due - v->n_held;
    if (n_free && share(v->n_sent, n_free) < MIN_SENT) {
        return decide(out, VERDICT_CLIENT_LIMITED, "only %.1f %% of %llu due requests were sent",
                      100 * share(v->n_sent, n_free), (unsigned long long)n_free);
    }
    return v->lag_p99_lo_ms > limit_ms &&
           decide(out, VERDICT_CLIENT_LIMITED,
                  "send lag p99 >= %.2f ms with 95 %% confidence (limit %.2f ms)", v->lag_p99_lo_ms,
                  limit_ms);
}

/* A client that stands still makes each user of a closed loop late once, however long: percentiles of
 * the lag hardly see it. */
static bool keeps_users_waiting(const struct verdict_evidence *v, struct verdict_result *out)
{
    return v->late_share > MAX_LATE &&
           decide(out, VERDICT_CLIENT_LIMITED,
                  "users waited %.1f %% of their time for the client to send (limit 1 %%)",
                  100 * v->late_share);
}

static bool overloaded(const struct verdict_evidence *v, struct verdict_result *out)
{
    return decide(out, VERDICT_UNSTABLE,
                  "in-flight grows %.2f/s (>= %.2f at 95 %%, limit %.2f), TTFT %s%.1f over the "
                  "window, served %.0f %% of offered, %.0f %% unfinished",
                  v->in_flight.slope, v->in_flight.lower, MIN_GROWTH * v->offered_rps,
                  v->ttft_last_unknown ? "> x" : "x", drift(v),
                  100 * v->served_tokens_per_s / v->offered_tokens_per_s,
                  100 * share(v->n_unfinished, v->n_due));
}

static bool is_clearly_overloaded(const struct verdict_evidence *v, struct verdict_result *out)
{
    if (v->stopped_s > 0) {
        return decide(out, VERDICT_UNSTABLE,
                      "stopped early after %.1f of %.1f s: more waited for a first token than any "
                      "stable target has; served %.0f %% of offered",
                      v->stopped_s, v->planned_s,
                      100 * v->served_tokens_per_s / v->offered_tokens_per_s);
    }
    bool symptoms = v->served_tokens_per_s < MIN_SERVED * v->offered_tokens_per_s ||
                    share(v->n_unfinished, v->n_due) > MAX_UNFINISHED;
    if (out->growing && out->drifting && symptoms) {
        return overloaded(v, out);
    }
    double starved = share(v->n_starved, v->n_due);
    return starved > MAX_UNFINISHED &&
           decide(out, VERDICT_UNSTABLE, "%.1f %% had no first token when the drain ended",
                  100 * starved);
}

static bool is_too_short(const struct verdict_evidence *v, struct verdict_result *out)
{
    if (out->short_window) {
        return decide(out, VERDICT_TOO_SHORT, "window of %.1f s is under 2 x median E2E of %.2f s",
                      v->window_s, v->e2e_p50_ms * 1e-3);
    }
    if (v->n_finished < MIN_FINISHED) {
        return decide(out, VERDICT_TOO_SHORT, "%llu requests finished, fewer than %d",
                      (unsigned long long)v->n_finished, MIN_FINISHED);
    }
    double unfinished = share(v->n_unfinished, v->n_due);
    return unfinished > MAX_UNFINISHED &&
           decide(out, VERDICT_TOO_SHORT,
                  "%.1f %% unfinished when the drain ended, though no queue grew: longer drain",
                  100 * unfinished);
}

static bool is_unstable(const struct verdict_evidence *v, struct verdict_result *out)
{
    return out->growing && out->drifting && overloaded(v, out);
}

static void stable(const struct verdict_evidence *v, struct verdict_result *out)
{
    decide(out, VERDICT_STABLE, "in-flight slope %.2f/s (>= %.2f at 95 %%, limit %.2f), TTFT x%.2f",
           v->in_flight.slope, v->in_flight.lower, MIN_GROWTH * v->offered_rps, drift(v));
}

/* It offers only what it is served, so that no queue can grow. */
static void judge_closed_loop(const struct verdict_evidence *v, struct verdict_result *out)
{
    if (!is_client_limited(v, out) && !keeps_users_waiting(v, out) && !is_too_short(v, out)) {
        decide(out, VERDICT_STABLE, "closed loop: %llu finished, %.1f %% of time lost to lag",
               (unsigned long long)v->n_finished, 100 * v->late_share);
    }
}

void verdict_judge(const struct verdict_evidence *v, struct verdict_result *out)
{
    *out = (struct verdict_result){
        .growing = v->in_flight.lower > MIN_GROWTH * v->offered_rps,
        .drifting = drift(v) > MIN_DRIFT || v->ttft_last_unknown,
        .short_window = v->window_s * 1e3 < MIN_E2E_WINDOWS * v->e2e_p50_ms,
    };
    if (has_errors(v, out)) {
        return;
    }
    if (v->closed_loop) {
        judge_closed_loop(v, out);
        return;
    }
    if (!is_client_limited(v, out) && !is_clearly_overloaded(v, out) && !is_too_short(v, out) &&
        !is_unstable(v, out)) {
        stable(v, out);
    }
}
