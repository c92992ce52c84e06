#include "analysis/latency.h"

#include "analysis/stats.h"
#include "core/clock.h"
#include "core/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const latency_names[LATENCY_N] = {
    "ttft_ms", "ttft_service_ms", "ttfc_ms",          "itl_ms", "icl_ms",
    "tpot_ms", "ntpot_ms",        "ntpot_service_ms", "e2e_ms", "e2e_service_ms",
};

uint32_t latency_tokens_out(const struct record *r)
{
    return r->n_out_usage != UINT32_MAX && r->n_out_usage > 0 ? r->n_out_usage : r->n_out;
}

uint32_t latency_tokens_in(const struct record *r)
{
    return r->n_in_usage != UINT32_MAX && r->n_in_usage > 0 ? r->n_in_usage : r->n_in;
}

double latency_value_ms(const struct record *r, enum latency_metric m)
{
    if (r->outcome != OUTCOME_OK || r->t_first_ns == RECORD_NONE || r->t_last_ns == RECORD_NONE) {
        return STATS_NONE;
    }
    bool service =
        m == LATENCY_TTFT_SERVICE || m == LATENCY_NTPOT_SERVICE || m == LATENCY_E2E_SERVICE;
    int64_t from_ns = service ? r->t_send_ns : r->t_sched_ns;
    double n = latency_tokens_out(r), ms = (double)NS_PER_MS;
    switch (m) {
    case LATENCY_TTFT:
    case LATENCY_TTFT_SERVICE:
        return (double)(r->t_first_ns - from_ns) / ms;
    case LATENCY_TTFC:
        return r->t_content_ns != RECORD_NONE ? (double)(r->t_content_ns - from_ns) / ms
                                              : STATS_NONE;
    case LATENCY_TPOT:
        return n > 1 ? (double)(r->t_last_ns - r->t_first_ns) / ms / (n - 1) : STATS_NONE;
    case LATENCY_NTPOT:
    case LATENCY_NTPOT_SERVICE:
        return n > 0 ? (double)(r->t_last_ns - from_ns) / ms / n : STATS_NONE;
    case LATENCY_E2E:
    case LATENCY_E2E_SERVICE:
        return (double)(r->t_last_ns - from_ns) / ms;
    default:
        return STATS_NONE;
    }
}

/* The k-th smallest of n values, k from 0, in ms: an array or counters behind it. */
struct ordered {
    double (*at)(const void *ctx, uint64_t k);
    const void *ctx;
    uint64_t n;
};

/* Percentile over n values and n_failed times +inf; STATS_NONE when it touches those. */
static double percentile(const struct ordered *o, uint64_t n_failed, double p)
{
    if (o->n == 0) {
        return STATS_NONE;
    }
    double h = (double)(o->n + n_failed - 1) * p;
    uint64_t k = (uint64_t)h;
    double part = h - (double)k;
    if (k >= o->n || (part > 0 && k + 1 >= o->n)) {
        return STATS_NONE;
    }
    double low = o->at(o->ctx, k);
    return part > 0 ? low + part * (o->at(o->ctx, k + 1) - low) : low;
}

static void rank_interval(const struct ordered *o, double p, double *lo, double *hi)
{
    struct stats_ranks r = stats_quantile_ranks(o->n, p);
    *lo = r.lo ? o->at(o->ctx, r.lo - 1) : STATS_NONE;
    *hi = r.hi ? o->at(o->ctx, r.hi - 1) : STATS_NONE;
}

static void fill_percentiles(const struct ordered *o, uint64_t n_failed, struct latency *out)
{
    out->n = o->n;
    out->p50 = percentile(o, 0, 0.5);
    out->p90 = percentile(o, 0, 0.9);
    out->p95 = percentile(o, 0, 0.95);
    out->p99 = percentile(o, 0, 0.99);
    out->p999 = percentile(o, 0, 0.999);
    out->min = o->n ? o->at(o->ctx, 0) : STATS_NONE;
    out->max = o->n ? o->at(o->ctx, o->n - 1) : STATS_NONE;
    out->p50_with_failed = percentile(o, n_failed, 0.5);
    out->p99_with_failed = percentile(o, n_failed, 0.99);
    rank_interval(o, 0.5, &out->p50_lo95, &out->p50_hi95);
    rank_interval(o, 0.99, &out->p99_lo95, &out->p99_hi95);
}

static double array_at(const void *ctx, uint64_t k)
{
    return ((const double *)ctx)[k];
}

void latency_of_sample(const struct latency_sample *s, struct latency *out)
{
    *out = (struct latency){0};
    double sum[LATENCY_BATCHES] = {0}, count[LATENCY_BATCHES] = {0};
    for (size_t i = 0; i < s->n; i++) {
        sum[s->batch[i]] += s->ms[i];
        count[s->batch[i]]++;
    }
    struct stats_interval mean = stats_batch_ratio(sum, count, LATENCY_BATCHES);
    out->mean = mean.value;
    out->lo95 = mean.lo;
    out->hi95 = mean.hi;
    out->sd = stats_sd(s->ms, s->n);
    double *sorted = xmalloc((s->n + 1) * sizeof *sorted);
    if (s->n) {
        memcpy(sorted, s->ms, s->n * sizeof *sorted);
    }
    stats_sort(sorted, s->n);
    fill_percentiles(&(struct ordered){array_at, sorted, s->n}, s->n_failed, out);
    out->p99_supported = s->n >= LATENCY_P99_REQUESTS;
    free(sorted);
}

static double gaps_at(const void *ctx, uint64_t k)
{
    return gaps_order(ctx, k) * 1e-3;
}

void latency_of_gaps(const struct gaps *g, const double *batch_sum_ms, const double *batch_count,
                     uint64_t n_requests, struct latency *out)
{
    *out = (struct latency){0};
    struct stats_interval mean = stats_batch_ratio(batch_sum_ms, batch_count, LATENCY_BATCHES);
    out->mean = mean.value;
    out->lo95 = mean.lo;
    out->hi95 = mean.hi;
    double n = (double)g->n;
    out->sd = g->n > 1 ? sqrt(fmax(0, g->squares_us - g->sum_us * g->sum_us / n) / (n - 1)) * 1e-3
                       : STATS_NONE;
    fill_percentiles(&(struct ordered){gaps_at, g, g->n}, 0, out);
    out->p50_with_failed = out->p99_with_failed = STATS_NONE;
    out->p99_supported = n_requests >= LATENCY_P99_REQUESTS;
}
