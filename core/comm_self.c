#include "core/comm_impl.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"

/* One process: bulk transfers to oneself are matched by tag, in order, as MPI would. */
struct transfer {
    struct transfer *next;  // in the waiting or the free list
    struct transfer *older; // in the list of all
    const void *src;        // a send's buffer, NULL in a receive
    void *dst;              // a receive's buffer, NULL in a send
    size_t n_bytes;         // sent, or room
    int tag;
    bool done, too_long;
};

struct comm_self {
    struct comm base;
    struct transfer *waiting; // unmatched, oldest first: of one tag all sends or all receives
    struct transfer *free, *newest;
};

static struct comm_self *self_of(struct comm *c)
{
    return (struct comm_self *)c;
}

static struct transfer *take_match(struct comm_self *s, int tag, bool is_send)
{
    for (struct transfer **p = &s->waiting; *p; p = &(*p)->next) {
        struct transfer *t = *p;
        if (t->tag == tag && (t->src != NULL) == is_send) {
            *p = t->next;
            return t;
        }
    }
    return NULL;
}

static void move_bytes(struct transfer *from, struct transfer *to)
{
    to->too_long = from->n_bytes > to->n_bytes;
    if (!to->too_long) {
        to->n_bytes = from->n_bytes;
        memcpy(to->dst, from->src, from->n_bytes);
    }
    from->done = to->done = true;
}

static struct transfer *new_transfer(struct comm_self *s)
{
    struct transfer *t = s->free;
    if (t) {
        s->free = t->next;
        return t;
    }
    t = xcalloc(1, sizeof *t);
    t->older = s->newest;
    s->newest = t;
    return t;
}

static void begin(struct comm_self *s, struct transfer t, struct comm_req *r)
{
    struct transfer *mine = new_transfer(s);
    t.older = mine->older;
    *mine = t;
    r->handle = mine;
    struct transfer *other = take_match(s, t.tag, t.src == NULL);
    if (other) {
        move_bytes(t.src ? mine : other, t.src ? other : mine);
        return;
    }
    struct transfer **tail = &s->waiting;
    while (*tail) {
        tail = &(*tail)->next;
    }
    *tail = mine;
}

static void release(struct comm_self *s, struct transfer *t)
{
    t->next = s->free;
    s->free = t;
}

static const char nothing; // stands for an empty buffer: src and dst tell sends from receives
static char nowhere;

static int self_isend(struct comm *c, const void *buf, size_t n_bytes, int dst, int tag,
                      struct comm_req *r, struct err *e)
{
    (void)dst, (void)e;
    begin(self_of(c),
          (struct transfer){.src = n_bytes ? buf : &nothing, .n_bytes = n_bytes, .tag = tag}, r);
    return 0;
}

static int self_irecv(struct comm *c, void *buf, size_t cap_bytes, int src, int tag,
                      struct comm_req *r, struct err *e)
{
    (void)src, (void)e;
    begin(self_of(c),
          (struct transfer){.dst = cap_bytes ? buf : &nowhere, .n_bytes = cap_bytes, .tag = tag},
          r);
    return 0;
}

static int self_test(struct comm *c, struct comm_req *r, struct err *e)
{
    struct transfer *t = r->handle;
    if (!t->done) {
        return 0;
    }
    bool too_long = t->too_long;
    size_t cap_bytes = t->n_bytes;
    r->n_bytes = t->n_bytes;
    r->handle = NULL;
    release(self_of(c), t);
    if (too_long) {
        return err_set(e, ERR_ENV, "transfer to oneself: longer than the %zu bytes of room",
                       cap_bytes);
    }
    return 1;
}

static void self_cancel(struct comm *c, struct comm_req *r)
{
    struct comm_self *s = self_of(c);
    struct transfer *t = r->handle;
    for (struct transfer **p = &s->waiting; *p; p = &(*p)->next) {
        if (*p == t) {
            *p = t->next;
            break;
        }
    }
    release(s, t);
}

static int self_start(struct comm *c, struct err *e)
{
    (void)c, (void)e;
    return 0;
}

static int self_poll(struct comm *c, struct comm_msg *m, struct err *e)
{
    (void)c, (void)m, (void)e;
    return 0; // comm.c has the messages to oneself, and there are no others
}

static int self_watch(struct comm *c, int64_t timeout_ns, struct err *e)
{
    (void)c, (void)timeout_ns, (void)e;
    return 0;
}

static int self_turn(struct comm *c, struct err *e)
{
    (void)c, (void)e;
    return 0;
}

static int self_bcast(struct comm *c, void *buf, size_t n_bytes, int root, int64_t timeout_ns,
                      struct err *e)
{
    (void)c, (void)buf, (void)n_bytes, (void)root, (void)timeout_ns, (void)e;
    return 0;
}

static int self_gather(struct comm *c, const void *mine, size_t n_bytes, void *all,
                       int64_t timeout_ns, struct err *e)
{
    (void)c, (void)timeout_ns, (void)e;
    memcpy(all, mine, n_bytes);
    return 0;
}

static void self_close(struct comm *c)
{
    for (struct transfer *t = self_of(c)->newest; t;) {
        struct transfer *older = t->older;
        free(t);
        t = older;
    }
}

static void self_abort(struct comm *c, int exit_code)
{
    (void)c, (void)exit_code;
}

static const struct comm_ops self_ops = {
    .close = self_close,
    .abort = self_abort,
    .start = self_start,
    .poll = self_poll,
    .isend = self_isend,
    .irecv = self_irecv,
    .test = self_test,
    .cancel = self_cancel,
    .watch = self_watch,
    .turn = self_turn,
    .bcast = self_bcast,
    .gather = self_gather,
};

int comm_self_open(struct comm **out, struct err *e)
{
    (void)e;
    struct comm_self *s = xcalloc(1, sizeof *s);
    s->base.ops = &self_ops;
    s->base.size = 1;
    *out = &s->base;
    return 0;
}
