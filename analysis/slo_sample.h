/*
 * What one step says of the latency objectives, small enough to be kept for every step of a run: counts per
 * batch of the window. Read by analysis/slo_decision.h and, for the step's mean TTFT, by the early stop.
 */
#pragma once

#include "analysis/latency.h"

struct measure;

struct slo_sample {
    struct {
        double limit_ms; // 0: no such objective
        double n[LATENCY_BATCHES], n_met[LATENCY_BATCHES];
    } metric[LATENCY_N];
    double ttft_ms; // mean; NAN: nothing came
};

struct slo_sample slo_decision_sample(const struct measure *m);
