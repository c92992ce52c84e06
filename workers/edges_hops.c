#include "workers/edges_hops.h"

#include <stdint.h>
#include <stdlib.h>

#include "core/mem.h"
#include "workers/hop.h"

struct way {
    struct hop *hop;
    uint64_t n_moved, n_done; // messages
};

struct edges_hops {
    struct way in, out;
    bool is_first; // of the pair
};

static int open_way(struct way *w, const char *kind, struct backend *b, const struct hop_config *c,
                    struct comm *comm, struct err *e)
{
    return backend_hop(b, kind, c, &w->hop, e) || w->hop->ops->start(w->hop, comm, e) ? -1 : 0;
}

int edges_hops_open(struct edges_hops **out, const char *kind, struct backend *backend,
                    struct comm *comm, int peer, size_t max_bytes, struct err *e)
{
    struct edges_hops *h = xcalloc(1, sizeof *h);
    struct hop_config c = {.rank = comm_rank(comm), .peer = peer, .max_bytes = max_bytes};
    struct hop_config sends = c;
    sends.sends = true;
    h->is_first = c.rank < peer;
    if (open_way(&h->in, kind, backend, &c, comm, e) ||
        open_way(&h->out, kind, backend, &sends, comm, e)) {
        edges_hops_close(h);
        return -1;
    }
    *out = h;
    return 0;
}

static void close_way(struct way *w)
{
    if (w->hop) {
        w->hop->ops->stop(w->hop);
        w->hop->ops->destroy(w->hop);
    }
}

/* What goes to the second rank ends first at both: the end of a communicator wants both. */
void edges_hops_close(struct edges_hops *h)
{
    if (h) {
        close_way(h->is_first ? &h->out : &h->in);
        close_way(h->is_first ? &h->in : &h->out);
        free(h);
    }
}

static int move(struct way *w, size_t n_bytes, struct err *e)
{
    const int buffer = (int)(w->n_moved % HOP_DEPTH);
    CHECK(w->n_moved == w->n_done);
    w->n_moved++;
    return w->hop->ops->move(w->hop, buffer, n_bytes, e);
}

/* A turn of what is under way. */
static int turn(struct way *w, size_t *n_bytes, struct err *e)
{
    const int buffer = (int)(w->n_done % HOP_DEPTH);
    if (w->n_moved == w->n_done) {
        return 1;
    }
    const int rc = w->hop->ops->done(w->hop, buffer, n_bytes, e);
    if (rc != 1) {
        return rc;
    }
    w->n_done++;
    return w->hop->ops->release && w->hop->ops->release(w->hop, buffer, e) ? -1 : 1;
}

int edges_hops_recv(struct edges_hops *h, size_t n_bytes, struct err *e)
{
    return move(&h->in, n_bytes, e);
}

int edges_hops_send(struct edges_hops *h, size_t n_bytes, struct err *e)
{
    return move(&h->out, n_bytes, e);
}

/* What is being sent wants turns, too. */
int edges_hops_received(struct edges_hops *h, size_t *n_bytes, struct err *e)
{
    size_t sent;
    return turn(&h->out, &sent, e) < 0 ? -1 : turn(&h->in, n_bytes, e);
}

int edges_hops_sent(struct edges_hops *h, struct err *e)
{
    size_t sent;
    return turn(&h->out, &sent, e);
}
