#include "analysis/step_json.h"

#include "analysis/critical.h"
#include "analysis/gpu_report.h"
#include "analysis/utilisation.h"
#include "analysis/value.h"
#include "core/clock.h"
#include "core/mem.h"

#include <jansson.h>
#include <math.h>

#include <stdlib.h>

static json_t *numbers(const char *const *keys, const double *v, size_t n)
{
    json_t *o = json_object();
    for (size_t i = 0; i < n; i++) {
        value_set(o, keys[i], v[i]);
    }
    return o;
}

static json_t *latency_json(const struct latency *l)
{
    static const char *const keys[] = {
        "mean", "sd",   "min",  "p50",      "p90",      "p95",      "p99",      "p999",
        "max",  "lo95", "hi95", "p50_lo95", "p50_hi95", "p99_lo95", "p99_hi95",
    };
    const double v[] = {
        l->mean, l->sd,   l->min,  l->p50,      l->p90,      l->p95,      l->p99,      l->p999,
        l->max,  l->lo95, l->hi95, l->p50_lo95, l->p50_hi95, l->p99_lo95, l->p99_hi95,
    };
    json_t *o = numbers(keys, v, sizeof v / sizeof v[0]);
    json_object_set_new(o, "n", json_integer((json_int_t)l->n));
    json_object_set_new(o, "p99_supported", json_boolean(l->p99_supported));
    value_set(o, "p50_error_adjusted", l->p50_with_failed);
    value_set(o, "p99_error_adjusted", l->p99_with_failed);
    return o;
}

static json_t *requests_json(const struct measure *m)
{
    json_t *by = json_object();
    json_int_t n = (json_int_t)m->n_requests, ok = (json_int_t)m->by_outcome[OUTCOME_OK];
    for (int i = 0; i < OUTCOME_N; i++) {
        json_object_set_new(by, record_outcome_names[i],
                            json_integer((json_int_t)m->by_outcome[i]));
    }
    return json_pack("{s:I, s:I, s:I, s:I, s:o}", "scheduled", n, "ok", ok, "failed", n - ok,
                     "late", (json_int_t)m->n_late, "by_outcome", by);
}

static json_t *tokens_json(const struct measure *m)
{
    double total[MEASURE_BINS];
    for (int i = 0; i < MEASURE_BINS; i++) {
        total[i] = m->served_in[i] + m->served_out[i];
    }
    json_t *o = json_object();
    json_object_set_new(o, "input", value_interval(measure_rate_interval(m, m->served_in)));
    json_object_set_new(o, "output", value_interval(measure_rate_interval(m, m->served_out)));
    json_object_set_new(o, "total", value_interval(measure_rate_interval(m, total)));
    return o;
}

static json_t *goodput_json(const struct measure *m)
{
    json_t *o = json_object();
    value_set(o, "rps", (double)m->n_good / m->window_s);
    value_set(o, "attainment", m->n_due ? (double)m->n_good / (double)m->n_due : STATS_NONE);
    value_set(o, "failed_share",
              m->n_due ? (double)(m->n_due - m->n_ok) / (double)m->n_due : STATS_NONE);
    return o;
}

static json_t *cap_wait_json(const struct measure *m)
{
    static const char *const keys[] = {"p50", "p99", "max"};
    json_t *o = numbers(keys, m->cap_wait_us, 3);
    value_set(o, "share", m->n_due ? (double)m->n_cap_waits / (double)m->n_due : STATS_NONE);
    return o;
}

/* --- the scheduler's queues -------------------------------------------------------------------- */

enum queue_field {
    QUEUE_WAITING,
    QUEUE_RUNNING,
    QUEUE_KV,
    QUEUE_N,
};

static double queue_value(const struct series_point *p, enum queue_field f)
{
    uint32_t n = f == QUEUE_WAITING ? p->waiting : p->running;
    return f == QUEUE_KV ? (double)p->kv_used : n == UINT32_MAX ? STATS_NONE : n;
}

/* Over the samples in the window that tell it, each of one replica: what an autoscaler sees per replica. */
static json_t *queue_field_json(const struct step_data *d, enum queue_field f)
{
    double *v = xmalloc((d->n_series + 1) * sizeof *v);
    size_t n = 0;
    for (size_t i = 0; i < d->n_series; i++) {
        const struct series_point *p = &d->series[i];
        double x = queue_value(p, f);
        if (p->t_ns >= d->info.t_warm_ns && p->t_ns < d->info.t_end_ns && !isnan(x)) {
            v[n++] = x;
        }
    }
    stats_sort(v, n);
    static const char *const keys[] = {"mean", "p50", "max"};
    const double out[] = {stats_mean(v, n), stats_percentile(v, n, 0.5), stats_percentile(v, n, 1)};
    free(v);
    return numbers(keys, out, 3);
}

/* The counters that a target keeps since it started. */
enum queue_counter {
    QUEUE_PREEMPTED,
    QUEUE_PREFIX_QUERIES,
    QUEUE_PREFIX_HITS,
};

static double counter_value(const struct series_point *p, enum queue_counter c)
{
    uint64_t n = c == QUEUE_PREFIX_QUERIES ? p->prefix_query_tokens : p->prefix_hit_tokens;
    if (c == QUEUE_PREEMPTED) {
        return p->n_preempted == UINT32_MAX ? STATS_NONE : p->n_preempted;
    }
    return (double)n;
}

/* What a counter grew by in the window, over all replicas, from the last sample before it on. */
static double queue_growth(const struct step_data *d, enum queue_counter c)
{
    double *last = xmalloc((UINT16_MAX + 1) * sizeof *last), sum = STATS_NONE; // by replica
    for (size_t i = 0; i <= UINT16_MAX; i++) {
        last[i] = STATS_NONE;
    }
    for (size_t i = 0; i < d->n_series && d->series[i].t_ns < d->info.t_end_ns; i++) {
        const struct series_point *p = &d->series[i];
        double x = counter_value(p, c), before = last[p->replica];
        if (!isnan(x) && !isnan(before) && p->t_ns >= d->info.t_warm_ns) {
            sum = (isnan(sum) ? 0 : sum) + (x >= before ? x - before : x); // less: it started anew
        }
        last[p->replica] = isnan(x) ? before : x;
    }
    free(last);
    return sum;
}

static json_t *queue_json(const struct step_data *d)
{
    static const char *const keys[QUEUE_N] = {"waiting", "running", "kv_used"};
    json_t *o = json_object();
    for (int f = 0; f < QUEUE_N; f++) {
        json_object_set_new(o, keys[f], queue_field_json(d, (enum queue_field)f));
    }
    double asked = queue_growth(d, QUEUE_PREFIX_QUERIES), hit = queue_growth(d, QUEUE_PREFIX_HITS);
    value_set(o, "preemptions", queue_growth(d, QUEUE_PREEMPTED));
    value_set(o, "prefix_hit_share", asked > 0 ? hit / asked : STATS_NONE);
    return o;
}

/* --- inside the target ------------------------------------------------------------------------- */

static json_t *stages_json(const struct step_data *d, const struct store_rank *ranks,
                           size_t n_ranks)
{
    json_t *list = json_array();
    struct utilisation *rows = xcalloc(n_ranks + 1, sizeof *rows);
    size_t n = utilisation_rows(d, ranks, n_ranks, rows);
    for (size_t i = 0; i < n; i++) {
        const struct utilisation *u = &rows[i];
        json_array_append_new(list, json_pack("{s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f}", "replica",
                                              u->replica, "stage", u->stage, "tensor", u->tensor,
                                              "rank", u->rank, "busy", u->busy, "bubble", u->bubble,
                                              "recv_wait", u->recv_wait, "send", u->send));
    }
    free(rows);
    return list;
}

static json_t *path_json(const struct step_data *d, int phase)
{
    struct critical c;
    critical_path(d, phase, &c);
    if (c.n == 0) {
        return json_null();
    }
    json_t *stages = json_array();
    for (uint32_t k = 0; k < d->n_stages && k < RECORD_MAX_STAGES; k++) {
        json_array_append_new(stages, value_number(c.stage_ms[k]));
    }
    static const char *const keys[] = {"total_ms",  "client_lag_ms",    "transport_ms",
                                       "queue_ms",  "hops_ms",          "bubble_ms",
                                       "return_ms", "unexplained_share"};
    const double v[] = {c.total_ms, c.client_lag_ms, c.transport_ms, c.queue_ms,
                        c.hops_ms,  c.bubble_ms,     c.return_ms,    c.unexplained_share};
    json_t *o = numbers(keys, v, sizeof v / sizeof v[0]);
    json_object_set_new(o, "n", json_integer((json_int_t)c.n));
    json_object_set_new(o, "stages_ms", stages);
    return o;
}

/* --- the step ---------------------------------------------------------------------------------- */

static json_t *offered_json(const struct measure *m)
{
    json_t *o = json_object();
    value_set(o, "rps", measure_rate(m, m->due));
    value_set(o, "input_tokens_per_s", measure_rate(m, m->due_in));
    value_set(o, "output_tokens_per_s", measure_rate(m, m->due_out));
    return o;
}

static void set_identity(json_t *o, const struct measure *m, const struct step_info *info)
{
    json_object_set_new(o, "index", json_integer(info->index));
    json_object_set_new(o, "kind",
                        info->kind < STEP_KIND_N ? json_string(record_step_kind_names[info->kind])
                                                 : json_null());
    value_set(o, "rate_rps", info->rate_rps);
    json_object_set_new(o, "users", json_integer(info->users));
    value_set(o, "achieved_rps", (double)m->n_sends / m->window_s);
    double n_due = (double)m->n_due;
    value_set(o, "rate_error", n_due > 0 ? fabs((double)m->n_sends - n_due) / n_due : STATS_NONE);
    value_set(o, "duration_s", (double)(info->t_end_ns - info->t_begin_ns) / (double)NS_PER_S);
    value_set(o, "window_s", m->window_s);
    json_object_set_new(o, "verdict", json_string(record_verdict_names[m->verdict.verdict]));
    json_object_set_new(o, "reason", json_string(m->verdict.reason));
    json_object_set_new(o, "approximate", json_boolean(measure_approximate(m)));
    json_object_set_new(o, "recovered", json_boolean(info->recovered));
    json_object_set_new(o, "stopped_early", json_boolean(info->stopped_early));
    json_object_set_new(o, "repeat", json_integer(info->repeat));
}

json_t *step_json(const struct measure *m, const struct step_data *d, const struct step_info *info,
                  const struct store_meta *meta)
{
    static const char *const lag_keys[] = {"p50", "p99", "p999", "max"};
    static const char *const gap_keys[] = {"p50", "p99"};
    const double gap_us[] = {info->poll_gap_p50_ns * 1e-3, info->poll_gap_p99_ns * 1e-3};
    const double stamp_us[] = {info->stamp_p50_ns * 1e-3, info->stamp_p99_ns * 1e-3};
    const double chunk_us[] = {info->chunk_p50_ns * 1e-3, info->chunk_p99_ns * 1e-3};
    json_t *o = json_object();
    set_identity(o, m, info);
    json_object_set_new(o, "offered", offered_json(m));
    json_object_set_new(o, "requests", requests_json(m));
    json_object_set_new(o, "send_lag_us", numbers(lag_keys, m->lag_us, 4));
    json_object_set_new(o, "cap_wait_us", cap_wait_json(m));
    json_object_set_new(o, "poll_gap_us", numbers(gap_keys, gap_us, 2));
    json_object_set_new(o, "load_cpu_share", value_number(info->load_cpu_share));
    json_object_set_new(o, "stamp_us", numbers(gap_keys, stamp_us, 2));
    json_object_set_new(o, "chunk_us", numbers(gap_keys, chunk_us, 2));
    for (int k = 0; k < LATENCY_N; k++) {
        json_object_set_new(o, latency_names[k], latency_json(&m->latency[k]));
    }
    json_object_set_new(o, "tokens_per_s", tokens_json(m));
    json_object_set_new(o, "requests_per_s", value_interval(measure_rate_interval(m, m->done)));
    json_object_set_new(o, "goodput", goodput_json(m));
    json_object_set_new(o, "queue", queue_json(d));
    json_object_set_new(o, "stages", stages_json(d, meta->ranks, meta->n_ranks));
    json_object_set_new(o, "gpus", gpu_report_step(m, d, meta));
    json_object_set_new(o, "critical_path",
                        json_pack("{s:o, s:o}", "ttft", path_json(d, 0), "e2e", path_json(d, 1)));
    return o;
}
