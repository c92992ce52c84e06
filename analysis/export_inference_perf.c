/*
 * inference-perf's reports (inference_perf/reportgen/base.py, August 2026): a file per stage (our step),
 * a summary over all of them, and one of requests. Times are seconds.
 *
 *   request_latency                   end - s, where the end is the last token
 *   normalized_time_per_output_token  (end - s) / n, 0 for n = 0
 *   time_to_first_token               f - s, of requests with more than one token
 *   time_per_output_token             (l - f) / (n - 1), of the same
 *   inter_token_latency               every gap between tokens; inside a chunk it is 0
 *   throughput                        over last end - first send, of failed requests too
 *   schedule_delay                    s - q
 *   requested_rate, achieved_rate     nominal; count / (last send - first send)
 *   goodput_metrics                   of slo.*, from the send; its shares are of requests that ended
 *                                     well, as there
 *   percentiles                       numpy's, linear
 *
 * Requests that were never sent are not there. It has renamed prompt_len to prompt_tokens, and readers
 * of older reports want the old name: both are written.
 */
#include "analysis/export.h"

#include "analysis/latency.h"
#include "analysis/sample.h"
#include "analysis/stats.h"
#include "analysis/step_tokens.h"
#include "core/json_out.h"
#include "core/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "inference-perf"

static const double percents[] = {0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9};

enum value {
    REQUEST_LATENCY,
    NTPOT,
    TPOT,
    TTFT,
    ITL,
    N_LATENCIES,
    DELAY = N_LATENCIES,
    PROMPT_TOKENS,
    OUTPUT_TOKENS,
    FAILED_LATENCY,
    FAILED_PROMPT_TOKENS,
    N_VALUES,
};
static const char *const latency_keys[N_LATENCIES] = {
    "request_latency", "normalized_time_per_output_token", "time_per_output_token",
    "time_to_first_token", "inter_token_latency"};

/* An objective, by inference-perf's name; met counts those of the requests that ended well. */
struct goal {
    const char *name;
    double limit_s; // 0: none
    uint64_t met;
};
enum {
    N_GOALS = 5
};

/* Of one stage, or of all. */
struct stage {
    const struct export_run *x;
    struct sample values[N_VALUES];
    double first_send_s, last_send_s, last_end_s; // since t0
    uint64_t failed_by[OUTCOME_N];
    struct goal goals[N_GOALS];
    uint64_t n_good, n_mismatches; // n counted here is not the server's
    double good_tokens;
};

static void stage_begin(struct stage *g, const struct export_run *x)
{
    const struct slo_config *slo = &x->slo;
    const struct goal goals[N_GOALS] = {{"ttft", export_seconds(slo->ttft_ns), 0},
                                        {"tpot", export_seconds(slo->tpot_ns), 0},
                                        {"itl", export_seconds(slo->itl_ns), 0},
                                        {"ntpot", export_seconds(slo->ntpot_ns), 0},
                                        {"request_latency", export_seconds(slo->e2e_ns), 0}};
    *g = (struct stage){.x = x, .first_send_s = INFINITY, .last_send_s = -INFINITY};
    g->last_end_s = -INFINITY;
    memcpy(g->goals, goals, sizeof goals);
}

static void stage_free(struct stage *g)
{
    for (int i = 0; i < N_VALUES; i++) {
        sample_free(&g->values[i]);
    }
}

/* --- taking it in ----------------------------------------------------------------------------- */

static void add(struct stage *g, enum value which, double x)
{
    if (!isnan(x)) {
        sample_add(&g->values[which], x);
    }
}

/* value_s (N_GOALS) in the order of goals; STATS_NONE misses. */
static void count_goals(struct stage *g, const struct record *r, const double *value_s)
{
    bool good = true;
    for (int i = 0; i < N_GOALS; i++) {
        bool met = value_s[i] <= g->goals[i].limit_s;
        g->goals[i].met += met;
        good &= met || g->goals[i].limit_s <= 0;
    }
    g->n_good += good;
    g->good_tokens += good ? r->n_in + latency_tokens_out(r) : 0;
}

static void take_ok(struct stage *g, const struct record *r, const uint32_t *dt_us, size_t n)
{
    double tokens = latency_tokens_out(r), sum_us = 0;
    double latency_s = export_seconds(r->t_last_ns - r->t_send_ns);
    double ntpot_s = tokens > 0 ? latency_s / tokens : 0;
    double ttft_s = n > 1 ? export_seconds(r->t_first_ns - r->t_send_ns) : STATS_NONE;
    double tpot_s = n > 1 ? latency_value_ms(r, LATENCY_TPOT) / 1e3 : STATS_NONE;
    for (size_t i = 1; i < n; i++) {
        add(g, ITL, dt_us[i] / 1e6);
        sum_us += dt_us[i];
    }
    double itl_s = n > 1 ? sum_us / 1e6 / (double)(n - 1) : STATS_NONE;
    g->n_mismatches += r->n_out_usage != UINT32_MAX && r->n_out_usage != r->n_out;
    add(g, REQUEST_LATENCY, latency_s);
    add(g, NTPOT, ntpot_s);
    add(g, TTFT, ttft_s);
    add(g, TPOT, tpot_s);
    add(g, PROMPT_TOKENS, r->n_in);
    add(g, OUTPUT_TOKENS, tokens);
    count_goals(g, r, (const double[N_GOALS]){ttft_s, tpot_s, itl_s, ntpot_s, latency_s});
}

struct taking {
    struct stage *stage, *all;
    const struct step_info *info;
};

static void take_into(struct stage *g, const struct step_info *info, const struct record *r,
                      const uint32_t *dt_us, size_t n)
{
    double send_s = export_seconds(r->t_send_ns);
    double end_s = export_seconds(export_end_ns(info, r));
    g->first_send_s = fmin(g->first_send_s, send_s);
    g->last_send_s = fmax(g->last_send_s, send_s);
    g->last_end_s = fmax(g->last_end_s, end_s);
    add(g, DELAY, r->t_sched_ns != RECORD_NONE ? send_s - export_seconds(r->t_sched_ns) : 0);
    if (export_is_ok(r)) {
        take_ok(g, r, dt_us, n);
    } else {
        add(g, FAILED_LATENCY, end_s - send_s);
        add(g, FAILED_PROMPT_TOKENS, r->n_in);
        g->failed_by[r->outcome < OUTCOME_N ? r->outcome : OUTCOME_LOST]++;
    }
}

static void take(void *arg, const struct record *r, const uint32_t *dt_us, size_t n)
{
    struct taking *t = arg;
    if (export_was_sent(r)) {
        take_into(t->stage, t->info, r, dt_us, n);
        take_into(t->all, t->info, r, dt_us, n);
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Mean, ends and percentiles into the open object. */
static void write_statistics(struct json_out *out, struct sample *s)
{
    char key[16];
    sample_sort(s);
    json_out_number(out, "mean", sample_mean(s));
    json_out_number(out, "min", sample_percentile(s, 0));
    json_out_number(out, "max", sample_percentile(s, 1));
    for (size_t i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        snprintf(key, sizeof key, "p%g", percents[i]);
        json_out_number(out, strcmp(key, "p50") == 0 ? "median" : key,
                        sample_percentile(s, percents[i] / 100));
    }
}

static void write_sample(struct json_out *out, const char *key, struct sample *s)
{
    if (s->n == 0) {
        json_out_null(out, key);
        return;
    }
    json_out_open(out, key, '{');
    write_statistics(out, s);
    json_out_close(out, '}');
}

static void write_tokens(struct json_out *out, const char *key, struct sample *s, bool is_prompt)
{
    json_out_open(out, key, '{');
    json_out_number(out, "total", sample_sum(s));
    if (is_prompt) {
        json_out_number(out, "cached", 0);
        json_out_number(out, "uncached", sample_sum(s));
    }
    if (s->n) {
        write_statistics(out, s);
    }
    json_out_close(out, '}');
}

/* d: of the stage; NULL for the summary, which has no rate. */
static void write_load(struct json_out *out, struct stage *g, const struct step_data *d)
{
    double count = (double)g->values[DELAY].n, sending_s = g->last_send_s - g->first_send_s;
    json_out_open(out, "load_summary", '{');
    json_out_number(out, "count", count);
    write_sample(out, "schedule_delay", &g->values[DELAY]);
    if (d) {
        json_out_number(out, "send_duration", sending_s);
        json_out_number(out, "requested_rate", d->info.rate_rps);
        json_out_number(out, "achieved_rate", sending_s > 0 ? count / sending_s : 0);
        if (d->info.users) {
            json_out_number(out, "concurrency", d->info.users);
        }
    }
    json_out_close(out, '}');
}

static void write_goodput(struct json_out *out, const struct stage *g)
{
    double n = (double)g->values[REQUEST_LATENCY].n;
    double time_s = g->last_end_s - g->first_send_s, per_s = time_s > 0 ? 1 / time_s : 0;
    bool any = false;
    for (int i = 0; i < N_GOALS; i++) {
        any |= g->goals[i].limit_s > 0;
    }
    if (!any || n <= 0) {
        return;
    }
    json_out_open(out, "goodput_metrics", '{');
    json_out_number(out, "goodput_percentage", 100 * (double)g->n_good / n);
    json_out_number(out, "request_goodput", (double)g->n_good * per_s);
    json_out_number(out, "token_goodput", g->good_tokens * per_s);
    json_out_number(out, "good_requests", (double)g->n_good);
    json_out_number(out, "total_requests", n);
    for (int i = 0; i < N_GOALS; i++) {
        if (g->goals[i].limit_s > 0) {
            char key[64];
            snprintf(key, sizeof key, "%s_attainment_percentage", g->goals[i].name);
            json_out_number(out, key, 100 * (double)g->goals[i].met / n);
        }
    }
    json_out_close(out, '}');
}

static void write_throughput(struct json_out *out, const struct stage *g)
{
    double time_s = g->last_end_s - g->first_send_s, per_s = time_s > 0 ? 1 / time_s : 0;
    double in = sample_sum(&g->values[PROMPT_TOKENS]);
    double tokens_out = sample_sum(&g->values[OUTPUT_TOKENS]);
    json_out_open(out, "throughput", '{');
    json_out_number(out, "input_tokens_per_sec", in * per_s);
    json_out_number(out, "output_tokens_per_sec", tokens_out * per_s);
    json_out_number(out, "total_tokens_per_sec", (in + tokens_out) * per_s);
    json_out_number(out, "requests_per_sec", (double)g->values[REQUEST_LATENCY].n * per_s);
    json_out_close(out, '}');
}

static void write_successes(struct json_out *out, struct stage *g)
{
    json_out_open(out, "successes", '{');
    json_out_number(out, "count", (double)g->values[REQUEST_LATENCY].n);
    json_out_open(out, "latency", '{');
    for (int i = 0; i < N_LATENCIES; i++) {
        write_sample(out, latency_keys[i], &g->values[i]);
    }
    json_out_close(out, '}');
    write_throughput(out, g);
    json_out_null(out, "request_size_bytes");
    write_tokens(out, "prompt_tokens", &g->values[PROMPT_TOKENS], true);
    write_sample(out, "prompt_len", &g->values[PROMPT_TOKENS]);
    write_sample(out, "output_len", &g->values[OUTPUT_TOKENS]);
    write_tokens(out, "output_tokens", &g->values[OUTPUT_TOKENS], false);
    json_out_number(out, "token_count_mismatches", (double)g->n_mismatches);
    write_goodput(out, g);
    json_out_close(out, '}');
}

static void write_failures(struct json_out *out, struct stage *g)
{
    json_out_open(out, "failures", '{');
    json_out_number(out, "count", (double)g->values[FAILED_LATENCY].n);
    write_sample(out, "request_latency", &g->values[FAILED_LATENCY]);
    write_tokens(out, "prompt_tokens", &g->values[FAILED_PROMPT_TOKENS], true);
    json_out_open(out, "by_label", '{');
    for (int i = 0; i < OUTCOME_N; i++) {
        if (g->failed_by[i]) {
            json_out_open(out, record_outcome_names[i], '{');
            json_out_number(out, "count", (double)g->failed_by[i]);
            json_out_open(out, "messages", '[');
            json_out_close(out, ']');
            json_out_close(out, '}');
        }
    }
    json_out_close(out, '}');
    json_out_close(out, '}');
}

static int write_report(const struct export_run *x, struct stage *g, const struct step_data *d,
                        struct err *e)
{
    char name[64] = "summary_lifecycle_metrics.json";
    struct export_file file;
    if (d) {
        snprintf(name, sizeof name, "stage_%u_lifecycle_metrics.json", d->info.index);
    }
    if (g->values[DELAY].n == 0) {
        return 0; // nothing was sent: it writes no report, either
    }
    if (export_create(&file, x, FORMAT, name, e)) {
        return -1;
    }
    struct json_out out = {.f = file.f};
    json_out_open(&out, NULL, '{');
    json_out_number(&out, "benchmark_time_seconds", g->last_end_s - g->first_send_s);
    write_load(&out, g, d);
    write_successes(&out, g);
    write_failures(&out, g);
    json_out_close(&out, '}');
    fputc('\n', file.f);
    return export_close(&file, 0, e);
}

/* --- requests --------------------------------------------------------------------------------- */

struct requests {
    struct json_out out;
    const struct step_info *info;
};

/* Gaps are kept in whole us, so that their sum can be past the end, which is kept in ns. */
static void write_token_times(struct json_out *out, const struct record *r, double end_s,
                              const uint32_t *dt_us, size_t n)
{
    double at_us = (double)r->t_send_ns / 1e3;
    json_out_open(out, "output_token_times", '[');
    for (size_t i = 0; i < n; i++) {
        at_us += dt_us[i];
        json_out_number(out, NULL, fmin(at_us / 1e6, end_s));
    }
    json_out_close(out, ']');
}

static void write_info(struct json_out *out, const struct record *r, double end_s,
                       const uint32_t *dt_us, size_t n)
{
    json_out_open(out, "info", '{');
    json_out_open(out, "request_metrics", '{');
    json_out_open(out, "text", '{');
    json_out_number(out, "input_tokens", r->n_in);
    json_out_close(out, '}');
    json_out_close(out, '}');
    json_out_open(out, "response_metrics", '{');
    json_out_number(out, "output_tokens", latency_tokens_out(r));
    write_token_times(out, r, end_s, dt_us, n);
    json_out_close(out, '}');
    json_out_close(out, '}');
}

static void write_request(void *arg, const struct record *r, const uint32_t *dt_us, size_t n)
{
    struct requests *q = arg;
    struct json_out *out = &q->out;
    char error[64];
    double end_s = export_seconds(export_end_ns(q->info, r));
    if (!export_was_sent(r)) {
        return;
    }
    json_out_open(out, NULL, '{');
    json_out_number(out, "start_time", export_seconds(r->t_send_ns));
    json_out_number(out, "end_time", end_s);
    json_out_null(out, "request");
    json_out_null(out, "response");
    write_info(out, r, end_s, dt_us, n);
    const char *text = export_error(r, error, sizeof error);
    if (text) {
        json_out_open(out, "error", '{');
        json_out_text(out, "error_type",
                      record_outcome_names[r->outcome < OUTCOME_N ? r->outcome : OUTCOME_LOST]);
        json_out_text(out, "error_msg", text);
        json_out_close(out, '}');
    } else {
        json_out_null(out, "error");
    }
    json_out_close(out, '}');
    fputc('\n', out->f);
}

static int write_requests(const struct export_run *x, const struct step_data *d, void *arg,
                          struct err *e)
{
    struct requests *q = arg;
    q->info = &d->info;
    return step_tokens_each(x->store, d, write_request, q, e);
}

static int write_all_requests(const struct export_run *x, struct err *e)
{
    struct export_file file;
    if (export_create(&file, x, FORMAT, "per_request_lifecycle_metrics.json", e)) {
        return -1;
    }
    struct requests q = {.out = {.f = file.f}};
    json_out_open(&q.out, NULL, '[');
    int rc = export_each_step(x, write_requests, &q, e);
    json_out_close(&q.out, ']');
    fputc('\n', file.f);
    return export_close(&file, rc, e);
}

static int write_stage(const struct export_run *x, const struct step_data *d, void *all,
                       struct err *e)
{
    struct stage g;
    stage_begin(&g, x);
    struct taking t = {.stage = &g, .all = all, .info = &d->info};
    int rc = step_tokens_each(x->store, d, take, &t, e) || write_report(x, &g, d, e) ? -1 : 0;
    stage_free(&g);
    return rc;
}

int export_inference_perf(const struct export_run *x, struct err *e)
{
    struct stage all;
    stage_begin(&all, x);
    int rc = export_each_step(x, write_stage, &all, e) || write_report(x, &all, NULL, e) ? -1 : 0;
    stage_free(&all);
    return rc ? -1 : write_all_requests(x, e);
}
