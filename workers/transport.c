#include "workers/transport.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/mem.h"

#define TAG_HIDDEN 1 // of the bulk plane

struct transport {
    struct transport_config cfg;
    struct comm *comm;
    void *in[TRANSPORT_DEPTH], *out[TRANSPORT_DEPTH]; // (max_bytes)
    struct comm_req in_req[TRANSPORT_DEPTH], out_req[TRANSPORT_DEPTH];
    uint64_t n_received, n_released; // message k uses buffer k % TRANSPORT_DEPTH
    uint64_t n_posted, n_sent;
};

static int alloc_buffers(void **buf, size_t n_bytes, struct err *e)
{
    for (int i = 0; i < TRANSPORT_DEPTH; i++) {
        buf[i] = mem_aligned(n_bytes);
        if (buf[i] == NULL) {
            return err_set(e, ERR_ENV, "no memory for %zu bytes of hidden states", n_bytes);
        }
    }
    return 0;
}

int transport_create(struct transport **out, const struct transport_config *cfg, struct err *e)
{
    struct transport *t = xcalloc(1, sizeof *t);
    t->cfg = *cfg;
    if ((cfg->prev >= 0 && alloc_buffers(t->in, cfg->max_bytes, e) != 0) ||
        (cfg->next >= 0 && alloc_buffers(t->out, cfg->max_bytes, e) != 0)) {
        transport_destroy(t);
        return -1;
    }
    *out = t;
    return 0;
}

static int post_receive(struct transport *t, uint64_t k, struct err *e)
{
    uint64_t i = k % TRANSPORT_DEPTH;
    return comm_irecv(t->comm, t->in[i], t->cfg.max_bytes, t->cfg.prev, TAG_HIDDEN, &t->in_req[i],
                      e);
}

int transport_start(struct transport *t, struct comm *comm, struct err *e)
{
    t->comm = comm;
    for (uint64_t k = 0; t->cfg.prev >= 0 && k < TRANSPORT_DEPTH; k++) {
        if (post_receive(t, k, e) != 0) {
            return -1;
        }
    }
    return 0;
}

void transport_stop(struct transport *t)
{
    for (int i = 0; i < TRANSPORT_DEPTH; i++) {
        comm_cancel(t->comm, &t->in_req[i]);
    }
}

void transport_destroy(struct transport *t)
{
    if (t == NULL) {
        return;
    }
    for (int i = 0; i < TRANSPORT_DEPTH; i++) {
        free(t->in[i]);
        free(t->out[i]);
    }
    free(t);
}

int transport_recv(struct transport *t, size_t n_bytes, void **buf, struct err *e)
{
    if (t->n_received - t->n_released == TRANSPORT_DEPTH) {
        return 0;
    }
    uint64_t i = t->n_received % TRANSPORT_DEPTH;
    struct comm_req *req = &t->in_req[i];
    int got = comm_test(t->comm, req, e);
    if (got != 1) {
        return got;
    }
    if (req->n_bytes != n_bytes) {
        return err_set(e, ERR_ENV, "rank %d sent %zu bytes of hidden states, its batch has %zu",
                       t->cfg.prev, req->n_bytes, n_bytes);
    }
    t->n_received++;
    *buf = t->in[i];
    return 1;
}

int transport_release(struct transport *t, struct err *e)
{
    CHECK(t->n_released < t->n_received);
    return post_receive(t, t->n_released++, e);
}

void *transport_send_buffer(struct transport *t)
{
    return t->n_posted - t->n_sent == TRANSPORT_DEPTH ? NULL
                                                      : t->out[t->n_posted % TRANSPORT_DEPTH];
}

int transport_send(struct transport *t, size_t n_bytes, struct err *e)
{
    CHECK(n_bytes <= t->cfg.max_bytes && t->n_posted - t->n_sent < TRANSPORT_DEPTH);
    uint64_t i = t->n_posted++ % TRANSPORT_DEPTH;
    return comm_isend(t->comm, t->out[i], n_bytes, t->cfg.next, TAG_HIDDEN, &t->out_req[i], e);
}

int transport_sent(struct transport *t, struct err *e)
{
    if (t->n_sent == t->n_posted) {
        return 0;
    }
    int done = comm_test(t->comm, &t->out_req[t->n_sent % TRANSPORT_DEPTH], e);
    t->n_sent += done == 1;
    return done;
}

bool transport_is_quiet(const struct transport *t)
{
    return t->n_sent == t->n_posted;
}
