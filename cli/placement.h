/*
 * Where a worker rank's threads compute: the ranks of its host tell each other which CPUs they may run on,
 * and each takes its part of them (core/cores.h).
 */
#pragma once

#include <stdbool.h>

#include "core/comm.h"
#include "core/cores.h"
#include "core/err.h"
#include "model/layout.h"

struct placement {
    struct cores_part part;
    int *cpus;               // (part.n_threads), owned; NULL unless pinned
    int index, n_neighbours; // among the workers of this host
};

/*
 * The part, without CPUs. Collective. n_threads 0: as many as the part has; pin false: nothing is
 * pinned. Load ranks get an empty one.
 */
int placement_share(struct placement *p, struct comm *comm, const struct layout *layout,
                    int n_threads, bool pin, struct err *e) ERR_CHECKED;

/* Its CPUs, where they are to be pinned; slow. ERR_ENV: the host's topology cannot be read. */
int placement_plan(struct placement *p, struct err *e) ERR_CHECKED;
void placement_free(struct placement *p);
