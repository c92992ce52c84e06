#include "loadgen/cap.h"

#include <stdlib.h>

int cap_init(struct cap *c, int64_t n_all, int rank, int n_ranks, struct err *e)
{
    CHECK(n_all == 0 || (n_all >= n_ranks && n_all <= UINT32_MAX));
    *c = (struct cap){.n = (uint32_t)(n_all / n_ranks + (rank < n_all % n_ranks))};
    c->free_ns = calloc((size_t)c->n + 1, sizeof *c->free_ns);
    if (!c->free_ns) {
        return err_set(e, ERR_ENV, "no memory for %lld requests in flight", (long long)n_all);
    }
    cap_reset(c);
    return 0;
}

void cap_free(struct cap *c)
{
    free(c->free_ns);
    *c = (struct cap){0};
}

void cap_reset(struct cap *c)
{
    c->head = 0;
    c->n_free = c->n;
    for (uint32_t i = 0; i < c->n; i++) {
        c->free_ns[i] = INT64_MIN;
    }
}

bool cap_is_full(const struct cap *c)
{
    return c->n > 0 && c->n_free == 0;
}

int64_t cap_take(struct cap *c)
{
    if (c->n == 0) {
        return INT64_MIN;
    }
    CHECK(c->n_free > 0);
    int64_t since_ns = c->free_ns[c->head];
    c->head = c->head + 1 < c->n ? c->head + 1 : 0;
    c->n_free--;
    return since_ns;
}

void cap_give(struct cap *c, int64_t t_ns)
{
    if (c->n > 0) {
        CHECK(c->n_free < c->n);
        c->free_ns[((uint64_t)c->head + c->n_free++) % c->n] = t_ns;
    }
}
