#include "workers/cuda/hop_nccl.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/mem.h"
#include "workers/cuda/gpu.h"
#include "workers/cuda/nccl_comm.h"

#define TAG_HELLO  6 // of the bulk plane; hop_mpi.c, tp_group.c and hop_ipc.c have those before
#define MESSAGE_NS (600 * NS_PER_S) // the stage's patience ends before (workers/patience.h)

enum {
    SENDER,
    RECEIVER,
    RANKS
};

/* What the sender tells. */
struct hello {
    struct nccl_library_id id;
    char host[64], pci[GPU_PCI_CHARS]; // of its GPU
};

struct nccl {
    struct hop base;
    struct gpu *gpu;
    const struct nccl_library *library;
    struct comm *comm;
    struct hello hello;
    struct comm_req meeting; // hello on its way
    struct nccl_comm *c;     // NULL until both know the id
    bool is_ready;
    size_t n_bytes[HOP_DEPTH];
    uint64_t n_moved, n_posted, n_done; // messages, in order
};

static struct nccl *nccl_of(struct hop *h)
{
    return (struct nccl *)(void *)h;
}

/* --- both ends meet --------------------------------------------------------------------------------- */

static int start(struct hop *h, struct comm *comm, struct err *e)
{
    struct nccl *p = nccl_of(h);
    p->comm = comm;
    struct hello *hello = &p->hello;
    if (!h->cfg.sends) {
        return comm_irecv(comm, hello, sizeof *hello, h->cfg.peer, TAG_HELLO, &p->meeting, e);
    }
    snprintf(hello->host, sizeof hello->host, "%s", comm_host(comm, h->cfg.rank));
    snprintf(hello->pci, sizeof hello->pci, "%s", gpu_info(p->gpu)->pci);
    return nccl_comm_make_id(p->library, h->cfg.rank, &hello->id, e) != 0
               ? -1
               : comm_isend(comm, hello, sizeof *hello, h->cfg.peer, TAG_HELLO, &p->meeting, e);
}

/* The receiver: what came is whole, and NCCL takes these two GPUs. */
static int check_hello(struct nccl *p, struct err *e)
{
    struct hello *hello = &p->hello;
    const struct hop_config *h = &p->base.cfg;
    if (p->meeting.n_bytes != sizeof *hello) {
        return err_set(e, ERR_ENV, "rank %d sent %zu bytes to begin NCCL with, not %zu", h->peer,
                       p->meeting.n_bytes, sizeof *hello);
    }
    hello->host[sizeof hello->host - 1] = hello->pci[sizeof hello->pci - 1] = '\0';
    const struct nccl_comm_place places[RANKS] = {
        {h->peer, hello->host, hello->pci},
        {h->rank, comm_host(p->comm, h->rank), gpu_info(p->gpu)->pci},
    };
    return nccl_comm_check(p->library, places, RANKS, e);
}

static int begin(struct nccl *p, struct err *e)
{
    const struct hop_config *h = &p->base.cfg;
    const int ranks[RANKS] = {h->sends ? h->rank : h->peer, h->sends ? h->peer : h->rank};
    const struct nccl_comm_config cfg = {
        .library = p->library,
        .gpu = p->gpu,
        .purpose = "hidden states",
        .ranks = ranks,
        .size = RANKS,
        .index = h->sends ? SENDER : RECEIVER,
        .id = p->hello.id,
    };
    return nccl_comm_start(&p->c, &cfg, clock_local_ns() + NCCL_COMM_MEETING_NS, e);
}

/* 1 once messages can be posted. */
static int meet(struct nccl *p, struct err *e)
{
    if (p->is_ready) {
        return 1;
    }
    if (!p->c) {
        const int rc = comm_test(p->comm, &p->meeting, e);
        if (rc != 1) {
            return rc;
        }
        if ((!p->base.cfg.sends && check_hello(p, e) != 0) || begin(p, e) != 0) {
            return -1;
        }
    }
    const int rc = nccl_comm_ready(p->c, e);
    p->is_ready = rc == 1;
    return rc;
}

/* --- messages --------------------------------------------------------------------------------------- */

static int move(struct hop *h, int buffer, size_t n_bytes, struct err *e)
{
    (void)e;
    struct nccl *p = nccl_of(h);
    CHECK(buffer == (int)(p->n_moved % HOP_DEPTH));
    p->n_bytes[buffer] = n_bytes;
    p->n_moved++;
    return 0;
}

static int post(struct nccl *p, struct err *e)
{
    while (p->n_posted < p->n_moved && nccl_comm_has_room(p->c)) {
        const int i = (int)(p->n_posted % HOP_DEPTH);
        const bool sends = p->base.cfg.sends;
        if (p->n_bytes[i] == 0) { // which NCCL takes none of
            p->n_posted++;
            continue;
        }
        const struct nccl_comm_part part = {
            .is_send = sends,
            .peer = sends ? RECEIVER : SENDER,
            .buffer = p->base.buffers[i],
            .n_bytes = p->n_bytes[i],
        };
        if (nccl_comm_post(p->c, &part, 1, clock_local_ns() + MESSAGE_NS, e) != 0) {
            return -1;
        }
        p->n_posted++;
    }
    return 0;
}

static int done(struct hop *h, int buffer, size_t *n_bytes, struct err *e)
{
    struct nccl *p = nccl_of(h);
    int rc = meet(p, e);
    if (rc != 1) {
        return rc;
    }
    if (gpu_use(p->gpu, e) != 0 || post(p, e) != 0) {
        return -1;
    }
    const bool is_empty = p->n_posted > p->n_done && p->n_bytes[buffer] == 0;
    rc = is_empty ? 1 : nccl_comm_turn(p->c, e);
    if (rc == 1) {
        CHECK(buffer == (int)(p->n_done % HOP_DEPTH));
        p->n_done++;
        *n_bytes = p->n_bytes[buffer]; // NCCL has no other
    }
    return rc;
}

/* --- the end ---------------------------------------------------------------------------------------- */

static void stop(struct hop *h)
{
    struct nccl *p = nccl_of(h);
    if (!h->cfg.sends) {
        comm_cancel(p->comm, &p->meeting);
    }
}

static void destroy(struct hop *h)
{
    struct nccl *p = nccl_of(h);
    nccl_comm_end(p->c, NCCL_COMM_ENDING_NS);
    for (int i = 0; i < HOP_DEPTH; i++) {
        gpu_give(p->gpu, h->buffers[i]);
    }
    free(p);
}

static const struct hop_ops ops = {
    .name = "nccl",
    .on_device = true,
    .start = start,
    .move = move,
    .done = done,
    .stop = stop,
    .destroy = destroy,
};

int hop_nccl_create(struct hop **out, struct gpu *gpu, const struct nccl_library *library,
                    const struct hop_config *cfg, struct err *e)
{
    struct nccl *p = xcalloc(1, sizeof *p);
    p->base.ops = &ops;
    p->base.cfg = *cfg;
    p->gpu = gpu;
    p->library = library;
    for (int i = 0; i < HOP_DEPTH; i++) {
        if (gpu_take(gpu, cfg->max_bytes, "hidden states", &p->base.buffers[i], e) != 0) {
            destroy(&p->base);
            return -1;
        }
    }
    *out = &p->base;
    return 0;
}
