/*
 * A simulated continuous batcher with known capacity, for the tests of the analysis: Poisson arrivals,
 * log-normal lengths like ShareGPT's, first come first served into at most 64 running requests; an
 * iteration takes 20 ms + 0.3 ms per running request + 30 us per prompt token of those just admitted,
 * and gives each running request one token.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "results/store.h"

struct batch_server_step {
    double rate_rps; // Poisson arrivals; 0: a closed loop of `users`
    uint32_t users;
    double warm_s, window_s, drain_s;
    double scale; // of all times: 1 as above, 0.1 a server ten times as fast
    uint64_t seed;
    uint32_t index;
};

/* Records sorted by id, and token times in CSR form: dt_us[offsets[k] .. offsets[k + 1]). */
struct batch_server_run {
    struct step_data data;
    uint64_t *offsets; // (data.n + 1)
    uint32_t *dt_us;
};

void batch_server_run(const struct batch_server_step *s, struct batch_server_run *out);
void batch_server_free(struct batch_server_run *run);

/* Requests per second that it can serve at most, from the mean lengths of a long draw. */
double batch_server_capacity_rps(double scale);
