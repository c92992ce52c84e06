#include "workers/fabric_splits.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "model/sizes.h"
#include "model/split.h"
#include "workers/shard.h"

#define HIDDEN_BYTES 2 // of a value on its way to the next stage: bf16
#define ID_BYTES     4 // of a token on its way back

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

static struct costs sums_of(const struct fabric_splits_ask *q, const struct groups *g, int i,
                            struct costs_sums *sums)
{
    const struct fabric_edge slowest = fabric_slowest(q->fabric, group(g, i), g->tensor);
    const double handing_ns = q->hands_sums ? q->fabric->look_ns[group(g, i)[0]] / 2 : 0;
    struct costs c = *q->costs;
    *sums = costs_ring(g->tensor, slowest.latency_ns + handing_ns, slowest.byte_ns);
    costs_share(&c, q->arch, g->tensor, q->sum_bytes, sums);
    return c;
}

/* --- a replica ---------------------------------------------------------------------------------- */

static double hop_ns(const struct replica *r, int from, int to, double n_bytes)
{
    const struct groups *g = r->groups;
    double worst_ns = 0;
    for (int t = 0; t < g->tensor; t++) {
        const int a = group(g, r->first_group + from)[t], b = group(g, r->first_group + to)[t];
        worst_ns = fmax(worst_ns, fabric_ns(&r->ask->fabric->edges[a][b], n_bytes));
    }
    return worst_ns;
}

static double stage_ns(const struct replica *r, const struct costs *c, int s,
                       const struct costs_load *l)
{
    const double noticed_ns = r->ask->fabric->look_ns[group(r->groups, r->first_group + s)[0]] / 2;
    return noticed_ns + costs_stage_ns(c, r->ask->arch, r->first[s], r->first[s + 1] - r->first[s],
                                       s == 0, s == r->pipeline - 1, l);
}

/* A lane's turn, prompts included. */
static double turn_ns(const struct replica *r, const struct costs *c, int s)
{
    const struct turn t = turn_of(r->ask, r->n_rows);
    return (1 - t.share) * stage_ns(r, c, s, &t.plain) + t.share * stage_ns(r, c, s, &t.both);
}

static void add_stage(struct replica *r, int s)
{
    const struct fabric_splits_ask *q = r->ask;
    const struct costs_load prompt = costs_load_prompt(q->arch, q->n_in);
    struct costs_sums sums;
    const struct costs c = sums_of(q, r->groups, r->first_group + s, &sums);
    const double ns = turn_ns(r, &c, s), row_bytes = q->arch->hidden * HIDDEN_BYTES;
    const int n_layers = r->first[s + 1] - r->first[s];
    const double sums_ns =
        2 * n_layers *
        (sums.sum_ns + sums.sum_byte_ns * r->n_rows * q->arch->hidden * q->sum_bytes);
    r->slowest_ns = fmax(r->slowest_ns, ns);
    r->sum_share = fmax(r->sum_share, r->groups->tensor > 1 ? fmin(sums_ns / ns, 1) : 0);
    r->way_ns += ns;
    r->ttft_ns += stage_ns(r, &c, s, &prompt);
    if (s + 1 < r->pipeline) {
        const double hop = hop_ns(r, s, s + 1, r->n_rows * row_bytes);
        r->hop_ns = fmax(r->hop_ns, hop);
        r->way_ns += hop;
        r->ttft_ns += hop_ns(r, s, s + 1, q->n_in * row_bytes);
    } else if (s > 0) {
        r->way_ns += hop_ns(r, s, 0, r->n_rows * ID_BYTES);
        r->ttft_ns += hop_ns(r, s, 0, ID_BYTES);
    }
}

static void add_replica(const struct replica *r, struct fabric_split *out)
{
    const double turn = fmax(r->n_lanes * r->slowest_ns, r->way_ns);
    out->tokens_per_s += out->n_requests / turn * 1e9;
    out->tpot_ns = fmax(out->tpot_ns, turn);
    out->ttft_ns = fmax(out->ttft_ns, r->ttft_ns);
    out->hop_ns = fmax(out->hop_ns, r->hop_ns);
    out->sum_share = fmax(out->sum_share, r->sum_share);
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
    const double kv_bytes = q->kv_bytes * g->tensor / costs_kv_parts(q->arch, g->tensor);
    struct capacity_split s = {.pipeline = out->pipeline, .tensor = g->tensor};
    if (!split(q, g, out->pipeline, fmax(q->n_requests / out->pipeline, 1), s.first)) {
        return;
    }
    memcpy(out->first, s.first, sizeof out->first);
    out->n_requests =
        fmin(q->n_requests,
             (double)capacity_requests_on(q->arch, &q->machine, &s, kv_bytes, q->n_in + q->n_out));
    out->fits = out->n_requests >= 1;
}

static void work_out(const struct fabric_splits_ask *q, const struct groups *g,
                     struct fabric_split *out)
{
    place(q, g, out);
    for (int k = 0; out->fits && k < out->replicas; k++) {
        struct replica r = {
            .ask = q,
            .groups = g,
            .pipeline = out->pipeline,
            .first_group = k * out->pipeline,
            .first = out->first,
            .n_lanes = fmin(out->pipeline, out->n_requests),
        };
        r.n_rows = out->n_requests / r.n_lanes;
        for (int s = 0; s < out->pipeline; s++) {
            add_stage(&r, s);
        }
        add_replica(&r, out);
    }
    out->requests_per_s = out->tokens_per_s / q->n_out;
}

static int by_saturation(const void *a, const void *b)
{
    const struct fabric_split *x = a, *y = b;
    if (x->fits != y->fits) {
        return x->fits ? -1 : 1;
    }
    const int order = (x->tokens_per_s < y->tokens_per_s) - (x->tokens_per_s > y->tokens_per_s);
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
        work_out(q, &g, s);
    }
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
    qsort(out, (size_t)*n, sizeof *out, by_saturation);
    return *n > 0 ? 0
                  : err_set(e, ERR_INPUT,
                            "no split T x P of %d layers and %d heads over %d ranks on %d hosts, T "
                            "within a host",
                            q->arch->n_layers, q->arch->n_heads, q->fabric->n_ranks,
                            q->fabric->n_hosts);
}
