#include "workers/edges_wire.h"

enum {
    TAG_BULK = 16, // of the bulk plane: none of workers/hop_*.c, nor of sums
    TAG_MESSAGE = 1,
};

/* Where a message of that size lies: only answers are as short as the buffer of answers. */
static void *room(struct edges_wire *w, char *answer, size_t n_bytes)
{
    return n_bytes <= sizeof w->answer ? answer : w->large;
}

static int expected(const struct edges_wire *w, size_t n_bytes, struct err *e)
{
    return n_bytes == w->n_in
               ? 1
               : err_set(e, ERR_ENV, "rank %d sent %zu bytes, not %zu", w->peer, n_bytes, w->n_in);
}

/* --- the bulk plane --------------------------------------------------------------------------- */

static int bulk_recv(struct edges_wire *w, size_t n_bytes, struct err *e)
{
    w->n_in = n_bytes;
    return comm_irecv(w->comm, room(w, w->answer_in, n_bytes), n_bytes, w->peer, TAG_BULK, &w->in,
                      e);
}

static int bulk_send(struct edges_wire *w, size_t n_bytes, struct err *e)
{
    return comm_isend(w->comm, room(w, w->answer, n_bytes), n_bytes, w->peer, TAG_BULK, &w->out, e);
}

static int bulk_received(struct edges_wire *w, struct err *e)
{
    const int got = comm_test(w->comm, &w->in, e);
    return got == 1 ? expected(w, w->in.n_bytes, e) : got;
}

static int bulk_sent(struct edges_wire *w, struct err *e)
{
    return comm_test(w->comm, &w->out, e);
}

/* --- the message plane ------------------------------------------------------------------------ */

static int message_recv(struct edges_wire *w, size_t n_bytes, struct err *e)
{
    (void)e;
    w->n_in = n_bytes;
    return 0;
}

static int message_send(struct edges_wire *w, size_t n_bytes, struct err *e)
{
    return comm_post(w->comm, w->peer, TAG_MESSAGE, room(w, w->answer, n_bytes), n_bytes, e);
}

static int message_received(struct edges_wire *w, struct err *e)
{
    struct comm_msg m;
    const int got = comm_poll(w->comm, &m, e);
    if (got == 1 && m.src != w->peer) {
        return err_set(e, ERR_ENV, "a message from rank %d in the turn of rank %d", m.src, w->peer);
    }
    return got == 1 ? expected(w, m.n_bytes, e) : got;
}

static int message_sent(struct edges_wire *w, struct err *e)
{
    (void)w, (void)e;
    return 1; // copied
}

/* --- between GPUs ----------------------------------------------------------------------------- */

static int hop_recv(struct edges_wire *w, size_t n_bytes, struct err *e)
{
    w->n_in = n_bytes;
    return edges_hops_recv(w->hops, n_bytes, e);
}

static int hop_send(struct edges_wire *w, size_t n_bytes, struct err *e)
{
    return edges_hops_send(w->hops, n_bytes, e);
}

static int hop_received(struct edges_wire *w, struct err *e)
{
    size_t n_bytes;
    const int got = edges_hops_received(w->hops, &n_bytes, e);
    return got == 1 ? expected(w, n_bytes, e) : got;
}

static int hop_sent(struct edges_wire *w, struct err *e)
{
    return edges_hops_sent(w->hops, e);
}

const struct edges_wire_kind *edges_wire_row(int i)
{
    static const struct edges_wire_kind rows[] = {
        {"ipc", true, EDGES_NEED_REACH, 0, hop_recv, hop_send, hop_received, hop_sent},
        {"nccl", true, EDGES_NEED_NCCL, 0, hop_recv, hop_send, hop_received, hop_sent},
        {"mpi", true, EDGES_NEED_NOTHING, 0, bulk_recv, bulk_send, bulk_received, bulk_sent},
        {"messages", false, EDGES_NEED_NOTHING, EDGES_WIRE_MAX_MESSAGE, message_recv, message_send,
         message_received, message_sent},
    };
    return i >= 0 && i < (int)(sizeof rows / sizeof rows[0]) ? &rows[i] : NULL;
}
