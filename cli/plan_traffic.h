/*
 * `tidemark model plan`: the traffic of a run's config through simulated replicas on a virtual clock
 * (workers/sim/virtual.h), a step at a time, as a table or as JSON (schema tidemark.plan/1).
 *
 * Step k has the seed and so the requests of step k of `run` with the same list. Latencies count from
 * when a request is due, of those due in the window [warm-up, end); tokens count where they fall into
 * the window, those of one request evenly between its first and its last. The client and the way to
 * it take no time.
 */
#pragma once

#include <stdbool.h>

#include "cli/run_config.h"
#include "core/err.h"

int plan_traffic_print(const struct run_config *c, bool json, struct err *e) ERR_CHECKED;
