/*
 * One latency metric of one step: exact percentiles over raw values, intervals, and what the failed
 * requests do to them. Values are ms. Used for values of requests (an array) and for gaps between
 * tokens (counters). Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "analysis/gaps.h"
#include "results/record.h"

#define LATENCY_BATCHES 10 // of batch means: blocks of window/10

/* A p99 that rests on fewer requests is starred: with 459 the largest value is above the true p99
 * with 99 % confidence (0.99^459 < 0.01). */
#define LATENCY_P99_REQUESTS 459

enum latency_metric {      // order of the report
    LATENCY_TTFT,          // f - q
    LATENCY_TTFT_SERVICE,  // f - s
    LATENCY_TTFC,          // c - q: the first content token, past the reasoning
    LATENCY_ITL,           // gaps between tokens: of tokens, not of requests
    LATENCY_ICL,           // gaps between chunks: of messages or events that carried tokens
    LATENCY_TPOT,          // (l - f) / (n - 1), n > 1
    LATENCY_NTPOT,         // (l - q) / n
    LATENCY_NTPOT_SERVICE, // (l - s) / n
    LATENCY_E2E,           // l - q
    LATENCY_E2E_SERVICE,   // l - s
    LATENCY_N,
};
extern const char *const latency_names[LATENCY_N]; // "ttft_ms", ...

/* Output tokens of a record: the server's count where it gave one. */
uint32_t latency_tokens_out(const struct record *r);
/* Prompt tokens: as the server reported, else as asked for. */
uint32_t latency_tokens_in(const struct record *r);

/* The metric of one request in ms; NAN when it failed or has no such value. Not for ITL and ICL. */
double latency_value_ms(const struct record *r, enum latency_metric m);

struct latency {
    uint64_t n;
    double mean, sd, min, p50, p90, p95, p99, p999, max;
    double lo95, hi95;                             // of the mean, batch means
    double p50_lo95, p50_hi95, p99_lo95, p99_hi95; // order statistics
    bool p99_supported;
    double p50_with_failed, p99_with_failed; // each failure counts as +inf; NAN: infinite
};

/* Values gathered of a step: (n), each with the batch 0..LATENCY_BATCHES-1 of its request. */
struct latency_sample {
    const double *ms;
    const uint8_t *batch;
    size_t n;
    uint64_t n_failed; // requests that should have had a value and failed
};
void latency_of_sample(const struct latency_sample *s, struct latency *out);

/* From sealed gaps, with sums and counts per batch of their requests. */
void latency_of_gaps(const struct gaps *g, const double *batch_sum_ms, const double *batch_count,
                     uint64_t n_requests, struct latency *out);
