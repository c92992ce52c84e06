/*
 * One measured step as the element of `steps[]` in tidemark.report/1. Pure.
 */
#pragma once

#include "analysis/measure.h"
#include "results/store.h"

struct json_t;

/* New reference. d is the data m was measured from; info names the step and knows its poll gap; meta
 * says which rank is which stage, and what GPUs there are. */
struct json_t *step_json(const struct measure *m, const struct step_data *d,
                         const struct step_info *info, const struct store_meta *meta);
