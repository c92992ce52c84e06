#include "analysis/slo_decision.h"

#include "core/mem.h"

#include <math.h>
#include <stdlib.h>

#define MOST_AUTOCORRELATION 0.8
#define PLAIN                0.25 // of the misses that the objective allows: one step is enough to see it

const char *const slo_decision_holds_names[3] = {"undecided", "met", "missed"};

struct slo_sample slo_decision_sample(const struct measure *m)
{
    struct slo_sample s = {.ttft_ms = m->latency[LATENCY_TTFT].mean};
    for (int k = 0; k < LATENCY_N; k++) {
        s.metric[k].limit_ms = m->objective[k].limit_ms;
        for (int b = 0; b < LATENCY_BATCHES; b++) {
            s.metric[k].n[b] = m->objective[k].n_batch[b];
            s.metric[k].n_met[b] = m->objective[k].n_met_batch[b];
        }
    }
    return s;
}

/* One objective over the batches of all steps. */
struct pool {
    double *n, *n_met; // (n_batches)
    size_t n_batches;
    double all, met;
};

static void fill_pool(struct pool *p, const struct slo_sample *steps, size_t n, int metric)
{
    p->n_batches = 0;
    p->all = p->met = 0;
    for (size_t i = 0; i < n; i++) {
        for (int b = 0; b < LATENCY_BATCHES; b++) {
            p->n[p->n_batches] = steps[i].metric[metric].n[b];
            p->n_met[p->n_batches++] = steps[i].metric[metric].n_met[b];
            p->all += steps[i].metric[metric].n[b];
            p->met += steps[i].metric[metric].n_met[b];
        }
    }
}

/* By how much batches that resemble their neighbours make an interval too short: sqrt((1 + r) / (1 - r))
 * with r the lag-1 autocorrelation of their residuals. */
static double stretch(const struct pool *p)
{
    double share = p->met / p->all, before = 0, lagged = 0, squares = 0;
    for (size_t i = 0; i < p->n_batches; i++) {
        double residual = p->n_met[i] - share * p->n[i];
        squares += residual * residual;
        lagged += residual * before;
        before = residual;
    }
    double r = squares > 0 ? fmin(fmax(0, lagged / squares), MOST_AUTOCORRELATION) : 0;
    return sqrt((1 + r) / (1 - r));
}

/* The share within the limit with the two-sided interval of this confidence: the wider one of
 * batches and binomial on either side. */
static struct stats_interval interval(const struct pool *p, double confidence)
{
    struct stats_interval by_batch = stats_batch_ratio_at(p->n_met, p->n, p->n_batches, confidence);
    struct stats_interval exact = stats_binomial(p->met, p->all, confidence);
    double by = stretch(p);
    return (struct stats_interval){exact.value,
                                   fmin(exact.value + by * (by_batch.lo - exact.value), exact.lo),
                                   fmax(exact.value + by * (by_batch.hi - exact.value), exact.hi)};
}

static enum slo_holds decide(const struct pool *p, size_t n_steps, double quantile)
{
    double alpha = SLO_TEST_ALPHA * pow(0.5, (double)n_steps);
    struct stats_interval share = interval(p, 1 - 2 * alpha);
    bool is_plain = n_steps > 1 || 1 - share.value <= PLAIN * (1 - quantile);
    if (share.lo >= quantile && is_plain) {
        return SLO_MET;
    }
    return share.hi < quantile ? SLO_MISSED : SLO_UNDECIDED;
}

void slo_decision(const struct slo_sample *steps, size_t n, double quantile,
                  struct slo_decision *out)
{
    struct pool p = {.n = xcalloc(n * LATENCY_BATCHES, sizeof *p.n),
                     .n_met = xcalloc(n * LATENCY_BATCHES, sizeof *p.n_met)};
    *out = (struct slo_decision){
        .holds = SLO_MET, .meets = true, .share = {STATS_NONE, STATS_NONE, STATS_NONE}};
    for (int k = 0; k < LATENCY_N; k++) {
        if (steps[0].metric[k].limit_ms <= 0) {
            continue;
        }
        fill_pool(&p, steps, n, k);
        enum slo_holds holds = p.all > 0 ? decide(&p, n, quantile) : SLO_UNDECIDED;
        bool is_worse = holds == SLO_MISSED || (holds == SLO_UNDECIDED && out->holds == SLO_MET);
        out->holds = is_worse ? holds : out->holds;
        out->meets = out->meets && p.all > 0 && p.met >= quantile * p.all;
        if (p.all > 0 && !(p.met / p.all >= out->share.value)) {
            out->worst = (enum latency_metric)k;
            out->share = interval(&p, 0.95);
        }
    }
    free(p.n);
    free(p.n_met);
}
