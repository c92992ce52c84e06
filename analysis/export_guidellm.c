/*
 * guidellm's benchmarks.json (report version 2, guidellm 0.8): one benchmark per step. Its parser and its
 * own formulas over the requests below give the same figures (guidellm/benchmark/schemas/metrics.py).
 *
 *   window                  from the end of the warm-up to the end of the load; a request that touches it
 *                           counts, whenever it began
 *   successful, incomplete, errored   ok, cancelled at the end of the drain, the rest that was sent
 *   request_latency         end - s, seconds      time_to_first_token_ms   f - s
 *   time_per_output_token_ms   (l - s) / n, the first token included; requests weigh n
 *   inter_token_latency_ms     (l - f) / (n - 1), of requests, which weigh n - 1
 *   *_tokens_per_second     of events; its tokens after the first lie evenly between f and l
 *   request_dispatch_delay, request_scheduled_latency   s - q, end - q; of open loops
 *   percentiles             nearest rank by weight, see weighted.h
 *
 * Arrivals other than Poisson's and closed loops are called constant: of what tidemark offers, guidellm
 * has names for these three. Texts are not kept; per-modality tables are null. The config that its parser
 * asks for is the nearest that guidellm would take; what was really run is in backend, profile, requests
 * of each benchmark.
 */
#include "analysis/export.h"

#include "analysis/latency.h"
#include "analysis/sample.h"
#include "analysis/stats.h"
#include "analysis/weighted.h"
#include "core/clock.h"
#include "core/json_out.h"
#include "results/provenance.h"

#include <jansson.h>

#include <math.h>
#include <string.h>

enum status {
    SUCCESSFUL,
    INCOMPLETE,
    ERRORED,
    N_STATUS,
    TOTAL = N_STATUS,
};
static const char *const status_names[N_STATUS + 1] = {"successful", "incomplete", "errored",
                                                       "total"};

enum kind { // of metric
    VALUES,
    RATES,
    CONCURRENCY,
};

enum metric {
    REQUESTS_PER_S,
    REQUEST_CONCURRENCY,
    REQUEST_LATENCY,
    DISPATCH_DELAY,
    SCHEDULED_LATENCY,
    ITERATIONS,
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    TOTAL_TOKENS,
    TTFT,
    TTFOT,
    LAST_ROUND_TRIP,
    AVG_ROUND_TRIP,
    TPOT,
    ITL,
    PROMPT_PER_S,
    OUTPUT_PER_S,
    TOTAL_PER_S,
    OUTPUT_PER_ITERATION,
    ITER_PER_ITERATION,
    N_METRICS,
};
static const struct {
    const char *key;
    enum kind kind;
} metrics[N_METRICS] = {
    [REQUESTS_PER_S] = {"requests_per_second", RATES},
    [REQUEST_CONCURRENCY] = {"request_concurrency", CONCURRENCY},
    [REQUEST_LATENCY] = {"request_latency", VALUES},
    [DISPATCH_DELAY] = {"request_dispatch_delay", VALUES},
    [SCHEDULED_LATENCY] = {"request_scheduled_latency", VALUES},
    [ITERATIONS] = {"request_streaming_iterations_count", VALUES},
    [PROMPT_TOKENS] = {"prompt_token_count", VALUES},
    [OUTPUT_TOKENS] = {"output_token_count", VALUES},
    [TOTAL_TOKENS] = {"total_token_count", VALUES},
    [TTFT] = {"time_to_first_token_ms", VALUES},
    [TTFOT] = {"time_to_first_output_token_ms", VALUES},
    [LAST_ROUND_TRIP] = {"time_to_last_round_trip_ms", VALUES},
    [AVG_ROUND_TRIP] = {"avg_round_trip_time_ms", VALUES},
    [TPOT] = {"time_per_output_token_ms", VALUES},
    [ITL] = {"inter_token_latency_ms", VALUES},
    [PROMPT_PER_S] = {"prompt_tokens_per_second", RATES},
    [OUTPUT_PER_S] = {"output_tokens_per_second", RATES},
    [TOTAL_PER_S] = {"tokens_per_second", RATES},
    [OUTPUT_PER_ITERATION] = {"output_tokens_per_iteration", VALUES},
    [ITER_PER_ITERATION] = {"iter_tokens_per_iteration", VALUES},
};

/* A request as guidellm knows it. Times in s since t0; what never came is STATS_NONE. */
struct request {
    const struct record *r;
    enum status status;
    double due, start, first, content, last, end;
    double n_in, n_out, iterations;
};

struct gl_step {
    const struct export_run *x;
    const struct step_data *d;
    struct json_out *out;
    double begin, end; // of the window
    uint64_t n[N_STATUS + 1];
    double n_all[N_STATUS], sum_delay, sum_latency; // of the whole step
    double first_start, last_end;
    struct weighted values[N_METRICS][N_STATUS];
    uint64_t n_touching[N_STATUS]; // intervals of REQUEST_CONCURRENCY
};

static double seconds_or_none(int64_t t_ns)
{
    return t_ns == RECORD_NONE ? STATS_NONE : export_seconds(t_ns);
}

static struct request request_of(const struct gl_step *g, const struct record *r)
{
    bool ok = export_is_ok(r);
    struct request q = {
        .r = r,
        .status = ok                                ? SUCCESSFUL
                  : r->outcome == OUTCOME_CANCELLED ? INCOMPLETE
                                                    : ERRORED,
        .due = seconds_or_none(r->t_sched_ns),
        .start = export_seconds(r->t_send_ns),
        .first = seconds_or_none(r->t_first_ns),
        .content = seconds_or_none(r->t_content_ns),
        .last = seconds_or_none(r->t_last_ns),
        .end = export_seconds(export_end_ns(&g->d->info, r)),
        .n_in = r->n_in,
        .n_out = latency_tokens_out(r),
        .iterations = r->n_chunks,
    };
    return q;
}

/* --- taking it in ----------------------------------------------------------------------------- */

static void add(struct gl_step *g, const struct request *q, enum metric m, double value,
                double weight)
{
    weighted_add(&g->values[m][q->status], value, weight);
}

/* A value that a request lacks counts as 0 there. */
static double or_zero(double x)
{
    return isnan(x) ? 0 : x;
}

/* Of tokens after the first, per iteration after the first; STATS_NONE: there are none. */
static double tokens_per_iteration(const struct request *q)
{
    bool many = q->n_out > 1 && q->iterations > 1 && !isnan(q->first) && !isnan(q->last);
    return many ? (q->n_out - 1) / (q->iterations - 1) : STATS_NONE;
}

static void add_output_event(struct gl_step *g, const struct request *q, double at, double tokens)
{
    add(g, q, OUTPUT_PER_S, at, tokens);
    add(g, q, TOTAL_PER_S, at, tokens);
    add(g, q, OUTPUT_PER_ITERATION, tokens, 1);
}

static void add_output(struct gl_step *g, const struct request *q)
{
    double each = tokens_per_iteration(q);
    double step = (q->last - q->first) / (q->iterations - 1);
    if (isnan(q->first) || isnan(q->last) || q->iterations <= 1) {
        add_output_event(g, q, isnan(q->last) ? q->end : q->last, q->n_out);
        return;
    }
    add_output_event(g, q, q->first, q->n_out > 0);
    for (double i = 1; !isnan(each) && i < q->iterations; i++) {
        add_output_event(g, q, q->first + i * step, each);
        add(g, q, ITER_PER_ITERATION, each, 1);
    }
}

static void add_counts(struct gl_step *g, const struct request *q)
{
    double prompt_at = isnan(q->first) ? q->end : q->first;
    add(g, q, ITERATIONS, q->iterations, 1);
    add(g, q, PROMPT_TOKENS, q->n_in, 1);
    add(g, q, OUTPUT_TOKENS, q->n_out, 1);
    add(g, q, TOTAL_TOKENS, q->n_in + q->n_out, 1);
    add(g, q, PROMPT_PER_S, prompt_at, q->n_in);
    add(g, q, TOTAL_PER_S, prompt_at, q->n_in);
    add(g, q, LAST_ROUND_TRIP, 0, 1);
    add(g, q, AVG_ROUND_TRIP, 0, 1);
}

static void add_latencies(struct gl_step *g, const struct request *q)
{
    double last = isnan(q->last) ? q->end : q->last;
    add(g, q, REQUEST_LATENCY, q->end - q->start, 1);
    add(g, q, TPOT, q->n_out > 0 ? 1e3 * (last - q->start) / q->n_out : 0, q->n_out);
    if (!isnan(q->due) && g->d->info.users == 0) {
        add(g, q, DISPATCH_DELAY, q->start - q->due, 1);
        add(g, q, SCHEDULED_LATENCY, q->end - q->due, 1);
    }
}

/* Those that have a first token, which must touch the window as well. */
static void add_first_tokens(struct gl_step *g, const struct request *q)
{
    double n_gaps = (q->n_out > 0 ? q->n_out : 1) - 1;
    double from = isnan(q->first) ? q->end : q->first;
    if (q->first >= g->begin && q->start <= g->end) {
        add(g, q, TTFT, 1e3 * (q->first - q->start), 1);
    }
    if (q->content >= g->begin && q->start <= g->end) {
        add(g, q, TTFOT, 1e3 * (q->content - q->start), 1);
    }
    if (q->end >= g->begin && from <= g->end) {
        double itl_ms = n_gaps > 0 ? 1e3 * or_zero((q->last - q->first) / n_gaps) : 0;
        add(g, q, ITL, itl_ms, n_gaps);
    }
}

static void take(struct gl_step *g, const struct request *q)
{
    g->n_all[q->status]++;
    g->sum_latency += q->end - q->start;
    g->sum_delay += isnan(q->due) ? 0 : q->start - q->due;
    g->first_start = fmin(g->first_start, q->start);
    g->last_end = fmax(g->last_end, q->end);
    add_first_tokens(g, q);
    if (q->end < g->begin || q->start > g->end) {
        return;
    }
    g->n[q->status]++;
    g->n[TOTAL]++;
    g->n_touching[q->status]++;
    add(g, q, REQUESTS_PER_S, q->end, 1);
    add(g, q, REQUEST_CONCURRENCY, q->start, 1);
    add(g, q, REQUEST_CONCURRENCY, q->end, -1);
    add_latencies(g, q);
    add_counts(g, q);
    add_output(g, q);
}

/* --- writing ---------------------------------------------------------------------------------- */

static void write_summary(struct json_out *out, const char *key, const struct weighted_summary *s)
{
    static const char *const names[WEIGHTED_PERCENTILES] = {
        "p001", "p01", "p05", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p999"};
    json_out_open(out, key, '{');
    json_out_number(out, "mean", s->mean);
    json_out_number(out, "median", s->median);
    json_out_number(out, "mode", s->mode);
    json_out_number(out, "variance", s->variance);
    json_out_number(out, "std_dev", sqrt(s->variance));
    json_out_number(out, "min", s->min);
    json_out_number(out, "max", s->max);
    json_out_number(out, "count", s->count);
    json_out_number(out, "total_sum", s->total);
    json_out_open(out, "percentiles", '{');
    for (int i = 0; i < WEIGHTED_PERCENTILES; i++) {
        json_out_number(out, names[i], s->percentile[i]);
    }
    json_out_close(out, '}');
    json_out_null(out, "pdf");
    json_out_close(out, '}');
}

static void summarise(const struct gl_step *g, enum kind kind, struct weighted *w, uint64_t n,
                      struct weighted_summary *out)
{
    switch (kind) {
    case VALUES:
        weighted_summarise(w, out);
        break;
    case RATES:
        weighted_rates(w, g->begin, g->end, out);
        break;
    case CONCURRENCY:
        weighted_concurrency(w, n, g->begin, g->end, out);
        break;
    }
}

/* By status, and of all; frees the values. */
static void write_metric(struct gl_step *g, enum metric m)
{
    struct weighted all = {0};
    struct weighted_summary s;
    json_out_open(g->out, metrics[m].key, '{');
    for (int k = 0; k < N_STATUS; k++) {
        struct weighted *w = &g->values[m][k];
        weighted_join(&all, w);
        summarise(g, metrics[m].kind, w, g->n_touching[k], &s);
        write_summary(g->out, status_names[k], &s);
        weighted_free(w);
    }
    summarise(g, metrics[m].kind, &all, g->n[TOTAL], &s);
    write_summary(g->out, status_names[TOTAL], &s);
    weighted_free(&all);
    json_out_close(g->out, '}');
}

/* Tables per modality, all null: the figures above are of text. */
static void write_modalities(struct json_out *out)
{
    static const char *const tables[][5] = {
        {"text", "tokens", "words", "characters", NULL},
        {"image", "tokens", "images", "pixels", "bytes"},
        {"video", "tokens", "frames", "seconds", "bytes"},
        {"audio", "tokens", "samples", "seconds", "bytes"},
        {"tool_call", "tokens", "mixed_tokens", "count", NULL},
    };
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        json_out_open(out, tables[i][0], '{');
        for (int k = 1; k < 5 && tables[i][k]; k++) {
            json_out_null(out, tables[i][k]);
        }
        json_out_close(out, '}');
    }
}

static void write_metrics(struct gl_step *g)
{
    json_out_open(g->out, "metrics", '{');
    json_out_open(g->out, "request_totals", '{');
    for (int k = 0; k <= TOTAL; k++) {
        json_out_whole(g->out, status_names[k], g->n[k]);
    }
    json_out_close(g->out, '}');
    bool has_schedule = g->d->info.users == 0;
    for (int m = 0; m < N_METRICS; m++) {
        if (has_schedule || (m != DISPATCH_DELAY && m != SCHEDULED_LATENCY)) {
            write_metric(g, (enum metric)m);
        }
    }
    write_modalities(g->out);
    json_out_close(g->out, '}');
}

static bool is_poisson(const struct export_run *x)
{
    const json_t *arrival = json_object_get(json_object_get(x->meta.config, "load"), "arrival");
    const json_t *kind = json_is_object(arrival) ? json_object_get(arrival, "kind") : arrival;
    return json_is_string(kind) && strcmp(json_string_value(kind), "poisson") == 0;
}

static void write_strategy(const struct gl_step *g)
{
    const struct step_info *s = &g->d->info;
    json_out_open(g->out, "strategy", '{');
    if (s->users > 0) {
        json_out_text(g->out, "type_", "concurrent");
        json_out_whole(g->out, "streams", s->users);
    } else if (is_poisson(g->x)) {
        json_out_text(g->out, "type_", "poisson");
        json_out_number(g->out, "rate", s->rate_rps);
        json_out_whole(g->out, "random_seed", s->seed);
    } else {
        json_out_text(g->out, "type_", "constant");
        json_out_number(g->out, "rate", s->rate_rps);
    }
    json_out_close(g->out, '}');
}

static void write_config(const struct gl_step *g)
{
    struct json_out *out = g->out;
    char id[64];
    snprintf(id, sizeof id, "%s-step%04u", g->x->meta.uuid, g->d->info.index);
    json_out_open(out, "config", '{');
    json_out_text(out, "id_", id);
    json_out_text(out, "run_id", g->x->meta.uuid);
    json_out_whole(out, "run_index", g->d->info.index);
    write_strategy(g);
    json_out_tree(out, "profile", json_object_get(g->x->meta.config, "load"));
    json_out_tree(out, "requests", g->x->meta.dataset);
    json_out_tree(out, "backend", g->x->meta.target);
    json_out_open(out, "constraints", '{');
    json_out_close(out, '}');
    json_out_open(out, "environment", '{');
    json_out_text(out, "tool", "tidemark");
    json_out_close(out, '}');
    json_out_null(out, "confidence");
    json_out_close(out, '}');
}

static double unix_s(const struct gl_step *g, double since_t0_s)
{
    return export_seconds(g->x->meta.created_unix_ns) + since_t0_s;
}

static void write_time(const struct gl_step *g, const char *key, double t)
{
    json_out_number(g->out, key, unix_s(g, t)); // null for what never came
}

static void write_times(const struct gl_step *g)
{
    write_time(g, "start_time", g->begin);
    write_time(g, "end_time", g->end);
    json_out_number(g->out, "duration", g->end - g->begin);
}

static void write_state(const struct gl_step *g)
{
    struct json_out *out = g->out;
    double n = g->n_all[SUCCESSFUL] + g->n_all[INCOMPLETE] + g->n_all[ERRORED];
    json_out_open(out, "scheduler_state", '{');
    write_time(g, "start_time", export_seconds(g->d->info.t_begin_ns));
    write_time(g, "end_time", export_seconds(g->d->info.t_drain_ns));
    json_out_number(out, "created_requests", (double)g->d->n);
    json_out_number(out, "processed_requests", n);
    json_out_number(out, "successful_requests", g->n_all[SUCCESSFUL]);
    json_out_number(out, "errored_requests", g->n_all[ERRORED]);
    json_out_number(out, "cancelled_requests", g->n_all[INCOMPLETE]);
    json_out_close(out, '}');
}

/* Its own inner times are -1 where it does not know them, as here. */
static void write_scheduler(const struct gl_step *g)
{
    static const char *const unknown[] = {
        "queued_time_avg",         "resolve_start_delay_avg", "resolve_targeted_start_delay_avg",
        "request_start_delay_avg", "resolve_end_delay_avg",   "resolve_time_avg",
        "finalized_delay_avg",     "processed_delay_avg"};
    struct json_out *out = g->out;
    double n = g->n_all[SUCCESSFUL] + g->n_all[INCOMPLETE] + g->n_all[ERRORED];
    json_out_open(out, "scheduler_metrics", '{');
    write_time(g, "start_time", export_seconds(g->d->info.t_begin_ns));
    write_time(g, "request_start_time", n > 0 ? g->first_start : g->begin);
    write_time(g, "measure_start_time", g->begin);
    write_time(g, "measure_end_time", g->end);
    write_time(g, "request_end_time", n > 0 ? g->last_end : g->end);
    write_time(g, "end_time", export_seconds(g->d->info.t_drain_ns));
    json_out_open(out, "requests_made", '{');
    for (int k = 0; k < N_STATUS; k++) {
        json_out_number(out, status_names[k], g->n_all[k]);
    }
    json_out_number(out, "total", n);
    json_out_close(out, '}');
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        json_out_number(out, unknown[i], -1);
    }
    json_out_number(out, "request_targeted_start_delay_avg", n > 0 ? g->sum_delay / n : -1);
    json_out_number(out, "request_time_avg", n > 0 ? g->sum_latency / n : -1);
    json_out_close(out, '}');
}

/* --- requests --------------------------------------------------------------------------------- */

static void write_timings(const struct gl_step *g, const struct request *q)
{
    struct json_out *out = g->out;
    json_out_open(out, "timings", '{');
    write_time(g, "targeted_start", g->d->info.users == 0 ? q->due : STATS_NONE);
    write_time(g, "resolve_start", q->start);
    write_time(g, "request_start", q->start);
    write_time(g, "first_request_iteration", q->first);
    write_time(g, "first_token_iteration", q->first);
    write_time(g, "first_output_token_iteration", q->content);
    write_time(g, "last_token_iteration", q->last);
    write_time(g, "last_request_iteration", q->last);
    json_out_number(out, "request_iterations", q->iterations);
    json_out_number(out, "token_iterations", q->iterations);
    write_time(g, "request_end", q->end);
    write_time(g, "resolve_end", q->end);
    json_out_close(out, '}');
}

static void write_tokens(struct json_out *out, const char *key, double n)
{
    json_out_open(out, key, '{');
    json_out_number(out, "text_tokens", n);
    json_out_close(out, '}');
}

static void write_request(const struct gl_step *g, const struct request *q)
{
    static const char *const names[N_STATUS] = {"completed", "cancelled", "errored"};
    struct json_out *out = g->out;
    char id[32], error[64];
    snprintf(id, sizeof id, "%u-%llu", g->d->info.index, (unsigned long long)q->r->id);
    json_out_open(out, NULL, '{');
    json_out_text(out, "request_id", id);
    json_out_open(out, "info", '{');
    json_out_text(out, "request_id", id);
    json_out_text(out, "status", names[q->status]);
    json_out_text(out, "error", export_error(q->r, error, sizeof error));
    write_timings(g, q);
    json_out_close(out, '}');
    write_tokens(out, "input_metrics", q->n_in);
    write_tokens(out, "output_metrics", q->n_out);
    json_out_close(out, '}');
    fputc('\n', out->f);
}

static void write_requests(const struct gl_step *g)
{
    json_out_open(g->out, "requests", '{');
    for (int k = 0; k < N_STATUS; k++) {
        json_out_open(g->out, status_names[k], '[');
        for (size_t i = 0; i < g->d->n; i++) {
            struct request q = request_of(g, &g->d->records[i]);
            if (export_was_sent(q.r) && (int)q.status == k) {
                write_request(g, &q);
            }
        }
        json_out_close(g->out, ']');
    }
    json_out_null(g->out, "total");
    json_out_close(g->out, '}');
}

/* --- the report ------------------------------------------------------------------------------- */

struct report {
    struct json_out out;
    struct sample rates, streams; // of the steps
    struct sample prompts, asked; // tokens of each request
};

static int write_benchmark(const struct export_run *x, const struct step_data *d, void *arg,
                           struct err *e)
{
    (void)e;
    struct report *report = arg;
    struct gl_step g = {.x = x, .d = d, .out = &report->out};
    g.begin = export_seconds(d->info.t_warm_ns);
    g.end = export_seconds(d->info.t_end_ns);
    g.first_start = INFINITY;
    g.last_end = -INFINITY;
    for (size_t i = 0; i < d->n; i++) {
        sample_add(&report->prompts, d->records[i].n_in);
        sample_add(&report->asked, d->records[i].n_out_req);
        if (export_was_sent(&d->records[i])) {
            struct request q = request_of(&g, &d->records[i]);
            take(&g, &q);
        }
    }
    json_out_open(g.out, NULL, '{');
    json_out_text(g.out, "type_", "generative_benchmark");
    write_times(&g);
    write_config(&g);
    write_state(&g);
    write_scheduler(&g);
    write_metrics(&g);
    write_requests(&g);
    json_out_close(g.out, '}');
    if (d->info.users > 0) {
        sample_add(&report->streams, d->info.users);
    } else {
        sample_add(&report->rates, d->info.rate_rps);
    }
    return 0;
}

static void write_list(struct json_out *out, const char *key, const struct sample *s)
{
    json_out_open(out, key, '[');
    for (size_t i = 0; i < s->n; i++) {
        json_out_number(out, NULL, s->v[i]);
    }
    json_out_close(out, ']');
}

static void write_profile(struct report *report, const struct export_run *x)
{
    struct json_out *out = &report->out;
    json_out_open(out, "profile", '{');
    if (report->rates.n) {
        json_out_text(out, "kind", is_poisson(x) ? "poisson" : "constant");
        write_list(out, "rate", &report->rates);
    } else if (report->streams.n) {
        json_out_text(out, "kind", "concurrent");
        write_list(out, "streams", &report->streams);
    } else {
        json_out_text(out, "kind", "synchronous");
    }
    json_out_close(out, '}');
}

static double mean_tokens(const struct sample *s)
{
    return s->n ? fmax(1, rint(sample_mean(s))) : 1;
}

static void write_spec(struct report *report, const struct export_run *x)
{
    struct json_out *out = &report->out;
    json_out_open(out, "config", '{');
    json_out_open(out, "spec", '{');
    json_out_open(out, "backend", '{');
    json_out_text(out, "kind", "openai_http");
    json_out_text(out, "target", export_target(x, "url", export_target(x, "kind", "unknown")));
    json_out_text(out, "model", export_target(x, "model", NULL));
    json_out_close(out, '}');
    write_profile(report, x);
    json_out_open(out, "data", '[');
    json_out_open(out, NULL, '{');
    json_out_text(out, "kind", "synthetic_text");
    json_out_number(out, "prompt_tokens", mean_tokens(&report->prompts));
    json_out_number(out, "output_tokens", mean_tokens(&report->asked));
    json_out_close(out, '}');
    json_out_close(out, ']');
    json_out_close(out, '}');
    json_out_close(out, '}');
}

static void write_metadata(struct json_out *out)
{
    json_out_open(out, "metadata", '{');
    json_out_number(out, "version", 2);
    json_out_text(out, "guidellm_version", "written by tidemark");
    json_out_text(out, "python_version", "none");
    json_out_text(out, "platform", "none");
    json_out_close(out, '}');
}

int export_guidellm(const struct export_run *x, struct err *e)
{
    struct export_file file;
    if (export_create(&file, x, "guidellm", "benchmarks.json", e)) {
        return -1;
    }
    struct report report = {.out = {.f = file.f}};
    json_out_open(&report.out, NULL, '{');
    write_metadata(&report.out);
    json_out_open(&report.out, "benchmarks", '[');
    int rc = export_each_step(x, write_benchmark, &report, e);
    json_out_close(&report.out, ']');
    write_spec(&report, x);
    json_out_close(&report.out, '}');
    fputc('\n', file.f);
    sample_free(&report.rates);
    sample_free(&report.streams);
    sample_free(&report.prompts);
    sample_free(&report.asked);
    return export_close(&file, rc, e);
}
