#include "analysis/fit.h"

#include "core/err.h"
#include "analysis/stats.h"
#include "core/mem.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>

/* --- the stick ------------------------------------------------------------------------------- */

static double squares_of(const struct fit_point *p, size_t n, double slope, double plateau)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double residual = p[i].y - fmin(slope * p[i].x, plateau);
        sum += p[i].weight * residual * residual;
    }
    return sum;
}

static void keep_better(const struct fit_point *p, size_t n, double slope, double plateau,
                        struct fit_stick *best)
{
    double squares = squares_of(p, n, slope, plateau);
    if (isnan(best->slope) || squares < best->squares) {
        *best = (struct fit_stick){slope, plateau, squares};
    }
}

/* The first k points on the line, the others on the plateau. */
static void try_split(const struct fit_point *p, size_t n, size_t k, struct fit_stick *best)
{
    double xy = 0, xx = 0, y = 0, w = 0;
    for (size_t i = 0; i < n; i++) {
        if (i < k) {
            xy += p[i].weight * p[i].x * p[i].y;
            xx += p[i].weight * p[i].x * p[i].x;
        } else {
            y += p[i].weight * p[i].y;
            w += p[i].weight;
        }
    }
    if (xx > 0) {
        keep_better(p, n, xy / xx, w > 0 ? y / w : STATS_INF, best);
    }
}

/* The corner exactly at point k: one parameter, y = a min(x, x_k). */
static void try_corner(const struct fit_point *p, size_t n, size_t k, struct fit_stick *best)
{
    double xy = 0, xx = 0;
    for (size_t i = 0; i < n; i++) {
        double x = fmin(p[i].x, p[k].x);
        xy += p[i].weight * x * p[i].y;
        xx += p[i].weight * x * x;
    }
    if (xx > 0) {
        keep_better(p, n, xy / xx, xy / xx * p[k].x, best);
    }
}

void fit_stick(const struct fit_point *p, size_t n, struct fit_stick *out)
{
    *out = (struct fit_stick){STATS_NONE, STATS_INF, STATS_NONE};
    try_split(p, n, n, out);
    for (size_t k = 1; k < n; k++) {
        try_split(p, n, k, out);
        try_corner(p, n, k - 1, out);
    }
}

/* --- steps ----------------------------------------------------------------------------------- */

struct totals {
    double due, due_in, due_out, served_out;
};

static void add_bin(struct totals *t, const struct fit_step *s, size_t bin)
{
    t->due += s->due[bin];
    t->due_in += s->due_in[bin];
    t->due_out += s->due_out[bin];
    t->served_out += s->served_out[bin];
}

static int by_x(const void *a, const void *b)
{
    double x = ((const struct fit_point *)a)->x, y = ((const struct fit_point *)b)->x;
    return (x > y) - (x < y);
}

/* The stick through each step's totals (n), and the mean request. points (n) is scratch. */
static void fit_totals(const struct fit_step *steps, const struct totals *t, size_t n,
                       struct fit_point *points, struct fit_result *out)
{
    struct totals all = {0};
    for (size_t i = 0; i < n; i++) {
        points[i] = (struct fit_point){t[i].due_out / steps[i].window_s,
                                       t[i].served_out / steps[i].window_s, steps[i].window_s};
        all.due += t[i].due;
        all.due_in += t[i].due_in;
        all.due_out += t[i].due_out;
    }
    qsort(points, n, sizeof *points, by_x);
    fit_stick(points, n, &out->stick);
    out->x_max = points[n - 1].x;
    out->in_per_request = all.due_in / all.due;
    out->out_per_request = all.due_out / all.due;
}

/* The mean request of the whole schedule: more draws than the windows hold. */
static void whole_steps(const struct fit_step *steps, size_t n, struct fit_result *out)
{
    double due = 0, in = 0, tokens = 0;
    for (size_t i = 0; i < n; i++) {
        due += steps[i].n_requests;
        in += steps[i].tokens_in;
        tokens += steps[i].tokens_out;
    }
    out->in_per_request = in / due;
    out->out_per_request = tokens / due;
}

static void set_rate(struct fit_result *r)
{
    r->rate_rps = r->stick.plateau / r->stick.slope / r->out_per_request;
}

static void totals_of(const struct fit_step *steps, size_t n, struct totals *t)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t bin = 0; bin < steps[i].n_bins; bin++) {
            add_bin(&t[i], &steps[i], bin);
        }
    }
}

void fit_steps(const struct fit_step *steps, size_t n, struct fit_result *out)
{
    CHECK(n > 0);
    struct totals *t = xcalloc(n, sizeof *t);
    struct fit_point *points = xcalloc(n, sizeof *points);
    totals_of(steps, n, t);
    fit_totals(steps, t, n, points, out);
    whole_steps(steps, n, out);
    set_rate(out);
    free(points);
    free(t);
}

/* As many bins as the step has, in blocks that begin anywhere and wrap around. */
static struct totals resample(const struct fit_step *s, uint64_t seed, uint64_t draw, uint64_t step)
{
    struct totals t = {0};
    for (size_t taken = 0; taken < s->n_bins;) {
        uint64_t at = rng_below(s->n_bins, seed, RNG_BOOTSTRAP, draw, step << 32 | taken);
        for (size_t i = 0; i < s->block_bins && taken < s->n_bins; i++, taken++) {
            add_bin(&t, s, (at + i) % s->n_bins);
        }
    }
    return t;
}

void fit_bootstrap(const struct fit_step *steps, size_t n, uint64_t seed, struct fit_result *draws)
{
    CHECK(n > 0);
    struct totals *t = xcalloc(n, sizeof *t);
    struct fit_point *points = xcalloc(n, sizeof *points);
    struct fit_result windows, whole;
    totals_of(steps, n, t);
    fit_totals(steps, t, n, points, &windows);
    whole_steps(steps, n, &whole);
    for (uint64_t b = 0; b < FIT_DRAWS; b++) {
        for (size_t i = 0; i < n; i++) {
            t[i] = resample(&steps[i], seed, b, i);
        }
        fit_totals(steps, t, n, points, &draws[b]);
        draws[b].in_per_request *= whole.in_per_request / windows.in_per_request;
        draws[b].out_per_request *= whole.out_per_request / windows.out_per_request;
        set_rate(&draws[b]);
    }
    free(points);
    free(t);
}
