#include "analysis/answers.h"

#include "analysis/answers_search.h"
#include "analysis/value.h"
#include "core/clock.h"
#include "core/mem.h"

#include <jansson.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEED 1 // of the bootstraps: the same file gives the same bytes

void answers_find(struct answers *a)
{
    struct saturation_step *sat = xcalloc(a->n_steps + 1, sizeof *sat);
    struct slo_step *slo = xcalloc(a->n_steps + 1, sizeof *slo);
    a->slo = xcalloc(1, sizeof *a->slo);
    for (size_t i = 0; i < a->n_steps; i++) {
        sat[i] = (struct saturation_step){a->info[i].rate_rps, &a->measure[i]};
        slo[i] = (struct slo_step){a->info[i].rate_rps, &a->measure[i]};
    }
    saturation_find(sat, a->n_steps, SEED, &a->saturation);
    slo_find(slo, a->n_steps, SEED, a->slo);
    free(sat);
    free(slo);
    ladder_find(a->info, a->measure, a->n_steps, a->cfg->slo.quantile, SEED, &a->ladder);
    drift_find(a->info, a->measure, a->n_steps, &a->drift);
    answers_search_combine(a);
}

void answers_free(struct answers *a)
{
    saturation_free(&a->saturation);
    ladder_free(&a->ladder);
    prices_free(&a->prices);
    store_meta_free(&a->meta);
    json_decref(a->steps);
    free(a->slo);
    free(a->info);
    free(a->measure);
}

/* --- saturation ------------------------------------------------------------------------------- */

static void set_interval(json_t *o, const char *value, const char *lo, const char *hi,
                         struct stats_interval v)
{
    value_set(o, value, v.value);
    value_set(o, lo, v.lo);
    value_set(o, hi, v.hi);
}

static json_t *cross_check_json(const struct saturation *s)
{
    const struct saturation_check *c = &s->check;
    json_t *o = json_object();
    value_set(o, "rate_rps", c->rate_rps);
    value_set(o, "highest_stable_rps", c->highest_stable_rps);
    value_set(o, "lowest_unstable_rps", c->lowest_unstable_rps);
    value_set(o, "grid_rps", c->grid_rps);
    json_object_set_new(o, "agrees", isnan(c->rate_rps) ? json_null() : json_boolean(c->agrees));
    value_set(o, "slope", s->n_steps ? s->fit.stick.slope : STATS_NONE);
    return o;
}

json_t *answers_saturation(const struct answers *a)
{
    const struct saturation *s = &a->saturation;
    json_t *o = json_object();
    set_interval(o, "rate_rps", "lo95", "hi95", s->rate_rps);
    set_interval(o, "output_tokens_per_s", "output_tokens_per_s_lo95", "output_tokens_per_s_hi95",
                 s->output_tokens_per_s);
    json_object_set_new(o, "method", json_string(SATURATION_METHOD));
    json_object_set_new(o, "verdict", json_string(saturation_names[s->verdict]));
    json_object_set_new(o, "reason", json_string(s->reason));
    json_object_set_new(o, "n_steps", json_integer((json_int_t)s->n_steps));
    json_object_set_new(o, "cross_check", cross_check_json(s));
    return o;
}

/* --- SLO -------------------------------------------------------------------------------------- */

static void set_crossing(json_t *o, const struct slo_crossing *c)
{
    set_interval(o, "rate_rps", "lo95", "hi95", c->rate_rps);
    json_object_set_new(o, "verdict", json_string(slo_names[c->verdict]));
}

static double limit_ms(const struct slo_config *slo, int metric)
{
    const int64_t ns[LATENCY_N] = {
        [LATENCY_TTFT] = slo->ttft_ns,   [LATENCY_ITL] = slo->itl_ns, [LATENCY_TPOT] = slo->tpot_ns,
        [LATENCY_NTPOT] = slo->ntpot_ns, [LATENCY_E2E] = slo->e2e_ns,
    };
    return (double)ns[metric] / (double)NS_PER_MS;
}

json_t *answers_slo(const struct answers *a)
{
    json_t *o = json_object(), *list = json_array();
    for (int k = 0; k < LATENCY_N; k++) {
        double limit = limit_ms(&a->cfg->slo, k);
        if (limit > 0) {
            json_t *objective = json_object();
            json_object_set_new(objective, "metric", json_string(latency_names[k]));
            value_set(objective, "limit_ms", limit);
            value_set(objective, "quantile", a->cfg->slo.quantile);
            set_crossing(objective, &a->slo->metric[k]);
            json_array_append_new(list, objective);
        }
    }
    set_crossing(o, &a->slo->all);
    json_object_set_new(o, "objectives", list);
    json_object_set_new(o, "decided", answers_search_decided(a));
    return o;
}

/* --- concurrency ------------------------------------------------------------------------------ */

static double running_mean(const struct answers *a, size_t i)
{
    const json_t *step = json_array_get(a->steps, i);
    return value_get(json_object_get(json_object_get(step, "queue"), "running"), "mean");
}

/* Mean running requests per replica at a rate, between the two steps around it. */
static double running_at(const struct answers *a, double rate_rps)
{
    double below = STATS_NONE, above = STATS_NONE, x0 = 0, x1 = STATS_INF;
    for (size_t i = 0; i < a->n_steps; i++) {
        double x = a->info[i].rate_rps, y = running_mean(a, i);
        if (a->measure[i].closed_loop || isnan(y)) {
            continue;
        }
        if (x <= rate_rps && x >= x0) {
            x0 = x;
            below = y;
        } else if (x > rate_rps && x < x1) {
            x1 = x;
            above = y;
        }
    }
    return below + (rate_rps - x0) / (x1 - x0) * (above - below);
}

json_t *answers_concurrency(const struct answers *a)
{
    double running = running_at(a, a->saturation.rate_rps.value);
    double replicas = value_get(a->meta.target, "replicas");
    return answers_search_concurrency(a, 2 * replicas * round(running));
}

/* --- cost ------------------------------------------------------------------------------------- */

/* Accelerators that the target uses; 0 where it computes on CPUs or is not hosted here. */
static int64_t accelerators(const json_t *target)
{
    const json_t *stated = json_object_get(target, "accelerators");
    if (json_is_integer(stated) && json_integer_value(stated) >= 0) {
        return json_integer_value(stated);
    }
    const char *backend = json_string_value(json_object_get(target, "backend"));
    if (!backend || strcmp(backend, "cpu") == 0) {
        return 0;
    }
    double n =
        value_get(target, "replicas") * value_get(target, "pipeline") * value_get(target, "tensor");
    return n > 0 && n < 1e9 ? (int64_t)n : 0;
}

bool answers_want_price(const struct answers *a)
{
    return a->cfg->cost.instance && a->cfg->cost.instance[0] != '\0';
}

static int count_instances(struct answers *a, struct err *e)
{
    return cost_instances(accelerators(a->meta.target), a->price->accel_count, &a->instances, e);
}

/* The answers of a file must not hang on its price: one that is missing or unfit is no price. */
static void take_kept_price(struct answers *a)
{
    struct err why;
    const json_t *kept = json_object_get(a->meta.provenance, "price");
    if (kept && prices_undump(&a->prices, kept, "meta/provenance: price", &why) == 0) {
        a->price = &a->prices.rows[0];
        a->price = count_instances(a, &why) ? NULL : a->price;
    }
}

int answers_price(struct answers *a, struct err *e)
{
    if (!answers_want_price(a)) {
        return 0;
    }
    if (!a->cfg->reprice) {
        take_kept_price(a);
        return 0;
    }
    return prices_pick(&a->prices, &a->cfg->cost, &a->price, e) || count_instances(a, e) ? -1 : 0;
}

static struct stats_interval scaled(struct stats_interval v, double by)
{
    return (struct stats_interval){v.value * by, v.lo * by, v.hi * by};
}

static json_t *cost_at(const struct answers *a, struct stats_interval input,
                       struct stats_interval output)
{
    struct cost_split_interval c = {
        {STATS_NONE, STATS_NONE, STATS_NONE},
        {STATS_NONE, STATS_NONE, STATS_NONE},
    };
    if (a->price) {
        c = cost_split_interval(cost_usd_per_s(a->instances, a->price->usd_per_hour), input, output,
                                a->cfg->cost.output_to_input_ratio);
    }
    json_t *o = json_object();
    value_set(o, "input_tokens_per_s", input.value);
    value_set(o, "output_tokens_per_s", output.value);
    json_object_set_new(o, "usd_per_m_input", value_interval(c.usd_per_m_input));
    json_object_set_new(o, "usd_per_m_output", value_interval(c.usd_per_m_output));
    return o;
}

static double at_most(double rate, double limit)
{
    return isnan(rate) ? rate : fmin(rate, limit); // no limit known: fmin leaves the rate
}

/* The SLO rate as far as it can be served for long: no rate above saturation is. */
static struct stats_interval served_slo_rate(const struct answers *a)
{
    struct stats_interval slo = a->slo->all.rate_rps, sat = a->saturation.rate_rps;
    return (struct stats_interval){at_most(slo.value, sat.value), at_most(slo.lo, sat.lo),
                                   at_most(slo.hi, sat.hi)};
}

static json_t *cost_by_step(const struct answers *a)
{
    json_t *list = json_array();
    for (size_t i = 0; a->price && i < a->n_steps; i++) {
        const struct measure *m = &a->measure[i];
        json_t *o = cost_at(a, measure_rate_interval(m, m->served_in),
                            measure_rate_interval(m, m->served_out));
        json_object_set_new(o, "index", json_integer(a->info[i].index));
        value_set(o, "rate_rps", a->info[i].rate_rps);
        json_array_append_new(list, o);
    }
    return list;
}

static void set_price(json_t *o, const struct answers *a)
{
    const struct price *p = a->price;
    value_set(o, "usd_per_hour", p ? p->usd_per_hour : STATS_NONE);
    json_object_set_new(o, "instances", p ? json_integer(a->instances) : json_null());
    json_object_set_new(o, "instance_type", p ? json_string(p->instance_type) : json_null());
    json_object_set_new(o, "region", p ? json_string(p->region) : json_null());
    json_object_set_new(o, "pricing_model", p ? json_string(p->pricing_model) : json_null());
    json_object_set_new(o, "as_of", p ? json_string(p->as_of) : json_null());
    json_object_set_new(
        o, "age_days", p ? json_integer(prices_age_days(p, a->meta.created_unix_ns)) : json_null());
    json_object_set_new(o, "source_url", p ? json_string(p->source_url) : json_null());
    json_object_set_new(o, "example", p ? json_boolean(prices_is_example(p)) : json_null());
    value_set(o, "output_to_input_ratio", p ? a->cfg->cost.output_to_input_ratio : STATS_NONE);
}

json_t *answers_cost(const struct answers *a)
{
    const struct fit_result *f = &a->saturation.fit;
    struct stats_interval at_slo = served_slo_rate(a);
    struct stats_interval peak = a->saturation.output_tokens_per_s;
    json_t *o = json_object();
    set_price(o, a);
    json_object_set_new(o, "at_saturation",
                        cost_at(a, scaled(peak, f->in_per_request / f->out_per_request), peak));
    json_object_set_new(o, "at_slo",
                        cost_at(a, scaled(at_slo, f->stick.slope * f->in_per_request),
                                scaled(at_slo, f->stick.slope * f->out_per_request)));
    json_object_set_new(o, "by_step", cost_by_step(a));
    return o;
}
