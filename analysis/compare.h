/*
 * Two runs, B against A: what changed, by how much, and whether that is more than noise.
 *
 * Steps are matched by rate, each of B with the nearest of A within 5 %, or by users. For every figure
 * that both have, the ratio B/A gets a 95 % interval from the two that the reports give it (batch means,
 * order statistics, block bootstrap), on the log scale by variance recovery (Donner and Zou 2012,
 * Statistical Methods in Medical Research 21(4), "MOVER", here for a difference of logarithms):
 *
 *   log lower = d - sqrt((ln b - ln b_lo)^2 + (ln a_hi - ln a)^2),   d = ln b - ln a
 *
 * and the upper end alike; what fell to 0 has no logarithm: -1, up to b_hi / a_lo - 1. A change is significant
 * when 1 lies outside; where a figure has no interval it cannot be. As in the reports, requests count as independent
 * where percentiles get their intervals: near saturation they are not, and the intervals are too narrow. Of many
 * figures one in twenty that did not change looks as if it had.
 *
 * The gate fails a figure whose whole interval is beyond it, and a share, which has none, as it stands. Of what A has
 * and B lacks it fails what B finished no request of (a step), or missed at its lowest rate (slo); the rest is a note.
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "analysis/stats.h"
#include "core/err.h"
#include "core/str.h"

struct json_t;

#define COMPARE_RATE_TOLERANCE 0.05
#define COMPARE_DEFAULT_GATE                                                                       \
    "ttft_service_ms.p50,tpot_ms.p50,e2e_service_ms.p50,tokens_per_s.output,saturation.rate_rps,"  \
    "slo.rate_rps"

/* Of b/a - 1; STATS_NONE where the two give none. */
struct stats_interval compare_change(struct stats_interval a, struct stats_interval b);

struct compare_run {
    const char *path;
    const struct json_t *report;     // tidemark.report/1
    const uint64_t *schedule_hashes; // (steps) 0: unknown
    bool imported;                   // its response latency is of its client, no schedule's
};

struct compare_gate {
    double max_regression; // 0.05: fails where B is worse by more than 5 %; STATS_NONE: no gate
    const char *metrics;   // separated by commas
};

/*
 * The result, schema tidemark.compare/1:
 *
 *   a, b       {path, name, uuid, created_utc}
 *   notes[]    what makes the two less comparable
 *   steps[]    {a_index, b_index, a_rate_rps, rate_rps, users, same_schedule, a_verdict, b_verdict,
 *              figures[]}
 *   answers[]  figures of saturation, slo and cost
 *   gate       null, or {max_regression, metrics[], checked, failed[]}
 *
 *   a figure   {metric, better: "lower"|"higher", a{value, lo95, hi95}, b{..}, change{..},
 *              verdict: "better"|"worse"|"unclear"}
 *
 * ERR_INPUT: a metric of the gate is unknown, or none of them is in both runs.
 */
int compare_build(const struct compare_run *a, const struct compare_run *b,
                  const struct compare_gate *gate, struct json_t **out, struct err *e) ERR_CHECKED;

bool compare_gate_failed(const struct json_t *comparison);

void compare_text(const struct json_t *comparison, struct str *out);
