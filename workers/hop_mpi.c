#include "workers/hop_mpi.h"

#include <stdlib.h>

#include "core/mem.h"

#define TAG_HIDDEN 1 // of the bulk plane

struct mpi {
    struct hop base;
    struct comm *comm;
    struct comm_req moving[HOP_DEPTH];
};

static struct mpi *mpi_of(struct hop *h)
{
    return (struct mpi *)(void *)h;
}

static int start(struct hop *h, struct comm *comm, struct err *e)
{
    (void)e;
    mpi_of(h)->comm = comm;
    return 0;
}

static int move(struct hop *h, int buffer, size_t n_bytes, struct err *e)
{
    struct mpi *m = mpi_of(h);
    const struct hop_config *c = &h->cfg;
    void *at = h->buffers[buffer];
    struct comm_req *r = &m->moving[buffer];
    return c->sends ? comm_isend(m->comm, at, n_bytes, c->peer, TAG_HIDDEN, r, e)
                    : comm_irecv(m->comm, at, c->max_bytes, c->peer, TAG_HIDDEN, r, e);
}

static int done(struct hop *h, int buffer, size_t *n_bytes, struct err *e)
{
    struct mpi *m = mpi_of(h);
    const int rc = comm_test(m->comm, &m->moving[buffer], e);
    *n_bytes = m->moving[buffer].n_bytes;
    return rc;
}

static void stop(struct hop *h)
{
    struct mpi *m = mpi_of(h);
    for (int i = 0; i < HOP_DEPTH && !h->cfg.sends; i++) {
        comm_cancel(m->comm, &m->moving[i]);
    }
}

static void destroy(struct hop *h)
{
    for (int i = 0; i < HOP_DEPTH; i++) {
        free(h->buffers[i]);
    }
    free(mpi_of(h));
}

static const struct hop_ops ops = {
    .name = "mpi",
    .start = start,
    .move = move,
    .done = done,
    .stop = stop,
    .destroy = destroy,
};

int hop_mpi_create(struct hop **out, const struct hop_config *cfg, struct err *e)
{
    struct mpi *m = xcalloc(1, sizeof *m);
    m->base.ops = &ops;
    m->base.cfg = *cfg;
    for (int i = 0; i < HOP_DEPTH; i++) {
        m->base.buffers[i] = mem_aligned(cfg->max_bytes);
        if (!m->base.buffers[i]) {
            destroy(&m->base);
            return err_set(e, ERR_ENV, "no memory for %zu bytes of hidden states", cfg->max_bytes);
        }
    }
    *out = &m->base;
    return 0;
}
