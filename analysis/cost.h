/*
 * What a million tokens cost. $/output token = $/s / (input tokens/s / ratio + output tokens/s);
 * $/input token = that / ratio; so in * $in + out * $out = $/s exactly (GKE Inference Quickstart's split).
 */
#pragma once

#include <stdint.h>

#include "analysis/stats.h"
#include "core/err.h"
#include "core/opt.h"

struct cost_config {
    char *
        prices; // CSV: provider,instance_type,accelerator,accel_count,region,pricing_model,usd_per_hour,as_of,source_url,note
    char *instance;               // instance_type; NULL: no cost
    char *pricing_model;          // "on-demand", ...
    char *region;                 // NULL: the only one
    double output_to_input_ratio; // default 4
};
extern const struct opt_table cost_options;

/* What the target is billed for: whole instances; 1 without accelerators. accel_count 0: a machine
 * without any, which cannot host accelerators (ERR_INPUT). */
int cost_instances(int64_t accelerators, int64_t accel_count, int64_t *instances,
                   struct err *e) ERR_CHECKED;

double cost_usd_per_s(int64_t instances, double usd_per_hour);

/* The split of $/s over a million input and output tokens. */
struct cost_split {
    double usd_per_m_input, usd_per_m_output;
};
struct cost_split cost_split(double usd_per_s, double input_tokens_per_s,
                             double output_tokens_per_s, double output_to_input_ratio);

/* The same with the throughput's interval: cost falls as throughput rises. `input` and `output`
 * belong together (both bounds from one source of error). */
struct cost_split_interval {
    struct stats_interval usd_per_m_input, usd_per_m_output;
};
struct cost_split_interval cost_split_interval(double usd_per_s, struct stats_interval input,
                                               struct stats_interval output,
                                               double output_to_input_ratio);
