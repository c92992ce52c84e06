/*
 * Costs measured on this host's cores: one layer of each kind alone in a backend, at batches of 1 to 256 tokens and
 * behind a context; then as many layers together as make half a gigabyte, which says what each costs among others (kinds that are not among those stay as they are alone);
 * then embedding and head. Layers of a kind cost alike, so a model that this host could not hold is measured by a
 * few of them.
 */
#pragma once

#include "core/err.h"
#include "model/arch.h"
#include "workers/sim/costs.h"

struct timing_config {
    const char *model;
    const struct arch *arch;
    int n_threads;
    int tensor; // ranks that share the layers, of which the first is timed, without its sums; 0: one
};

/* Minutes for large layers: weights are generated or read first. ERR_ENV: no memory. */
int timing_measure(const struct timing_config *cfg, struct costs *out, struct err *e) ERR_CHECKED;
