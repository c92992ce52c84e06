#include "analysis/sample.h"

#include "analysis/stats.h"
#include "core/mem.h"

#include <math.h>
#include <stdlib.h>

void sample_add(struct sample *s, double x)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 256;
        s->v = xrealloc(s->v, s->cap * sizeof *s->v);
    }
    s->v[s->n++] = x;
}

void sample_sort(struct sample *s)
{
    if (s->n) {
        stats_sort(s->v, s->n);
    }
}

void sample_free(struct sample *s)
{
    free(s->v);
    *s = (struct sample){0};
}

double sample_sum(const struct sample *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        sum += s->v[i];
    }
    return sum;
}

double sample_mean(const struct sample *s)
{
    return s->n ? sample_sum(s) / (double)s->n : STATS_NONE;
}

double sample_sd(const struct sample *s)
{
    double mean = sample_mean(s), squares = 0;
    for (size_t i = 0; i < s->n; i++) {
        squares += (s->v[i] - mean) * (s->v[i] - mean);
    }
    return s->n ? sqrt(squares / (double)s->n) : STATS_NONE;
}

double sample_percentile(const struct sample *s, double p)
{
    return s->n ? stats_percentile(s->v, s->n, p) : STATS_NONE;
}
