/*
 * Costs measured on this host's cores: one layer of each kind, the embedding and the head, each alone in
 * a backend, timed on a few batches from which the coefficients of costs.h follow. Layers of a kind
 * cost alike, so a model that this host could not hold is measured by a layer of each kind.
 */
#pragma once

#include "core/err.h"
#include "model/arch.h"
#include "workers/sim/costs.h"

struct timing_config {
    const char *model;
    const struct arch *arch;
    int n_threads;
};

/* Minutes for large layers: weights are generated or read first. ERR_ENV: no memory. */
int timing_measure(const struct timing_config *cfg, struct costs *out, struct err *e) ERR_CHECKED;
