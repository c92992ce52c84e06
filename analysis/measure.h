/*
 * Everything that is computed of one step from its records and token times, before it becomes JSON:
 * the definitions of docs/measurement.md in code. Latency is of requests due in the window
 * [t_warm, t_end); throughput is of events that fall into it; counts of outcomes are of the whole step.
 *
 *   measure_begin -> measure_tokens for every record -> measure_end
 *
 * so that token times pass through in pieces and are never all in memory. Pure; one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/gaps.h"
#include "analysis/latency.h"
#include "analysis/stats.h"
#include "analysis/step.h"
#include "analysis/verdict.h"
#include "results/store.h"

#define MEASURE_BINS           60 // parts of the window: whole parts per batch of LATENCY_BATCHES
#define MEASURE_BINS_PER_BATCH (MEASURE_BINS / LATENCY_BATCHES)

/* The quantile of one objective's metric. A failed request is +INFINITY. */
struct measure_objective {
    double limit_ms; // 0: no such objective
    double quantile_ms;
    double batch_ms[LATENCY_BATCHES]; // the same per batch; NAN: empty
    /* requests (ITL: gaps) per batch, and those of them within the limit: failures are not */
    double n_batch[LATENCY_BATCHES], n_met_batch[LATENCY_BATCHES];
};

struct measure {
    const struct step_data *d; // borrowed until measure_end
    struct slo_config slo;
    bool closed_loop;
    bool recovered; // cut short by the run's death: no answer rests on it
    double window_s;

    uint64_t by_outcome[OUTCOME_N]; // whole step
    // whole step: scheduled, and tokens asked for; where replies stop by themselves, outputs count as they take
    double n_requests, tokens_in, tokens_out;
    uint64_t n_due, n_sent, n_ok, n_cancelled; // due in the window
    uint64_t n_starved;                        // cancelled without a first token
    uint64_t n_sends;                          // sent in the window, whenever due
    uint64_t n_good;                           // due in the window and every objective met
    /* (MEASURE_BINS) each, by the time of the event: */
    double due[MEASURE_BINS], due_in[MEASURE_BINS], due_out[MEASURE_BINS]; // requests, tokens asked
    double served_in[MEASURE_BINS], served_out[MEASURE_BINS], done[MEASURE_BINS];
    double in_flight[MEASURE_BINS]; // time averages

    struct latency latency[LATENCY_N];
    struct measure_objective objective[LATENCY_N];
    uint64_t n_late;       // marked late, whole step
    uint64_t n_held;       // due in the window, never sent because of the user's cap
    uint64_t n_cap_waits;  // due in the window, had to wait at the cap: held ones too
    double cap_wait_us[3]; // p50, p99, max over all due; NAN: nothing due
    double lag_us[4];      // p50, p99, p999, max; NAN: nothing sent
    double lag_p99_lo_us;  // 95 % lower bound of the p99; 0: too few for one
    double late_s;         // lag of those above RECORD_LATE_NS, summed
    struct verdict_result verdict;

    struct gaps *itl, *icl; // (LATENCY_BATCHES) each, while measuring
};

void measure_begin(struct measure *m, const struct step_data *d, const struct slo_config *slo);
/* Token times of one record, n of them: dt_us[0] = t_first - t_send, then gaps. */
void measure_tokens(struct measure *m, const struct record *r, const uint32_t *dt_us, size_t n);
void measure_end(struct measure *m);

/* Sum of bins per second of the window. */
double measure_rate(const struct measure *m, const double *bins);
/* The same with the interval of batch means. */
struct stats_interval measure_rate_interval(const struct measure *m, const double *bins);
/* Batch means say less where a request spans more than a batch: window/10 < median E2E. */
bool measure_approximate(const struct measure *m);
