/*
 * tidemark's own figures as tables: one row per step (docs/measurement.md defines each; the unit is in
 * the column's name), or one row per request with its stamps in ns since t0. An empty cell is a value
 * that does not exist.
 */
#include "analysis/export.h"

#include "analysis/energy.h"
#include "analysis/latency.h"
#include "analysis/step_measure.h"

#include <inttypes.h>
#include <math.h>

/* --- steps ------------------------------------------------------------------------------------ */

static const char *const stat_names[] = {"n",   "mean", "lo95", "hi95", "min", "p50",
                                         "p90", "p95",  "p99",  "p999", "max"};
enum {
    N_STATS = sizeof stat_names / sizeof stat_names[0]
};

static void put(FILE *f, double x)
{
    if (isfinite(x)) {
        fprintf(f, ",%.10g", x);
    } else {
        fputc(',', f);
    }
}

static void write_header(FILE *f)
{
    fputs(
        "step,kind,rate_rps,users,verdict,window_s,scheduled,ok,failed,cancelled,offered_rps,"
        "achieved_rps,requests_per_s,requests_per_s_lo95,requests_per_s_hi95,goodput_rps,attainment,"
        "input_tokens_per_s,output_tokens_per_s,output_tokens_per_s_lo95,"
        "output_tokens_per_s_hi95,send_lag_p50_us,send_lag_p99_us",
        f);
    for (int k = 0; k < LATENCY_N; k++) {
        for (int i = 0; i < N_STATS; i++) {
            fprintf(f, ",%s_%s", latency_names[k], stat_names[i]);
        }
    }
    fputs(",gpu_power_w,gpu_power_w_lo95,gpu_power_w_hi95,gpu_energy_j,joules_per_output_token,"
          "joules_per_output_token_lo95,joules_per_output_token_hi95,joules_per_token,"
          "joules_per_token_lo95,joules_per_token_hi95,gpu_util,gpu_throttled_share\n",
          f);
}

static void put_interval(FILE *f, struct stats_interval v)
{
    put(f, v.value);
    put(f, v.lo);
    put(f, v.hi);
}

static void write_gpus(FILE *f, const struct measure *m, const struct step_data *d,
                       size_t n_devices)
{
    struct energy x;
    energy_measure(m, d, n_devices, &x);
    put_interval(f, x.power_w);
    put(f, x.all.energy_j);
    put_interval(f, x.j_per_output_token);
    put_interval(f, x.j_per_token);
    put(f, x.all.gpu_util);
    put(f, x.all.throttled);
    energy_free(&x);
}

static void write_latency(FILE *f, const struct latency *l)
{
    const double v[N_STATS] = {(double)l->n, l->mean, l->lo95, l->hi95, l->min, l->p50,
                               l->p90,       l->p95,  l->p99,  l->p999, l->max};
    for (int i = 0; i < N_STATS; i++) {
        put(f, v[i]);
    }
}

static void write_rates(FILE *f, const struct measure *m)
{
    struct stats_interval done = measure_rate_interval(m, m->done);
    struct stats_interval out = measure_rate_interval(m, m->served_out);
    double good_rps = m->window_s > 0 ? (double)m->n_good / m->window_s : STATS_NONE;
    put(f, measure_rate(m, m->due));
    put(f, (double)m->n_sends / m->window_s);
    put(f, done.value);
    put(f, done.lo);
    put(f, done.hi);
    put(f, good_rps);
    put(f, m->n_due ? (double)m->n_good / (double)m->n_due : STATS_NONE);
    put(f, measure_rate(m, m->served_in));
    put(f, out.value);
    put(f, out.lo);
    put(f, out.hi);
    put(f, m->lag_us[0]);
    put(f, m->lag_us[1]);
}

static int write_step(const struct export_run *x, const struct step_data *d, void *arg,
                      struct err *e)
{
    FILE *f = arg;
    struct measure m;
    if (step_measure(x->store, d, &x->slo, &m, e)) {
        return -1;
    }
    const struct step_info *s = &d->info;
    uint64_t n_ok = m.by_outcome[OUTCOME_OK], n_cancelled = m.by_outcome[OUTCOME_CANCELLED];
    fprintf(f, "%" PRIu32 ",%s,%.10g,%" PRIu32 ",%s,%.10g,%zu", s->index,
            record_step_kind_names[s->kind], s->rate_rps, s->users,
            record_verdict_names[m.verdict.verdict], m.window_s, d->n);
    fprintf(f, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64, n_ok, d->n - n_ok - n_cancelled, n_cancelled);
    write_rates(f, &m);
    for (int k = 0; k < LATENCY_N; k++) {
        write_latency(f, &m.latency[k]);
    }
    write_gpus(f, &m, d, x->meta.n_gpus);
    fputc('\n', f);
    return 0;
}

int export_csv(const struct export_run *x, struct err *e)
{
    struct export_file file;
    if (export_create(&file, x, "csv", "steps.csv", e)) {
        return -1;
    }
    write_header(file.f);
    return export_close(&file, export_each_step(x, write_step, file.f, e), e);
}

/* --- requests --------------------------------------------------------------------------------- */

static void put_time(FILE *f, int64_t t_ns)
{
    if (t_ns == RECORD_NONE) {
        fputc(',', f);
    } else {
        fprintf(f, ",%" PRId64, t_ns);
    }
}

static void write_request(FILE *f, const struct step_info *s, const struct record *r)
{
    const int64_t times_ns[] = {r->t_sched_ns, r->t_send_ns,    r->t_byte_ns,
                                r->t_first_ns, r->t_content_ns, r->t_last_ns};
    fprintf(f, "%" PRIu32 ",%" PRIu64 ",%s,%u", s->index, r->id,
            record_outcome_names[r->outcome < OUTCOME_N ? r->outcome : OUTCOME_LOST],
            r->http_status);
    for (size_t i = 0; i < sizeof times_ns / sizeof times_ns[0]; i++) {
        put_time(f, times_ns[i]);
    }
    fprintf(f, ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",", r->n_in, r->n_out_req, r->n_out);
    if (r->n_out_usage != UINT32_MAX) {
        fprintf(f, "%" PRIu32, r->n_out_usage);
    }
    fprintf(f, ",%" PRIu32 ",%" PRIu64 ",%" PRIu32, r->n_chunks, r->conversation, r->turn);
    put(f, latency_value_ms(r, LATENCY_TTFT));
    put(f, latency_value_ms(r, LATENCY_TTFT_SERVICE));
    put(f, latency_value_ms(r, LATENCY_TPOT));
    put(f, latency_value_ms(r, LATENCY_E2E));
    put(f, latency_value_ms(r, LATENCY_E2E_SERVICE));
    fputc('\n', f);
}

static int write_requests(const struct export_run *x, const struct step_data *d, void *arg,
                          struct err *e)
{
    (void)x;
    (void)e;
    for (size_t i = 0; i < d->n; i++) {
        write_request(arg, &d->info, &d->records[i]);
    }
    return 0;
}

int export_csv_requests(const struct export_run *x, struct err *e)
{
    struct export_file file;
    if (export_create(&file, x, "requests-csv", "requests.csv", e)) {
        return -1;
    }
    fputs("step,id,outcome,http_status,t_sched_ns,t_send_ns,t_byte_ns,t_first_ns,t_content_ns,"
          "t_last_ns,n_in,n_out_req,n_out,n_out_usage,n_chunks,conversation,turn,ttft_ms,"
          "ttft_service_ms,tpot_ms,e2e_ms,e2e_service_ms\n",
          file.f);
    return export_close(&file, export_each_step(x, write_requests, file.f, e), e);
}
