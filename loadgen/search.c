#include "loadgen/search.h"

#include "core/clock.h"
#include "core/err.h"

#include <math.h>

#define OVERLOADED_STEPS 2

/* Rates are start, start * factor, ... */
static bool is_geometric(const struct load_config *c)
{
    return load_has_rate(c) && c->rates_list.n == 0;
}

static bool wants_probe(const struct load_config *c)
{
    return is_geometric(c) && load_start_rps(c) <= 0.0;
}

void search_init(struct search *s, const struct load_config *cfg, int replicas, int64_t trace_ns,
                 uint64_t n_arrivals)
{
    uint32_t probe_users = SEARCH_PROBE_USERS * (uint32_t)(replicas > 0 ? replicas : 1);
    *s = (struct search){
        .cfg = cfg,
        .users = cfg->users > 0 ? (uint32_t)cfg->users : probe_users,
        .trace_ns = trace_ns,
        .trace_rps = trace_ns > 0 ? (double)n_arrivals * (double)NS_PER_S / (double)trace_ns : 0.0,
        .start_rps = load_start_rps(cfg),
    };
    s->is_probed = !wants_probe(cfg);
}

static int64_t most_rates(const struct search *s)
{
    if (s->cfg->arrival == LOAD_TRACE || s->cfg->arrival == LOAD_CLOSED) {
        return 1;
    }
    return s->cfg->rates_list.n > 0 ? (int64_t)s->cfg->rates_list.n : s->cfg->rates_max_steps;
}

static bool is_saturated(const struct search *s)
{
    return is_geometric(s->cfg) && s->cfg->rates_until == LOAD_UNTIL_SATURATED &&
           s->n_over >= OVERLOADED_STEPS;
}

static bool has_failed_probe(const struct search *s)
{
    return wants_probe(s->cfg) && s->is_probed && s->start_rps <= 0.0;
}

static double next_rps(const struct search *s)
{
    if (s->cfg->arrival == LOAD_TRACE) {
        return s->trace_rps;
    }
    if (s->cfg->rates_list.n > 0) {
        return s->cfg->rates_list.v[s->n_rates];
    }
    return s->start_rps * pow(s->cfg->rates_factor, (double)s->n_rates);
}

bool search_next(const struct search *s, struct search_step *out)
{
    if (!s->is_probed) {
        *out = (struct search_step){
            .kind = STEP_BASE, .users = s->users, .duration_ns = s->cfg->probe_ns};
        return true;
    }
    if (s->n_rates >= most_rates(s) || is_saturated(s) || has_failed_probe(s)) {
        return false;
    }
    if (s->cfg->arrival == LOAD_CLOSED) {
        *out = (struct search_step){
            .kind = STEP_BASE, .users = s->users, .duration_ns = s->cfg->step_ns};
        return true;
    }
    *out = (struct search_step){
        .kind = STEP_SWEEP,
        .rate_rps = next_rps(s),
        .duration_ns = s->cfg->arrival == LOAD_TRACE ? s->trace_ns : s->cfg->step_ns,
    };
    return true;
}

/* Three significant digits: a rate that people can repeat. */
static double round_rate(double rps)
{
    double unit = pow(10.0, floor(log10(rps)) - 2.0);
    return unit < 1.0 ? round(rps / unit) / round(1.0 / unit) : round(rps / unit) * unit;
}

static void report_probe(struct search *s, const struct search_result *r)
{
    s->is_probed = true;
    double probe_rps = r->output_tokens_per_s / r->output_tokens_per_request;
    if (isfinite(probe_rps) && probe_rps > 0.0) {
        s->start_rps = round_rate(SEARCH_PROBE_SHARE * probe_rps);
    }
}

/* A queue that grew in a burst, while nearly everything offered was served. */
static bool kept_up(const struct search_result *r)
{
    return r->output_tokens_per_s >= SEARCH_KEPT_UP * r->offered_output_tokens_per_s &&
           r->offered_output_tokens_per_s > 0.0;
}

static int over_after(int n_over, const struct search_result *r)
{
    switch (r->verdict) {
    case VERDICT_STABLE:
        return 0;
    case VERDICT_TOO_SHORT:
        return n_over;
    case VERDICT_UNSTABLE:
        return kept_up(r) ? n_over : n_over + 1;
    case VERDICT_ERRORS:
    case VERDICT_CLIENT_LIMITED:
        return n_over + 1;
    case VERDICT_N:
        break;
    }
    CHECK(!"a verdict");
    return 0;
}

void search_report(struct search *s, const struct search_result *r)
{
    if (!s->is_probed && r->kind == STEP_BASE) {
        report_probe(s, r);
        return;
    }
    s->n_rates++;
    s->n_over = over_after(s->n_over, r);
}

const char *search_ending(const struct search *s)
{
    if (has_failed_probe(s)) {
        return "the probe served no output, so there is no rate to start from";
    }
    if (is_saturated(s)) {
        return "two overloaded steps in a row";
    }
    if (s->cfg->rates_list.n > 0) {
        return "all rates of the list are done";
    }
    return most_rates(s) == 1 ? "its one step is done" : "load.rates.max_steps is reached";
}

int64_t search_most_steps(const struct search *s)
{
    return most_rates(s) + wants_probe(s->cfg);
}
