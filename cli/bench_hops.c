#include "cli/bench_hops.h"

#include <math.h>
#include <stdlib.h>

#include "analysis/stats.h"
#include "core/mem.h"
#include "workers/capacity.h"

#define CONTEXT 512 // behind which decoding requests stand

static void time_hop(struct bench_hop *h, const struct edges *e)
{
    double *ns = xcalloc((size_t)e->n_ranks * (size_t)e->n_ranks, sizeof *ns);
    size_t n = 0;
    for (int from = 0; from < e->n_ranks; from++) {
        for (int to = 0; to < e->n_ranks; to++) {
            const struct edges_transport *t = edges_carrier(e, from, to);
            if (!t) {
                continue;
            }
            const struct edges_link *l = edges_link(t, e->n_ranks, from, to);
            ns[n] = l->fit.latency_ns + h->n_bytes * l->fit.byte_ns;
            if (n == 0 || ns[n] > h->worst_ns) {
                h->worst_ns = ns[n];
                h->from = from;
                h->to = to;
            }
            n++;
        }
    }
    stats_sort(ns, n);
    h->best_ns = n > 0 ? ns[0] : STATS_NONE;
    h->median_ns = n > 0 ? stats_percentile(ns, n, 0.5) : STATS_NONE;
    free(ns);
}

/* The slowest of n_stages, split as costs have it. */
static double stage_ns(const struct bench_hops *h, const struct bench_hop *one)
{
    struct capacity_split s;
    double slowest_ns = 0;
    if (!h->costs) {
        return STATS_NONE;
    }
    capacity_find(h->arch, h->costs, NULL, h->n_stages, 1, h->n_stages * (double)one->n_tokens,
                  CONTEXT, &s);
    if (!one->is_prompt) {
        return s.slowest_ns;
    }
    const struct costs_load load = costs_load_prompt(h->arch, one->n_tokens);
    for (int k = 0; k < h->n_stages; k++) {
        slowest_ns = fmax(slowest_ns,
                          costs_stage_ns(h->costs, h->arch, s.first[k], s.first[k + 1] - s.first[k],
                                         k == 0, k == h->n_stages - 1, &load));
    }
    return slowest_ns;
}

void bench_hops_find(struct bench_hops *h, const struct bench_cases *cases, const struct edges *e)
{
    h->n_stages = e->n_ranks < h->arch->n_layers ? e->n_ranks : h->arch->n_layers;
    for (int i = 0; i < cases->n && h->n < BENCH_HOPS_MAX; i++) {
        const struct bench_case *c = &cases->v[i];
        struct bench_hop *one = &h->v[h->n++];
        *one = (struct bench_hop){.is_prompt = c->is_prompt,
                                  .n_tokens = (int)(c->is_prompt ? c->n : c->batch)};
        one->n_bytes = (double)arch_carried_bytes(h->arch, (size_t)one->n_tokens);
        time_hop(one, e);
        one->stage_ns = stage_ns(h, one);
    }
}
