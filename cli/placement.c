#include "cli/placement.h"

#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

/* What every rank says, to every rank: (comm_size), caller frees. */
static int gather_all(struct comm *comm, const struct cores_rank *mine, struct cores_rank **out,
                      struct err *e)
{
    const size_t n = (size_t)comm_size(comm);
    struct cores_rank *all = xcalloc(n, sizeof *all);
    if (comm_gather(comm, mine, sizeof *mine, comm_rank(comm) == 0 ? all : NULL, e) ||
        comm_bcast(comm, all, n * sizeof *all, 0, e)) {
        free(all);
        return -1;
    }
    *out = all;
    return 0;
}

/* Those of this host, in front; returns how many, and which of them this rank is. */
static int keep_host(struct comm *comm, struct cores_rank *all, int *mine)
{
    const char *host = comm_host(comm, comm_rank(comm));
    int n = 0;
    for (int r = 0; r < comm_size(comm); r++) {
        if (strcmp(comm_host(comm, r), host) != 0) {
            continue;
        }
        *mine = r == comm_rank(comm) ? n : *mine;
        all[n++] = all[r];
    }
    return n;
}

int placement_share(struct placement *p, struct comm *comm, const struct layout *layout,
                    int n_threads, bool pin, struct err *e)
{
    const bool is_load = layout_is_load(layout, comm_rank(comm));
    const struct cores_rank self = cores_self(!is_load);
    struct cores_rank *all;
    *p = (struct placement){0};
    if (gather_all(comm, &self, &all, e)) {
        return -1;
    }
    int mine = 0, n = keep_host(comm, all, &mine);
    for (int i = 0; i < n; i++) {
        p->index += all[i].computes && i < mine;
        p->n_neighbours += all[i].computes != 0;
    }
    if (!is_load) {
        p->part = cores_divide(all, n, mine, n_threads);
        p->part.placement = pin ? p->part.placement : CORES_OFF;
    }
    free(all);
    return 0;
}

int placement_plan(struct placement *p, struct err *e)
{
    bool pinned = false;
    if (p->part.placement != CORES_PINNED) {
        return 0;
    }
    p->cpus = xcalloc((size_t)p->part.n_threads, sizeof *p->cpus);
    int rc = cores_plan(p->cpus, p->part.first, p->part.n_threads, p->part.total, &pinned, e);
    if (!pinned) { // or CPUs that the topology does not show
        free(p->cpus);
        p->cpus = NULL;
        p->part.placement = CORES_CROWDED;
    }
    return rc;
}

void placement_free(struct placement *p)
{
    free(p->cpus);
    *p = (struct placement){0};
}
