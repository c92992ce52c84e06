#include "workers/edges.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/err.h"
#include "core/mem.h"

/* --- statistics ------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between order statistics, as analysis has it. */
static double quantile(const double *sorted, int n, double p)
{
    double at = p * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n > 0 ? quantile(v, n, 0.5) : (double)NAN;
}

struct edges_times edges_times_of(double *ns, int n)
{
    if (n == 0) {
        return (struct edges_times){0};
    }
    qsort(ns, (size_t)n, sizeof *ns, by_size);
    return (struct edges_times){ns[0], quantile(ns, n, 0.5), quantile(ns, n, 0.99), n};
}

static double deviation(const struct edges_fit *f, double bytes, double ns)
{
    return fabs(log((f->latency_ns + bytes * f->byte_ns) / ns));
}

static double deviations(const struct edges_fit *f, const double *bytes, const double *ns, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += deviation(f, bytes[i], ns[i]);
    }
    return sum;
}

/* The line through two points, or the nearest one with no negative coefficient; i = j: flat. */
static struct edges_fit line_through(const double *bytes, const double *ns, int i, int j)
{
    if (i == j || ns[j] <= ns[i]) {
        return (struct edges_fit){.latency_ns = ns[i]};
    }
    double byte_ns = (ns[j] - ns[i]) / (bytes[j] - bytes[i]);
    double latency_ns = ns[i] - byte_ns * bytes[i];
    return latency_ns >= 0 ? (struct edges_fit){.latency_ns = latency_ns, .byte_ns = byte_ns}
                           : (struct edges_fit){.byte_ns = ns[j] / bytes[j]};
}

/* Lines through two of the points, or flat ones through one: all are tried. */
struct edges_fit edges_fit_line(const double *bytes, const double *ns, int n)
{
    struct edges_fit best = {0};
    double least = HUGE_VAL, each[EDGES_PLAN_MAX_SIZES];
    CHECK(n > 0 && n <= EDGES_PLAN_MAX_SIZES);
    for (int i = 0; i < n; i++) {
        for (int j = i; j < n; j++) {
            const struct edges_fit f = line_through(bytes, ns, i, j);
            const double sum = deviations(&f, bytes, ns, n);
            if (sum < least) {
                least = sum;
                best = f;
            }
        }
    }
    for (int i = 0; i < n; i++) {
        each[i] = deviation(&best, bytes[i], ns[i]);
    }
    best.error = exp(median(each, n)) - 1;
    return best;
}

/* --- edges ------------------------------------------------------------------------------------ */

void edges_free(struct edges *e)
{
    for (int t = 0; t < e->n_transports; t++) {
        free(e->transports[t].links);
    }
    memset(e, 0, sizeof *e);
}

struct edges_link *edges_link(const struct edges_transport *t, int n_ranks, int from, int to)
{
    return &t->links[(size_t)from * (size_t)n_ranks + (size_t)to];
}

bool edges_same_host(const struct edges *e, int a, int b)
{
    return strcmp(e->ranks[a].host, e->ranks[b].host) == 0;
}

const struct edges_transport *edges_carrier(const struct edges *e, int from, int to)
{
    for (int k = 0; k < e->n_transports; k++) {
        const struct edges_transport *t = &e->transports[k];
        if (t->carries_hidden && edges_link(t, e->n_ranks, from, to)->best >= 0) {
            return t;
        }
    }
    return NULL;
}

int edges_beside(const struct edges *e)
{
    return e->n_ranks / 2 - 1;
}

double edges_median_ns(const struct edges_link *l, int size)
{
    return l->times[size].median_ns;
}

double edges_bandwidth(const struct edges_link *l, int size)
{
    (void)size;
    return l->bytes_per_s;
}

/* --- one edge --------------------------------------------------------------------------------- */

static void fit_link(const struct edges_transport *t, struct edges_link *l)
{
    double bytes[EDGES_PLAN_MAX_SIZES], ns[EDGES_PLAN_MAX_SIZES];
    int n = 0;
    for (int i = 0; i < t->n_sizes; i++) {
        if (l->times[i].n > 0 && l->times[i].median_ns > 0) {
            bytes[n] = (double)t->sizes[i];
            ns[n++] = l->times[i].median_ns;
        }
    }
    if (n > 0) {
        l->fit = edges_fit_line(bytes, ns, n);
    }
}

static void find_bandwidth(const struct edges_transport *t, struct edges_link *l)
{
    l->best = -1;
    for (int i = 0; i < t->n_sizes; i++) {
        const struct edges_times *m = &l->times[i];
        if (m->n == 0 || !(m->median_ns > 0)) {
            continue;
        }
        const double rate = 1e9 * (double)t->sizes[i] / m->median_ns;
        const bool is_small = l->best < 0 || t->sizes[l->best] < EDGES_LARGE_BYTES;
        if (is_small || rate > l->bytes_per_s) {
            l->best = i;
            l->bytes_per_s = rate;
        }
    }
}

static double copy_share(const struct edges *e, const struct edges_transport *t,
                         const struct edges_link *l, int from, int to)
{
    double best_ns = HUGE_VAL;
    for (int i = 0; l->best >= 0 && i < e->n_sizes; i++) {
        const struct edges_rank *p = &e->ranks[from], *q = &e->ranks[to];
        const double a = t->on_device ? p->gpu_copy_ns[i] : p->copy_ns[i];
        const double b = t->on_device ? q->gpu_copy_ns[i] : q->copy_ns[i];
        if (e->sizes[i] == t->sizes[l->best]) {
            best_ns = fmin(a > 0 ? a : HUGE_VAL, b > 0 ? b : HUGE_VAL);
        }
    }
    return best_ns < HUGE_VAL ? best_ns / l->times[l->best].median_ns : (double)NAN;
}

/* --- edges of a kind ---------------------------------------------------------------------------- */

/* What `of` says of each edge of a kind that was measured, but NaN; v (n_ranks^2). Returns how many. */
static int collect(const struct edges *e, const struct edges_transport *t, bool same_host,
                   double (*of)(const struct edges_link *, int), int size, double *v)
{
    int n = 0;
    for (int from = 0; from < e->n_ranks; from++) {
        for (int to = 0; to < e->n_ranks; to++) {
            const struct edges_link *l = edges_link(t, e->n_ranks, from, to);
            if (from != to && l->best >= 0 && edges_same_host(e, from, to) == same_host &&
                isfinite(of(l, size))) {
                v[n++] = of(l, size);
            }
        }
    }
    return n;
}

static double p99_at(const struct edges_link *l, int size)
{
    return l->times[size].p99_ns;
}

static double n_at(const struct edges_link *l, int size)
{
    return (double)l->times[size].n;
}

static double *room_for(const struct edges *e)
{
    return xcalloc((size_t)e->n_ranks * (size_t)e->n_ranks, sizeof(double));
}

double edges_median(const struct edges *e, const struct edges_transport *t, bool same_host,
                    double (*of)(const struct edges_link *l, int size), int size)
{
    double *v = room_for(e);
    const double middle = median(v, collect(e, t, same_host, of, size, v));
    free(v);
    return middle;
}

/* The largest size that all edges of the kind have. */
static int common_size(const struct edges *e, const struct edges_transport *t, bool same_host,
                       double *v)
{
    for (int i = t->n_sizes - 1; i > 0; i--) {
        int n = collect(e, t, same_host, n_at, i, v);
        bool all = n > 0;
        for (int k = 0; k < n; k++) {
            all &= v[k] > 0;
        }
        if (all) {
            return i;
        }
    }
    return 0;
}

/* What the edges of a kind take at one size. */
struct usual {
    double median_ns,
        deviation_ns; // of the edges' medians: theirs, and that of their distances from it
    double p99_ns;    // median of the edges'
};

static struct usual usual_of(const struct edges *e, const struct edges_transport *t, bool same_host,
                             int size, double *v)
{
    struct usual u = {.p99_ns = median(v, collect(e, t, same_host, p99_at, size, v))};
    const int n = collect(e, t, same_host, edges_median_ns, size, v);
    u.median_ns = median(v, n);
    for (int i = 0; i < n; i++) {
        v[i] = fabs(v[i] - u.median_ns);
    }
    u.deviation_ns = median(v, n);
    return u;
}

static bool is_outlier(const struct edges_times *t, const struct usual *u)
{
    return t->median_ns > EDGES_OUTLIER * u->median_ns &&
           t->median_ns > u->median_ns + EDGES_DEVIATIONS * u->deviation_ns &&
           t->median_ns > u->p99_ns && t->min_ns > u->median_ns;
}

static void mark_slow(struct edges *e, struct edges_transport *t, bool same_host, int size,
                      double *v)
{
    const struct usual u = usual_of(e, t, same_host, size, v);
    for (int i = 0; i < e->n_ranks * e->n_ranks; i++) {
        const int from = i / e->n_ranks, to = i % e->n_ranks;
        struct edges_link *l = edges_link(t, e->n_ranks, from, to);
        const struct edges_link *back = edges_link(t, e->n_ranks, to, from);
        if (l->best < 0 || edges_same_host(e, from, to) != same_host ||
            !is_outlier(&l->times[size], &u)) {
            continue;
        }
        const double by = l->times[size].median_ns / u.median_ns;
        if (size > 0) {
            l->thin_by = by;
        } else if (is_outlier(&back->times[size], &u)) { // there and back are the same both ways
            l->slow_by = by;
        }
    }
}

static void find_outliers(struct edges *e, struct edges_transport *t, bool same_host)
{
    double *v = room_for(e);
    const int large = common_size(e, t, same_host, v);
    mark_slow(e, t, same_host, 0, v);
    if (large > 0) {
        mark_slow(e, t, same_host, large, v);
    }
    free(v);
}

void edges_judge(struct edges *e)
{
    for (int k = 0; k < e->n_transports; k++) {
        struct edges_transport *t = &e->transports[k];
        t->n_left_out = 0;
        for (int i = 0; i < e->n_ranks * e->n_ranks; i++) {
            const int from = i / e->n_ranks, to = i % e->n_ranks;
            struct edges_link *l = edges_link(t, e->n_ranks, from, to);
            fit_link(t, l);
            find_bandwidth(t, l);
            l->copy_share = copy_share(e, t, l, from, to);
            for (int s = 0; l->best >= 0 && s < t->n_sizes; s++) {
                t->n_left_out += l->times[s].n == 0;
            }
        }
        find_outliers(e, t, true);
        find_outliers(e, t, false);
    }
}
