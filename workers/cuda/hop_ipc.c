#include "workers/cuda/hop_ipc.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/mem.h"
#include "workers/cuda/edge_ipc.h"
#include "workers/cuda/gpu.h"

enum tag { // of the bulk plane; hop_mpi.c and tp_group.c have 1 and 2
    TAG_ROOM = 3,
    TAG_THERE,
    TAG_READ,
};

enum stage_of { // a message's, at the sender
    NOTHING,
    WAITING, // for a slot that has been read
    COPYING,
    TELLING,
};

/* What the receiver tells: once where its slots are, and again and again how many it has read. */
struct room {
    struct edge_ipc_room slots;
    uint64_t hop_id; // no other hop's between the same two: when it was made
};

struct said {
    uint64_t hop_id, n_read;
};

struct ipc {
    struct hop base;
    struct gpu *gpu;
    struct comm *comm;
    struct room room;
    struct comm_req meeting; // the room on its way

    // sender
    struct edge_ipc *edge; // NULL until the room has come
    uint64_t n_copied;     // messages whose copy has begun
    enum stage_of at[HOP_DEPTH];

    // both: message k is there; its size
    uint64_t there[HOP_DEPTH];
    struct comm_req telling[HOP_DEPTH];

    // both: how many have been read
    uint64_t n_read;
    struct said said; // on its way
    struct comm_req reading;
};

static struct ipc *ipc_of(struct hop *h)
{
    return (struct ipc *)(void *)h;
}

static int test(struct ipc *p, struct comm_req *r, struct err *e)
{
    return r->handle ? comm_test(p->comm, r, e) : 1;
}

/* What came must be as long as what was wanted. */
static int check_length(const struct ipc *p, const struct comm_req *r, size_t n_bytes,
                        struct err *e)
{
    return r->n_bytes == n_bytes
               ? 0
               : err_set(e, ERR_ENV, "rank %d sent %zu bytes about hidden states, not %zu",
                         p->base.cfg.peer, r->n_bytes, n_bytes);
}

/* --- receiver ------------------------------------------------------------------------------------- */

static int receiver_start(struct hop *h, struct comm *comm, struct err *e)
{
    struct ipc *p = ipc_of(h);
    p->comm = comm;
    return comm_isend(comm, &p->room, sizeof p->room, h->cfg.peer, TAG_ROOM, &p->meeting, e);
}

static int receiver_move(struct hop *h, int buffer, size_t n_bytes, struct err *e)
{
    (void)n_bytes; // the sender says
    struct ipc *p = ipc_of(h);
    return comm_irecv(p->comm, &p->there[buffer], sizeof p->there[buffer], h->cfg.peer, TAG_THERE,
                      &p->telling[buffer], e);
}

/* Say how many have been read, one message at a time: the latest number is all that matters. */
static int say_read(struct ipc *p, struct err *e)
{
    const int rc = p->said.n_read == p->n_read ? 0 : test(p, &p->reading, e);
    if (rc != 1) {
        return rc;
    }
    p->said = (struct said){p->room.hop_id, p->n_read};
    return comm_isend(p->comm, &p->said, sizeof p->said, p->base.cfg.peer, TAG_READ, &p->reading,
                      e);
}

static int receiver_done(struct hop *h, int buffer, size_t *n_bytes, struct err *e)
{
    struct ipc *p = ipc_of(h);
    if (test(p, &p->meeting, e) < 0 || say_read(p, e) < 0) {
        return -1;
    }
    struct comm_req *r = &p->telling[buffer];
    const int rc = comm_test(p->comm, r, e);
    if (rc != 1) {
        return rc;
    }
    *n_bytes = p->there[buffer];
    return check_length(p, r, sizeof p->there[buffer], e) == 0 ? 1 : -1;
}

static int receiver_release(struct hop *h, int buffer, struct err *e)
{
    (void)buffer;
    struct ipc *p = ipc_of(h);
    p->n_read++;
    return say_read(p, e) < 0 ? -1 : 0;
}

/* --- sender --------------------------------------------------------------------------------------- */

static int sender_start(struct hop *h, struct comm *comm, struct err *e)
{
    struct ipc *p = ipc_of(h);
    p->comm = comm;
    return comm_irecv(comm, &p->room, sizeof p->room, h->cfg.peer, TAG_ROOM, &p->meeting, e);
}

static int listen(struct ipc *p, struct err *e)
{
    return comm_irecv(p->comm, &p->said, sizeof p->said, p->base.cfg.peer, TAG_READ, &p->reading,
                      e);
}

/* 1 once the receiver's slots are open. */
static int meet(struct ipc *p, struct err *e)
{
    if (p->edge) {
        return 1;
    }
    const int rc = comm_test(p->comm, &p->meeting, e);
    if (rc != 1) {
        return rc;
    }
    if (check_length(p, &p->meeting, sizeof p->room, e) != 0) {
        return -1;
    }
    const struct edge_ipc_room *slots = &p->room.slots;
    if (slots->depth != HOP_DEPTH || slots->slot_bytes < (int64_t)p->base.cfg.max_bytes) {
        return err_set(e, ERR_ENV, "rank %d has %d buffers of %lld bytes for hidden states of %zu",
                       p->base.cfg.peer, slots->depth, (long long)slots->slot_bytes,
                       p->base.cfg.max_bytes);
    }
    return edge_ipc_open(&p->edge, p->gpu, slots, e) == 0 && listen(p, e) == 0 ? 1 : -1;
}

/* What the receiver has read by now. */
static int hear_read(struct ipc *p, struct err *e)
{
    int rc;
    while ((rc = comm_test(p->comm, &p->reading, e)) == 1) {
        if (check_length(p, &p->reading, sizeof p->said, e) != 0) {
            return -1;
        }
        p->n_read = p->said.hop_id == p->room.hop_id ? p->said.n_read : p->n_read;
        if (listen(p, e) != 0) {
            return -1;
        }
    }
    return rc;
}

static int sender_move(struct hop *h, int buffer, size_t n_bytes, struct err *e)
{
    (void)e;
    struct ipc *p = ipc_of(h);
    p->there[buffer] = n_bytes;
    p->at[buffer] = WAITING;
    return 0;
}

/* Copy what waits into the slots that have been read, in order. */
static int copy(struct ipc *p, struct err *e)
{
    for (;;) {
        const int i = (int)(p->n_copied % HOP_DEPTH);
        if (p->at[i] != WAITING || p->n_copied - p->n_read == HOP_DEPTH) {
            return 0;
        }
        if (edge_ipc_copy(p->edge, i, p->base.buffers[i], p->there[i], e) != 0) {
            return -1;
        }
        p->at[i] = COPYING;
        p->n_copied++;
    }
}

static int tell(struct ipc *p, int buffer, struct err *e)
{
    const int rc = p->at[buffer] == COPYING ? edge_ipc_poll(p->edge, buffer, e) : 0;
    if (rc != 1) {
        return rc;
    }
    p->at[buffer] = TELLING;
    return comm_isend(p->comm, &p->there[buffer], sizeof p->there[buffer], p->base.cfg.peer,
                      TAG_THERE, &p->telling[buffer], e);
}

static int sender_done(struct hop *h, int buffer, size_t *n_bytes, struct err *e)
{
    struct ipc *p = ipc_of(h);
    const int met = meet(p, e);
    if (met != 1) {
        return met;
    }
    if (hear_read(p, e) < 0 || copy(p, e) < 0 || tell(p, buffer, e) < 0) {
        return -1;
    }
    const int rc = p->at[buffer] == TELLING ? comm_test(p->comm, &p->telling[buffer], e) : 0;
    *n_bytes = p->there[buffer];
    p->at[buffer] = rc == 1 ? NOTHING : p->at[buffer];
    return rc;
}

/* --- both ----------------------------------------------------------------------------------------- */

/* Give up what is still to come; what is still leaving has been given away, or the job is over. */
static void receiver_stop(struct hop *h)
{
    struct ipc *p = ipc_of(h);
    for (int i = 0; i < HOP_DEPTH; i++) {
        comm_cancel(p->comm, &p->telling[i]);
    }
}

static void sender_stop(struct hop *h)
{
    struct ipc *p = ipc_of(h);
    comm_cancel(p->comm, &p->meeting);
    comm_cancel(p->comm, &p->reading);
}

/* A receiver's memory may still be open at the sender, who cannot say so any more: it ends with the process. */
static void destroy(struct hop *h)
{
    struct ipc *p = ipc_of(h);
    edge_ipc_close(p->edge);
    if (h->cfg.sends) {
        for (int i = 0; i < HOP_DEPTH; i++) {
            gpu_give(p->gpu, h->buffers[i]);
        }
    } else if (h->buffers[0]) {
        gpu_leave(p->gpu, h->buffers[0]);
    }
    free(p);
}

static const struct hop_ops receiver = {
    .name = "ipc",
    .on_device = true,
    .start = receiver_start,
    .move = receiver_move,
    .done = receiver_done,
    .release = receiver_release,
    .stop = receiver_stop,
    .destroy = destroy,
};

static const struct hop_ops sender = {
    .name = "ipc",
    .on_device = true,
    .start = sender_start,
    .move = sender_move,
    .done = sender_done,
    .stop = sender_stop,
    .destroy = destroy,
};

static int take_slots(struct ipc *p, struct err *e)
{
    void *slots;
    if (edge_ipc_take(p->gpu, HOP_DEPTH, p->base.cfg.max_bytes, &slots, &p->room.slots, e) != 0) {
        return -1;
    }
    p->room.hop_id = (uint64_t)clock_local_ns();
    for (int i = 0; i < HOP_DEPTH; i++) {
        p->base.buffers[i] = (char *)slots + i * p->room.slots.slot_bytes;
    }
    return 0;
}

static int take_buffers(struct ipc *p, struct err *e)
{
    for (int i = 0; i < HOP_DEPTH; i++) {
        if (gpu_take(p->gpu, p->base.cfg.max_bytes, "hidden states", &p->base.buffers[i], e) != 0) {
            return -1;
        }
    }
    return 0;
}

int hop_ipc_create(struct hop **out, struct gpu *gpu, const struct hop_config *cfg, struct err *e)
{
    struct ipc *p = xcalloc(1, sizeof *p);
    p->base.ops = cfg->sends ? &sender : &receiver;
    p->base.cfg = *cfg;
    p->gpu = gpu;
    if ((cfg->sends ? take_buffers(p, e) : take_slots(p, e)) != 0) {
        destroy(&p->base);
        return -1;
    }
    *out = &p->base;
    return 0;
}
