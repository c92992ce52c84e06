/*
 * M/M/c, for tests of the search and of the analysis: Poisson arrivals, c servers with exponential service
 * times, first come first served. A request is one token in and one out, so that capacity is c mu. In a closed
 * loop of N users, each sends when its reply has ended: min(N, c) servers are never idle, so that throughput is
 * min(N, c) mu.
 */
#pragma once

#include "tests/support/batch_server.h"

#define MMC_MOST_SERVERS 256
#define MMC_MOST_USERS   1024

struct mmc_queue {
    uint32_t servers; // 1..MMC_MOST_SERVERS
    double mu_rps;    // of one server
};

/* The step as batch_server's (its scale unused); freed by batch_server_free. */
void mmc_queue_run(const struct mmc_queue *q, const struct batch_server_step *s,
                   struct batch_server_run *out);
