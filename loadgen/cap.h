/*
 * The cap that the user sets on requests in flight (target.max_concurrency), as one load rank's share of
 * places. A request takes the place that has been free for longest; until when it waited for one is part
 * of its record, so that the wait at the cap and the client's own lag can be told apart. Loop thread
 * only; nothing is allocated after cap_init.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

struct cap {
    uint32_t n;            // places; 0: no cap
    int64_t *free_ns;      // (n) ring: since when each free place is free
    uint32_t head, n_free; // of the ring
};

/* Rank `rank`'s share of n_all places: they add up. n_all 0: no cap; else at least n_ranks. */
int cap_init(struct cap *c, int64_t n_all, int rank, int n_ranks, struct err *e) ERR_CHECKED;
void cap_free(struct cap *c);

/* All places are free, and have always been. */
void cap_reset(struct cap *c);

bool cap_is_full(const struct cap *c);

/* Take a place: since when it has been free. Bug when the cap is full. */
int64_t cap_take(struct cap *c);
/* The request of a place has ended at t_ns. */
void cap_give(struct cap *c, int64_t t_ns);
