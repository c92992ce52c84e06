/*
 * Turns that are due at times which the run itself decides: a user's next request in a closed loop, the
 * next turn of a conversation. A heap of them, by time, then by event; nothing is allocated after
 * turns_init. Loop thread only.
 *
 * Event e of a step is one conversation (of one turn, where the dataset has none). In an open loop the
 * schedule begins it; in a closed loop of U users, user u goes through the events u, u + U, u + 2 U, ...
 * Contents and think times are functions of (seed, event, turn), whoever owns the event.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "datasets/dataset.h"

#define TURNS_RETRY_NS 100000000LL // in a closed loop after a failed request: no hammering

struct turn {
    int64_t t_ns; // when it is due, rank 0's clock
    uint64_t event;
    uint32_t turn; // from 0
};

struct turns {
    struct turn *v; // (cap) a binary heap, the first due on top
    size_t n, cap;
};

int turns_init(struct turns *t, size_t cap, struct err *e) ERR_CHECKED;
void turns_free(struct turns *t);

/* A bug beyond cap. */
void turns_push(struct turns *t, struct turn turn);
/* When the next one is due; INT64_MAX: there is none. */
int64_t turns_next_ns(const struct turns *t);
/* Take that one. A bug when there is none. */
struct turn turns_pop(struct turns *t);

/*
 * The first turns of the closed-loop users that a load rank owns (user u belongs to rank u % n_ranks), all
 * due at t_begin_ns, in room for as many.
 */
int turns_init_users(struct turns *t, uint32_t n_users, int rank, int n_ranks, int64_t t_begin_ns,
                     struct err *e) ERR_CHECKED;

/*
 * What follows a turn that ended at end_ns: the next one of its conversation, after its think time. A failed
 * turn ends the conversation, and so does the last one; then nothing follows in an open loop (n_users 0),
 * and in a closed loop the user begins its next event, at once or, after a failure, TURNS_RETRY_NS later.
 * False: nothing.
 */
bool turns_follow(const struct dataset *ds, uint64_t seed, uint32_t n_users, struct turn ended,
                  int64_t end_ns, bool is_failed, struct turn *next);

/*
 * The id of a turn in its step: the event's number for turn 0, so that ids of a schedule are its indices,
 * and turn * 2^40 more for later ones.
 */
uint64_t turns_id(uint64_t event, uint32_t turn);
/* The turn of an id, due at no time. */
struct turn turns_of_id(uint64_t id);
