#include "analysis/critical.h"

#include "core/clock.h"

#include <math.h>
#include <stdbool.h>

static double ms_between(int64_t from_ns, int64_t to_ns)
{
    return ((double)to_ns - (double)from_ns) / (double)NS_PER_MS;
}

static bool is_traced(const struct step_data *d, const struct record *r)
{
    return r->outcome == OUTCOME_OK && r->t_sched_ns >= d->info.t_warm_ns &&
           r->t_sched_ns < d->info.t_end_ns && r->t_recv_ns != RECORD_NONE &&
           r->t_admit_ns != RECORD_NONE && r->t_emit_first_ns != RECORD_NONE &&
           r->t_emit_last_ns != RECORD_NONE;
}

/* Add one request's parts; returns what they miss of its time. */
static double add_request(const struct step_data *d, size_t i, int phase, struct critical *c)
{
    const struct record *r = &d->records[i];
    int64_t t_emit_ns = phase == 0 ? r->t_emit_first_ns : r->t_emit_last_ns;
    int64_t t_end_ns = phase == 0 ? r->t_first_ns : r->t_last_ns;
    double total = ms_between(r->t_sched_ns, t_end_ns);
    double lag = ms_between(r->t_sched_ns, r->t_send_ns);
    double transport = ms_between(r->t_send_ns, r->t_recv_ns);
    double queue = ms_between(r->t_recv_ns, r->t_admit_ns) + r->requeue_us[phase] * 1e-3;
    double hops = r->hop_us[phase] * 1e-3, bubble = r->bubble_us[phase] * 1e-3;
    double back = ms_between(t_emit_ns, t_end_ns), compute = 0;
    for (uint32_t k = 0; k < d->n_stages && k < RECORD_MAX_STAGES && d->stage_us[phase]; k++) {
        double ms = d->stage_us[phase][i * d->n_stages + k] * 1e-3;
        c->stage_ms[k] += ms;
        compute += ms;
    }
    c->total_ms += total;
    c->client_lag_ms += lag;
    c->transport_ms += transport;
    c->queue_ms += queue;
    c->hops_ms += hops;
    c->bubble_ms += bubble;
    c->return_ms += back;
    return fabs(total - lag - transport - queue - compute - hops - bubble - back);
}

void critical_path(const struct step_data *d, int phase, struct critical *out)
{
    *out = (struct critical){0};
    double missed = 0;
    for (size_t i = 0; i < d->n; i++) {
        if (is_traced(d, &d->records[i])) {
            missed += add_request(d, i, phase, out);
            out->n++;
        }
    }
    if (out->n == 0) {
        return;
    }
    out->unexplained_share = out->total_ms > 0 ? missed / out->total_ms : 0;
    double *parts[] = {&out->total_ms, &out->client_lag_ms, &out->transport_ms, &out->queue_ms,
                       &out->hops_ms,  &out->bubble_ms,     &out->return_ms};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        *parts[i] /= (double)out->n;
    }
    for (uint32_t k = 0; k < RECORD_MAX_STAGES; k++) {
        out->stage_ms[k] /= (double)out->n;
    }
}
