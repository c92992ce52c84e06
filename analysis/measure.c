#include "analysis/measure.h"

#include "analysis/inflight.h"
#include "core/clock.h"
#include "core/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- where in the window --------------------------------------------------------------------- */

static int64_t window_ns(const struct measure *m)
{
    return m->d->info.t_end_ns - m->d->info.t_warm_ns;
}

/* Bin of a time, or -1 outside of the window. */
static int bin_of(const struct measure *m, int64_t t_ns)
{
    const struct step_info *s = &m->d->info;
    if (t_ns == RECORD_NONE || t_ns < s->t_warm_ns || t_ns >= s->t_end_ns) {
        return -1;
    }
    // rounding may reach the end in a window of years, which a file from outside may claim
    return (int)fmin((double)(t_ns - s->t_warm_ns) * MEASURE_BINS / (double)window_ns(m),
                     MEASURE_BINS - 1);
}

static void count(const struct measure *m, double *bins, int64_t t_ns, double amount)
{
    int bin = bin_of(m, t_ns);
    if (bin >= 0) {
        bins[bin] += amount;
    }
}

static int batch_of(const struct measure *m, const struct record *r)
{
    int bin = bin_of(m, r->t_sched_ns);
    return bin < 0 ? -1 : bin / MEASURE_BINS_PER_BATCH;
}

double measure_rate(const struct measure *m, const double *bins)
{
    double sum = 0;
    for (int i = 0; i < MEASURE_BINS; i++) {
        sum += bins[i];
    }
    return m->window_s > 0 ? sum / m->window_s : STATS_NONE;
}

struct stats_interval measure_rate_interval(const struct measure *m, const double *bins)
{
    double rate[LATENCY_BATCHES] = {0};
    for (int i = 0; i < MEASURE_BINS; i++) {
        rate[i / MEASURE_BINS_PER_BATCH] += bins[i] * LATENCY_BATCHES / m->window_s;
    }
    struct stats_interval r = stats_batch_means(rate, LATENCY_BATCHES);
    r.value = measure_rate(m, bins); // the same but for rounding: one number everywhere
    return r;
}

bool measure_approximate(const struct measure *m)
{
    double e2e_ms = m->latency[LATENCY_E2E].p50;
    return !isfinite(e2e_ms) || m->window_s * 1e3 / LATENCY_BATCHES < e2e_ms;
}

/* --- records --------------------------------------------------------------------------------- */

static double objective_limit_ms(const struct slo_config *slo, int metric)
{
    double ms = (double)NS_PER_MS;
    switch (metric) {
    case LATENCY_TTFT:
        return (double)slo->ttft_ns / ms;
    case LATENCY_ITL:
        return (double)slo->itl_ns / ms;
    case LATENCY_TPOT:
        return (double)slo->tpot_ns / ms;
    case LATENCY_NTPOT:
        return (double)slo->ntpot_ns / ms;
    case LATENCY_E2E:
        return (double)slo->e2e_ns / ms;
    default:
        return 0;
    }
}

/* Whether a request met every objective; an ITL objective holds for its longest gap. */
static bool is_good(const struct measure *m, const struct record *r)
{
    if (r->outcome != OUTCOME_OK) {
        return false;
    }
    for (int k = 0; k < LATENCY_N; k++) {
        double limit_ms = m->objective[k].limit_ms;
        double ms =
            k == LATENCY_ITL ? r->itl_max_us * 1e-3 : latency_value_ms(r, (enum latency_metric)k);
        if (limit_ms > 0 && ms > limit_ms) { // STATS_NONE: one token has no gaps to be late
            return false;
        }
    }
    return true;
}

/* Of the tokens that finished requests might have taken, the share that they did: below 1 where replies stop by themselves. */
static double taken_share(const struct step_data *d)
{
    double asked = 0, taken = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct record *r = &d->records[i];
        asked += r->outcome == OUTCOME_OK ? r->n_out_req : 0;
        taken += r->outcome == OUTCOME_OK ? r->n_out : 0;
    }
    return asked > 0 && taken < asked ? taken / asked : 1;
}

/* taken: of what an unfinished request might have taken, what it would have. */
static void count_record(struct measure *m, const struct record *r, double taken)
{
    bool ok = r->outcome == OUTCOME_OK;
    double n_out = ok ? r->n_out : r->n_out_req * taken;
    m->n_requests++;
    m->n_late += r->late != 0;
    uint32_t n_in = latency_tokens_in(r);
    m->tokens_in += n_in;
    m->tokens_out += n_out;
    m->by_outcome[r->outcome < OUTCOME_N ? r->outcome : OUTCOME_LOST]++;
    m->n_sends += bin_of(m, r->t_send_ns) >= 0;
    count(m, m->served_in, r->t_first_ns, n_in);
    if (ok) {
        count(m, m->done, r->t_last_ns, 1);
    }
    int bin = bin_of(m, r->t_sched_ns);
    if (bin < 0) {
        return;
    }
    m->n_due++;
    m->n_sent += r->t_send_ns != RECORD_NONE;
    m->n_held += r->t_send_ns == RECORD_NONE && r->cap_wait_us > 0;
    m->n_cap_waits += r->cap_wait_us > 0;
    m->n_ok += ok;
    m->n_cancelled += r->outcome == OUTCOME_CANCELLED;
    m->n_starved += r->outcome == OUTCOME_CANCELLED && r->t_first_ns == RECORD_NONE;
    m->n_good += is_good(m, r);
    m->due[bin]++;
    m->due_in[bin] += n_in;
    m->due_out[bin] += n_out;
}

void measure_begin(struct measure *m, const struct step_data *d, const struct slo_config *slo)
{
    *m = (struct measure){.d = d, .slo = *slo};
    m->recovered = d->info.recovered;
    m->closed_loop = d->info.kind == STEP_BASE || d->info.users > 0;
    m->window_s = (double)window_ns(m) / (double)NS_PER_S;
    m->itl = xcalloc(LATENCY_BATCHES, sizeof *m->itl);
    m->icl = xcalloc(LATENCY_BATCHES, sizeof *m->icl);
    for (int k = 0; k < LATENCY_N; k++) {
        m->objective[k].limit_ms = objective_limit_ms(slo, k);
    }
    double taken = taken_share(d);
    for (size_t i = 0; i < d->n; i++) {
        count_record(m, &d->records[i], taken);
    }
    inflight_means(d->records, d->n, d->info.t_warm_ns, d->info.t_end_ns, d->info.t_drain_ns,
                   m->in_flight, MEASURE_BINS);
}

/* Tokens of one chunk have gaps of 0 and the first of it the chunk's, which may be under 1 us too:
 * there are n_chunks - 1 in all. */
static void count_chunks(struct gaps *g, const struct record *r, const uint32_t *dt_us, size_t n)
{
    size_t chunks = r->n_chunks < n ? r->n_chunks : n, left = chunks > 0 ? chunks - 1 : 0;
    for (size_t i = 1; i < n; i++) {
        if (dt_us[i] > 0) {
            gaps_add(g, dt_us[i]);
            left -= left > 0;
        }
    }
    for (; left > 0; left--) {
        gaps_add(g, 0);
    }
}

void measure_tokens(struct measure *m, const struct record *r, const uint32_t *dt_us, size_t n)
{
    int batch = r->outcome == OUTCOME_OK ? batch_of(m, r) : -1;
    int64_t t_ns = r->t_send_ns;
    if (t_ns == RECORD_NONE) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        t_ns += (int64_t)dt_us[i] * NS_PER_US;
        count(m, m->served_out, t_ns, 1);
        if (i > 0 && batch >= 0) {
            gaps_add(&m->itl[batch], dt_us[i]);
        }
    }
    if (batch >= 0) {
        count_chunks(&m->icl[batch], r, dt_us, n);
    }
}

/* --- latency --------------------------------------------------------------------------------- */

/* Values of one metric over the requests due in the window. */
struct sample {
    double *ms;     // (n)
    uint8_t *batch; // (n)
    size_t n, cap;
    uint64_t n_failed;
};

static void sample_take(struct sample *s, const struct measure *m, enum latency_metric metric)
{
    s->n = s->n_failed = 0;
    for (size_t i = 0; i < m->d->n; i++) {
        const struct record *r = &m->d->records[i];
        int batch = batch_of(m, r);
        if (batch < 0) {
            continue;
        }
        double ms = latency_value_ms(r, metric);
        s->n_failed += r->outcome != OUTCOME_OK;
        if (!isnan(ms)) {
            s->ms[s->n] = ms;
            s->batch[s->n++] = (uint8_t)batch;
        }
    }
}

/* Quantile over ms (n) sorted in place, failures behind them as +STATS_INF. STATS_NONE: no value at all. */
static double quantile_with_failed(double *ms, size_t n, size_t n_failed, double p)
{
    if (n + n_failed == 0) {
        return STATS_NONE;
    }
    stats_sort(ms, n);
    double h = (double)(n + n_failed - 1) * p;
    size_t k = (size_t)h;
    if (k >= n || (h > (double)k && k + 1 >= n)) {
        return STATS_INF;
    }
    return h > (double)k ? ms[k] + (h - (double)k) * (ms[k + 1] - ms[k]) : ms[k];
}

static size_t failed_in_batch(const struct measure *m, int batch)
{
    size_t n = 0;
    for (size_t i = 0; i < m->d->n; i++) {
        const struct record *r = &m->d->records[i];
        n +=
            r->outcome != OUTCOME_OK && (batch < 0 ? batch_of(m, r) >= 0 : batch_of(m, r) == batch);
    }
    return n;
}

static void objective_of_sample(const struct measure *m, const struct sample *s,
                                struct measure_objective *o)
{
    double *ms = xmalloc((s->n + 1) * sizeof *ms), p = m->slo.quantile;
    for (int b = -1; b < LATENCY_BATCHES; b++) {
        size_t n = 0;
        for (size_t i = 0; i < s->n; i++) {
            if (b < 0 || s->batch[i] == b) {
                ms[n++] = s->ms[i];
            }
        }
        double q = quantile_with_failed(ms, n, failed_in_batch(m, b), p);
        *(b < 0 ? &o->quantile_ms : &o->batch_ms[b]) = q;
        if (b >= 0) {
            o->n_batch[b] = (double)(n + failed_in_batch(m, b));
        }
    }
    for (size_t i = 0; i < s->n; i++) {
        o->n_met_batch[s->batch[i]] += s->ms[i] <= o->limit_ms;
    }
    free(ms);
}

static void latencies_of_requests(struct measure *m)
{
    size_t n = m->d->n + 1;
    struct sample s = {.ms = xmalloc(n * sizeof *s.ms), .batch = xmalloc(n), .cap = n};
    for (int k = 0; k < LATENCY_N; k++) {
        if (k == LATENCY_ITL || k == LATENCY_ICL) {
            continue;
        }
        sample_take(&s, m, (enum latency_metric)k);
        latency_of_sample(
            &(struct latency_sample){
                .ms = s.ms, .batch = s.batch, .n = s.n, .n_failed = s.n_failed},
            &m->latency[k]);
        if (m->objective[k].limit_ms > 0) {
            objective_of_sample(m, &s, &m->objective[k]);
        }
    }
    free(s.ms);
    free(s.batch);
}

static double gaps_quantile_ms(const struct gaps *g, double p)
{
    if (g->n == 0) {
        return STATS_NONE;
    }
    double h = (double)(g->n - 1) * p;
    uint64_t k = (uint64_t)h;
    double low = gaps_order(g, k), part = h - (double)k;
    return (part > 0 ? low + part * (gaps_order(g, k + 1) - low) : low) * 1e-3;
}

static uint32_t limit_us(double limit_ms)
{
    return (uint32_t)fmin(limit_ms * 1e3, UINT32_MAX);
}

/* ITL or ICL from their gaps per batch (LATENCY_BATCHES), which it frees. */
static void latency_of_batches(struct measure *m, enum latency_metric metric, struct gaps *batches)
{
    struct measure_objective *o = &m->objective[metric];
    double sum_ms[LATENCY_BATCHES], n[LATENCY_BATCHES];
    struct gaps *all = xcalloc(1, sizeof *all);
    for (int b = 0; b < LATENCY_BATCHES; b++) {
        struct gaps *g = &batches[b];
        gaps_seal(g);
        sum_ms[b] = g->sum_us * 1e-3;
        n[b] = (double)g->n;
        o->batch_ms[b] = gaps_quantile_ms(g, m->slo.quantile);
        o->n_batch[b] = (double)g->n;
        o->n_met_batch[b] = (double)gaps_at_most(g, limit_us(o->limit_ms));
        gaps_merge(all, g);
        gaps_free(g);
    }
    gaps_seal(all);
    o->quantile_ms = gaps_quantile_ms(all, m->slo.quantile);
    latency_of_gaps(all, sum_ms, n, m->latency[LATENCY_TPOT].n, &m->latency[metric]);
    gaps_free(all);
    free(all);
    free(batches);
}

/* --- the verdict ----------------------------------------------------------------------------- */

/* How long a due request waited for its first token, or at least waited (then *unknown). */
static double waited_ms(const struct measure *m, const struct record *r, bool *unknown)
{
    *unknown = r->t_first_ns == RECORD_NONE;
    int64_t until_ns = *unknown ? m->d->info.t_drain_ns : r->t_first_ns;
    return ((double)until_ns - (double)r->t_sched_ns) / (double)NS_PER_MS;
}

/* The median of that over requests due in bins [from, to), ok or unfinished ones: STATS_NONE without
 * any. *unknown: at least half of them never had a first token. */
static double waited_median_ms(const struct measure *m, int from, int to, bool *unknown)
{
    double *ms = xmalloc((m->d->n + 1) * sizeof *ms);
    size_t n = 0, n_unknown = 0;
    for (size_t i = 0; i < m->d->n; i++) {
        const struct record *r = &m->d->records[i];
        int bin = bin_of(m, r->t_sched_ns);
        if (bin >= from && bin < to &&
            (r->outcome == OUTCOME_OK || r->outcome == OUTCOME_CANCELLED)) {
            ms[n++] = waited_ms(m, r, unknown);
            n_unknown += *unknown;
        }
    }
    stats_sort(ms, n);
    double median = stats_percentile(ms, n, 0.5);
    *unknown = n > 0 && 2 * n_unknown >= n;
    free(ms);
    return median;
}

static void cap_wait(struct measure *m)
{
    double *us = xmalloc((m->d->n + 1) * sizeof *us);
    size_t n = 0;
    for (size_t i = 0; i < m->d->n; i++) {
        if (bin_of(m, m->d->records[i].t_sched_ns) >= 0) {
            us[n++] = m->d->records[i].cap_wait_us;
        }
    }
    stats_sort(us, n);
    static const double p[3] = {0.5, 0.99, 1};
    for (int i = 0; i < 3; i++) {
        m->cap_wait_us[i] = stats_percentile(us, n, p[i]);
    }
    free(us);
}

static void send_lag(struct measure *m)
{
    double *us = xmalloc((m->d->n + 1) * sizeof *us);
    size_t n = 0;
    for (size_t i = 0; i < m->d->n; i++) {
        const struct record *r = &m->d->records[i];
        if (bin_of(m, r->t_sched_ns) >= 0 && r->t_send_ns != RECORD_NONE) {
            int64_t lag_ns = record_lag_ns(r);
            us[n++] = (double)lag_ns / (double)NS_PER_US;
            m->late_s += lag_ns > RECORD_LATE_NS ? (double)lag_ns / (double)NS_PER_S : 0;
        }
    }
    stats_sort(us, n);
    static const double p[4] = {0.5, 0.99, 0.999, 1};
    for (int i = 0; i < 4; i++) {
        m->lag_us[i] = stats_percentile(us, n, p[i]);
    }
    struct stats_ranks p99 = stats_quantile_ranks(n, 0.99);
    m->lag_p99_lo_us = p99.lo > 0 ? us[p99.lo - 1] : 0;
    free(us);
}

static double seconds(int64_t ns)
{
    return (double)ns / (double)NS_PER_S;
}

/* Of the time that the users of a closed loop had, the part they waited for late sends. */
static double late_share(const struct measure *m)
{
    double users_s = (double)m->d->info.users * m->window_s;
    return users_s > 0 ? m->late_s / users_s : 0;
}

static void judge(struct measure *m)
{
    const struct step_info *info = &m->d->info;
    bool unknown;
    const uint64_t *by = m->by_outcome;
    uint64_t n_all = (uint64_t)m->n_requests;
    struct verdict_evidence v = {
        .closed_loop = m->closed_loop,
        .n_scheduled = n_all,
        .n_failed = n_all - by[OUTCOME_OK] - by[OUTCOME_CANCELLED],
        .n_due = m->n_due,
        .n_held = m->n_held,
        .n_sent = m->n_sent,
        .n_finished = m->n_ok,
        .n_unfinished = m->n_cancelled,
        .n_starved = m->n_starved,
        .window_s = m->window_s,
        .offered_rps = measure_rate(m, m->due),
        .offered_tokens_per_s = measure_rate(m, m->due_out),
        .served_tokens_per_s = measure_rate(m, m->served_out),
        .lag_p99_lo_ms = m->lag_p99_lo_us * 1e-3,
        .late_share = late_share(m),
        .ttft_p50_ms = waited_median_ms(m, 0, MEASURE_BINS, &unknown),
        .ttft_first_ms = waited_median_ms(m, 0, MEASURE_BINS / 3, &unknown),
        .e2e_p50_ms = m->latency[LATENCY_E2E].p50,
        .stopped_s = info->stopped_early ? seconds(info->t_end_ns - info->t_begin_ns) : 0,
        .planned_s = seconds(info->t_planned_ns - info->t_begin_ns),
        .in_flight = stats_slope_ar1(m->in_flight, MEASURE_BINS, m->window_s / MEASURE_BINS),
    };
    v.ttft_last_ms =
        waited_median_ms(m, MEASURE_BINS - MEASURE_BINS / 3, MEASURE_BINS, &v.ttft_last_unknown);
    verdict_judge(&v, &m->verdict);
}

void measure_end(struct measure *m)
{
    latencies_of_requests(m);
    latency_of_batches(m, LATENCY_ITL, m->itl);
    latency_of_batches(m, LATENCY_ICL, m->icl);
    m->itl = m->icl = NULL;
    send_lag(m);
    cap_wait(m);
    judge(m);
    m->d = NULL;
}
