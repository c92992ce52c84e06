/*
 * The target's GPUs as the report says them: who they are, what they took in each step, and one line of
 * it. Pure.
 */
#pragma once

#include "analysis/measure.h"
#include "core/str.h"
#include "results/store.h"

struct json_t;

/* New reference: [{rank, host, index, name, uuid, pci, driver, memory_bytes, power_limit_w}]. */
struct json_t *gpu_report_devices(const struct store_meta *meta);

/*
 * New reference, null where no GPU was looked at in the step that m was measured from:
 *
 *   {n, energy_from: "counter"|"power"|"both", energy_j, power_w{value, lo95, hi95},
 *    joules_per_output_token{..}, joules_per_token{..}, throttled, clock_reasons{reason: share},
 *    gpu_util, memory_util, sm_mhz, memory_mhz, temperature_c, memory_used_bytes,
 *    devices[]{device, energy_from, energy_j, power_w, throttled, gpu_util, ...}}
 */
struct json_t *gpu_report_step(const struct measure *m, const struct step_data *d,
                               const struct store_meta *meta);

/* A step's line, without its number and a newline; nothing of null. */
void gpu_report_line(const struct json_t *gpus, struct str *out);

/* "power_cap 12 %, sw_thermal 3 %": what held clocks down in a step; nothing where nothing did. */
void gpu_report_reasons(const struct json_t *gpus, struct str *out);
