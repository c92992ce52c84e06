/*
 * Whether the objectives hold at one rate: a sequential test over all steps at that rate, however often
 * it was offered again.
 *
 * An objective "quantile p of the metric is at most L" holds when at least p of the requests (of the gaps
 * between tokens, for ITL) are within L, failures not. Their share is a ratio over the batches of all
 * steps (Cochran 1977, section 6.3), whose Student interval knows that neighbours in a queue share their
 * fate, stretched by sqrt((1 + r) / (1 - r)) where batches do so too (r: their lag-1 autocorrelation); and the exact binomial tail (Clopper and Pearson 1934) must agree, since ten batches without a single
 * miss have no variance to judge by. All objectives must hold; one that does not is enough.
 *
 * Misses come in busy periods: most short steps see none and a few see many, and no interval made of
 * one step without any knows of those. So one step alone decides "met" only when it misses at most a quarter
 * of what the objective allows.
 *
 * Each look, after k steps, spends 2^-k of the error, so that all looks together err with at most
 * SLO_TEST_ALPHA on either side (Bonferroni; Lan and DeMets 1983 is the general form). A search asks at
 * several rates near the limit and keeps the highest that is met, so that the error at one rate is a part of
 * the 5 % that the answer may have: a search's answer holds with 95 %
 * (tests/unit/test_search_queues.c). Pure.
 */
#pragma once

#include <stddef.h>

#include "analysis/measure.h"
#include "analysis/slo_sample.h"

#define SLO_TEST_ALPHA 0.02

enum slo_holds {
    SLO_UNDECIDED,
    SLO_MET,
    SLO_MISSED,
};
extern const char *const slo_decision_holds_names[3]; // "undecided", "met", "missed"

struct slo_decision {
    enum slo_holds holds;
    bool meets;                  // as observed: every share is at least the quantile
    enum latency_metric worst;   // with the least room
    struct stats_interval share; // of that one, 95 %
};

/* All steps at one rate, in the order in which they were run. n >= 1. */
void slo_decision(const struct slo_sample *steps, size_t n, double quantile,
                  struct slo_decision *out);
