/*
 * What the search's own steps answer, as JSON: the best limit of requests in flight, the rates decided
 * against the objectives one by one, whether the target drifted, and what passes say together.
 */
#pragma once

#include "analysis/answers.h"

struct json_t;

/* Saturation and objectives' rate over passes instead of one; nothing to do with one pass. */
void answers_search_combine(struct answers *a);

struct json_t *answers_search_concurrency(const struct answers *a, double rule);
struct json_t *answers_search_decided(const struct answers *a); // null: no objective
struct json_t *answers_search_drift(const struct answers *a);   // null: no rate was visited twice
struct json_t *answers_search_repeats(const struct answers *a); // null: one pass
