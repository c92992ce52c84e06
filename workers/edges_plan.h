/*
 * Which pairs of ranks measure their edge when, and how many messages fit the time: all pairs in
 * rounds of disjoint ones (everybody meets everybody once, as in a tournament), so that n ranks take
 * n - 1 rounds (an odd number n of them) instead of n (n - 1) / 2. Pure.
 *
 * A budget is divided anew at each round by what is left of it. Sizes grow; one that would not fit what
 * is left of its turn is left out, and all larger ones with it: no edge, however slow, takes more than
 * its turn and a few messages.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    EDGES_PLAN_MIN_RANKS = 2,
    EDGES_PLAN_MAX_RANKS = 64,
    EDGES_PLAN_MAX_SIZES = 16,
    EDGES_PLAN_MIN_BYTES = 8, // the first size
    EDGES_PLAN_FACTOR = 4,    // from one to the next
};

int edges_plan_rounds(int n_ranks);
/* Whom `rank` meets; -1: nobody. */
int edges_plan_partner(int n_ranks, int round, int rank);

/* 8, 32, 128 .. and max_bytes itself, rising; returns how many. sizes (EDGES_PLAN_MAX_SIZES). */
int edges_plan_sizes(size_t max_bytes, size_t *sizes);

/* One direction of one pair: its share of what is left. */
int64_t edges_plan_turn_ns(int64_t left_ns, int n_rounds_left);

/*
 * How many messages of the next size, of n_sizes_left, when one with its answer takes message_ns: at
 * least a few, at most what a share of left_ns holds; 0: even those do not fit. The first size
 * is never left out.
 */
int edges_plan_messages(double message_ns, int64_t left_ns, int n_sizes_left, bool is_first);
