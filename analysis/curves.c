#include "analysis/curves.h"

#include "analysis/inflight.h"
#include "analysis/latency.h"
#include "analysis/stats.h"
#include "core/clock.h"
#include "core/mem.h"

#include <math.h>
#include <stdlib.h>

static void distribution(const struct step_data *d, struct curves_step *c)
{
    double *ms = xmalloc((d->n + 1) * sizeof *ms);
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct record *r = &d->records[i];
        double v = latency_value_ms(r, LATENCY_TTFT);
        if (r->t_sched_ns >= d->info.t_warm_ns && r->t_sched_ns < d->info.t_end_ns && !isnan(v)) {
            ms[n++] = v;
        }
    }
    stats_sort(ms, n);
    for (size_t k = 0; n > 0 && k < CURVES_CDF_POINTS; k++) {
        c->share[k] = (double)k / (CURVES_CDF_POINTS - 1);
        c->ttft_ms[k] = stats_percentile(ms, n, c->share[k]);
        c->n_cdf++;
    }
    free(ms);
}

static double since_begin_s(const struct step_info *i, int64_t t_ns)
{
    return ((double)t_ns - (double)i->t_begin_ns) / (double)NS_PER_S;
}

static void over_time(const struct step_data *d, struct curves_step *c)
{
    const struct step_info *i = &d->info;
    c->warm_s = since_begin_s(i, i->t_warm_ns);
    c->end_s = since_begin_s(i, i->t_end_ns);
    c->drain_s = since_begin_s(i, i->t_drain_ns);
    inflight_means(d->records, d->n, i->t_begin_ns, i->t_drain_ns, i->t_drain_ns, c->in_flight,
                   CURVES_TIME_POINTS);
    for (size_t k = 0; k < CURVES_TIME_POINTS; k++) {
        c->t_s[k] = ((double)k + 0.5) / CURVES_TIME_POINTS * c->drain_s;
    }
}

int curves_read(struct store *s, struct curves_step **out, struct err *e)
{
    size_t n = store_n_steps(s);
    struct curves_step *c = xcalloc(n + 1, sizeof *c);
    for (size_t i = 0; i < n; i++) {
        struct step_data d;
        if (store_read_step(s, i, &d, e)) {
            free(c);
            return -1;
        }
        distribution(&d, &c[i]);
        over_time(&d, &c[i]);
        step_data_free(&d);
    }
    *out = c;
    return 0;
}
