#include "cli/links.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/world.h"
#include "core/comm.h"
#include "core/mem.h"
#include "model/layout.h"
#include "workers/backend.h"
#include "workers/cuda/gpu.h"
#include "workers/target.h"

struct link_gpu {
    char pci[GPU_PCI_CHARS]; // empty: none
};

/* --- the world ------------------------------------------------------------------------------------ */

static bool is_one_host(const struct world *w, int a, int b)
{
    return strcmp(comm_host(w->comm, a), comm_host(w->comm, b)) == 0;
}

static bool is_same_gpu(const struct links *l, const struct world *w, int a, int b)
{
    return is_one_host(w, a, b) && strcmp(l->gpus[a].pci, l->gpus[b].pci) == 0;
}

/* From's GPU writes to, or reads from, memory of to's. */
static bool reaches(const struct links *l, const struct world *w, int from, int to)
{
    return is_one_host(w, from, to) && l->reaches[(size_t)from * (size_t)l->n + (size_t)to];
}

/* Each rank's n_bytes to all: all (n, n_bytes). */
static int share(const struct world *w, const void *mine, size_t n_bytes, void *all, struct err *e)
{
    const size_t n = (size_t)comm_size(w->comm);
    return comm_gather(w->comm, mine, n_bytes, w->rank == 0 ? all : NULL, e) ||
                   comm_bcast(w->comm, all, n * n_bytes, 0, e)
               ? -1
               : 0;
}

/* --- looking, in the helper thread ------------------------------------------------------------------ */

struct look {
    struct links *links;
    const struct world *w;
    const struct links_place *place;
    struct link_gpu mine;
    unsigned char *reaches; // (n) this rank's row
    struct {
        int32_t has;
        char why[sizeof((struct links *)0)->why_not];
    } nccl;
};

static void look_at_address(void *arg)
{
    struct look *k = arg;
    backend_gpu(k->place->index, k->place->n_neighbours, k->mine.pci, sizeof k->mine.pci);
}

static void look_at_peers(void *arg)
{
    struct look *k = arg;
    const struct links *l = k->links;
    for (int r = 0; r < l->n; r++) {
        const bool is_peer = l->gpus[r].pci[0] != '\0' && is_one_host(k->w, r, k->w->rank);
        k->reaches[r] =
            is_peer && backend_gpu_reaches(k->place->index, k->place->n_neighbours, l->gpus[r].pci);
    }
}

static void look_for_nccl(void *arg)
{
    struct look *k = arg;
    k->nccl.has = backend_has_nccl(k->nccl.why, sizeof k->nccl.why);
}

static int ask(struct world *w, void (*fn)(void *), struct look *k, struct err *e)
{
    return w->is_load ? 0 : world_wait(w, fn, k, e);
}

static int look_at_gpus(struct links *l, struct world *w, struct look *k, struct err *e)
{
    k->reaches = xcalloc((size_t)l->n, 1);
    const int rc =
        ask(w, look_at_address, k, e) || share(w, &k->mine, sizeof k->mine, l->gpus, e) ||
                ask(w, look_at_peers, k, e) || share(w, k->reaches, (size_t)l->n, l->reaches, e)
            ? -1
            : 0;
    free(k->reaches);
    return rc;
}

/* All workers, and why the first that has none does not. */
static int look_at_nccl(struct links *l, struct world *w, struct look *k, struct err *e)
{
    const size_t n = (size_t)l->n, each = sizeof k->nccl;
    if (ask(w, look_for_nccl, k, e)) {
        return -1;
    }
    char *all = xcalloc(n, each);
    const int rc = share(w, &k->nccl, each, all, e);
    l->has_nccl = rc == 0;
    for (size_t r = (size_t)w->layout.load_ranks; rc == 0 && l->has_nccl && r < n; r++) {
        memcpy(&k->nccl, all + r * each, each);
        l->has_nccl = k->nccl.has != 0;
        snprintf(l->why_not, sizeof l->why_not, "%s", k->nccl.why);
    }
    free(all);
    return rc;
}

/* --- choosing ------------------------------------------------------------------------------------- */

/* Of the ranks of worker r's stage the first two that do not reach each other; false: all do. */
static bool find_apart(const struct links *l, const struct world *w, int r, int pair[2])
{
    const struct layout_worker p = layout_worker(&w->layout, r);
    const int first = layout_rank(&w->layout, p.replica, p.stage, 0);
    for (int a = 0; a < w->layout.tensor; a++) {
        for (int b = 0; b < w->layout.tensor; b++) {
            if (!reaches(l, w, first + a, first + b)) {
                pair[0] = first + (a < b ? a : b);
                pair[1] = first + (a < b ? b : a);
                return true;
            }
        }
    }
    return false;
}

/* Two ranks of worker r's stage on one GPU, which NCCL takes no. */
static bool find_together(const struct links *l, const struct world *w, int r, int pair[2])
{
    const struct layout_worker p = layout_worker(&w->layout, r);
    const int first = layout_rank(&w->layout, p.replica, p.stage, 0);
    for (int b = 1; b < w->layout.tensor; b++) {
        for (int a = 0; a < b; a++) {
            if (is_same_gpu(l, w, first + a, first + b)) {
                pair[0] = first + a;
                pair[1] = first + b;
                return true;
            }
        }
    }
    return false;
}

static int hop_peer(const struct world *w, int r, int away)
{
    const struct layout_worker p = layout_worker(&w->layout, r);
    const int stage = p.stage + away;
    return stage < 0 || stage >= w->layout.pipeline
               ? -1
               : layout_rank(&w->layout, p.replica, stage, p.tensor);
}

/* Whether NCCL would be of use anywhere. */
static bool wants_nccl(const struct links *l, const struct world *w)
{
    const bool is_free = w->config.target.transport == TARGET_TRANSPORT_AUTO;
    bool wants = false;
    for (int r = w->layout.load_ranks; r < l->n; r++) {
        const int next = hop_peer(w, r, 1);
        int pair[2];
        wants |= (is_free && next >= 0 && !reaches(l, w, r, next)) || find_apart(l, w, r, pair);
    }
    return wants;
}

static int check_sums(const struct links *l, const struct world *w, int r, struct err *e)
{
    int apart[2], together[2];
    if (!find_apart(l, w, r, apart)) {
        return 0;
    }
    const char *a = l->gpus[apart[0]].pci, *b = l->gpus[apart[1]].pci;
    if (!l->has_nccl) {
        return err_set(e, ERR_INPUT,
                       "target.tensor: the GPUs of ranks %d (%s) and %d (%s) do not reach each "
                       "other's memory, so sums need NCCL, which not every worker has (%s)",
                       apart[0], a, apart[1], b, l->why_not);
    }
    if (find_together(l, w, r, together)) {
        return err_set(e, ERR_INPUT,
                       "target.tensor: the GPUs of ranks %d (%s) and %d (%s) do not reach each "
                       "other's memory, so sums need NCCL, which takes no two ranks on one GPU, as "
                       "%d and %d are: a GPU for each rank, or fewer ranks",
                       apart[0], a, apart[1], b, together[0], together[1]);
    }
    return 0;
}

static int check_hop(const struct links *l, const struct world *w, int r, struct err *e)
{
    const int next = hop_peer(w, r, 1);
    if (next < 0 || w->config.target.transport != TARGET_TRANSPORT_IPC || reaches(l, w, r, next)) {
        return 0;
    }
    if (!is_one_host(w, r, next)) {
        return err_set(e, ERR_INPUT,
                       "target.transport: ipc stays on a host, but rank %d is on %s and rank %d on "
                       "%s; auto, nccl or mpi",
                       r, comm_host(w->comm, r), next, comm_host(w->comm, next));
    }
    return err_set(
        e, ERR_INPUT,
        "target.transport: ipc, but the GPU of rank %d (%s) does not reach the memory of "
        "rank %d's (%s); auto, nccl or mpi",
        r, l->gpus[r].pci, next, l->gpus[next].pci);
}

/* Without a GPU the worker itself says so, better. */
static int check(const struct links *l, const struct world *w, struct err *e)
{
    for (int r = w->layout.load_ranks; r < l->n; r++) {
        if (l->gpus[r].pci[0] == '\0') {
            return 0;
        }
    }
    for (int r = w->layout.load_ranks; r < l->n; r++) {
        if (check_sums(l, w, r, e) || check_hop(l, w, r, e)) {
            return -1;
        }
    }
    return 0;
}

static int check_backend(const struct target_config *t, struct err *e)
{
    const bool forced =
        t->transport == TARGET_TRANSPORT_IPC || t->transport == TARGET_TRANSPORT_NCCL;
    return forced ? err_set(e, ERR_INPUT,
                            "target.transport: ipc and nccl go between GPUs, but the backend is "
                            "not cuda; auto or mpi")
                  : 0;
}

int links_open(struct links *l, struct world *w, const struct links_place *mine, struct err *e)
{
    const struct target_config *t = &w->config.target;
    const bool has_gpus = t->kind == TARGET_STAGES && target_backend(t) == TARGET_BACKEND_CUDA;
    struct look k = {.links = l, .w = w, .place = mine};
    *l = (struct links){0};
    if (has_gpus) {
        l->n = comm_size(w->comm);
        l->gpus = xcalloc((size_t)l->n, sizeof *l->gpus);
        l->reaches = xcalloc((size_t)l->n, (size_t)l->n);
        if (look_at_gpus(l, w, &k, e) || (wants_nccl(l, w) && look_at_nccl(l, w, &k, e))) {
            goto fail;
        }
    }
    *e = (struct err){0};
    const int rc = has_gpus ? check(l, w, e) : check_backend(t, e);
    CHECK((rc == 0) == (e->code == ERR_NONE));
    if (world_agree(w, e)) {
        goto fail;
    }
    return 0;
fail:
    links_close(l);
    return -1;
}

void links_close(struct links *l)
{
    free(l->gpus);
    free(l->reaches);
    *l = (struct links){0};
}

static bool sums_by_nccl(const struct links *l, const struct world *w, int r)
{
    int pair[2];
    return find_apart(l, w, r, pair);
}

/* Of its own accord no GPU has hops and sums over NCCL, which two threads would launch in no common order. */
static const char *choose_hop(const struct links *l, const struct world *w, int from, int to)
{
    if (reaches(l, w, from, to)) {
        return "ipc";
    }
    return l->has_nccl && !sums_by_nccl(l, w, from) && !sums_by_nccl(l, w, to) ? "nccl" : NULL;
}

const char *links_hop(const struct links *l, const struct world *w, int away)
{
    const enum target_transport asked = (enum target_transport)w->config.target.transport;
    const int peer = hop_peer(w, w->rank, away);
    if (peer < 0 || l->n == 0 || asked == TARGET_TRANSPORT_MPI) {
        return NULL;
    }
    if (asked != TARGET_TRANSPORT_AUTO) {
        return asked == TARGET_TRANSPORT_IPC ? "ipc" : "nccl";
    }
    const bool sends = away > 0; // who opens the other's memory
    return choose_hop(l, w, sends ? w->rank : peer, sends ? peer : w->rank);
}

const char *links_sums(const struct links *l, const struct world *w)
{
    return l->n > 0 && sums_by_nccl(l, w, w->rank) ? "nccl" : NULL;
}
