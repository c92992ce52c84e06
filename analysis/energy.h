/*
 * What the target's GPUs took in a step's window, and how they fared: power and energy, energy per token,
 * what held their clocks down. docs/measurement.md says how. Pure.
 *
 * Energy of a device between two times is the difference of its counter, linear between samples; of a
 * device without one, power integrated by trapezoids. It is missing where samples do not reach to within
 * half a second of the window's ends, and with the integral where they leave a gap of more than a second.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "analysis/measure.h"
#include "analysis/stats.h"
#include "results/store.h"

/* One device, or several as if they were one: powers and energies summed, clocks averaged. */
struct energy_use {
    double energy_j, power_w; // of the window
    bool from_counter, from_power;
    double gpu_util, memory_util, sm_mhz, memory_mhz; // means
    double temperature_c, memory_used_bytes;          // most
    double throttled;                                 // share of samples with any of GPUS_THROTTLED
    double reasons[GPUS_REASON_N];                    // with each
};

struct energy {
    struct energy_use *devices; // (n_devices) as meta/gpus has them
    size_t n_devices;
    struct energy_use all;
    struct stats_interval power_w, j_per_output_token,
        j_per_token; // the latter of input and output
};

/* m was measured from d, in which samples name n_devices. */
void energy_measure(const struct measure *m, const struct step_data *d, size_t n_devices,
                    struct energy *out);
void energy_free(struct energy *x);
