/*
 * The figures over request rate or throughput: latency-throughput curve, served against offered, the
 * metrics against the rate, goodput, queue, energy, cost, send lag. Pure: report JSON in, HTML out.
 */
#pragma once

#include "core/str.h"

struct json_t;

void rateplots_latency_throughput(struct str *out, const struct json_t *report);
void rateplots_served(struct str *out, const struct json_t *report);
void rateplots_metrics(struct str *out, const struct json_t *report);
void rateplots_goodput(struct str *out, const struct json_t *report);
void rateplots_queue(struct str *out, const struct json_t *report);
void rateplots_cost(struct str *out, const struct json_t *report);
void rateplots_energy(struct str *out, const struct json_t *report);
void rateplots_lag(struct str *out, const struct json_t *report);
