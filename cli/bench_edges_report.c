#include "cli/bench_edges_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/heatmap.h"
#include "analysis/stats.h"
#include "core/clock.h"
#include "core/mem.h"
#include "results/provenance.h"
#include "workers/edges_file.h"

#define MOST_OUTLIERS 12
#define LIST          5 // best and worst edges that are named where not all are

/* "8 B", "2 MB": powers of two that are no power of 1000 are still said in units of 1024. */
static const char *bytes_text(double n_bytes, char *buf, size_t cap)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB"};
    int u = 0;
    while (n_bytes >= 1024 && u < 3) {
        n_bytes /= 1024;
        u++;
    }
    snprintf(buf, cap, "%.4g %s", n_bytes, units[u]);
    return buf;
}

static int count_hosts(const struct edges *e)
{
    int n = 0;
    for (int a = 0; a < e->n_ranks; a++) {
        bool is_new = true;
        for (int b = 0; b < a; b++) {
            is_new &= !edges_same_host(e, a, b);
        }
        n += is_new;
    }
    return n;
}

static int count_sleepers(const struct edges *e)
{
    int n = 0;
    for (int r = 0; r < e->n_ranks; r++) {
        n += !e->ranks[r].spins;
    }
    return n;
}

static int count_gpus(const struct edges *e)
{
    int n = 0;
    for (int r = 0; r < e->n_ranks; r++) {
        n += e->ranks[r].gpu[0] != '\0';
    }
    return n;
}

/* The first one's. */
static const char *gpu_name(const struct edges *e)
{
    const char *name = "";
    for (int r = e->n_ranks - 1; r >= 0; r--) {
        name = e->ranks[r].gpu[0] ? e->ranks[r].gpu : name;
    }
    return name;
}

/* --- the table: what it is of ------------------------------------------------------------------- */

static void print_head(const struct bench_edges_report *r)
{
    const struct edges *e = r->edges;
    const int n_hosts = count_hosts(e), n_sleepers = count_sleepers(e);
    printf("edges between %d ranks on %d host%s, %s; %d round%s in %.1f s of %.4g s\n", e->n_ranks,
           n_hosts, n_hosts > 1 ? "s" : "", r->library, edges_plan_rounds(e->n_ranks),
           edges_plan_rounds(e->n_ranks) > 1 ? "s" : "", e->took_s, e->budget_s);
    if (edges_beside(e) > 0) {
        printf(
            "all figures but copies were measured with %d other pair%s at work at the same time\n",
            edges_beside(e), edges_beside(e) > 1 ? "s" : "");
    } else {
        printf("each pair was measured alone\n");
    }
    if (n_sleepers > 0) {
        printf("%d rank%s CPUs with others: there a wait sleeps 50 us between looks, as in a run\n",
               n_sleepers, n_sleepers > 1 ? "s share" : " shares");
    }
    if (count_gpus(e) > 0) {
        printf("%d of the ranks have a GPU (%s); beside ipc and nccl stand copies in its memory\n",
               count_gpus(e), gpu_name(e));
    }
    printf("one way: until an answer of 8 bytes is back, less half of a ping-pong of 8 bytes\n");
}

/* --- the table: sizes --------------------------------------------------------------------------- */

static double min_at(const struct edges_link *l, int size)
{
    return l->times[size].n > 0 ? l->times[size].min_ns : STATS_NONE;
}

static double median_at(const struct edges_link *l, int size)
{
    return l->times[size].n > 0 ? l->times[size].median_ns : STATS_NONE;
}

static double p99_at(const struct edges_link *l, int size)
{
    return l->times[size].n > 0 ? l->times[size].p99_ns : STATS_NONE;
}

static double latency_of(const struct edges_link *l, int size)
{
    (void)size;
    return l->fit.latency_ns;
}

static double byte_of(const struct edges_link *l, int size)
{
    (void)size;
    return l->fit.byte_ns;
}

/* The best copy of that size by any rank, bytes/s. */
static double copy_rate(const struct edges *e, size_t n_bytes, bool on_device)
{
    double best_ns = HUGE_VAL;
    for (int i = 0; i < e->n_sizes; i++) {
        for (int r = 0; e->sizes[i] == n_bytes && r < e->n_ranks; r++) {
            const double ns = on_device ? e->ranks[r].gpu_copy_ns[i] : e->ranks[r].copy_ns[i];
            best_ns = ns > 0 && ns < best_ns ? ns : best_ns;
        }
    }
    return best_ns < HUGE_VAL ? 1e9 * (double)n_bytes / best_ns : STATS_NONE;
}

static void print_rate(double rate)
{
    if (isfinite(rate)) {
        printf(" %9.3f", rate / 1e9);
    } else {
        printf(" %9s", "-");
    }
}

static void print_sizes(const struct edges *e, const struct edges_transport *t, bool same_host)
{
    char size[32];
    printf("  %10s %10s %10s %10s %9s %9s\n", "size", "min us", "median us", "p99 us", "GB/s",
           "copy GB/s");
    for (int i = 0; i < t->n_sizes; i++) {
        const double ns = edges_median(e, t, same_host, median_at, i);
        printf("  %10s", bytes_text((double)t->sizes[i], size, sizeof size));
        if (!isfinite(ns)) {
            printf("  did not fit the time\n");
            continue;
        }
        printf(" %10.2f %10.2f %10.2f", edges_median(e, t, same_host, min_at, i) / 1e3, ns / 1e3,
               edges_median(e, t, same_host, p99_at, i) / 1e3);
        print_rate(1e9 * (double)t->sizes[i] / ns);
        print_rate(copy_rate(e, t->sizes[i], t->on_device));
        printf("\n");
    }
}

static void print_kind(const struct edges *e, const struct edges_transport *t, bool same_host)
{
    const double latency_ns = edges_median(e, t, same_host, latency_of, 0);
    const double byte_ns = edges_median(e, t, same_host, byte_of, 0);
    if (!isfinite(latency_ns)) {
        return; // no such edges
    }
    printf("\n%s, %s: the median edge\n", t->name, same_host ? "within a host" : "between hosts");
    print_sizes(e, t, same_host);
    if (t->n_left_out > 0) {
        printf("  left out, over all edges: %lld sizes that did not fit the time (--seconds)\n",
               (long long)t->n_left_out);
    }
    printf("  fitted: %.2f us + bytes / %.3f GB/s\n", latency_ns / 1e3,
           byte_ns > 0 ? 1 / byte_ns : (double)INFINITY);
}

/* --- the table: edges --------------------------------------------------------------------------- */

/* Of small messages only, where larger ones did not fit the time, it says nothing. */
static bool has_bandwidth(const struct edges_transport *t, const struct edges_link *l)
{
    return l->best >= 0 && t->sizes[l->best] >= EDGES_LARGE_BYTES;
}

static void print_matrix(const struct edges *e, const struct edges_transport *t, const char *what,
                         double (*of)(const struct edges_link *, int), double unit)
{
    const bool is_rate = of == edges_bandwidth;
    printf("\n%s: %s, from (rows) to (columns)\n      ", t->name, what);
    for (int to = 0; to < e->n_ranks; to++) {
        printf(" %8d", to);
    }
    for (int from = 0; from < e->n_ranks; from++) {
        printf("\n  %4d", from);
        for (int to = 0; to < e->n_ranks; to++) {
            const struct edges_link *l = edges_link(t, e->n_ranks, from, to);
            if (is_rate ? !has_bandwidth(t, l) : l->best < 0) {
                printf(" %8s", "-");
            } else {
                printf(" %8.2f", of(l, 0) / unit);
            }
        }
    }
    printf("\n");
}

struct listed {
    int from, to;
    const struct edges_link *link;
};

static int by_latency(const void *a, const void *b)
{
    const struct edges_link *x = ((const struct listed *)a)->link,
                            *y = ((const struct listed *)b)->link;
    const double p = edges_median_ns(x, 0), q = edges_median_ns(y, 0);
    return (p > q) - (p < q);
}

static void print_listed(const struct edges *e, const struct edges_transport *t,
                         const struct listed *l)
{
    printf("  %3d to %-3d %10.2f us", l->from, l->to, edges_median_ns(l->link, 0) / 1e3);
    print_rate(has_bandwidth(t, l->link) ? l->link->bytes_per_s : STATS_NONE);
    printf(" GB/s  %s to %s\n", e->ranks[l->from].host, e->ranks[l->to].host);
}

/* The best and the worst by the latency of the smallest size. */
static void print_extremes(const struct edges *e, const struct edges_transport *t)
{
    struct listed *all = xcalloc((size_t)e->n_ranks * (size_t)e->n_ranks, sizeof *all);
    size_t n = 0;
    for (int from = 0; from < e->n_ranks; from++) {
        for (int to = 0; to < e->n_ranks; to++) {
            const struct edges_link *l = edges_link(t, e->n_ranks, from, to);
            if (l->best >= 0) {
                all[n++] = (struct listed){from, to, l};
            }
        }
    }
    qsort(all, n, sizeof *all, by_latency);
    printf(
        "\n%s: the %d of %zu edges with the least latency of 8 bytes, and the %d with the most\n",
        t->name, LIST, n, LIST);
    for (size_t i = 0; i < n; i++) {
        if (i < LIST || i >= n - LIST) {
            print_listed(e, t, &all[i]);
        }
    }
    free(all);
}

static double outlier_by(const struct edges_link *l)
{
    return l->slow_by > l->thin_by ? l->slow_by : l->thin_by;
}

static int by_outlier(const void *a, const void *b)
{
    const double x = outlier_by(((const struct listed *)a)->link);
    const double y = outlier_by(((const struct listed *)b)->link);
    return (x < y) - (x > y);
}

static void print_outlier(const struct edges *e, const struct edges_transport *t,
                          const struct listed *o)
{
    const struct edges_link *l = o->link;
    const char *kind = edges_same_host(e, o->from, o->to) ? "within a host" : "between hosts";
    if (l->slow_by > 0) {
        printf("outlier: %s, %d to %d: 8 bytes take %.2f us, %.1f times the median %s\n", t->name,
               o->from, o->to, edges_median_ns(l, 0) / 1e3, l->slow_by, kind);
    }
    if (l->thin_by > 0) {
        printf("outlier: %s, %d to %d: large messages take %.1f times the median %s\n", t->name,
               o->from, o->to, l->thin_by, kind);
    }
}

/* The worst come first; returns how many there are. */
static int print_outliers_of(const struct edges *e, const struct edges_transport *t)
{
    struct listed *all = xcalloc((size_t)e->n_ranks * (size_t)e->n_ranks, sizeof *all);
    int n = 0;
    for (int i = 0; i < e->n_ranks * e->n_ranks; i++) {
        const int from = i / e->n_ranks, to = i % e->n_ranks;
        const struct edges_link *l = edges_link(t, e->n_ranks, from, to);
        if (outlier_by(l) > 0) {
            all[n++] = (struct listed){from, to, l};
        }
    }
    qsort(all, (size_t)n, sizeof *all, by_outlier);
    for (int i = 0; i < n && i < MOST_OUTLIERS; i++) {
        print_outlier(e, t, &all[i]);
    }
    if (n > MOST_OUTLIERS) {
        printf("and %d more outliers of %s\n", n - MOST_OUTLIERS, t->name);
    }
    free(all);
    return n;
}

static void print_outliers(const struct edges *e)
{
    int n = 0;
    printf("\n");
    for (int k = 0; k < e->n_transports; k++) {
        n += print_outliers_of(e, &e->transports[k]);
    }
    printf("%s: edges above %.1f times the median of their kind, beyond what spreads explain\n",
           n == 0 ? "no outliers" : "outliers are", EDGES_OUTLIER);
}

/* --- the table: hops ------------------------------------------------------------------------------ */

static void print_hops(const struct bench_hops *h)
{
    char size[32], share[64];
    printf("\nhops of %s, tokens x %zu bytes", h->model, arch_carried_bytes(h->arch, 1));
    if (h->costs) {
        printf("; stages of %d, costs of %s", h->n_stages, h->costs->source);
    }
    printf("\n  %-16s %10s %10s %10s %10s  %-10s  %s\n", "batch", "size", "best us", "median us",
           "worst us", "there", h->costs ? "worst, of a stage's time" : "");
    for (int i = 0; i < h->n; i++) {
        const struct bench_hop *one = &h->v[i];
        char batch[32], there[24];
        snprintf(batch, sizeof batch, "%s %d", one->is_prompt ? "prompt" : "decode", one->n_tokens);
        snprintf(there, sizeof there, "%d to %d", one->from, one->to);
        snprintf(share, sizeof share, "%.1f %% of %.1f us", 100 * one->worst_ns / one->stage_ns,
                 one->stage_ns / 1e3);
        printf("  %-16s %10s %10.2f %10.2f %10.2f  %-10s  %s\n", batch,
               bytes_text(one->n_bytes, size, sizeof size), one->best_ns / 1e3,
               one->median_ns / 1e3, one->worst_ns / 1e3, there,
               isfinite(one->stage_ns) ? share : "");
    }
}

void bench_edges_report_table(const struct bench_edges_report *r)
{
    const struct edges *e = r->edges;
    print_head(r);
    for (int k = 0; k < e->n_transports; k++) {
        const struct edges_transport *t = &e->transports[k];
        print_kind(e, t, true);
        print_kind(e, t, false);
        if (e->n_ranks > BENCH_EDGES_MATRIX) {
            print_extremes(e, t);
            continue;
        }
        print_matrix(e, t, "8 bytes one way, median us", edges_median_ns, 1e3);
        if (t->carries_hidden) {
            print_matrix(e, t, "GB/s, the best of 1 MiB and more", edges_bandwidth, 1e9);
        }
    }
    print_outliers(e);
    if (r->hops) {
        print_hops(r->hops);
    }
}

/* --- JSON ----------------------------------------------------------------------------------------- */

static void put_hops(struct json_out *o, const struct bench_hops *h)
{
    json_out_open(o, "model", '{');
    json_out_text(o, "name", h->model);
    json_out_whole(o, "hidden", (uint64_t)h->arch->hidden);
    json_out_text(o, "costs", h->costs ? h->costs->source : NULL);
    json_out_whole(o, "stages", (uint64_t)h->n_stages);
    json_out_open(o, "hops", '[');
    for (int i = 0; i < h->n; i++) {
        const struct bench_hop *one = &h->v[i];
        json_out_open(o, NULL, '{');
        json_out_text(o, "batch", one->is_prompt ? "prompt" : "decode");
        json_out_whole(o, "tokens", (uint64_t)one->n_tokens);
        json_out_number(o, "bytes", one->n_bytes);
        json_out_number(o, "best_ns", one->best_ns);
        json_out_number(o, "median_ns", one->median_ns);
        json_out_number(o, "worst_ns", one->worst_ns);
        json_out_whole(o, "worst_from", (uint64_t)one->from);
        json_out_whole(o, "worst_to", (uint64_t)one->to);
        json_out_number(o, "stage_ns", one->stage_ns);
        json_out_number(o, "worst_stage_share", one->worst_ns / one->stage_ns);
        json_out_close(o, '}');
    }
    json_out_close(o, ']');
    json_out_close(o, '}');
}

void bench_edges_report_json(const struct bench_edges_report *r, const struct json_t *provenance,
                             FILE *f)
{
    struct json_out o = {.f = f};
    char utc[32];
    json_out_open(&o, NULL, '{');
    edges_file_put(&o, r->edges);
    json_out_text(&o, "library", r->library);
    json_out_text(&o, "created_utc", provenance_utc(clock_unix_ns(), utc, sizeof utc));
    if (r->hops) {
        put_hops(&o, r->hops);
    }
    json_out_tree(&o, "provenance", provenance);
    json_out_close(&o, '}');
    fputs("\n", f);
}

/* --- the heat map --------------------------------------------------------------------------------- */

/* Of each edge what its hidden states take. */
static void fill_map(const struct edges *e, double *latency_us, double *rate, bool *slow,
                     bool *thin)
{
    for (int i = 0; i < e->n_ranks * e->n_ranks; i++) {
        const int from = i / e->n_ranks, to = i % e->n_ranks;
        const struct edges_transport *t = edges_carrier(e, from, to);
        const struct edges_link *l = t ? edges_link(t, e->n_ranks, from, to) : NULL;
        latency_us[i] = l ? edges_median_ns(l, 0) / 1e3 : STATS_NONE;
        rate[i] = l && has_bandwidth(t, l) ? l->bytes_per_s / 1e9 : STATS_NONE;
        slow[i] = l && l->slow_by > 0;
        thin[i] = l && l->thin_by > 0;
    }
}

/* "ipc, nccl": those that are any edge's carrier. */
static void name_carriers(const struct edges *e, struct str *out)
{
    for (int k = 0; k < e->n_transports; k++) {
        bool is_used = false;
        for (int i = 0; i < e->n_ranks * e->n_ranks; i++) {
            is_used |= edges_carrier(e, i / e->n_ranks, i % e->n_ranks) == &e->transports[k];
        }
        if (is_used) {
            str_printf(out, "%s%s", out->len > 0 ? ", " : "", e->transports[k].name);
        }
    }
}

void bench_edges_report_heatmap(const struct bench_edges_report *r, struct str *out)
{
    const struct edges *e = r->edges;
    struct str carriers = {0};
    const size_t n = (size_t)e->n_ranks;
    double *latency_us = xcalloc(n * n, sizeof *latency_us), *rate = xcalloc(n * n, sizeof *rate);
    bool *slow = xcalloc(n * n, sizeof *slow), *thin = xcalloc(n * n, sizeof *thin);
    char title[128], foot[160];
    fill_map(e, latency_us, rate, slow, thin);
    name_carriers(e, &carriers);
    snprintf(title, sizeof title, "Edges between %d ranks on %d host%s, transport %s", e->n_ranks,
             count_hosts(e), count_hosts(e) > 1 ? "s" : "", carriers.data);
    str_free(&carriers);
    snprintf(foot, sizeof foot,
             "Black borders: outliers, above %.1f times the median of their kind. Pairs at work "
             "beside each: %d.",
             EDGES_OUTLIER, edges_beside(e));
    const struct heatmap maps[] = {
        {"8 bytes one way, median", "us", latency_us, slow},
        {"Bandwidth of large messages", "GB/s", rate, thin},
    };
    heatmap_svg(out, title, maps, 2, n, "from rank", "to rank", foot);
    free(latency_us);
    free(rate);
    free(slow);
    free(thin);
}
