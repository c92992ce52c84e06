/*
 * A team of compute threads. pool_submit hands the team one function and returns at once; every
 * member runs it with its index and meets the others at pool_barrier inside it; pool_poll says when
 * all have returned. Members spin for a short while between submissions, then sleep. With
 * `idle_class` they run SCHED_IDLE, so that a thread that keeps time preempts them at once.
 */
#pragma once

#include <stdbool.h>

struct pool;

typedef void (*pool_fn)(void *arg, int member, int n_members);

/* n_members >= 1 threads; cpus (may be NULL) gives each member's CPU, -1 for none. */
struct pool *pool_create(int n_members, const int *cpus, bool idle_class);

int pool_size(const struct pool *p); // members

/* Start fn on all members. One at a time: pool_poll must have said true since the last. */
void pool_submit(struct pool *p, pool_fn fn, void *arg);

/* True when no function is running. */
bool pool_poll(struct pool *p);

/* Inside fn: wait for all members (spin, then yield). */
void pool_barrier(struct pool *p);

/* Whether SCHED_IDLE, and a CPU for every member, are in force (asked for and granted). */
bool pool_is_idle_class(const struct pool *p);
bool pool_is_pinned(const struct pool *p);

void pool_destroy(struct pool *p);
