#include "workers/reach.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "workers/backend.h"

/* Each rank's n_bytes to all: all (n, n_bytes). */
static int share(const struct reach *r, const void *mine, size_t n_bytes, void *all, struct err *e)
{
    return comm_gather(r->comm, mine, n_bytes, comm_rank(r->comm) == 0 ? all : NULL, e) ||
                   comm_bcast(r->comm, all, (size_t)r->n * n_bytes, 0, e)
               ? -1
               : 0;
}

int reach_tell_gpu(struct reach *r, struct comm *c, const struct reach_gpu *mine, struct err *e)
{
    const size_t n = (size_t)comm_size(c);
    *r = (struct reach){.comm = c, .n = comm_size(c)};
    r->gpus = xcalloc(n, sizeof *r->gpus);
    r->sees = xcalloc(n * n, 1);
    return share(r, mine, sizeof *mine, r->gpus, e);
}

int reach_tell_row(struct reach *r, const unsigned char *row, struct err *e)
{
    return share(r, row, (size_t)r->n, r->sees, e);
}

struct nccl {
    int32_t has_it;
    char why_not[sizeof((struct reach *)0)->why_not];
};

int reach_tell_nccl(struct reach *r, bool has_it, const char *why_not, struct err *e)
{
    struct nccl mine = {.has_it = has_it}, *all = xcalloc((size_t)r->n, sizeof *all);
    snprintf(mine.why_not, sizeof mine.why_not, "%s", why_not);
    const int rc = share(r, &mine, sizeof mine, all, e);
    r->has_nccl = rc == 0;
    for (int i = 0; r->has_nccl && i < r->n; i++) {
        if (reach_has_gpu(r, i) && !all[i].has_it) {
            r->has_nccl = false;
            snprintf(r->why_not, sizeof r->why_not, "%.*s", (int)sizeof r->why_not - 1,
                     all[i].why_not);
        }
    }
    free(all);
    return rc;
}

void reach_free(struct reach *r)
{
    free(r->gpus);
    free(r->sees);
    *r = (struct reach){0};
}

void reach_find_row(const struct reach *r, int index, int n_neighbours, unsigned char *row)
{
    const int mine = comm_rank(r->comm);
    for (int i = 0; i < r->n; i++) {
        row[i] = reach_has_gpu(r, mine) && reach_has_gpu(r, i) && reach_is_one_host(r, mine, i) &&
                 backend_gpu_reaches(index, n_neighbours, r->gpus[i].pci);
    }
}

bool reach_is_one_host(const struct reach *r, int a, int b)
{
    return strcmp(comm_host(r->comm, a), comm_host(r->comm, b)) == 0;
}

bool reach_is_one_gpu(const struct reach *r, int a, int b)
{
    return reach_has_gpu(r, a) && reach_is_one_host(r, a, b) &&
           strcmp(r->gpus[a].pci, r->gpus[b].pci) == 0;
}

bool reach_has_gpu(const struct reach *r, int rank)
{
    return r->gpus[rank].pci[0] != '\0';
}

bool reach_sees(const struct reach *r, int from, int to)
{
    return r->sees[(size_t)from * (size_t)r->n + (size_t)to];
}
