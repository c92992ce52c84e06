#include "analysis/answers_search.h"

#include "analysis/slo_decision.h"
#include "analysis/value.h"
#include "core/mem.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>

#define SEED 1 // of the bootstraps: the same file gives the same bytes

static void set_interval(json_t *o, struct stats_interval v)
{
    value_set(o, "value", v.value);
    value_set(o, "lo95", v.lo);
    value_set(o, "hi95", v.hi);
}

static bool is_open_loop(const struct answers *a, size_t i)
{
    return a->info[i].rate_rps > 0 && !a->measure[i].closed_loop && !a->measure[i].recovered;
}

/* --- concurrency ---------------------------------------------------------------------------------- */

static json_t *rung_json(const struct ladder_rung *r)
{
    json_t *o = json_object();
    json_object_set_new(o, "users", json_integer(r->users));
    json_object_set_new(o, "steps", json_integer((json_int_t)r->n_steps));
    json_object_set_new(o, "output_tokens_per_s", value_interval(r->output_tokens_per_s));
    value_set(o, "requests_per_s", r->requests_per_s);
    value_set(o, "ttft_p50_ms", r->ttft_p50_ms);
    value_set(o, "e2e_mean_ms", r->e2e_mean_s * 1e3);
    value_set(o, "little", r->little);
    json_object_set_new(o, "verdict", json_string(record_verdict_names[r->verdict]));
    json_object_set_new(o, "meets", json_boolean(r->slo.meets));
    json_object_set_new(o, "share", value_interval(r->slo.share));
    return o;
}

/* What is lost one rung above the best: time in the queue. */
static json_t *above_json(const struct ladder *l)
{
    if (l->best + 1 >= l->n) {
        return json_null();
    }
    const struct ladder_rung *b = &l->rungs[l->best], *r = b + 1;
    json_t *o = json_object();
    json_object_set_new(o, "users", json_integer(r->users));
    value_set(o, "ttft_p50_times", r->ttft_p50_ms / b->ttft_p50_ms);
    value_set(o, "e2e_mean_times", r->e2e_mean_s / b->e2e_mean_s);
    value_set(o, "throughput_times", r->output_tokens_per_s.value / b->output_tokens_per_s.value);
    return o;
}

/* One rung below: the target idles. */
static json_t *below_json(const struct ladder *l)
{
    if (l->best >= l->n || l->best == 0) {
        return json_null();
    }
    const struct ladder_rung *b = &l->rungs[l->best], *r = b - 1;
    json_t *o = json_object();
    json_object_set_new(o, "users", json_integer(r->users));
    value_set(o, "throughput_times", r->output_tokens_per_s.value / b->output_tokens_per_s.value);
    return o;
}

json_t *answers_search_concurrency(const struct answers *a, double rule)
{
    const struct ladder *l = &a->ladder;
    json_t *o = json_object(), *rungs = json_array();
    bool is_found = l->best < l->n;
    value_set(o, "best", is_found ? l->rungs[l->best].users : STATS_NONE);
    value_set(o, "lo95", l->lo95);
    value_set(o, "hi95", l->hi95);
    value_set(o, "rule", rule);
    struct stats_interval none = {STATS_NONE, STATS_NONE, STATS_NONE};
    json_object_set_new(o, "output_tokens_per_s",
                        value_interval(is_found ? l->rungs[l->best].output_tokens_per_s : none));
    json_object_set_new(o, "above", is_found ? above_json(l) : json_null());
    json_object_set_new(o, "below", below_json(l));
    for (size_t i = 0; i < l->n; i++) {
        json_array_append_new(rungs, rung_json(&l->rungs[i]));
    }
    json_object_set_new(o, "rungs", rungs);
    return o;
}

/* --- objectives ----------------------------------------------------------------------------------- */

struct probe {
    double rate_rps;
    size_t n_steps;
    bool is_over;   // the target queued or refused: it misses
    bool is_client; // the client could not offer it at least once
    struct slo_decision decision;
};

/* Steps that the client could not offer as asked decide nothing, for or against. */
static struct probe make_probe(const struct answers *a, double rate_rps)
{
    struct slo_sample *same = xcalloc(a->n_steps, sizeof *same);
    struct probe p = {.rate_rps = rate_rps};
    size_t n = 0;
    for (size_t i = 0; i < a->n_steps; i++) {
        if (!is_open_loop(a, i) || a->info[i].rate_rps != rate_rps) {
            continue;
        }
        enum verdict v = a->measure[i].verdict.verdict;
        p.n_steps++;
        p.is_over = p.is_over || v == VERDICT_UNSTABLE || v == VERDICT_ERRORS;
        p.is_client = p.is_client || v == VERDICT_CLIENT_LIMITED;
        if (v != VERDICT_CLIENT_LIMITED) {
            same[n++] = slo_decision_sample(&a->measure[i]);
        }
    }
    if (n > 0) {
        slo_decision(same, n, a->cfg->slo.quantile, &p.decision);
    } else {
        p.decision.share = (struct stats_interval){STATS_NONE, STATS_NONE, STATS_NONE};
    }
    p.decision.holds = p.is_over ? SLO_MISSED : p.decision.holds;
    free(same);
    return p;
}

/* The next rate above; INFINITY: none. */
static double rate_above(const struct answers *a, double rate_rps)
{
    double next = STATS_INF;
    for (size_t i = 0; i < a->n_steps; i++) {
        if (is_open_loop(a, i) && a->info[i].rate_rps > rate_rps) {
            next = fmin(next, a->info[i].rate_rps);
        }
    }
    return next;
}

static json_t *probe_json(const struct probe *p)
{
    json_t *o = json_object();
    value_set(o, "rate_rps", p->rate_rps);
    json_object_set_new(o, "steps", json_integer((json_int_t)p->n_steps));
    json_object_set_new(o, "holds", json_string(slo_decision_holds_names[p->decision.holds]));
    json_object_set_new(o, "overloaded", json_boolean(p->is_over));
    json_object_set_new(o, "client_limited", json_boolean(p->is_client));
    json_object_set_new(o, "metric",
                        isnan(p->decision.share.value)
                            ? json_null()
                            : json_string(latency_names[p->decision.worst]));
    json_object_set_new(o, "share", value_interval(p->decision.share));
    return o;
}

json_t *answers_search_decided(const struct answers *a)
{
    if (a->slo->all.verdict == SLO_NONE) {
        return json_null();
    }
    double met = STATS_NONE, missed = STATS_NONE, missed_above = STATS_NONE, client = STATS_NONE;
    json_t *o = json_object(), *probes = json_array();
    for (double r = rate_above(a, 0); isfinite(r); r = rate_above(a, r)) {
        struct probe p = make_probe(a, r);
        bool is_missed = p.decision.holds == SLO_MISSED;
        if (p.decision.holds == SLO_MET) {
            met = r;
            missed_above = STATS_NONE;
        }
        missed = is_missed && isnan(missed) ? r : missed;
        missed_above = is_missed && isnan(missed_above) ? r : missed_above;
        bool is_of_client = p.is_client && p.decision.holds == SLO_UNDECIDED;
        client = is_of_client && isnan(client) ? r : client;
        json_array_append_new(probes, probe_json(&p));
    }
    value_set(o, "highest_met_rps", met);
    value_set(o, "lowest_missed_rps", missed_above);
    value_set(o, "lowest_client_limited_rps", client);
    json_object_set_new(o, "monotone", json_boolean(!(missed < met)));
    json_object_set_new(o, "probes", probes);
    return o;
}

/* --- drift ---------------------------------------------------------------------------------------- */

json_t *answers_search_drift(const struct answers *a)
{
    const struct drift *d = &a->drift;
    if (!d->is_known) {
        return json_null();
    }
    json_t *o = json_object(), *list = json_array();
    value_set(o, "rate_rps", a->info[d->first].rate_rps);
    json_object_set_new(o, "first_step", json_integer(a->info[d->first].index));
    json_object_set_new(o, "last_step", json_integer(a->info[d->last].index));
    json_object_set_new(o, "significant", json_boolean(d->is_significant));
    for (int k = 0; k < DRIFT_METRICS; k++) {
        const struct drift_metric *m = &d->metric[k];
        json_t *x = json_object();
        json_object_set_new(x, "metric", json_string(m->name));
        value_set(x, "first", m->first);
        value_set(x, "last", m->last);
        value_set(x, "change", m->change);
        json_object_set_new(x, "significant", json_boolean(m->is_significant));
        json_array_append_new(list, x);
    }
    json_object_set_new(o, "metrics", list);
    return o;
}

/* --- passes --------------------------------------------------------------------------------------- */

static size_t n_passes(const struct answers *a)
{
    uint32_t last = 0;
    for (size_t i = 0; i < a->n_steps; i++) {
        last = a->info[i].repeat > last ? a->info[i].repeat : last;
    }
    return (size_t)last + 1;
}

static void find_in_pass(const struct answers *a, uint32_t pass, struct saturation *sat,
                         struct slo_result *slo)
{
    struct saturation_step *s = xcalloc(a->n_steps, sizeof *s);
    struct slo_step *l = xcalloc(a->n_steps, sizeof *l);
    size_t n = 0;
    for (size_t i = 0; i < a->n_steps; i++) {
        if (a->info[i].repeat == pass) {
            s[n] = (struct saturation_step){a->info[i].rate_rps, &a->measure[i]};
            l[n++] = (struct slo_step){a->info[i].rate_rps, &a->measure[i]};
        }
    }
    saturation_find(s, n, SEED, sat);
    slo_find(l, n, SEED, slo);
    free(s);
    free(l);
}

void answers_search_combine(struct answers *a)
{
    size_t n = a->n_passes = n_passes(a);
    if (n < 2) {
        return;
    }
    struct stats_interval *rate = xcalloc(n, sizeof *rate), *tokens = xcalloc(n, sizeof *tokens),
                          *slo = xcalloc(n, sizeof *slo);
    struct slo_result *result = xcalloc(1, sizeof *result);
    for (size_t i = 0; i < n; i++) {
        struct saturation sat;
        find_in_pass(a, (uint32_t)i, &sat, result);
        rate[i] = sat.rate_rps;
        tokens[i] = sat.output_tokens_per_s;
        slo[i] = result->all.rate_rps;
        saturation_free(&sat);
    }
    a->over_passes[ANSWERS_SATURATION] = repeats_mean(rate, n);
    a->over_passes[ANSWERS_TOKENS] = repeats_mean(tokens, n);
    a->over_passes[ANSWERS_SLO] = repeats_mean(slo, n);
    if (a->over_passes[ANSWERS_SATURATION].n > 1) {
        a->saturation.rate_rps = a->over_passes[ANSWERS_SATURATION].of;
        a->saturation.output_tokens_per_s = a->over_passes[ANSWERS_TOKENS].of;
    }
    if (a->over_passes[ANSWERS_SLO].n > 1) {
        a->slo->all.rate_rps = a->over_passes[ANSWERS_SLO].of;
    }
    free(rate);
    free(tokens);
    free(slo);
    free(result);
}

static json_t *mean_json(const struct repeats_mean *m)
{
    json_t *o = json_object();
    json_object_set_new(o, "n", json_integer((json_int_t)m->n));
    set_interval(o, m->of);
    value_set(o, "between_sd", m->between_sd);
    return o;
}

enum pooled {
    POOLED_TTFT_P50,
    POOLED_TTFT_P99,
    POOLED_NTPOT_P50,
    POOLED_E2E_P50,
    POOLED_TOKENS,
    POOLED_N,
};
static const char *const pooled_names[POOLED_N] = {"ttft_p50_ms", "ttft_p99_ms", "ntpot_p50_ms",
                                                   "e2e_p50_ms", "output_tokens_per_s"};

static struct stats_interval pooled_value(const struct measure *m, enum pooled k)
{
    const struct latency *l = m->latency;
    switch (k) {
    case POOLED_TTFT_P99:
        return (struct stats_interval){l[LATENCY_TTFT].p99, l[LATENCY_TTFT].p99_lo95,
                                       l[LATENCY_TTFT].p99_hi95};
    case POOLED_TOKENS:
        return measure_rate_interval(m, m->served_out);
    default:
        break;
    }
    l += k == POOLED_TTFT_P50 ? LATENCY_TTFT : k == POOLED_NTPOT_P50 ? LATENCY_NTPOT : LATENCY_E2E;
    return (struct stats_interval){l->p50, l->p50_lo95, l->p50_hi95};
}

/* Steps of the same place: rate, users and kind, over passes. */
static bool is_same_place(const struct step_info *a, const struct step_info *b)
{
    return a->rate_rps == b->rate_rps && a->users == b->users && a->kind == b->kind;
}

static json_t *place_json(const struct answers *a, size_t first)
{
    struct stats_interval *v = xcalloc(a->n_steps, sizeof *v);
    const struct step_info *info = &a->info[first];
    json_t *o = json_object();
    value_set(o, "rate_rps", info->rate_rps);
    json_object_set_new(o, "users", json_integer(info->users));
    json_object_set_new(o, "kind", json_string(record_step_kind_names[info->kind]));
    for (int k = 0; k < POOLED_N; k++) {
        size_t n = 0;
        for (size_t i = 0; i < a->n_steps; i++) {
            if (is_same_place(&a->info[i], info) && !a->measure[i].recovered) {
                v[n++] = pooled_value(&a->measure[i], (enum pooled)k);
            }
        }
        struct repeats_mean mean = repeats_mean(v, n);
        json_object_set_new(o, pooled_names[k], mean_json(&mean));
    }
    free(v);
    return o;
}

static bool is_first_of_place(const struct answers *a, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (is_same_place(&a->info[k], &a->info[i])) {
            return false;
        }
    }
    return a->info[i].kind < STEP_KIND_N;
}

json_t *answers_search_repeats(const struct answers *a)
{
    if (a->n_passes < 2) {
        return json_null();
    }
    json_t *o = json_object(), *places = json_array();
    json_object_set_new(o, "passes", json_integer((json_int_t)a->n_passes));
    json_object_set_new(o, "saturation_rps", mean_json(&a->over_passes[ANSWERS_SATURATION]));
    json_object_set_new(o, "saturation_output_tokens_per_s",
                        mean_json(&a->over_passes[ANSWERS_TOKENS]));
    json_object_set_new(o, "slo_rps", mean_json(&a->over_passes[ANSWERS_SLO]));
    for (size_t i = 0; i < a->n_steps; i++) {
        if (is_first_of_place(a, i)) {
            json_array_append_new(places, place_json(a, i));
        }
    }
    json_object_set_new(o, "steps", places);
    return o;
}
