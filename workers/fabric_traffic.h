/*
 * What one replica of a split gets done with as many requests under way as it holds: the real scheduler on
 * the virtual clock (sim/virtual.h), each stage with costs and an edge behind it of its own. Lengths of
 * requests are spread evenly from half to one and a half times the mean, so that they do not keep step.
 * The same calls give the same rate. Pure.
 */
#pragma once

#include "core/err.h"
#include "model/arch.h"
#include "workers/sim/costs.h"

#define FABRIC_TRAFFIC_TOKENS 256  // of a batch: what target.max_batch_tokens is by itself
#define FABRIC_TRAFFIC_MAX_NS 1e16 // 115 days

struct fabric_traffic {
    const struct arch *arch;
    int n_stages;
    const int *first;           // (n_stages + 1)
    const struct costs *stages; // (n_stages); hop_ns and hop_byte_ns of the edge behind each
    double n_in, n_out;         // mean tokens of a request
    double n_requests;          // under way
    double request_ns;          // that one takes then, about; at most FABRIC_TRAFFIC_MAX_NS
};

/* Output tokens/s. ERR_ENV: no memory. */
int fabric_traffic_run(const struct fabric_traffic *t, double *tokens_per_s,
                       struct err *e) ERR_CHECKED;
