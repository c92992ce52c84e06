/*
 * Costs measured on this host's cores: one layer of each kind alone in a backend, at batches of 1 to 256 tokens and
 * behind a context; as many layers together as make half a gigabyte, which says what each costs among others (kinds that
 * are not among those stay as they are alone); then embedding and head. Batches take turns for a second and more, since
 * a machine's speed wanders, and of each the mean counts but for the shortest and longest times; what those take more
 * is spread over all. Layers of a kind cost alike: a model that this host could not hold is measured by one of each
 * kind, and by two and an end.
 */
#pragma once

#include "core/err.h"
#include "model/arch.h"
#include "workers/sim/costs.h"

struct timing_config {
    const char *model;
    const struct arch *arch;
    int tensor;    // ranks that share the layers, timed together with their sums in memory; 0: one
    int n_threads; // of each rank
};

/* Minutes for large layers: weights are generated or read first. ERR_ENV: no memory. */
int timing_measure(const struct timing_config *cfg, struct costs *out, struct err *e) ERR_CHECKED;
