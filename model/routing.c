#include "model/routing.h"

#include <stdlib.h>

#include "core/err.h"
#include "core/mem.h"

void routing_init(struct routing *r, enum routing_kind kind, int n_replicas)
{
    CHECK(n_replicas > 0);
    *r = (struct routing){.kind = kind, .n_replicas = n_replicas};
    r->outstanding = xcalloc((size_t)n_replicas, sizeof *r->outstanding);
}

void routing_free(struct routing *r)
{
    free(r->outstanding);
    *r = (struct routing){0};
}

int routing_pick(struct routing *r, uint64_t n_tokens)
{
    int n = r->n_replicas, best = r->next;
    for (int k = 1; r->kind == ROUTING_LEAST_TOKENS && k < n; k++) {
        int i = (r->next + k) % n;
        best = r->outstanding[i] < r->outstanding[best] ? i : best;
    }
    r->next = (best + 1) % n;
    r->outstanding[best] += n_tokens;
    return best;
}

void routing_done(struct routing *r, int replica, uint64_t n_tokens)
{
    CHECK(replica >= 0 && replica < r->n_replicas && r->outstanding[replica] >= n_tokens);
    r->outstanding[replica] -= n_tokens;
}
