/*
 * vLLM's result JSON (vllm/benchmarks/serve.py, mid 2026), one object per step.
 *
 *   ttft       f - s, s                          latencies  l - s: to the last token, not to the end
 *   tpot       (latency - ttft) / (n - 1), n > 1
 *   itl        gaps between chunks; one of several tokens counts once
 *   mean, std, p  numpy.mean, .std (of the population), .percentile (linear); 0 where there is nothing
 *   duration   from the first send to the end of the last request, so that the drain counts
 *   max_output_tokens_per_s   chunks in the fullest second after the first send
 *   max_concurrent_requests   of requests that ended well
 *   request_goodput           requests that met ttft, tpot and e2el of slo.*, measured from the send
 *
 * Every request of the step is there, warm-up too: vLLM has none. A failed one has output_len, ttft
 * and latency 0. vLLM's `queue_times` is the wait in the client; here s - q. Texts are not kept.
 */
#include "analysis/export.h"

#include "analysis/latency.h"
#include "analysis/sample.h"
#include "analysis/stats.h"
#include "analysis/step_tokens.h"
#include "core/clock.h"
#include "core/json_out.h"
#include "core/mem.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum metric {
    TTFT,
    TPOT,
    ITL,
    E2EL,
    N_METRICS,
};
static const char *const metric_names[N_METRICS] = {"ttft", "tpot", "itl", "e2el"};
static const double percents[] = {0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9};

struct vllm_step {
    const struct export_run *x;
    const struct step_data *d;
    struct json_out *out;
    struct sample values[N_METRICS]; // s
    double begin_s, end_s;           // first send, end of the last request; since t0
    uint64_t n_ok, n_good;
    double tokens_in, tokens_out;
    double *per_second; // (n_seconds) chunks
    size_t n_seconds;
    uint32_t *gaps; // (cap_gaps) of one request
    size_t cap_gaps;
};

static double start_s(const struct record *r)
{
    return export_seconds(export_was_sent(r) ? r->t_send_ns : r->t_sched_ns);
}

static double latency_s(const struct record *r)
{
    return export_is_ok(r) ? export_seconds(r->t_last_ns - r->t_send_ns) : 0;
}

static double ttft_s(const struct record *r)
{
    return export_is_ok(r) ? export_seconds(r->t_first_ns - r->t_send_ns) : 0;
}

static double tokens_out(const struct record *r)
{
    return export_is_ok(r) ? latency_tokens_out(r) : 0;
}

/* STATS_NONE: one token has none. */
static double tpot_s(const struct record *r)
{
    return latency_value_ms(r, LATENCY_TPOT) / 1e3;
}

/* --- taking it in ----------------------------------------------------------------------------- */

static bool meets(int64_t limit_ns, double value_s)
{
    return limit_ns == 0 || value_s <= export_seconds(limit_ns);
}

static void take_record(struct vllm_step *v, const struct record *r)
{
    const struct slo_config *slo = &v->x->slo;
    double tpot = tpot_s(r);
    if (!export_is_ok(r)) {
        return;
    }
    v->n_ok++;
    v->tokens_in += r->n_in;
    v->tokens_out += tokens_out(r);
    v->n_good += meets(slo->ttft_ns, ttft_s(r)) && meets(slo->e2e_ns, latency_s(r)) &&
                 meets(slo->tpot_ns, isnan(tpot) ? 0 : tpot);
    sample_add(&v->values[TTFT], ttft_s(r));
    sample_add(&v->values[E2EL], latency_s(r));
    if (!isnan(tpot)) {
        sample_add(&v->values[TPOT], tpot);
    }
}

static void take_records(struct vllm_step *v)
{
    double end_ok_s = 0;
    v->begin_s = INFINITY;
    for (size_t i = 0; i < v->d->n; i++) {
        const struct record *r = &v->d->records[i];
        if (export_was_sent(r)) {
            v->begin_s = fmin(v->begin_s, start_s(r));
            v->end_s = fmax(v->end_s, export_seconds(export_end_ns(&v->d->info, r)));
            end_ok_s = fmax(end_ok_s, start_s(r) + latency_s(r));
        }
        take_record(v, r);
    }
    v->begin_s = isfinite(v->begin_s) ? v->begin_s : 0;
    v->n_seconds = (size_t)ceil(fmax(0, end_ok_s - v->begin_s)) + 1;
    v->per_second = xcalloc(v->n_seconds, sizeof *v->per_second);
}

static void count_chunk(struct vllm_step *v, double at_s)
{
    size_t second = (size_t)fmax(0, at_s - v->begin_s);
    if (second < v->n_seconds) {
        v->per_second[second]++;
    }
}

/* One list of gaps, in seconds. */
static void write_itl(void *arg, const struct record *r, const uint32_t *dt_us, size_t n)
{
    struct vllm_step *v = arg;
    if (n > v->cap_gaps) {
        v->cap_gaps = 2 * n;
        v->gaps = xrealloc(v->gaps, v->cap_gaps * sizeof *v->gaps);
    }
    size_t n_gaps = export_is_ok(r) ? export_chunk_gaps(r, dt_us, n, v->gaps) : 0;
    double at_s = start_s(r) + ttft_s(r);
    json_out_open(v->out, NULL, '[');
    if (export_is_ok(r)) {
        count_chunk(v, at_s);
    }
    for (size_t i = 0; i < n_gaps; i++) {
        double gap_s = v->gaps[i] / 1e6;
        at_s += gap_s;
        count_chunk(v, at_s);
        sample_add(&v->values[ITL], gap_s);
        json_out_number(v->out, NULL, gap_s);
    }
    json_out_close(v->out, ']');
}

/* The most requests at once: one that ends when another begins is not with it. */
static double peak_concurrency(const struct vllm_step *v)
{
    struct sample starts = {0}, ends = {0};
    for (size_t i = 0; i < v->d->n; i++) {
        const struct record *r = &v->d->records[i];
        if (export_is_ok(r)) {
            sample_add(&starts, start_s(r));
            sample_add(&ends, start_s(r) + latency_s(r));
        }
    }
    sample_sort(&starts);
    sample_sort(&ends);
    size_t peak = 0;
    for (size_t i = 0, ended = 0; i < starts.n; i++) {
        while (ended < ends.n && ends.v[ended] <= starts.v[i]) {
            ended++;
        }
        peak = i + 1 > ended && i + 1 - ended > peak ? i + 1 - ended : peak;
    }
    sample_free(&starts);
    sample_free(&ends);
    return (double)peak;
}

/* --- writing ---------------------------------------------------------------------------------- */

/* vLLM's --burstiness of these arrivals; STATS_NONE where it has none. */
static double burstiness(const struct export_run *x)
{
    const json_t *load = json_object_get(x->meta.config, "load");
    const json_t *arrival = json_object_get(load, "arrival");
    const char *kind = json_string_value(arrival);
    if (!kind) {
        kind = json_string_value(json_object_get(arrival, "kind"));
    }
    double cv = json_number_value(json_object_get(arrival, "cv"));
    if (kind && strcmp(kind, "gamma") == 0 && cv > 0) {
        return 1 / (cv * cv);
    }
    return kind && strcmp(kind, "poisson") == 0 ? 1 : STATS_NONE;
}

static void write_date(struct json_out *out, int64_t unix_ns)
{
    char text[32] = "";
    time_t t = (time_t)(unix_ns / NS_PER_S);
    struct tm tm;
    if (gmtime_r(&t, &tm)) {
        strftime(text, sizeof text, "%Y%m%d-%H%M%S", &tm);
    }
    json_out_text(out, "date", text);
}

static void write_head(const struct vllm_step *v)
{
    struct json_out *out = v->out;
    const struct step_info *s = &v->d->info;
    const char *model = export_target(v->x, "model", "unknown");
    write_date(out, v->x->meta.created_unix_ns + s->t_begin_ns);
    json_out_text(out, "endpoint_type", export_target(v->x, "kind", "unknown"));
    json_out_text(out, "backend", export_target(v->x, "kind", "unknown"));
    json_out_text(out, "label", "tidemark");
    json_out_text(out, "model_id", model);
    json_out_text(out, "tokenizer_id", model);
    json_out_number(out, "num_prompts", (double)v->d->n);
    json_out_text(out, "tidemark_run", v->x->meta.uuid);
    json_out_number(out, "tidemark_step", s->index);
    if (s->rate_rps > 0) {
        json_out_number(out, "request_rate", s->rate_rps);
    } else {
        json_out_text(out, "request_rate", "inf");
    }
    json_out_number(out, "burstiness", burstiness(v->x));
    json_out_number(out, "max_concurrency", s->users ? s->users : STATS_NONE);
}

static void write_column(const struct vllm_step *v, const char *key,
                         double (*of)(const struct record *))
{
    json_out_open(v->out, key, '[');
    for (size_t i = 0; i < v->d->n; i++) {
        json_out_number(v->out, NULL, of(&v->d->records[i]));
    }
    json_out_close(v->out, ']');
}

static double tokens_in(const struct record *r)
{
    return r->n_in;
}

static double queue_time_s(const struct record *r)
{
    return export_was_sent(r) && r->t_sched_ns != RECORD_NONE
               ? export_seconds(r->t_send_ns - r->t_sched_ns)
               : 0;
}

static int write_columns(struct vllm_step *v, struct err *e)
{
    char error[64];
    write_column(v, "input_lens", tokens_in);
    write_column(v, "output_lens", tokens_out);
    write_column(v, "ttfts", ttft_s);
    write_column(v, "latencies", latency_s);
    write_column(v, "start_times", start_s);
    write_column(v, "queue_times", queue_time_s);
    json_out_open(v->out, "generated_texts", '[');
    for (size_t i = 0; i < v->d->n; i++) {
        json_out_text(v->out, NULL, "");
    }
    json_out_close(v->out, ']');
    json_out_open(v->out, "errors", '[');
    for (size_t i = 0; i < v->d->n; i++) {
        const char *text = export_error(&v->d->records[i], error, sizeof error);
        json_out_text(v->out, NULL, text ? text : "");
    }
    json_out_close(v->out, ']');
    json_out_open(v->out, "itls", '[');
    int rc = step_tokens_each(v->x->store, v->d, write_itl, v, e);
    json_out_close(v->out, ']');
    return rc;
}

static double max_of(const double *v, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, v[i]);
    }
    return most;
}

static void write_totals(const struct vllm_step *v)
{
    const struct slo_config *slo = &v->x->slo;
    bool has_goals = slo->ttft_ns || slo->tpot_ns || slo->e2e_ns;
    double duration_s = fmax(v->end_s - v->begin_s, 0), per_s = duration_s > 0 ? 1 / duration_s : 0;
    struct json_out *out = v->out;
    json_out_number(out, "duration", duration_s);
    json_out_number(out, "completed", (double)v->n_ok);
    json_out_number(out, "failed", (double)(v->d->n - v->n_ok));
    json_out_number(out, "total_input_tokens", v->tokens_in);
    json_out_number(out, "total_output_tokens", v->tokens_out);
    json_out_number(out, "request_throughput", (double)v->n_ok * per_s);
    json_out_number(out, "request_goodput", has_goals ? (double)v->n_good * per_s : STATS_NONE);
    json_out_number(out, "output_throughput", v->tokens_out * per_s);
    json_out_number(out, "total_token_throughput", (v->tokens_in + v->tokens_out) * per_s);
    json_out_number(out, "max_output_tokens_per_s", max_of(v->per_second, v->n_seconds));
    json_out_number(out, "max_concurrent_requests", peak_concurrency(v));
    json_out_number(out, "rtfx", 0);
}

static double or_zero(double x)
{
    return isfinite(x) ? x : 0;
}

static void write_metric(const struct vllm_step *v, enum metric m)
{
    char key[48];
    struct sample s = v->values[m];
    const char *name = metric_names[m];
    snprintf(key, sizeof key, "mean_%s_ms", name);
    json_out_number(v->out, key, or_zero(sample_mean(&s)) * 1e3);
    snprintf(key, sizeof key, "std_%s_ms", name);
    json_out_number(v->out, key, or_zero(sample_sd(&s)) * 1e3);
    sample_sort(&s);
    snprintf(key, sizeof key, "median_%s_ms", name);
    json_out_number(v->out, key, or_zero(sample_percentile(&s, 0.5)) * 1e3);
    for (size_t i = 0; i < sizeof percents / sizeof percents[0]; i++) {
        snprintf(key, sizeof key, "p%g_%s_ms", percents[i], name);
        json_out_number(v->out, key, or_zero(sample_percentile(&s, percents[i] / 100)) * 1e3);
    }
}

static int write_step(const struct export_run *x, const struct step_data *d, void *arg,
                      struct err *e)
{
    (void)arg;
    char name[32];
    struct export_file file;
    snprintf(name, sizeof name, "step%04u.json", d->info.index);
    if (export_create(&file, x, "vllm", name, e)) {
        return -1;
    }
    struct json_out out = {.f = file.f};
    struct vllm_step v = {.x = x, .d = d, .out = &out};
    take_records(&v);
    json_out_open(&out, NULL, '{');
    write_head(&v);
    int rc = write_columns(&v, e);
    write_totals(&v);
    for (int m = 0; m < N_METRICS; m++) {
        write_metric(&v, (enum metric)m);
        sample_free(&v.values[m]);
    }
    json_out_close(&out, '}');
    fputc('\n', out.f);
    free(v.per_second);
    free(v.gaps);
    return export_close(&file, rc, e);
}

int export_vllm(const struct export_run *x, struct err *e)
{
    return export_each_step(x, write_step, NULL, e);
}
