/*
 * What each worker rank did with the window, from its spans:
 *
 *   busy       computing
 *   send       sending to the next stage
 *   recv_wait  neither
 *   bubble     the part of recv_wait in which the replica had work: requests between arrival at its
 *              leader and their last token. What is left of recv_wait is lack of load.
 *
 * Shares of the window. recv_wait is taken as what the other spans leave, so that a rank that never
 * received anything, or waited longer than a span can say, is still told right. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "results/store.h"

struct utilisation {
    int32_t replica, stage, tensor, rank;
    double busy, bubble, recv_wait, send;
};

/* One row per worker rank of ranks (n_ranks), in rank order: rows (n_ranks); returns how many. */
size_t utilisation_rows(const struct step_data *d, const struct store_rank *ranks, size_t n_ranks,
                        struct utilisation *rows);
