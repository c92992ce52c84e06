#include "analysis/drift.h"

#include <math.h>

#define ALPHA      0.01
#define MIN_CHANGE 0.03

struct mean {
    double value, se;
};

static struct mean of_interval(double value, double hi)
{
    double t = stats_t_quantile(0.975, LATENCY_BATCHES - 1);
    return (struct mean){value, (hi - value) / t};
}

static struct mean of_latency(const struct measure *m, enum latency_metric metric)
{
    return of_interval(m->latency[metric].mean, m->latency[metric].hi95);
}

static struct mean of_served(const struct measure *m)
{
    double offered = measure_rate(m, m->due_out);
    struct stats_interval v = measure_rate_interval(m, m->served_out);
    return of_interval(v.value / offered, v.hi / offered);
}

static struct drift_metric compare(const char *name, struct mean a, struct mean b)
{
    struct drift_metric d = {
        .name = name, .first = a.value, .last = b.value, .change = b.value / a.value - 1};
    double va = a.se * a.se, vb = b.se * b.se, batches = LATENCY_BATCHES - 1;
    double df = (va + vb) * (va + vb) / (va * va / batches + vb * vb / batches);
    double limit = stats_t_quantile(1 - ALPHA / (2 * DRIFT_METRICS), df);
    d.is_significant =
        fabs(d.change) > MIN_CHANGE && fabs(b.value - a.value) > limit * sqrt(va + vb);
    return d;
}

static bool is_usable(const struct step_info *i, const struct measure *m)
{
    return i->repeat == 0 && i->rate_rps > 0 && !m->recovered && m->n_ok > 0;
}

/* Whether the step at `last` is there to tell drift. A rate that was undecided is offered again at once, of
 * the same kind: what says which is the first of the visits in a row. */
static bool is_return(const struct step_info *info, const struct measure *m, size_t last)
{
    size_t began = last;
    for (size_t i = last; i-- > 0;) {
        if (info[i].repeat > 0 || m[i].recovered) {
            continue;
        }
        if (info[i].rate_rps != info[last].rate_rps) {
            break;
        }
        began = i;
    }
    return info[began].kind == STEP_REVISIT;
}

/* The last step of the first pass when it came back to its rate, and the first one there. */
static bool find_pair(const struct step_info *info, const struct measure *m, size_t n,
                      struct drift *out)
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (is_usable(&info[i], &m[i])) {
            out->last = i;
            any = true;
        }
    }
    for (out->first = 0; any && out->first < out->last; out->first++) {
        const struct step_info *i = &info[out->first];
        if (is_usable(i, &m[out->first]) && i->rate_rps == info[out->last].rate_rps) {
            return is_return(info, m, out->last);
        }
    }
    return false;
}

void drift_find(const struct step_info *info, const struct measure *m, size_t n, struct drift *out)
{
    *out = (struct drift){0};
    out->is_known = find_pair(info, m, n, out);
    if (!out->is_known) {
        return;
    }
    const struct measure *a = &m[out->first], *b = &m[out->last];
    out->metric[0] = compare("ttft_ms", of_latency(a, LATENCY_TTFT), of_latency(b, LATENCY_TTFT));
    out->metric[1] = compare("tpot_ms", of_latency(a, LATENCY_TPOT), of_latency(b, LATENCY_TPOT));
    out->metric[2] = compare("served_share", of_served(a), of_served(b));
    for (int k = 0; k < DRIFT_METRICS; k++) {
        out->is_significant = out->is_significant || out->metric[k].is_significant;
    }
}
