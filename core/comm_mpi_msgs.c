#include "core/comm_mpi_msgs.h"

#include <limits.h>
#include <stdlib.h>

#include "core/mem.h"

enum {
    MAX_SLOTS = 64,
    MIN_SLOTS = 8,
    REAP_PER_TURN = 4, // unfinished sends tested each time
};

#define SLOTS_BYTES   ((size_t)16 << 20) // of pre-posted receives, unless MIN_SLOTS need more
#define BACKLOG_BYTES ((size_t)64 << 20) // of messages that one peer has not taken
#define BACKLOG_MSGS  4                  // of the largest size, if that is more

struct comm_mpi_msgs_slot {
    MPI_Request req;
    unsigned char *data; // (max_msg_bytes)
};

struct comm_mpi_msgs_outgoing {
    MPI_Request req;
    struct msgbuf *buf;
};

void comm_mpi_msgs_init(struct comm_mpi_msgs *m, int size)
{
    m->backlog_bytes = xcalloc((size_t)size, sizeof *m->backlog_bytes);
}

/* --- in ------------------------------------------------------------------------------------- */

static int post_slot(struct comm_mpi_msgs *m, const struct comm *c, struct comm_mpi_msgs_slot *s,
                     struct err *e)
{
    int rc = MPI_Irecv(s->data, (int)c->max_msg_bytes, MPI_BYTE, MPI_ANY_SOURCE, MPI_ANY_TAG,
                       m->comm, &s->req);
    return rc ? comm_mpi_request_fail(rc, "MPI_Irecv", e) : 0;
}

int comm_mpi_msgs_start(struct comm_mpi_msgs *m, const struct comm *c, struct err *e)
{
    CHECK(c->max_msg_bytes <= (size_t)INT_MAX / 2);
    size_t each_bytes = (c->max_msg_bytes + 63) / 64 * 64;
    size_t n = SLOTS_BYTES / each_bytes;
    m->n_slots = n > MAX_SLOTS ? MAX_SLOTS : n < MIN_SLOTS ? MIN_SLOTS : (int)n;
    m->slots_mem = mem_aligned((size_t)m->n_slots * each_bytes);
    if (!m->slots_mem) {
        return err_set(e, ERR_ENV, "no memory for %d messages of %zu bytes", m->n_slots,
                       each_bytes);
    }
    m->slots = xcalloc((size_t)m->n_slots, sizeof *m->slots);
    for (int i = 0; i < m->n_slots; i++) {
        m->slots[i].data = m->slots_mem + (size_t)i * each_bytes;
        if (post_slot(m, c, &m->slots[i], e)) {
            return -1;
        }
    }
    return 0;
}

int comm_mpi_msgs_take(struct comm_mpi_msgs *m, const struct comm *c, struct comm_msg *msg,
                       struct err *e)
{
    if (m->handed_out) {
        if (post_slot(m, c, m->handed_out, e)) {
            return -1;
        }
        m->handed_out = NULL;
    }
    struct comm_mpi_msgs_slot *s = &m->slots[m->head];
    MPI_Status status;
    int got = 0, n_bytes = 0;
    int rc = MPI_Test(&s->req, &got, &status);
    if (rc) {
        return comm_mpi_request_fail(rc, "message receive", e);
    }
    if (!got) {
        return 0;
    }
    m->handed_out = s;
    m->head = (m->head + 1) % m->n_slots;
    rc = MPI_Get_count(&status, MPI_BYTE, &n_bytes);
    if (rc) {
        return comm_mpi_request_fail(rc, "MPI_Get_count", e);
    }
    *msg = (struct comm_msg){.src = status.MPI_SOURCE,
                             .tag = status.MPI_TAG,
                             .data = s->data,
                             .n_bytes = (size_t)n_bytes};
    return 1;
}

/* --- out ------------------------------------------------------------------------------------ */

int comm_mpi_msgs_reap(struct comm_mpi_msgs *m, struct comm *c, struct err *e)
{
    int *n = &c->n_unsent;
    for (int unfinished = 0; *n > 0 && unfinished < REAP_PER_TURN && unfinished < *n;) {
        if (m->next_out >= *n) {
            m->next_out = 0;
        }
        struct comm_mpi_msgs_outgoing *o = &m->out[m->next_out];
        int gone = 0;
        int rc = MPI_Test(&o->req, &gone, MPI_STATUS_IGNORE);
        if (rc) {
            return comm_mpi_request_fail_peer(c, rc, "message", o->buf->peer, e);
        }
        if (!gone) {
            unfinished++;
            m->next_out++;
            continue;
        }
        m->backlog_bytes[o->buf->peer] -= o->buf->n_bytes;
        msgbuf_put(&c->bufs, o->buf);
        *o = m->out[--*n];
    }
    return 0;
}

static int backlog_full(const struct comm_mpi_msgs *m, const struct comm *c, int dst, struct err *e)
{
    char label[128];
    return err_set(e, ERR_ENV, "%s takes no messages: %zu MiB are waiting for it",
                   comm_label(c, dst, label, sizeof label), m->backlog_bytes[dst] >> 20);
}

static struct msgbuf *copy_for(struct comm_mpi_msgs *m, struct comm *c, int dst, const void *data,
                               size_t n_bytes)
{
    size_t limit = BACKLOG_MSGS * c->max_msg_bytes;
    if (limit < BACKLOG_BYTES) {
        limit = BACKLOG_BYTES;
    }
    bool full = m->backlog_bytes[dst] + n_bytes > limit;
    return full ? NULL : msgbuf_get(&c->bufs, data, n_bytes);
}

int comm_mpi_msgs_post(struct comm_mpi_msgs *m, struct comm *c, int dst, int tag, const void *data,
                       size_t n_bytes, struct err *e)
{
    struct msgbuf *b = copy_for(m, c, dst, data, n_bytes);
    if (!b) {
        return backlog_full(m, c, dst, e);
    }
    b->peer = dst;
    b->tag = tag;
    MPI_Request req;
    int gone = 0;
    int rc = MPI_Isend(b->data, (int)n_bytes, MPI_BYTE, dst, tag, m->comm, &req);
    if (!rc) {
        rc = MPI_Test(&req, &gone, MPI_STATUS_IGNORE); // short messages go at once
    }
    if (rc) {
        return comm_mpi_request_fail_peer(c, rc, "message", dst, e);
    }
    if (gone) {
        msgbuf_put(&c->bufs, b);
        return 0;
    }
    if (c->n_unsent == m->cap_out) {
        m->cap_out = m->cap_out ? 2 * m->cap_out : 256;
        m->out = xrealloc(m->out, (size_t)m->cap_out * sizeof *m->out);
    }
    m->out[c->n_unsent++] = (struct comm_mpi_msgs_outgoing){.req = req, .buf = b};
    m->backlog_bytes[dst] += n_bytes;
    return 0;
}

/* --- leaving -------------------------------------------------------------------------------- */

void comm_mpi_msgs_drop(struct comm_mpi_msgs *m)
{
    for (int i = 0; i < m->n_slots; i++) {
        comm_mpi_request_drop(&m->slots[i].req);
    }
}

void comm_mpi_msgs_free(struct comm_mpi_msgs *m)
{
    free(m->slots);
    free(m->slots_mem);
    free(m->out);
    free(m->backlog_bytes);
}
