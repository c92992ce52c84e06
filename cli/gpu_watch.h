/*
 * Which rank looks at which of the target's GPUs. Those are: of stages, the GPUs that the worker ranks
 * compute with; of an endpoint on the load rank's own host, and with target.telemetry=on whatever computes,
 * those that CUDA_VISIBLE_DEVICES leaves the ranks of the target (of the load, where it has none). On each
 * host the lowest rank that has any looks at all of them.
 */
#pragma once

#include "cli/world.h"
#include "results/gpus.h"
#include "workers/telemetry.h"

enum {
    GPU_WATCH_MOST = 32 // GPUs of one host
};

struct gpu_watch {
    struct nvml *nvml;                               // of a rank that looks at GPUs
    struct telemetry_device devices[GPU_WATCH_MOST]; // (n_devices) numbered by gpu_watch_start
    size_t n_devices;
    struct telemetry *telemetry; // NULL: this rank looks at none
    /* rank 0: */
    struct gpus_device *gpus; // (n_gpus) of all ranks, by rank
    size_t n_gpus;
    char why[200]; // why GPUs, or some of them, are not looked at that should be; empty: all are
};

/* Who looks at what; nothing starts yet. Collective. */
int gpu_watch_find(struct gpu_watch *g, struct world *w, struct err *e) ERR_CHECKED;

/*
 * Begin to look. Samples name GPUs by their place in `known` (n_known; rank 0's counts), which has what
 * the file has; those that it does not have are left out. Collective.
 */
int gpu_watch_start(struct gpu_watch *g, struct world *w, const struct gpus_device *known,
                    size_t n_known, struct err *e) ERR_CHECKED;
void gpu_watch_stop(struct gpu_watch *g);
