/*
 * llm-d Benchmark Report v0.2 (llm-d-benchmark, schema_v0_2.py), one report per step, as JSON. That
 * report leaves definitions to the tool, so these are tidemark's own (docs/measurement.md): of requests
 * due in the window, which begins after the warm-up.
 *
 *   time_to_first_token, request_latency, normalized_time_per_output_token
 *                           of the service, from the send: what every other tool reports there
 *   time_per_output_token   (l - f) / (n - 1)
 *   inter_token_latency     gaps between tokens
 *   throughput              events in the window / window
 *   requests                total: sent; failures: errors; incomplete: cancelled at the end of the drain
 *
 * Response latency, from the schedule, has no place in that schema: it stands in the native part of the
 * load, with the config.
 */
#include "analysis/export.h"

#include "analysis/sample.h"
#include "analysis/step_measure.h"
#include "core/clock.h"
#include "core/json_out.h"
#include "results/provenance.h"

#include <jansson.h>

#include <inttypes.h>
#include <math.h>

#define COMPONENT "target"

struct br_step {
    const struct export_run *x;
    const struct step_data *d;
    const struct measure *m;
    struct json_out *out;
};

/* --- statistics ------------------------------------------------------------------------------- */

/* What is missing is left out: there a number is a number. */
static void put(struct json_out *out, const char *key, double x)
{
    if (isfinite(x)) {
        json_out_number(out, key, x);
    }
}

static void write_latency(struct json_out *out, const char *key, const char *units,
                          const struct latency *l)
{
    if (l->n == 0) {
        return;
    }
    json_out_open(out, key, '{');
    json_out_text(out, "units", units);
    put(out, "mean", l->mean);
    put(out, "stddev", l->sd);
    put(out, "min", l->min);
    put(out, "p50", l->p50);
    put(out, "p90", l->p90);
    put(out, "p95", l->p95);
    put(out, "p99", l->p99);
    put(out, "p99p9", l->p999);
    put(out, "max", l->max);
    json_out_close(out, '}');
}

static void write_sample(struct json_out *out, const char *key, const char *units, struct sample *s)
{
    static const struct {
        const char *key;
        double p;
    } rows[] = {{"min", 0},    {"p0p1", 0.001},  {"p1", 0.01},  {"p5", 0.05}, {"p10", 0.1},
                {"p25", 0.25}, {"p50", 0.5},     {"p75", 0.75}, {"p90", 0.9}, {"p95", 0.95},
                {"p99", 0.99}, {"p99p9", 0.999}, {"max", 1}};
    if (s->n == 0) {
        return;
    }
    sample_sort(s);
    json_out_open(out, key, '{');
    json_out_text(out, "units", units);
    put(out, "mean", sample_mean(s));
    put(out, "stddev", stats_sd(s->v, s->n));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        put(out, rows[i].key, sample_percentile(s, rows[i].p));
    }
    json_out_close(out, '}');
}

static void write_rate(struct json_out *out, const char *key, const char *units, double per_s)
{
    if (isfinite(per_s)) {
        json_out_open(out, key, '{');
        json_out_text(out, "units", units);
        json_out_number(out, "mean", per_s);
        json_out_close(out, '}');
    }
}

/* --- the run and its parts -------------------------------------------------------------------- */

static void write_time(const struct br_step *b)
{
    char text[32];
    const struct step_info *s = &b->d->info;
    int64_t t0_ns = b->x->meta.created_unix_ns;
    json_out_open(b->out, "time", '{');
    json_out_text(b->out, "start", provenance_utc(t0_ns + s->t_begin_ns, text, sizeof text));
    json_out_text(b->out, "end", provenance_utc(t0_ns + s->t_drain_ns, text, sizeof text));
    snprintf(text, sizeof text, "PT%.9gS", export_seconds(s->t_drain_ns - s->t_begin_ns));
    json_out_text(b->out, "duration", text);
    json_out_close(b->out, '}');
}

static void write_run(const struct br_step *b)
{
    char uid[64];
    snprintf(uid, sizeof uid, "%s-step%04" PRIu32, b->x->meta.uuid, b->d->info.index);
    json_out_open(b->out, "run", '{');
    json_out_text(b->out, "uid", uid);
    json_out_text(b->out, "eid", b->x->meta.uuid);
    write_time(b);
    json_out_text(b->out, "description", b->x->meta.name ? b->x->meta.name : "tidemark");
    json_out_close(b->out, '}');
}

/* A count of the target, or `other` where the run does not say. */
static double target_count(const struct br_step *b, const char *key, double other)
{
    const json_t *v = json_object_get(b->x->meta.target, key);
    return json_is_number(v) && json_number_value(v) > 0 ? json_number_value(v) : other;
}

static void write_accelerator(const struct br_step *b)
{
    double pipeline = target_count(b, "pipeline", 1), tensor = target_count(b, "tensor", 1);
    bool is_cpu = export_target(b->x, "backend", "")[0] == 'c' &&
                  !json_is_string(json_object_get(b->x->meta.target, "accelerator"));
    json_out_open(b->out, "accelerator", '{');
    json_out_text(b->out, "model", export_target(b->x, "accelerator", is_cpu ? "cpu" : "unknown"));
    json_out_number(
        b->out, "count",
        target_count(b, "accelerators", pipeline * tensor * target_count(b, "replicas", 1)));
    json_out_open(b->out, "parallelism", '{');
    json_out_number(b->out, "tp", tensor);
    json_out_number(b->out, "pp", pipeline);
    json_out_close(b->out, '}');
    json_out_close(b->out, '}');
}

static void write_stack(const struct br_step *b)
{
    struct json_out *out = b->out;
    const char *server = export_target(b->x, "server", NULL);
    json_out_open(out, "stack", '[');
    json_out_open(out, NULL, '{');
    json_out_open(out, "metadata", '{');
    json_out_text(out, "label", COMPONENT);
    json_out_text(out, "cfg_id", b->x->meta.uuid);
    json_out_close(out, '}');
    json_out_open(out, "standardized", '{');
    json_out_text(out, "kind", "inference_engine");
    json_out_text(out, "tool", server ? server : export_target(b->x, "kind", "unknown"));
    json_out_text(out, "tool_version", export_target(b->x, "server_version", "unknown"));
    json_out_text(out, "role", "replica");
    json_out_number(out, "replicas", target_count(b, "replicas", 1));
    json_out_open(out, "model", '{');
    json_out_text(out, "name", export_target(b->x, "model", "unknown"));
    json_out_close(out, '}');
    write_accelerator(b);
    json_out_close(out, '}');
    json_out_open(out, "native", '{');
    json_out_tree(out, "config", b->x->meta.target);
    json_out_close(out, '}');
    json_out_close(out, '}');
    json_out_close(out, ']');
}

/* --- the load --------------------------------------------------------------------------------- */

static void write_length(struct json_out *out, const char *key, struct sample *tokens)
{
    sample_sort(tokens);
    double min = sample_percentile(tokens, 0), max = sample_percentile(tokens, 1);
    bool fixed = tokens->n > 0 && min >= max;
    json_out_open(out, key, '{');
    json_out_text(out, "distribution", fixed ? "fixed" : "other");
    json_out_number(out, "value", tokens->n ? sample_mean(tokens) : 0);
    if (tokens->n && !fixed && max >= 1) {
        json_out_number(out, "min", min);
        json_out_number(out, "max", max);
    }
    json_out_close(out, '}');
}

static void write_lengths(const struct br_step *b)
{
    struct sample in = {0}, asked = {0};
    for (size_t i = 0; i < b->d->n; i++) {
        sample_add(&in, b->d->records[i].n_in);
        sample_add(&asked, b->d->records[i].n_out_req);
    }
    write_length(b->out, "input_seq_len", &in);
    write_length(b->out, "output_seq_len", &asked);
    sample_free(&in);
    sample_free(&asked);
}

static double load_ranks(const struct br_step *b)
{
    double n = 0;
    for (size_t i = 0; i < b->x->meta.n_ranks; i++) {
        n += b->x->meta.ranks[i].role == 0;
    }
    return n > 0 ? n : 1;
}

static void write_standardized(const struct br_step *b)
{
    const struct step_info *s = &b->d->info;
    const char *version = json_string_value(json_object_get(b->x->meta.provenance, "version"));
    json_out_open(b->out, "standardized", '{');
    json_out_text(b->out, "tool", "tidemark");
    json_out_text(b->out, "tool_version", version ? version : "unknown");
    json_out_number(b->out, "parallelism", load_ranks(b));
    json_out_text(b->out, "source", "sampled");
    json_out_number(b->out, "stage", s->index);
    write_lengths(b);
    if (s->rate_rps > 0) {
        json_out_number(b->out, "rate_qps", s->rate_rps);
    }
    if (s->users > 0) {
        json_out_number(b->out, "concurrency", s->users);
    }
    json_out_close(b->out, '}');
}

static void write_load(const struct br_step *b)
{
    struct json_out *out = b->out;
    const struct latency *l = b->m->latency;
    json_out_open(out, "load", '{');
    json_out_open(out, "metadata", '{');
    json_out_text(
        out, "description",
        "latency is of the service, from the send; native.config.response has it from the "
        "schedule");
    json_out_close(out, '}');
    write_standardized(b);
    json_out_open(out, "native", '{');
    json_out_open(out, "config", '{');
    json_out_tree(out, "tidemark", b->x->meta.config);
    json_out_text(out, "verdict", record_verdict_names[b->m->verdict.verdict]);
    json_out_open(out, "response", '{');
    write_latency(out, "time_to_first_token", "ms", &l[LATENCY_TTFT]);
    write_latency(out, "normalized_time_per_output_token", "ms/token", &l[LATENCY_NTPOT]);
    write_latency(out, "request_latency", "ms", &l[LATENCY_E2E]);
    json_out_close(out, '}');
    json_out_close(out, '}');
    json_out_close(out, '}');
    json_out_close(out, '}');
}

/* --- results ---------------------------------------------------------------------------------- */

static bool is_due(const struct step_info *s, const struct record *r)
{
    return r->t_sched_ns != RECORD_NONE && r->t_sched_ns >= s->t_warm_ns &&
           r->t_sched_ns < s->t_end_ns;
}

static void write_requests(const struct br_step *b)
{
    struct sample in = {0}, tokens_out = {0};
    uint64_t n_failed = 0, n_cancelled = 0;
    for (size_t i = 0; i < b->d->n; i++) {
        const struct record *r = &b->d->records[i];
        if (is_due(&b->d->info, r) && export_was_sent(r)) {
            sample_add(&in, r->n_in);
            if (export_is_ok(r)) {
                sample_add(&tokens_out, latency_tokens_out(r));
            } else {
                *(r->outcome == OUTCOME_CANCELLED ? &n_cancelled : &n_failed) += 1;
            }
        }
    }
    json_out_open(b->out, "requests", '{');
    json_out_number(b->out, "total", (double)in.n);
    json_out_number(b->out, "failures", (double)n_failed);
    json_out_number(b->out, "incomplete", (double)n_cancelled);
    write_sample(b->out, "input_length", "count", &in);
    write_sample(b->out, "output_length", "count", &tokens_out);
    json_out_close(b->out, '}');
    sample_free(&in);
    sample_free(&tokens_out);
}

static void write_performance(const struct br_step *b)
{
    struct json_out *out = b->out;
    const struct measure *m = b->m;
    const struct latency *l = m->latency;
    double in = measure_rate(m, m->served_in), tokens_out = measure_rate(m, m->served_out);
    json_out_open(out, "request_performance", '{');
    json_out_open(out, "aggregate", '{');
    write_requests(b);
    json_out_open(out, "latency", '{');
    write_latency(out, "time_to_first_token", "ms", &l[LATENCY_TTFT_SERVICE]);
    write_latency(out, "normalized_time_per_output_token", "ms/token", &l[LATENCY_NTPOT_SERVICE]);
    write_latency(out, "time_per_output_token", "ms/token", &l[LATENCY_TPOT]);
    write_latency(out, "inter_token_latency", "ms/token", &l[LATENCY_ITL]);
    write_latency(out, "request_latency", "ms", &l[LATENCY_E2E_SERVICE]);
    json_out_close(out, '}');
    json_out_open(out, "throughput", '{');
    write_rate(out, "input_token_rate", "tokens/s", in);
    write_rate(out, "output_token_rate", "tokens/s", tokens_out);
    write_rate(out, "total_token_rate", "tokens/s", in + tokens_out);
    write_rate(out, "request_rate", "queries/s", measure_rate(m, m->done));
    json_out_close(out, '}');
    json_out_close(out, '}');
    json_out_close(out, '}');
}

static void add_count(struct sample *s, uint32_t n)
{
    if (n != UINT32_MAX) { // not told
        sample_add(s, n);
    }
}

static void write_observability(const struct br_step *b)
{
    struct sample kv = {0}, running = {0}, waiting = {0};
    for (size_t i = 0; i < b->d->n_series; i++) {
        const struct series_point *p = &b->d->series[i];
        if (p->t_ns >= b->d->info.t_warm_ns && p->t_ns < b->d->info.t_end_ns) {
            if (!isnan(p->kv_used)) {
                sample_add(&kv, (double)p->kv_used);
            }
            add_count(&running, p->running);
            add_count(&waiting, p->waiting);
        }
    }
    if (kv.n || running.n || waiting.n) {
        json_out_open(b->out, "observability", '{');
        json_out_open(b->out, "components", '[');
        json_out_open(b->out, NULL, '{');
        json_out_text(b->out, "component_label", COMPONENT);
        json_out_open(b->out, "aggregate", '{');
        write_sample(b->out, "kv_cache_usage", "fraction", &kv);
        write_sample(b->out, "running_requests", "count", &running);
        write_sample(b->out, "waiting_requests", "count", &waiting);
        json_out_close(b->out, '}');
        json_out_close(b->out, '}');
        json_out_close(b->out, ']');
        json_out_close(b->out, '}');
    }
    sample_free(&kv);
    sample_free(&running);
    sample_free(&waiting);
}

static int write_step(const struct export_run *x, const struct step_data *d, void *arg,
                      struct err *e)
{
    (void)arg;
    char name[32];
    struct measure m;
    struct export_file file;
    snprintf(name, sizeof name, "step%04" PRIu32 ".json", d->info.index);
    if (step_measure(x->store, d, &x->slo, &m, e) || export_create(&file, x, "br0.2", name, e)) {
        return -1;
    }
    struct json_out out = {.f = file.f};
    struct br_step b = {.x = x, .d = d, .m = &m, .out = &out};
    json_out_open(&out, NULL, '{');
    json_out_text(&out, "version", "0.2");
    write_run(&b);
    json_out_open(&out, "scenario", '{');
    write_stack(&b);
    write_load(&b);
    json_out_close(&out, '}');
    json_out_open(&out, "results", '{');
    write_performance(&b);
    write_observability(&b);
    json_out_close(&out, '}');
    json_out_close(&out, '}');
    fputc('\n', file.f);
    return export_close(&file, 0, e);
}

int export_br02(const struct export_run *x, struct err *e)
{
    return export_each_step(x, write_step, NULL, e);
}
