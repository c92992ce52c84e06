#include "workers/transport.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/mem.h"

struct transport {
    struct hop *in, *out;                     // NULL: none
    uint64_t n_begun, n_received, n_released; // messages in; at most one has begun and is not there
    uint64_t n_posted, n_sent;                // and out
};

struct transport *transport_create(struct hop *in, struct hop *out)
{
    struct transport *t = xcalloc(1, sizeof *t);
    t->in = in;
    t->out = out;
    return t;
}

static int buffer_of(uint64_t k)
{
    return (int)(k % HOP_DEPTH);
}

int transport_start(struct transport *t, struct comm *comm, struct err *e)
{
    return (t->in && t->in->ops->start(t->in, comm, e) != 0) ||
                   (t->out && t->out->ops->start(t->out, comm, e) != 0)
               ? -1
               : 0;
}

void transport_stop(struct transport *t)
{
    if (t->in) {
        t->in->ops->stop(t->in);
    }
    if (t->out) {
        t->out->ops->stop(t->out);
    }
}

void transport_destroy(struct transport *t)
{
    if (t == NULL) {
        return;
    }
    hop_destroy(t->in);
    hop_destroy(t->out);
    free(t);
}

/* --- in ------------------------------------------------------------------------------------------ */

int transport_recv(struct transport *t, size_t n_bytes, void **buf, struct err *e)
{
    size_t came = 0;
    if (t->n_received - t->n_released == HOP_DEPTH) {
        return 0;
    }
    const int i = buffer_of(t->n_received);
    if (t->n_begun == t->n_received) {
        if (t->in->ops->move(t->in, i, n_bytes, e) != 0) {
            return -1;
        }
        t->n_begun++;
    }
    const int rc = t->in->ops->done(t->in, i, &came, e);
    if (rc != 1) {
        return rc;
    }
    if (came != n_bytes) {
        return err_set(e, ERR_ENV, "rank %d sent %zu bytes of hidden states, its batch has %zu",
                       t->in->cfg.peer, came, n_bytes);
    }
    t->n_received++;
    *buf = t->in->buffers[i];
    return 1;
}

int transport_release(struct transport *t, struct err *e)
{
    CHECK(t->n_released < t->n_received);
    const int i = buffer_of(t->n_released++);
    return t->in->ops->release ? t->in->ops->release(t->in, i, e) : 0;
}

/* --- out ----------------------------------------------------------------------------------------- */

void *transport_send_buffer(struct transport *t)
{
    return t->n_posted - t->n_sent == HOP_DEPTH ? NULL : t->out->buffers[buffer_of(t->n_posted)];
}

int transport_send(struct transport *t, size_t n_bytes, struct err *e)
{
    CHECK(n_bytes <= t->out->cfg.max_bytes && t->n_posted - t->n_sent < HOP_DEPTH);
    return t->out->ops->move(t->out, buffer_of(t->n_posted++), n_bytes, e);
}

int transport_sent(struct transport *t, struct err *e)
{
    size_t n_bytes;
    if (t->n_sent == t->n_posted) {
        return 0;
    }
    int done = t->out->ops->done(t->out, buffer_of(t->n_sent), &n_bytes, e);
    t->n_sent += done == 1;
    return done;
}

bool transport_is_quiet(const struct transport *t)
{
    return t->n_sent == t->n_posted;
}

/* --- about --------------------------------------------------------------------------------------- */

const char *transport_name(const struct transport *t)
{
    const struct hop *h = t->out ? t->out : t->in;
    return h ? h->ops->name : "";
}
