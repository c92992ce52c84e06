/*
 * The tensor-parallel group of a stage whose ranks have GPUs: 1 to 8 of one host, on GPUs of their own or
 * several on one, put their results together in each other's memory (group_sum.h). Handles of it travel by
 * whatever way the caller has:
 *
 *   group_create, send the handle to all, group_join, sums and gathers .., group_leave, hear from all that
 *   they have left, group_destroy
 *
 * All ranks queue the same calls in the same order, by hand or from recordings, which may be made before the others
 * are known; what runs before group_join does nothing. A rank that does not come is said by group_check; the group is
 * over then.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "workers/cuda/gpu.h"
#include "workers/cuda/gpu_ipc.h"

struct group;

struct group_config {
    int size, index;
    size_t max_bytes;  // of a sum (4 each), and of what a rank brings to a gather
    int64_t limit_ns;  // of a wait for another rank
    int64_t n_at_once; // a sum of more is done in two steps; 0: as group_sum_at_once
};

/*
 * Values of a sum that every rank reads from all others: of two ranks any number, since two steps would move as much;
 * of more as long as what is read twice costs less than a second wait. Where that is has not been measured.
 */
int64_t group_sum_at_once(int size);

/* Memory of this rank's, cleared. */
int group_create(struct group **out, struct gpu *g, const struct group_config *cfg,
                 struct gpu_ipc_handle *mine, struct err *e) ERR_CHECKED;
/* The others', all (size); the own one is not looked at. */
int group_join(struct group *group, const struct gpu_ipc_handle *all, struct err *e) ERR_CHECKED;

/* Queued on the GPU's stream. x (n), a multiple of 16 in memory, becomes the sum of all ranks' x. */
void group_sum(struct group *group, float *x, size_t n);
/* all (size, n_bytes): what each rank has in `mine`; both begin at multiples of 16. */
void group_gather(struct group *group, const void *mine, size_t n_bytes, void *all);

/*
 * Rows of which each rank has some columns: all (n_rows, ld), where rank i's are from first[i] on, n[i] of them (size);
 * mine (n_rows, n of this rank).
 */
void group_columns(struct group *group, const float *mine, int n_rows, const int *first,
                   const int *n, float *all, int ld);

/* What was queued has happened, and every wait ended before its limit; to be asked with gpu_poll. */
int group_check(const struct group *group, struct err *e) ERR_CHECKED;

/* The others' memory is not used any more; when nothing is queued. */
void group_leave(struct group *group);
/* The own memory is given back. NULL is allowed. Leaves where that has not been done. */
void group_destroy(struct group *group);
/*
 * Likewise where the ranks cannot hear of each other any more: the others may still have the own memory open, so it is
 * theirs until the process ends.
 */
void group_abandon(struct group *group);
