#include "cli/inspect_edges.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/prices.h"
#include "core/mem.h"
#include "core/str.h"
#include "workers/fabric_splits.h"

#define MOST_ROWS 24 // of the table; JSON has all

struct inspect_edges {
    const struct inspect_edges_ask *ask;
    struct fabric fabric;
    struct costs costs[INSPECT_MAX_COSTS]; // of one rank, of those that share a stage
    double memory_bytes;
    struct fabric_split *splits; // (n)
    int n;
    struct prices prices;
    const struct price *price; // NULL: none
};

/* --- cost ------------------------------------------------------------------------------------- */

static int find_price(struct inspect_edges *x, struct err *e)
{
    const struct cost_config *c = x->ask->cost;
    int64_t unused;
    if (!c->instance) {
        return 0;
    }
    if (prices_pick(&x->prices, c, &x->price, e)) {
        return -1;
    }
    return x->ask->is_cpu || cost_instances(1, x->price->accel_count, &unused, e) == 0 ? 0 : -1;
}

/* A host of CPUs is an instance; devices are as many as an instance has of them. */
static int64_t instances(const struct inspect_edges *x, const struct fabric_split *s)
{
    int64_t n = s->n_hosts;
    struct err no;
    if (x->price->accel_count > 0 && cost_instances(s->n_ranks, x->price->accel_count, &n, &no)) {
        n = s->n_hosts;
    }
    return n > s->n_hosts ? n : s->n_hosts;
}

static struct cost_split price_of(const struct inspect_edges *x, const struct fabric_split *s)
{
    const double usd_per_s = cost_usd_per_s(instances(x, s), x->price->usd_per_hour);
    return cost_split(usd_per_s, s->requests_per_s * x->ask->n_in, s->tokens_per_s,
                      x->ask->cost->output_to_input_ratio);
}

/* --- a rank ----------------------------------------------------------------------------------- */

static int most_ranks_on_a_host(const struct fabric *f)
{
    int n[FABRIC_MAX_RANKS] = {0}, most = 1;
    for (int r = 0; r < f->n_ranks; r++) {
        n[f->host[r]]++;
        most = n[f->host[r]] > most ? n[f->host[r]] : most;
    }
    return most;
}

static void find_rank(struct inspect_edges *x)
{
    const struct inspect_edges_ask *q = x->ask;
    const int n = most_ranks_on_a_host(&x->fabric);
    memcpy(x->costs, q->costs, (size_t)q->n_costs * sizeof *x->costs);
    for (int i = 0; i < q->n_costs && q->shares_costs; i++) {
        costs_scale(&x->costs[i], n);
    }
    x->memory_bytes = q->shares_memory ? q->memory_bytes / n : q->memory_bytes;
}

/* --- opening ---------------------------------------------------------------------------------- */

int inspect_edges_open(struct inspect_edges **out, const struct inspect_edges_ask *q, struct err *e)
{
    struct inspect_edges *x = xcalloc(1, sizeof *x);
    x->ask = q;
    x->splits = xcalloc(FABRIC_SPLITS_MAX, sizeof *x->splits);
    const double value_bytes = q->is_cpu ? sizeof(float) : 2;
    struct fabric_splits_ask ask = {
        .arch = q->arch,
        .fabric = &x->fabric,
        .costs = x->costs,
        .n_costs = q->n_costs,
        .sum_bytes = value_bytes,
        .kv_bytes = value_bytes,
        .sums_in_memory = q->is_cpu,
        .n_in = q->n_in,
        .n_out = q->n_out,
        .n_requests = q->n_requests,
        .tensor = q->tensor,
        .pipeline = q->pipeline,
    };
    if (fabric_read(&x->fabric, q->is_cpu, q->file, e)) {
        err_wrap(e, "--edges");
        goto fail;
    }
    if (find_price(x, e)) {
        goto fail;
    }
    find_rank(x);
    ask.machine = (struct capacity_machine){x->memory_bytes, q->memory_share};
    if (fabric_splits_find(&ask, x->splits, &x->n, e)) {
        err_wrap(e, "--edges %s", q->file);
        goto fail;
    }
    *out = x;
    return 0;
fail:
    inspect_edges_free(x);
    return -1;
}

void inspect_edges_free(struct inspect_edges *x)
{
    prices_free(&x->prices);
    free(x->splits);
    free(x);
}

/* --- text ------------------------------------------------------------------------------------- */

static void print_head(const struct inspect_edges *x)
{
    const struct inspect_edges_ask *q = x->ask;
    const struct fabric *f = &x->fabric;
    printf("\nsplits T x P x R over the %d ranks on %d host%s of %s, best first\n", f->n_ranks,
           f->n_hosts, f->n_hosts > 1 ? "s" : "", q->file);
    printf(
        "requests of %.0f prompt and %.0f output tokens, %.4g at once in each replica; memory of "
        "%.4g GB a rank\n",
        q->n_in, q->n_out, q->n_requests, x->memory_bytes / 1e9);
    if (x->price) {
        printf("price: %s, %s, %.4g USD an hour%s\n", x->price->instance_type,
               x->price->pricing_model, x->price->usd_per_hour,
               prices_is_example(x->price) ? ", an example and no market price" : "");
    }
    printf("\n  %-12s %5s %8s %10s %9s %9s %9s %8s %6s %9s  %s\n", "T x P x R", "ranks", "requests",
           "tokens/s", "req/s", "TTFT ms", "TPOT ms", "hop us", "sums", x->price ? "$/M out" : "",
           "layers");
}

/* "4,4", or "8 x 4" where all stages have as many. */
static void put_layers(struct str *out, const struct fabric_split *s)
{
    bool alike = s->pipeline > 2;
    for (int k = 0; k < s->pipeline; k++) {
        alike &= s->first[k + 1] - s->first[k] == s->first[1] - s->first[0];
    }
    if (alike) {
        str_printf(out, "%d x %d", s->pipeline, s->first[1] - s->first[0]);
        return;
    }
    for (int k = 0; k < s->pipeline; k++) {
        str_printf(out, "%s%d", k > 0 ? "," : "", s->first[k + 1] - s->first[k]);
    }
}

static void print_row(const struct inspect_edges *x, const struct fabric_split *s)
{
    char shape[32], usd[32] = "";
    struct str layers = {0};
    snprintf(shape, sizeof shape, "%d x %d x %d", s->tensor, s->pipeline, s->replicas);
    if (!s->fits) {
        printf("  %-12s %5d does not fit\n", shape, s->n_ranks);
        return;
    }
    if (x->price) {
        snprintf(usd, sizeof usd, "%.4g", price_of(x, s).usd_per_m_output);
    }
    put_layers(&layers, s);
    printf("  %-12s %5d %8.0f %10.4g %9.4g %9.4g %9.4g %8.4g %5.1f%% %9s  %s\n", shape, s->n_ranks,
           s->n_requests, s->tokens_per_s, s->requests_per_s, s->ttft_ns / 1e6, s->tpot_ns / 1e6,
           s->hop_ns / 1e3, 100 * s->sum_share, usd, layers.data);
    str_free(&layers);
}

void inspect_edges_print(const struct inspect_edges *x)
{
    print_head(x);
    for (int i = 0; i < x->n && i < MOST_ROWS; i++) {
        print_row(x, &x->splits[i]);
    }
    if (x->n > MOST_ROWS) {
        printf("  and %d more in --format json\n", x->n - MOST_ROWS);
    }
    printf(
        "tokens/s of output at saturation; TTFT without a queue; hop: the longest; sums: their share "
        "of the slowest stage\n");
}

/* --- JSON ------------------------------------------------------------------------------------- */

static json_t *split_json(const struct inspect_edges *x, const struct fabric_split *s)
{
    json_t *layers = json_array();
    for (int k = 0; s->fits && k < s->pipeline; k++) {
        json_array_append_new(layers, json_integer(s->first[k + 1] - s->first[k]));
    }
    json_t *o =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:o}", "tensor", s->tensor, "pipeline",
                  s->pipeline, "replicas", s->replicas, "ranks", s->n_ranks, "hosts", s->n_hosts,
                  "fits", (int)s->fits, "played", (int)s->is_played, "layers", layers);
    if (s->fits) {
        json_t *more = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "requests", s->n_requests,
                                 "output_tokens_per_s", s->tokens_per_s, "requests_per_s",
                                 s->requests_per_s, "ttft_ns", s->ttft_ns, "tpot_ns", s->tpot_ns,
                                 "hop_ns", s->hop_ns, "sum_share", s->sum_share);
        json_object_update(o, more);
        json_decref(more);
    }
    if (s->fits && x->price) {
        const struct cost_split c = price_of(x, s);
        json_object_set_new(o, "usd_per_m_output", json_real(c.usd_per_m_output));
        json_object_set_new(o, "usd_per_m_input", json_real(c.usd_per_m_input));
        json_object_set_new(o, "instances", json_integer(instances(x, s)));
    }
    return o;
}

struct json_t *inspect_edges_json(const struct inspect_edges *x)
{
    const struct inspect_edges_ask *q = x->ask;
    json_t *splits = json_array();
    for (int i = 0; i < x->n; i++) {
        json_array_append_new(splits, split_json(x, &x->splits[i]));
    }
    json_t *o = json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:o}", "file", q->file, "ranks",
                          x->fabric.n_ranks, "hosts", x->fabric.n_hosts, "input_tokens", q->n_in,
                          "output_tokens", q->n_out, "requests", q->n_requests, "memory_bytes",
                          x->memory_bytes, "splits", splits);
    if (x->price) {
        json_object_set_new(o, "price", prices_dump(x->price));
        json_object_set_new(o, "price_is_example", json_boolean(prices_is_example(x->price)));
    }
    return o;
}
