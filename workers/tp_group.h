/*
 * The tensor-parallel group of a stage: T ranks of one host, each with its share of every matrix, that put their
 * results together in the middle of a batch, in memory that all of them map. A compute thread brings its part and
 * waits for the others'; the rank's main thread opens the memory and can say who is waited for. All ranks of the group
 * must ask for the same things in the same order. Sums run in the order of the ranks, so every rank gets the
 * same bits.
 */
#pragma once

#include <stddef.h>

#include "core/comm.h"
#include "core/err.h"
#include "workers/shard.h"

struct tp_group;

struct tp_group_config {
    const int *ranks;    // (size) copied
    int size, index;     // T >= 1; which of them this one is
    size_t max_n_values; // of a sum
};

int tp_group_create(struct tp_group **out, const struct tp_group_config *cfg,
                    struct err *e) ERR_CHECKED;
/* All `size` ranks of a group in one process, without a comm: only their compute threads' part is of use. */
int tp_group_create_all(struct tp_group **out /* (size) */, int size, size_t max_n_values,
                        struct err *e) ERR_CHECKED;
void tp_group_destroy(struct tp_group *g);

/* --- main thread ------------------------------------------------------------------------------ */

int tp_group_start(struct tp_group *g, struct comm *comm, struct err *e) ERR_CHECKED;
/* One turn: 1 when anything moved, 0 when not, -1 on error (ERR_ENV: the others' memory cannot be opened). */
int tp_group_turn(struct tp_group *g, struct err *e) ERR_CHECKED;
/* The first rank whose part of the exchange at hand has not come; -1: none is waited for. */
int tp_group_waits_for(const struct tp_group *g);

/* --- one compute thread at a time --------------------------------------------------------------- */

/* x (n) becomes the sum of all ranks' x. */
void tp_group_sum(struct tp_group *g, float *x, size_t n);
/* all (size, n_bytes): what each rank has in `mine`. */
void tp_group_gather(struct tp_group *g, const void *mine, size_t n_bytes, void *all);
/* These two as a backend asks for them; borrows g, which may be NULL: one rank alone. */
struct shard_group tp_group_shard(struct tp_group *g);
