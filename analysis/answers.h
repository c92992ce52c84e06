/*
 * From measured steps to the answers of a report: saturation, SLO rate, concurrency, cost, as JSON.
 */
#pragma once

#include <stddef.h>

#include "analysis/drift.h"
#include "analysis/ladder.h"
#include "analysis/prices.h"
#include "analysis/repeats.h"
#include "analysis/report.h"
#include "analysis/saturation.h"
#include "analysis/slo.h"

struct json_t;

enum answers_over_passes {
    ANSWERS_SATURATION, // requests/s
    ANSWERS_TOKENS,     // output tokens/s there
    ANSWERS_SLO,        // requests/s
    ANSWERS_OVER_PASSES,
};

/* Everything the answers are made of. Owner: report.c. */
struct answers {
    const struct report_config *cfg;
    struct store_meta meta;
    size_t n_steps;
    struct step_info *info;  // (n_steps)
    struct measure *measure; // (n_steps)
    struct json_t *steps;    // array (n_steps) of step_json
    struct saturation saturation;
    struct slo_result *slo;
    struct ladder ladder;
    struct drift drift;
    size_t n_passes;
    struct repeats_mean over_passes[ANSWERS_OVER_PASSES]; // with two passes or more
    struct prices prices;
    const struct price *price; // NULL: no cost asked for, or none known
    int64_t instances;
};

/* Find the price, kept or (reprice) in the table, and count the instances. ERR_INPUT as in prices.h. */
int answers_price(struct answers *a, struct err *e) ERR_CHECKED;

/* Whether the config names an instance to be paid. */
bool answers_want_price(const struct answers *a);

/* Saturation, SLO rate, ladder and drift from a->info and a->measure. */
void answers_find(struct answers *a);
void answers_free(struct answers *a);

struct json_t *answers_saturation(const struct answers *a);
struct json_t *answers_slo(const struct answers *a);
struct json_t *answers_concurrency(const struct answers *a);
struct json_t *answers_cost(const struct answers *a);
