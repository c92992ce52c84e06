#include "cli/links.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/world.h"
#include "core/comm.h"
#include "core/mem.h"
#include "model/layout.h"
#include "workers/backend.h"
#include "workers/target.h"

/* --- looking, in the helper thread ------------------------------------------------------------------ */

struct look {
    const struct reach *reach;
    const struct links_place *place;
    struct reach_gpu mine;
    unsigned char *row; // (n)
    bool has_nccl;
    char why_not[sizeof((struct reach *)0)->why_not];
};

static void look_at_address(void *arg)
{
    struct look *k = arg;
    backend_gpu(k->place->index, k->place->n_neighbours, k->mine.pci, sizeof k->mine.pci);
}

static void look_at_peers(void *arg)
{
    struct look *k = arg;
    reach_find_row(k->reach, k->place->index, k->place->n_neighbours, k->row);
}

static void look_for_nccl(void *arg)
{
    struct look *k = arg;
    k->has_nccl = backend_has_nccl(k->why_not, sizeof k->why_not);
}

static int ask(struct world *w, void (*fn)(void *), struct look *k, struct err *e)
{
    return w->is_load ? 0 : world_wait(w, fn, k, e);
}

static int look_at_gpus(struct reach *r, struct world *w, struct look *k, struct err *e)
{
    if (ask(w, look_at_address, k, e) || reach_tell_gpu(r, w->comm, &k->mine, e)) {
        return -1;
    }
    k->row = xcalloc((size_t)r->n, 1);
    const int rc = ask(w, look_at_peers, k, e) || reach_tell_row(r, k->row, e) ? -1 : 0;
    free(k->row);
    return rc;
}

static int look_at_nccl(struct reach *r, struct world *w, struct look *k, struct err *e)
{
    return ask(w, look_for_nccl, k, e) || reach_tell_nccl(r, k->has_nccl, k->why_not, e) ? -1 : 0;
}

/* --- choosing ------------------------------------------------------------------------------------- */

/* Of the ranks of worker r's stage the first two that do not reach each other; false: all do. */
static bool find_apart(const struct links *l, const struct world *w, int r, int pair[2])
{
    const struct layout_worker p = layout_worker(&w->layout, r);
    const int first = layout_rank(&w->layout, p.replica, p.stage, 0);
    for (int a = 0; a < w->layout.tensor; a++) {
        for (int b = 0; b < w->layout.tensor; b++) {
            if (!reach_sees(&l->reach, first + a, first + b)) {
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
            if (reach_is_one_gpu(&l->reach, first + a, first + b)) {
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
    for (int r = w->layout.load_ranks; r < l->reach.n; r++) {
        const int next = hop_peer(w, r, 1);
        int pair[2];
        wants |=
            (is_free && next >= 0 && !reach_sees(&l->reach, r, next)) || find_apart(l, w, r, pair);
    }
    return wants;
}

static int check_sums(const struct links *l, const struct world *w, int r, struct err *e)
{
    int apart[2], together[2];
    if (!find_apart(l, w, r, apart)) {
        return 0;
    }
    const char *a = l->reach.gpus[apart[0]].pci, *b = l->reach.gpus[apart[1]].pci;
    if (!l->reach.has_nccl) {
        return err_set(e, ERR_INPUT,
                       "target.tensor: the GPUs of ranks %d (%s) and %d (%s) do not reach each "
                       "other's memory, so sums need NCCL, which not every worker has (%s)",
                       apart[0], a, apart[1], b, l->reach.why_not);
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
    if (next < 0 || w->config.target.transport != TARGET_TRANSPORT_IPC ||
        reach_sees(&l->reach, r, next)) {
        return 0;
    }
    if (!reach_is_one_host(&l->reach, r, next)) {
        return err_set(e, ERR_INPUT,
                       "target.transport: ipc stays on a host, but rank %d is on %s and rank %d on "
                       "%s; auto, nccl or mpi",
                       r, comm_host(w->comm, r), next, comm_host(w->comm, next));
    }
    return err_set(
        e, ERR_INPUT,
        "target.transport: ipc, but the GPU of rank %d (%s) does not reach the memory of "
        "rank %d's (%s); auto, nccl or mpi",
        r, l->reach.gpus[r].pci, next, l->reach.gpus[next].pci);
}

/* Without a GPU the worker itself says so, better. */
static int check(const struct links *l, const struct world *w, struct err *e)
{
    for (int r = w->layout.load_ranks; r < l->reach.n; r++) {
        if (!reach_has_gpu(&l->reach, r)) {
            return 0;
        }
    }
    for (int r = w->layout.load_ranks; r < l->reach.n; r++) {
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
    struct look k = {.reach = &l->reach, .place = mine};
    *l = (struct links){0};
    if (has_gpus && (look_at_gpus(&l->reach, w, &k, e) ||
                     (wants_nccl(l, w) && look_at_nccl(&l->reach, w, &k, e)))) {
        goto fail;
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
    reach_free(&l->reach);
}

static bool sums_by_nccl(const struct links *l, const struct world *w, int r)
{
    int pair[2];
    return find_apart(l, w, r, pair);
}

/* Of its own accord no GPU has hops and sums over NCCL, which two threads would launch in no common order. */
static const char *choose_hop(const struct links *l, const struct world *w, int from, int to)
{
    if (reach_sees(&l->reach, from, to)) {
        return "ipc";
    }
    return l->reach.has_nccl && !sums_by_nccl(l, w, from) && !sums_by_nccl(l, w, to) ? "nccl"
                                                                                     : NULL;
}

const char *links_hop(const struct links *l, const struct world *w, int away)
{
    const enum target_transport asked = (enum target_transport)w->config.target.transport;
    const int peer = hop_peer(w, w->rank, away);
    if (peer < 0 || l->reach.n == 0 || asked == TARGET_TRANSPORT_MPI) {
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
    return l->reach.n > 0 && sums_by_nccl(l, w, w->rank) ? "nccl" : NULL;
}
