/*
 * `tidemark model inspect M --edges FILE`: every split T x P x R of the model over the ranks of a measured
 * fabric, by what it would do there (workers/fabric_splits.h), and what that would cost.
 */
#pragma once

#include <stdbool.h>

#include "analysis/cost.h"
#include "core/err.h"
#include "core/json_out.h"
#include "model/arch.h"
#include "workers/sim/costs.h"
#include "workers/sim/hardware.h"

enum {
    INSPECT_MAX_COSTS = 8
};

struct inspect_edges_ask {
    const char *file;
    const struct arch *arch;
    const struct costs *
        costs; // (n_costs) of one rank, or of a host whose ranks share it; of those that share a stage
    int n_costs; // at most INSPECT_MAX_COSTS
    bool shares_costs, shares_memory;
    double memory_bytes, memory_share; // what of it weights and cache may take
    bool is_cpu;                       // sums and caches are float32 there
    int tensor, pipeline;              // 0: all
    double n_in, n_out, n_requests;
    const struct cost_config *cost; // instance NULL: no price
};

struct inspect_edges;

/* ERR_INPUT: the file, the price, or no split at all. */
int inspect_edges_open(struct inspect_edges **out, const struct inspect_edges_ask *ask,
                       struct err *e) ERR_CHECKED;
void inspect_edges_free(struct inspect_edges *x);

void inspect_edges_print(const struct inspect_edges *x);
/* New reference. */
struct json_t *inspect_edges_json(const struct inspect_edges *x);
