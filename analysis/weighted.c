#include "analysis/weighted.h"

#include "core/mem.h"

#include <math.h>
#include <stdlib.h>

#define MERGE_S 1e-4 // events closer than this to the first of a group are one with it
#define EPSILON 1e-6 // the shortest time that a last event lasts, and weights below it are none

const double weighted_percentiles[WEIGHTED_PERCENTILES] = {
    0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999,
};

void weighted_add(struct weighted *w, double value, double weight)
{
    if (w->n == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 256;
        w->v = xrealloc(w->v, w->cap * sizeof *w->v);
    }
    w->v[w->n++] = (struct weighted_pair){value, weight};
}

void weighted_join(struct weighted *w, const struct weighted *from)
{
    for (size_t i = 0; i < from->n; i++) {
        weighted_add(w, from->v[i].value, from->v[i].weight);
    }
}

void weighted_free(struct weighted *w)
{
    free(w->v);
    *w = (struct weighted){0};
}

static int by_value(const void *a, const void *b)
{
    const struct weighted_pair *x = a, *y = b;
    return (x->value > y->value) - (x->value < y->value);
}

/* Ascending; values within `within` of the first of a group become one, weights add up. */
static void sort_merge(struct weighted *w, double within)
{
    size_t kept = 0;
    if (w->n > 1) {
        qsort(w->v, w->n, sizeof *w->v, by_value);
    }
    for (size_t i = 0; i < w->n; i++) {
        if (kept > 0 && w->v[i].value <= w->v[kept - 1].value + within) {
            w->v[kept - 1].weight += w->v[i].weight;
        } else {
            w->v[kept++] = w->v[i];
        }
    }
    w->n = kept;
}

/* --- values ----------------------------------------------------------------------------------- */

static double sum_of_weights(const struct weighted *w)
{
    double sum = 0;
    for (size_t i = 0; i < w->n; i++) {
        sum += w->v[i].weight;
    }
    return sum;
}

static void fill_percentiles(const struct weighted *w, double total, struct weighted_summary *out)
{
    double reached = 0;
    size_t k = 0;
    for (size_t i = 0; i < w->n; i++) {
        reached += w->v[i].weight / total;
        while (k < WEIGHTED_PERCENTILES && (reached >= weighted_percentiles[k] || i + 1 == w->n)) {
            out->percentile[k++] = w->v[i].value;
        }
    }
    out->median = out->percentile[5];
}

static void fill_moments(const struct weighted *w, double total, struct weighted_summary *out)
{
    double heaviest = 0;
    for (size_t i = 0; i < w->n; i++) {
        out->mean += w->v[i].value * (w->v[i].weight / total);
        if (w->v[i].weight > heaviest) {
            heaviest = w->v[i].weight;
            out->mode = w->v[i].value;
        }
    }
    for (size_t i = 0; i < w->n; i++) {
        double off = w->v[i].value - out->mean;
        out->variance += off * off * (w->v[i].weight / total);
    }
}

static void summarise(struct weighted *w, double count, struct weighted_summary *out)
{
    size_t kept = 0;
    *out = (struct weighted_summary){.count = count};
    sort_merge(w, 0);
    for (size_t i = 0; i < w->n; i++) {
        if (w->v[i].weight > 0) {
            w->v[kept++] = w->v[i];
        }
    }
    w->n = kept;
    if (kept == 0) {
        return;
    }
    double total = sum_of_weights(w);
    if (total <= EPSILON) { // next to nothing: every value counts the same
        for (size_t i = 0; i < kept; i++) {
            w->v[i].weight = 1;
        }
        total = (double)kept;
    }
    fill_moments(w, total, out);
    fill_percentiles(w, total, out);
    out->min = w->v[0].value;
    out->max = w->v[kept - 1].value;
    out->total = out->mean * count;
}

void weighted_summarise(struct weighted *w, struct weighted_summary *out)
{
    summarise(w, rint(sum_of_weights(w)), out);
}

/* --- events ----------------------------------------------------------------------------------- */

/* Only what lies in [begin, end], and both ends with nothing. */
static void cut(struct weighted *w, double begin, double end)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->n; i++) {
        if (w->v[i].value >= begin && w->v[i].value <= end) {
            w->v[kept++] = w->v[i];
        }
    }
    w->n = kept;
    weighted_add(w, begin, 0);
    weighted_add(w, end, 0);
}

void weighted_rates(struct weighted *events, double begin, double end, struct weighted_summary *out)
{
    struct weighted rates = {0};
    cut(events, begin, end);
    sort_merge(events, MERGE_S);
    const struct weighted_pair *v = events->v;
    size_t n = events->n;
    double count = rint(sum_of_weights(events));
    for (size_t i = 0; n > 1 && i < n; i++) {
        double from = i > 0 ? (v[i - 1].value + v[i].value) / 2 : v[i].value;
        double to = i + 1 < n ? (v[i].value + v[i + 1].value) / 2 : v[i].value;
        double lasts = i + 1 < n ? to - from : fmax(to - from, EPSILON);
        weighted_add(&rates, v[i].weight / lasts, lasts);
    }
    summarise(&rates, n > 1 ? count : (double)n, out);
    weighted_free(&rates);
}

void weighted_concurrency(struct weighted *changes, size_t n, double begin, double end,
                          struct weighted_summary *out)
{
    struct weighted levels = {0};
    double level = 0, since = begin;
    sort_merge(changes, MERGE_S);
    for (size_t i = 0; i < changes->n && changes->v[i].value <= end; i++) {
        double at = fmax(changes->v[i].value, begin);
        weighted_add(&levels, fmax(level, 0), at - since);
        level += changes->v[i].weight;
        since = at;
    }
    if (n > 0) {
        weighted_add(&levels, fmax(level, 0), end - since);
    }
    summarise(&levels, (double)n, out);
    weighted_free(&levels);
}
