/*
 * The figures that show one picture per step: TTFT distribution, requests in flight over time,
 * pipeline utilisation, critical path. Pure: report JSON and curves in, HTML out.
 */
#pragma once

#include "analysis/curves.h"
#include "core/str.h"

struct json_t;

/* curves (n_steps of the report), in the order of steps. */
void stepplots_ttft(struct str *out, const struct json_t *report, const struct curves_step *curves);
void stepplots_in_flight(struct str *out, const struct json_t *report,
                         const struct curves_step *curves);
void stepplots_utilisation(struct str *out, const struct json_t *report);
void stepplots_critical(struct str *out, const struct json_t *report);
