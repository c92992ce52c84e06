#include "loadgen/search.h"

#include "core/clock.h"
#include "core/err.h"
#include "core/mem.h"
#include "loadgen/search_ladder.h"
#include "loadgen/search_slo.h"
#include "loadgen/search_sweep.h"

#include <math.h>
#include <stdlib.h>

enum mode {
    MODE_SWEEP,
    MODE_SLO,
    MODE_LADDER,
    MODE_ONE_STEP, // trace, closed loop
};

static enum mode mode_of(const struct load_config *c)
{
    if (load_is_ladder(c)) {
        return MODE_LADDER;
    }
    if (!load_has_rate(c)) {
        return MODE_ONE_STEP;
    }
    return c->rates_slo ? MODE_SLO : MODE_SWEEP;
}

static bool wants_probe(const struct search *s)
{
    enum mode m = mode_of(s->cfg);
    return (m == MODE_SWEEP || m == MODE_SLO) && s->cfg->rates_list.n == 0 &&
           load_start_rps(s->cfg) <= 0.0;
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
    };
}

void search_free(struct search *s)
{
    free(s->past);
    *s = (struct search){0};
}

size_t search_first_pass(const struct search *s)
{
    return s->n_first > 0 ? s->n_first : s->n_past;
}

/* --- rates ---------------------------------------------------------------------------------------- */

/* Three significant digits: a rate that people can repeat. */
static double round_rate(double rps)
{
    double unit = pow(10.0, floor(log10(rps)) - 2.0);
    return unit < 1.0 ? round(rps / unit) / round(1.0 / unit) : round(rps / unit) * unit;
}

double search_start_rps(const struct search *s)
{
    if (!wants_probe(s)) {
        return load_start_rps(s->cfg);
    }
    const struct search_result *r = &s->past[0].result;
    double probe_rps = r->output_tokens_per_s / r->output_tokens_per_request;
    return isfinite(probe_rps) && probe_rps > 0.0 ? round_rate(SEARCH_PROBE_SHARE * probe_rps)
                                                  : 0.0;
}

double search_between(const struct search *s, double low_rps, double high_rps)
{
    double width = s->cfg->rates_bisect;
    if (width <= 0.0 || low_rps <= 0.0 || high_rps <= low_rps * (1.0 + width)) {
        return 0.0;
    }
    double mid = round_rate(sqrt(low_rps * high_rps));
    return mid > low_rps && mid < high_rps ? mid : 0.0;
}

int64_t search_most_between(const struct search *s)
{
    double width = s->cfg->rates_bisect;
    double halvings = width > 0.0 ? log2(log(s->cfg->rates_factor) / log1p(width)) : 0.0;
    return halvings > 0.0 ? (int64_t)ceil(halvings) + 1 : 0; // one more for what rounding leaves
}

struct search_step search_step_at(const struct search *s, enum step_kind kind, double rate_rps)
{
    return (struct search_step){
        .kind = kind,
        .rate_rps = rate_rps,
        .duration_ns = s->cfg->step_ns,
        .may_stop =
            s->cfg->rates_stop_early && s->cfg->rates_list.n == 0 && s->cfg->ramp.kind == RAMP_NONE,
    };
}

bool search_is_over(const struct search_result *r)
{
    return r->verdict == VERDICT_UNSTABLE || r->verdict == VERDICT_ERRORS ||
           r->verdict == VERDICT_CLIENT_LIMITED;
}

bool search_revisit(const struct search *s, bool (*is_good)(const struct search_result *r),
                    struct search_step *out)
{
    const struct search_past *last = s->n_past > 0 ? &s->past[s->n_past - 1] : NULL;
    double lowest_rps = INFINITY;
    if (!s->cfg->rates_revisit || !last || s->n_past < 3) {
        return false;
    }
    for (size_t i = 0; i < s->n_past; i++) {
        const struct search_past *p = &s->past[i];
        if (p->step.kind == STEP_SWEEP && is_good(&p->result)) {
            lowest_rps = fmin(lowest_rps, p->step.rate_rps);
        }
    }
    bool is_done = last->step.kind == STEP_REVISIT && last->step.rate_rps == lowest_rps;
    if (isinf(lowest_rps) || is_done) {
        return false;
    }
    *out = search_step_at(s, STEP_REVISIT, lowest_rps);
    return true;
}

/* --- the first pass ------------------------------------------------------------------------------- */

static bool one_step(const struct search *s, struct search_step *out)
{
    bool is_trace = s->cfg->arrival == LOAD_TRACE;
    *out = (struct search_step){
        .kind = is_trace ? STEP_SWEEP : STEP_BASE,
        .rate_rps = is_trace ? s->trace_rps : 0.0,
        .users = is_trace ? 0 : s->users,
        .duration_ns = is_trace ? s->trace_ns : s->cfg->step_ns,
    };
    return s->n_past == 0;
}

static bool probe(const struct search *s, struct search_step *out)
{
    *out =
        (struct search_step){.kind = STEP_BASE, .users = s->users, .duration_ns = s->cfg->probe_ns};
    return true;
}

static bool has_failed_probe(const struct search *s)
{
    return wants_probe(s) && s->n_past > 0 && search_start_rps(s) <= 0.0;
}

static bool first_pass(const struct search *s, struct search_step *out)
{
    if (wants_probe(s) && s->n_past == 0) {
        return probe(s, out);
    }
    if (has_failed_probe(s)) {
        return false;
    }
    switch (mode_of(s->cfg)) {
    case MODE_SWEEP:
        return search_sweep_next(s, out);
    case MODE_SLO:
        return search_slo_next(s, out);
    case MODE_LADDER:
        return search_ladder_next(s, out);
    case MODE_ONE_STEP:
        break;
    }
    return one_step(s, out);
}

/* --- all passes ----------------------------------------------------------------------------------- */

/* The same steps once more; the probe has said what it was for. */
static bool next_pass(const struct search *s, struct search_step *out)
{
    size_t n_probes = wants_probe(s) ? 1 : 0, n = s->n_first - n_probes;
    if (n == 0) {
        return false;
    }
    size_t i = s->n_past - s->n_first;
    *out = s->past[n_probes + i % n].step;
    out->repeat = 1 + (uint32_t)(i / n);
    return out->repeat < s->cfg->repeats;
}

bool search_next(const struct search *s, struct search_step *out)
{
    return s->n_first > 0 ? next_pass(s, out) : first_pass(s, out);
}

void search_report(struct search *s, const struct search_result *r)
{
    struct search_step step;
    bool is_asked = search_next(s, &step);
    CHECK(is_asked);
    if (s->n_past == s->n_allocated) {
        s->n_allocated = s->n_allocated ? 2 * s->n_allocated : 32;
        s->past = xrealloc(s->past, s->n_allocated * sizeof *s->past);
    }
    s->past[s->n_past++] = (struct search_past){.step = step, .result = *r};
    if (s->n_first == 0 && !first_pass(s, &step)) {
        s->n_first = s->n_past;
    }
}

const char *search_ending(const struct search *s)
{
    if (has_failed_probe(s)) {
        return "the probe served no output, so there is no rate to start from";
    }
    switch (mode_of(s->cfg)) {
    case MODE_SWEEP:
        return search_sweep_ending(s);
    case MODE_SLO:
        return search_slo_ending(s);
    case MODE_LADDER:
        return search_ladder_ending(s);
    case MODE_ONE_STEP:
        break;
    }
    return "its one step is done";
}

static int64_t most_of_pass(const struct search *s)
{
    switch (mode_of(s->cfg)) {
    case MODE_SWEEP:
        return search_sweep_most(s);
    case MODE_SLO:
        return search_slo_most(s);
    case MODE_LADDER:
        return search_ladder_most(s);
    case MODE_ONE_STEP:
        break;
    }
    return 1;
}

int64_t search_most_steps(const struct search *s)
{
    return wants_probe(s) + s->cfg->repeats * most_of_pass(s);
}
