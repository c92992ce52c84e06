/*
 * The users of a closed loop that a load rank owns, and which of them sends next, and when: at once
 * when its last reply has ended (no think time), a little later when that request failed, so that a
 * target that refuses everything is not hammered. Two first-in first-out queues, since both kinds of
 * due times only ever rise. Loop thread only; nothing is allocated after users_init.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

#define USERS_RETRY_NS 100000000LL // after a failed request

struct users_due {
    int64_t t_ns; // rank 0's clock
    uint32_t user;
};

struct users_queue {
    struct users_due *v; // (cap), a ring
    uint32_t head, n;
};

struct users {
    uint32_t n_all;                // of all load ranks
    uint32_t first, stride, n;     // own: first, first + stride, ...
    uint64_t *turn;                // (n) turns begun
    struct users_queue now, later; // of capacity n
};

/* User u belongs to load rank u % n_ranks. All own users are due at t_begin_ns. */
int users_init(struct users *u, uint32_t n_all, int rank, int n_ranks, int64_t t_begin_ns,
               struct err *e) ERR_CHECKED;
void users_free(struct users *u);

/* When the next one is due; INT64_MAX when all wait for replies. */
int64_t users_next_ns(const struct users *u);

/* Take that one: its number, the turn it begins, and when it was due. Bug when there is none. */
struct users_due users_pop(struct users *u, uint64_t *turn);

/* Its reply has ended at t_ns (>= any earlier one of its kind). */
void users_done(struct users *u, uint32_t user, int64_t t_ns, bool failed);
