/*
 * One end of a hop: what moves hidden states from a stage's rank to the next stage's, as the edge between the two
 * allows. Both ends are of one kind. Message k uses buffer k % HOP_DEPTH at either end, so that one is computed on
 * while another one is on its way; workers/transport.h keeps the order.
 *
 *   mpi    host memory and comm's bulk plane: works everywhere (workers/hop_mpi.h)
 *   others are a backend's own, between buffers on its devices (backend_hop)
 *
 * Each implementation's struct begins with struct hop. The rank's main thread calls everything, and nothing waits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/comm.h"
#include "core/err.h"

enum {
    HOP_DEPTH = 2,
};

struct hop_config {
    bool sends;       // this end; else it receives
    int rank, peer;   // this one's, the other end's
    size_t max_bytes; // of a message
};

struct hop {
    const struct hop_ops *ops;
    struct hop_config cfg;
    void *buffers[HOP_DEPTH]; // (max_bytes) each; the device's memory where ops->on_device
};

/* 0, or -1 and what failed. */
struct hop_ops {
    const char *name;
    bool on_device;
    int (*start)(struct hop *h, struct comm *comm, struct err *e); // the ends may meet later
    /* Receive into the buffer, n_bytes are announced; or send what is in it. */
    int (*move)(struct hop *h, int buffer, size_t n_bytes, struct err *e);
    /* A turn: 1 when that is over; 0: not yet. n_bytes: what came. */
    int (*done)(struct hop *h, int buffer, size_t *n_bytes, struct err *e);
    /* What has been received has been read. NULL: the other end need not know. */
    int (*release)(struct hop *h, int buffer, struct err *e);
    void (*stop)(struct hop *h); // the comm is not touched afterwards
    void (*destroy)(struct hop *h);
};

static inline void hop_destroy(struct hop *h) // may be NULL
{
    if (h) {
        h->ops->destroy(h);
    }
}
