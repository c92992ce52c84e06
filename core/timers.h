/*
 * Many timers, the earliest first: a 4-ary heap whose entries hold their times, so that sifting
 * stays within the heap's own cache lines. A timer is a member of what it belongs to; zeroed it is
 * not armed. Arming and disarming are O(log n). Times are on one clock of the caller's choice.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct timer {
    size_t place; // in the heap, from 1; 0: not armed
};

struct timers_entry {
    int64_t at_ns;
    struct timer *timer;
};

struct timers {
    struct timers_entry *heap; // (cap), n in use
    size_t n, cap;
};

/* Arm, or move an armed one. Dies when memory is out. */
void timers_arm(struct timers *t, struct timer *x, int64_t at_ns);
void timers_disarm(struct timers *t, struct timer *x);

/* The earliest timer's time, INT64_MAX when none is armed. */
int64_t timers_next_ns(const struct timers *t);

/* Take the earliest out if its time is at most now_ns, else NULL. */
struct timer *timers_pop(struct timers *t, int64_t now_ns);

void timers_free(struct timers *t);
