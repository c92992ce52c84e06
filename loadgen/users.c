#include "loadgen/users.h"

#include <stdlib.h>
#include <string.h>

static void push(struct users *u, struct users_queue *q, struct users_due due)
{
    CHECK(q->n < u->n);
    q->v[(q->head + q->n++) % u->n] = due;
}

static int64_t head_ns(const struct users_queue *q)
{
    return q->n > 0 ? q->v[q->head].t_ns : INT64_MAX;
}

int users_init(struct users *u, uint32_t n_all, int rank, int n_ranks, int64_t t_begin_ns,
               struct err *e)
{
    memset(u, 0, sizeof *u);
    u->n_all = n_all;
    u->first = (uint32_t)rank;
    u->stride = (uint32_t)n_ranks;
    u->n = n_all > u->first ? (n_all - u->first - 1) / u->stride + 1 : 0;
    u->turn = calloc((size_t)u->n + 1, sizeof *u->turn);
    u->now.v = calloc((size_t)u->n + 1, sizeof *u->now.v);
    u->later.v = calloc((size_t)u->n + 1, sizeof *u->later.v);
    if (!u->turn || !u->now.v || !u->later.v) {
        users_free(u);
        return err_set(e, ERR_ENV, "no memory for %u users", n_all);
    }
    for (uint32_t i = 0; i < u->n; i++) {
        push(u, &u->now, (struct users_due){.t_ns = t_begin_ns, .user = u->first + i * u->stride});
    }
    return 0;
}

void users_free(struct users *u)
{
    free(u->turn);
    free(u->now.v);
    free(u->later.v);
    memset(u, 0, sizeof *u);
}

int64_t users_next_ns(const struct users *u)
{
    int64_t now_ns = head_ns(&u->now), later_ns = head_ns(&u->later);
    return now_ns < later_ns ? now_ns : later_ns;
}

struct users_due users_pop(struct users *u, uint64_t *turn)
{
    struct users_queue *q = head_ns(&u->now) <= head_ns(&u->later) ? &u->now : &u->later;
    CHECK(q->n > 0);
    struct users_due due = q->v[q->head];
    q->head = (q->head + 1) % u->n;
    q->n--;
    *turn = u->turn[(due.user - u->first) / u->stride]++;
    return due;
}

void users_done(struct users *u, uint32_t user, int64_t t_ns, bool failed)
{
    int64_t due_ns = failed ? t_ns + USERS_RETRY_NS : t_ns;
    push(u, failed ? &u->later : &u->now, (struct users_due){.t_ns = due_ns, .user = user});
}
