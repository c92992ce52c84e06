#include "analysis/slo.h"

#include "core/mem.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>

#define CAP_OF_LIMIT 10.0 // latency beyond this multiple of the limit counts as that: +inf too

const char *const slo_names[SLO_VERDICTS] = {"found", "not_reached", "first_step", "none"};

static const struct opt rows[] = {
    {.key = "slo.ttft",
     .type = OPT_DURATION,
     .help = "limit of the time to first token, from when the request was due",
     .offset = offsetof(struct slo_config, ttft_ns)},
    {.key = "slo.itl",
     .type = OPT_DURATION,
     .help = "limit of the gap between tokens",
     .offset = offsetof(struct slo_config, itl_ns)},
    {.key = "slo.tpot",
     .type = OPT_DURATION,
     .help = "limit of the time per output token after the first",
     .offset = offsetof(struct slo_config, tpot_ns)},
    {.key = "slo.ntpot",
     .type = OPT_DURATION,
     .help = "limit of the whole time per output token",
     .offset = offsetof(struct slo_config, ntpot_ns)},
    {.key = "slo.e2e",
     .type = OPT_DURATION,
     .help = "limit of the time to the last token",
     .offset = offsetof(struct slo_config, e2e_ns)},
    {.key = "slo.quantile",
     .type = OPT_SHARE,
     .def = "0.5",
     .help = "share of requests that must meet each limit",
     .offset = offsetof(struct slo_config, quantile)},
};
const struct opt_table slo_options = {rows, sizeof rows / sizeof rows[0]};

/* --- monotone fit and crossing ---------------------------------------------------------------- */

void slo_isotonic(double *y, size_t n)
{
    size_t *len = xcalloc(n + 1, sizeof *len), n_pools = 0; // pool k: value y[k], len[k] points
    for (size_t i = 0; i < n; i++) {
        y[n_pools] = y[i];
        len[n_pools++] = 1;
        while (n_pools > 1 && y[n_pools - 2] > y[n_pools - 1]) {
            double a = (double)len[n_pools - 2], b = (double)len[n_pools - 1];
            y[n_pools - 2] = (a * y[n_pools - 2] + b * y[n_pools - 1]) / (a + b);
            len[n_pools - 2] += len[n_pools - 1];
            n_pools--;
        }
    }
    for (size_t k = n_pools, i = n;
         k-- > 0;) { // spread from the back: pools lie before their points
        double value = y[k];
        for (size_t j = 0; j < len[k]; j++) {
            y[--i] = value;
        }
    }
    free(len);
}

double slo_crossing_rate(const double *rate, double *log_latency, size_t n, double log_limit)
{
    slo_isotonic(log_latency, n);
    for (size_t i = 0; i < n; i++) {
        if (log_latency[i] <= log_limit) {
            continue;
        }
        if (i == 0) {
            return 0;
        }
        double part = (log_limit - log_latency[i - 1]) / (log_latency[i] - log_latency[i - 1]);
        return rate[i - 1] + part * (rate[i] - rate[i - 1]);
    }
    return STATS_INF;
}

/* --- one draw ---------------------------------------------------------------------------------- */

static double capped_log(double ms, double limit_ms)
{
    double low = limit_ms * 1e-9; // a latency of 0 is as good as none
    return log(fmin(fmax(ms, low), CAP_OF_LIMIT * limit_ms));
}

/* How far the mean of log batch quantiles moves in this draw. */
static double shift(const struct measure_objective *o, uint64_t seed, uint64_t draw,
                    uint64_t stream)
{
    double v[LATENCY_BATCHES], mean = 0, drawn = 0;
    size_t n = 0;
    for (int b = 0; b < LATENCY_BATCHES; b++) {
        if (!isnan(o->batch_ms[b])) {
            v[n] = capped_log(o->batch_ms[b], o->limit_ms);
            mean += v[n++];
        }
    }
    for (size_t i = 0; i < n; i++) {
        drawn += v[rng_below(n, seed, RNG_BOOTSTRAP, draw, stream << 32 | i)];
    }
    return n ? (drawn - mean) / (double)n : 0;
}

/* Steps at one rate are one point of the fit: each gets the mean of all, in whatever order they were. */
static void average_ties(const double *rate, double *y, size_t n)
{
    for (size_t i = 0, end; i < n; i = end) {
        double sum = 0;
        for (end = i; end < n && rate[end] <= rate[i]; end++) {
            sum += y[end];
        }
        for (size_t k = i; k < end; k++) {
            y[k] = sum / (double)(end - i);
        }
    }
}

/* No gap and no finished request: beyond any limit. No gap in finished ones, of one token each: none is late. */
static double quantile_of(const struct measure *m, int metric)
{
    double ms = m->objective[metric].quantile_ms, without = m->n_ok > 0 ? 0 : STATS_INF;
    return isnan(ms) ? without : ms;
}

/* Crossing of one metric; draw < 0: the data as they are. The batches drawn of a step are the same
 * ones for every metric. log_latency (n) is scratch. */
static double crossing(const struct slo_step *s, size_t n, int metric, uint64_t seed, int64_t draw,
                       const double *rate, double *log_latency)
{
    double limit_ms = s[0].m->objective[metric].limit_ms;
    for (size_t i = 0; i < n; i++) {
        const struct measure_objective *o = &s[i].m->objective[metric];
        log_latency[i] = capped_log(quantile_of(s[i].m, metric), limit_ms);
        log_latency[i] += draw >= 0 ? shift(o, seed, (uint64_t)draw, 1000 + i) : 0;
    }
    average_ties(rate, log_latency, n);
    return slo_crossing_rate(rate, log_latency, n, log(limit_ms));
}

/* --- the answer -------------------------------------------------------------------------------- */

static double or_none(double rate)
{
    return isinf(rate) || rate == 0 ? STATS_NONE : rate;
}

/* draws (SLO_DRAWS) is sorted in place. */
static struct slo_crossing summarise(double rate, double *draws)
{
    stats_sort(draws, SLO_DRAWS);
    struct slo_crossing c = {.verdict = isinf(rate) ? SLO_NOT_REACHED : SLO_FOUND};
    c.verdict = rate == 0 ? SLO_FIRST_STEP : c.verdict;
    c.rate_rps.value = or_none(rate);
    c.rate_rps.lo = or_none(draws[(size_t)(0.025 * SLO_DRAWS)]);
    c.rate_rps.hi = or_none(draws[(size_t)(0.975 * SLO_DRAWS) - 1]);
    return c;
}

static struct slo_crossing none(void)
{
    return (struct slo_crossing){SLO_NONE, {STATS_NONE, STATS_NONE, STATS_NONE}};
}

static void find_sorted(const struct slo_step *s, size_t n, uint64_t seed, struct slo_result *out)
{
    double *rate = xcalloc(n, sizeof *rate), *scratch = xcalloc(n, sizeof *scratch);
    double *draws = xcalloc(SLO_DRAWS, sizeof *draws), lowest = STATS_INF;
    size_t n_objectives = 0;
    for (size_t i = 0; i < n; i++) {
        rate[i] = s[i].rate_rps;
    }
    for (int k = 0; k < LATENCY_N; k++) {
        if (s[0].m->objective[k].limit_ms <= 0) {
            continue;
        }
        n_objectives++;
        double at = crossing(s, n, k, seed, -1, rate, scratch);
        for (int64_t d = 0; d < SLO_DRAWS; d++) {
            draws[d] = crossing(s, n, k, seed, d, rate, scratch);
            out->draws[d] = fmin(out->draws[d], draws[d]);
        }
        lowest = fmin(lowest, at);
        out->metric[k] = summarise(at, draws);
    }
    if (n_objectives > 0) {
        out->all = summarise(lowest, out->draws);
    }
    free(draws);
    free(scratch);
    free(rate);
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct slo_step *)a)->rate_rps, y = ((const struct slo_step *)b)->rate_rps;
    return (x > y) - (x < y);
}

void slo_find(const struct slo_step *steps, size_t n, uint64_t seed, struct slo_result *out)
{
    struct slo_step *used = xcalloc(n + 1, sizeof *used);
    size_t n_used = 0;
    for (size_t i = 0; i < n; i++) {
        if (!steps[i].m->closed_loop && !steps[i].m->recovered && steps[i].rate_rps > 0 &&
            steps[i].m->n_due > 0) {
            used[n_used++] = steps[i];
        }
    }
    qsort(used, n_used, sizeof *used, by_rate);
    out->all = none();
    for (int k = 0; k < LATENCY_N; k++) {
        out->metric[k] = none();
    }
    for (int d = 0; d < SLO_DRAWS; d++) {
        out->draws[d] = STATS_INF;
    }
    if (n_used > 0) {
        find_sorted(used, n_used, seed, out);
    }
    free(used);
}
