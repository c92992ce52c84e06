#include "model/routing.h"

#include <stdlib.h>

#include "core/err.h"
#include "core/mem.h"

void routing_init(struct routing *r, enum routing_kind kind, int n_replicas, int first)
{
    CHECK(n_replicas > 0 && first >= 0);
    *r = (struct routing){.kind = kind, .n_replicas = n_replicas, .next = first % n_replicas};
    r->others = xcalloc((size_t)n_replicas, sizeof *r->others);
    r->outstanding = xcalloc((size_t)n_replicas, sizeof *r->outstanding);
}

void routing_free(struct routing *r)
{
    free(r->outstanding);
    free(r->others);
    *r = (struct routing){0};
}

int routing_pick(struct routing *r, uint64_t n_tokens)
{
    int n = r->n_replicas, best = r->next;
    for (int k = 1; r->kind != ROUTING_ROUND_ROBIN && k < n; k++) {
        int i = (r->next + k) % n;
        best = r->outstanding[i] + r->others[i] < r->outstanding[best] + r->others[best] ? i : best;
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

void routing_tell(struct routing *r, int replica, uint64_t n_tokens)
{
    CHECK(replica >= 0 && replica < r->n_replicas);
    r->others[replica] = n_tokens;
}

void routing_tell_none(struct routing *r)
{
    for (int i = 0; i < r->n_replicas; i++) {
        r->others[i] = 0;
    }
}
