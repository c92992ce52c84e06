/*
 * How the GPUs of a job's workers reach each other, and what hops and sums go by accordingly:
 *
 *   ipc    memory that both processes see: of one host, one GPU or two that reach each other
 *   nccl   where they do not and all workers have it; not of two workers on one GPU. Hops, unless asked for, only between
 *          stages that have no sums over it: several communicators on a GPU, launched by several threads, can hang (NCCL)
 *   mpi    hops that have neither, through the hosts' memory
 *
 * All ranks know the same, so both ends of a hop and all ranks of a stage take the same.
 */
#pragma once

#include "core/err.h"
#include "workers/reach.h"

struct links {
    struct reach reach; // zeros: the backend is not cuda
};

/* What a worker says of itself: its index among those of its host. */
struct links_place {
    int index, n_neighbours;
};

struct world;

/*
 * Find out. Collective; nothing is asked where the backend is not cuda. ERR_INPUT, the same on all ranks: target.transport asks
 * for what cannot be, or the ranks of a stage have no way to put sums together. After a failure there is nothing to close.
 */
int links_open(struct links *l, struct world *w, const struct links_place *mine,
               struct err *e) ERR_CHECKED;
void links_close(struct links *l);

/* Of a worker, as struct worker_cores has them: what hidden states take to or from the stage `away`, and sums. */
const char *links_hop(const struct links *l, const struct world *w, int away);
const char *links_sums(const struct links *l, const struct world *w);
