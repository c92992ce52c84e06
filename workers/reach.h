/*
 * Which GPUs of a job's ranks see each other's memory, and whether all have NCCL: what decides by what hops and sums can
 * go (cli/links.h) and what `bench --edges` measures. Each rank finds out its own part, all ranks know all.
 */
#pragma once

#include <stdbool.h>

#include "core/comm.h"
#include "core/err.h"
#include "workers/cuda/gpu.h"

struct reach_gpu {
    char pci[GPU_PCI_CHARS]; // bus address; empty: the rank has none
};

struct reach {
    struct comm *comm; // borrowed
    int n;
    struct reach_gpu *gpus; // (n) by rank
    unsigned char *sees;    // (n, n) the GPU of the row's rank sees memory of the column's
    bool has_nccl;          // every rank with a GPU
    char why_not[160];      // what the first that has none says
};

/*
 * What this rank found out is told to all, one after the other: its GPU, its row of `sees` (n), and, where somebody wants to
 * know, NCCL. Collective. After a failure reach_free is still to be called.
 */
int reach_tell_gpu(struct reach *r, struct comm *c, const struct reach_gpu *mine,
                   struct err *e) ERR_CHECKED;
int reach_tell_row(struct reach *r, const unsigned char *row, struct err *e) ERR_CHECKED;
int reach_tell_nccl(struct reach *r, bool has_it, const char *why_not, struct err *e) ERR_CHECKED;
void reach_free(struct reach *r);

/* This rank's row, once the GPUs are known; asks the driver, in any one thread. It is one of n_neighbours on its host. */
void reach_find_row(const struct reach *r, int index, int n_neighbours, unsigned char *row);

bool reach_is_one_host(const struct reach *r, int a, int b);
bool reach_is_one_gpu(const struct reach *r, int a, int b);
bool reach_has_gpu(const struct reach *r, int rank);
bool reach_sees(const struct reach *r, int from, int to);
