/*
 * One step judged: the statistics of DESIGN's definitions table and the verdict, from raw records.
 * docs/measurement.md states each definition. Pure functions of a stored step.
 */
#pragma once

#include <stdint.h>

#include "analysis/slo_sample.h"
#include "core/err.h"
#include "core/opt.h"
#include "results/store.h"

struct json_t;

/* slo.*: objectives on one quantile. 0: no such objective. */
struct slo_config {
    int64_t ttft_ns, itl_ns, tpot_ns, ntpot_ns, e2e_ns;
    double quantile;
};
extern const struct opt_table slo_options;

/* Read step `index`, fill info's verdict, reason and rates, and make its summary: the element of
 * `steps[]` in `tidemark.report/1` as a new reference; and what it says of the
 * objectives (sample may be NULL). */
int step_judge(struct store *s, size_t index, const struct slo_config *slo, struct step_info *info,
               struct json_t **summary, struct slo_sample *sample, struct err *e) ERR_CHECKED;

/* The same for a step just folded and not finished yet (its group has no `complete`). */
int step_judge_data(struct store *s, const struct step_data *d, const struct slo_config *slo,
                    struct step_info *info, struct json_t **summary, struct slo_sample *sample,
                    struct err *e) ERR_CHECKED;
