#include "workers/fabric_splits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "model/sizes.h"
#include "model/split.h"
#include "workers/fabric_traffic.h"
#include "workers/shard.h"

#define SPIN_MEETING_NS 1e3 // until ranks that spin see each other's part
#define ID_BYTES        4   // of a token on its way back

/* Groups of T ranks, host by host. */
struct groups {
    int n, tensor;
    int ranks[FABRIC_MAX_RANKS]; // (n, tensor)
};

/* A replica, worked out stage by stage. */
struct replica {
    const struct fabric_splits_ask *ask;
    const struct groups *groups;
    int pipeline, first_group;
    const int *first;       // (pipeline + 1)
    double n_lanes, n_rows; // busy ones; of a lane
    struct costs *stages;   // (pipeline) with the edge behind each
    double slowest_ns, way_ns, ttft_ns, hop_ns, sum_share;
};

static void make_groups(const struct fabric *f, int tensor, struct groups *g)
{
    *g = (struct groups){.tensor = tensor};
    for (int host = 0; host < f->n_hosts; host++) {
        int n = 0;
        for (int r = 0; r < f->n_ranks; r++) {
            if (f->host[r] == host) {
                g->ranks[g->n * tensor + n++] = r;
                g->n += n == tensor;
                n %= tensor;
            }
        }
    }
}

static const int *group(const struct groups *g, int i)
{
    return &g->ranks[i * g->tensor];
}

/* --- loads and costs ---------------------------------------------------------------------------- */

static void add_load(struct costs_load *l, const struct costs_load *more, double times)
{
    l->n_tokens += times * more->n_tokens;
    l->n_samples += times * more->n_samples;
    for (int i = 0; i < 2; i++) {
        l->n_cached[i] += times * more->n_cached[i];
        l->n_seen[i] += times * more->n_seen[i];
    }
}

/* What a lane of n_rows computes: mostly only tokens, and in a share of its turns a prompt or more, too. */
struct turn {
    struct costs_load plain, both;
    double share;
};

static struct turn turn_of(const struct fabric_splits_ask *q, double n_rows)
{
    const double n_prompts = n_rows / q->n_out;
    const struct costs_load prompt = costs_load_prompt(q->arch, q->n_in);
    struct turn t = {.plain = costs_load_decode(q->arch, n_rows, q->n_in + q->n_out / 2),
                     .share = fmin(n_prompts, 1)};
    t.both = t.plain;
    add_load(&t.both, &prompt, n_prompts / t.share);
    return t;
}

/* As measured of `tensor` ranks that share a stage, or of one that has it to itself. */
static struct costs costs_of(const struct fabric_splits_ask *q, int tensor)
{
    for (int i = 1; i < q->n_costs; i++) {
        if (q->costs[i].tensor == tensor) {
            return q->costs[i];
        }
    }
    return q->costs[0];
}

/* On CPUs every rank reads all others' parts in memory, once they have met there. */
static struct costs_sums sums_over(const struct fabric_splits_ask *q, const struct groups *g, int i)
{
    const struct fabric_edge slowest = fabric_slowest(q->fabric, group(g, i), g->tensor);
    return q->sums_in_memory ? (struct costs_sums){g->tensor > 1 ? SPIN_MEETING_NS : 0,
                                                   (g->tensor - 1) * slowest.byte_ns}
                             : costs_ring(g->tensor, slowest.latency_ns, slowest.byte_ns);
}

static struct costs sums_of(const struct fabric_splits_ask *q, const struct groups *g, int i,
                            struct costs_sums *sums)
{
    struct costs c = costs_of(q, g->tensor);
    *sums = sums_over(q, g, i);
    costs_share(&c, q->arch, g->tensor, q->sum_bytes, sums);
    return c;
}

/* --- a replica ---------------------------------------------------------------------------------- */

/* Of the T edges from a stage's ranks to those of the next one, of the last one's to the first. */
static struct fabric_edge edge_behind(const struct replica *r, int s)
{
    const struct groups *g = r->groups;
    const int next = (s + 1) % r->pipeline;
    struct fabric_edge worst = {0};
    for (int t = 0; t < g->tensor && r->pipeline > 1; t++) {
        const int a = group(g, r->first_group + s)[t], b = group(g, r->first_group + next)[t];
        const struct fabric_edge *edge = &r->ask->fabric->edges[a][b];
        worst.latency_ns = fmax(worst.latency_ns, edge->latency_ns);
        worst.byte_ns = fmax(worst.byte_ns, edge->byte_ns);
    }
    return worst;
}

/*
 * Each rank's part of hidden states to the next stage, whose ranks gather them: the second half of a ring, or in memory
 * one more meeting, at which each reads what it has not.
 */
static void add_hidden(const struct replica *r, int s, struct costs *c)
{
    const struct costs_sums next = sums_over(r->ask, r->groups, r->first_group + s + 1);
    const int tensor = r->groups->tensor, share = r->ask->sums_in_memory ? tensor : 2;
    c->hop_byte_ns /= tensor;
    if (costs_of(r->ask, tensor).tensor == tensor) {
        return; // one rank, or several whose gathering was measured with them
    }
    c->hop_ns += r->ask->sums_in_memory ? next.sum_ns : next.sum_ns / 2;
    c->hop_byte_ns += next.sum_byte_ns / share;
}

/* What stage s takes: its group's sums, a look, and the edge behind it. */
static struct costs stage_costs(const struct replica *r, int s, struct costs_sums *sums)
{
    const int at = r->first_group + s, n_layers = r->first[s + 1] - r->first[s];
    struct costs c = sums_of(r->ask, r->groups, at, sums);
    const struct fabric_edge edge = edge_behind(r, s);
    const double noticed_ns = r->ask->fabric->look_ns[group(r->groups, at)[0]] / 2;
    for (int k = 0; k < COSTS_N_KINDS; k++) {
        c.kinds[k].fixed_ns += noticed_ns / n_layers;
    }
    c.hop_ns = edge.latency_ns;
    c.hop_byte_ns = edge.byte_ns;
    if (s + 1 < r->pipeline) {
        add_hidden(r, s, &c);
    }
    return c;
}

static double stage_ns(const struct replica *r, const struct costs *c, int s,
                       const struct costs_load *l)
{
    return costs_stage_ns(c, r->ask->arch, r->first[s], r->first[s + 1] - r->first[s], s == 0,
                          s == r->pipeline - 1, l);
}

/* A lane's turn, prompts included. */
static double turn_ns(const struct replica *r, const struct costs *c, int s)
{
    const struct turn t = turn_of(r->ask, r->n_rows);
    return (1 - t.share) * stage_ns(r, c, s, &t.plain) + t.share * stage_ns(r, c, s, &t.both);
}

static void add_hop(struct replica *r, const struct costs *c, bool is_back)
{
    const struct fabric_splits_ask *q = r->ask;
    const double row_bytes = is_back ? ID_BYTES : (double)arch_carried_bytes(q->arch, 1);
    const double hop_ns = costs_hop_ns(c, r->n_rows * row_bytes);
    r->hop_ns = is_back ? r->hop_ns : fmax(r->hop_ns, hop_ns);
    r->way_ns += hop_ns;
    r->ttft_ns += costs_hop_ns(c, (is_back ? 1 : q->n_in) * row_bytes);
}

static void add_stage(struct replica *r, int s)
{
    const struct fabric_splits_ask *q = r->ask;
    const struct costs_load prompt = costs_load_prompt(q->arch, q->n_in);
    struct costs_sums sums;
    const struct costs *c = &r->stages[s];
    r->stages[s] = stage_costs(r, s, &sums);
    const double ns = turn_ns(r, c, s);
    const double sum_bytes = r->n_rows * q->arch->hidden * q->sum_bytes;
    const double sums_ns =
        2 * (r->first[s + 1] - r->first[s]) * (sums.sum_ns + sums.sum_byte_ns * sum_bytes);
    r->slowest_ns = fmax(r->slowest_ns, ns);
    r->sum_share = fmax(r->sum_share, r->groups->tensor > 1 ? fmin(sums_ns / ns, 1) : 0);
    r->way_ns += ns;
    r->ttft_ns += stage_ns(r, c, s, &prompt);
    if (r->pipeline > 1) {
        add_hop(r, c, s + 1 == r->pipeline);
    }
}

/* A lane's turn, were all turns alike. */
static double even_turn_ns(const struct replica *r)
{
    return fmax(r->n_lanes * r->slowest_ns, r->way_ns);
}

/* Of a replica of which nothing but that is known, or what the real scheduler makes of it. */
static int add_replica(const struct replica *r, bool plays, struct fabric_split *out, struct err *e)
{
    const double turn_ns = even_turn_ns(r);
    double tokens_per_s = out->n_requests / turn_ns * 1e9;
    const struct fabric_traffic traffic = {
        .arch = r->ask->arch,
        .n_stages = r->pipeline,
        .first = r->first,
        .stages = r->stages,
        .n_in = r->ask->n_in,
        .n_out = r->ask->n_out,
        .n_requests = out->n_requests,
        .request_ns = r->ask->n_out * turn_ns,
    };
    if (plays && traffic.request_ns <= FABRIC_TRAFFIC_MAX_NS &&
        fabric_traffic_run(&traffic, &tokens_per_s, e)) {
        return -1;
    }
    out->tokens_per_s += tokens_per_s;
    out->tpot_ns = fmax(out->tpot_ns, out->n_requests / tokens_per_s * 1e9);
    out->ttft_ns = fmax(out->ttft_ns, r->ttft_ns);
    out->hop_ns = fmax(out->hop_ns, r->hop_ns);
    out->sum_share = fmax(out->sum_share, r->sum_share);
    return 0;
}

/* --- a split ------------------------------------------------------------------------------------ */

static int count_hosts(const struct fabric_splits_ask *q, const struct groups *g, int n_groups)
{
    bool used[FABRIC_MAX_RANKS] = {false};
    int n = 0;
    for (int i = 0; i < n_groups * g->tensor; i++) {
        bool *host = &used[q->fabric->host[g->ranks[i]]];
        n += !*host;
        *host = true;
    }
    return n;
}

/* Layers by what a turn takes, as if all groups were like the first; false: none that fits. */
static bool split(const struct fabric_splits_ask *q, const struct groups *g, int pipeline,
                  double n_rows, int *first)
{
    const struct arch *a = q->arch;
    const struct turn t = turn_of(q, n_rows);
    struct costs_sums unused;
    const struct costs c = sums_of(q, g, 0, &unused);
    double *ns = xcalloc((size_t)a->n_layers, sizeof *ns),
           *bytes = xcalloc((size_t)a->n_layers, sizeof *bytes);
    for (int i = 0; i < a->n_layers; i++) {
        ns[i] = (1 - t.share) * costs_layer_ns(&c, a, i, &t.plain) +
                t.share * costs_layer_ns(&c, a, i, &t.both);
        bytes[i] = sizes_layer(a, i).bytes;
    }
    const struct split_costs costs = {a->n_layers, ns, costs_embed_ns(&c, &t.plain),
                                      costs_head_ns(&c, &t.plain)};
    const struct split_memory memory = {
        bytes, pipeline == 1 && a->tied_embedding ? 0 : sizes_embed_bytes(a), sizes_head_bytes(a),
        q->machine.memory_bytes * q->machine.memory_share * g->tensor};
    const bool fits = split_layers(&costs, &memory, pipeline, first);
    free(ns);
    free(bytes);
    return fits;
}

/* The layers of each stage, and how many requests the fullest one holds. */
static void place(const struct fabric_splits_ask *q, const struct groups *g,
                  struct fabric_split *out)
{
    struct capacity_split s = {.pipeline = out->pipeline, .tensor = g->tensor};
    if (!split(q, g, out->pipeline, fmax(q->n_requests / out->pipeline, 1), s.first)) {
        return;
    }
    memcpy(out->first, s.first, sizeof out->first);
    out->n_requests =
        fmin(q->n_requests, (double)capacity_requests_on(q->arch, &q->machine, &s, q->kv_bytes,
                                                         q->n_in + q->n_out));
    out->fits = out->n_requests >= 1;
}

/* Replicas whose stages take the same are alike: no more is played than once. */
static bool is_alike(const struct replica *a, const struct replica *b)
{
    bool alike = true;
    for (int s = 0; alike && s < a->pipeline; s++) {
        alike = costs_equal(&a->stages[s], &b->stages[s]);
    }
    return alike;
}

static int work_out(const struct fabric_splits_ask *q, bool plays, struct fabric_split *out,
                    struct err *e)
{
    struct groups g;
    struct costs *stages = xcalloc(2 * (size_t)out->pipeline, sizeof *stages);
    struct replica last = {.stages = stages};
    double last_per_s = 0;
    int rc = 0;
    make_groups(q->fabric, out->tensor, &g);
    out->is_played = plays;
    out->tokens_per_s = out->tpot_ns = 0;
    for (int k = 0; k < out->replicas && rc == 0; k++) {
        struct replica r = {
            .ask = q,
            .groups = &g,
            .pipeline = out->pipeline,
            .first_group = k * out->pipeline,
            .first = out->first,
            .n_lanes = fmin(out->pipeline, out->n_requests),
            .stages = &stages[k % 2 * out->pipeline],
        };
        r.n_rows = out->n_requests / r.n_lanes;
        for (int s = 0; s < out->pipeline; s++) {
            add_stage(&r, s);
        }
        if (k > 0 && is_alike(&r, &last)) {
            out->tokens_per_s += last_per_s;
        } else {
            const double before_per_s = out->tokens_per_s;
            rc = add_replica(&r, plays, out, e);
            last_per_s = out->tokens_per_s - before_per_s;
        }
        last = r;
    }
    out->requests_per_s = out->tokens_per_s / q->n_out;
    free(stages);
    return rc;
}

static int by_saturation(const void *a, const void *b)
{
    const struct fabric_split *x = a, *y = b;
    const int order = (x->tokens_per_s < y->tokens_per_s) - (x->tokens_per_s > y->tokens_per_s);
    if (x->fits != y->fits || x->is_played != y->is_played) {
        return x->fits != y->fits ? y->fits - x->fits : y->is_played - x->is_played;
    }
    return order != 0 ? order : x->n_ranks - y->n_ranks; // the same with fewer ranks first
}

/* All that the model may be split into by `tensor`. */
static void find_of_tensor(const struct fabric_splits_ask *q, int tensor, struct fabric_split *out,
                           int *n)
{
    struct groups g;
    struct shard unused;
    struct err no;
    make_groups(q->fabric, tensor, &g);
    if (shard_init(&unused, q->arch, 0, tensor, &no)) {
        return; // its heads cannot be shared so
    }
    for (int p = 1; p <= g.n && p <= q->arch->n_layers && p <= RECORD_MAX_STAGES; p++) {
        if ((q->pipeline > 0 && p != q->pipeline) || *n == FABRIC_SPLITS_MAX) {
            continue;
        }
        struct fabric_split *s = &out[(*n)++];
        *s = (struct fabric_split){.tensor = tensor, .pipeline = p, .replicas = g.n / p};
        s->n_ranks = s->replicas * p * tensor;
        s->n_hosts = count_hosts(q, &g, s->replicas * p);
        place(q, &g, s);
    }
}

/* By what turns would take were they alike; of the best, by what the scheduler makes of them. */
static int rank(const struct fabric_splits_ask *q, struct fabric_split *out, int n, struct err *e)
{
    for (int i = 0; i < n; i++) {
        if (out[i].fits && work_out(q, false, &out[i], e)) {
            return -1;
        }
    }
    qsort(out, (size_t)n, sizeof *out, by_saturation);
    for (int i = 0; i < n && i < FABRIC_SPLITS_PLAYED; i++) {
        if (out[i].fits && work_out(q, true, &out[i], e)) {
            return -1;
        }
    }
    qsort(out, (size_t)n, sizeof *out, by_saturation);
    return 0;
}

int fabric_splits_find(const struct fabric_splits_ask *q, struct fabric_split *out, int *n,
                       struct err *e)
{
    *n = 0;
    for (int t = 1; t <= q->fabric->n_ranks; t++) {
        if (q->tensor == 0 || q->tensor == t) {
            find_of_tensor(q, t, out, n);
        }
    }
    if (*n == 0) {
        return err_set(e, ERR_INPUT,
                       "no split T x P of %d layers and %d heads over %d ranks on %d hosts, T "
                       "within a host",
                       q->arch->n_layers, q->arch->n_heads, q->fabric->n_ranks, q->fabric->n_hosts);
    }
    return rank(q, out, *n, e);
}
