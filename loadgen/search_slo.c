#include "loadgen/search_slo.h"

#include "core/err.h"

#include <math.h>

#define MISSED_RATES 2

/* All steps at one rate. */
struct probe {
    enum step_kind kind; // of the first of them
    double rate_rps;
    int64_t n_steps;
    bool is_met, is_decided, is_of_client; // the last: the client could offer no more
};

static bool is_met(const struct search_result *r)
{
    return r->slo == SEARCH_MET && !search_is_over(r);
}

static bool is_decided(const struct search_result *r)
{
    return r->slo != SEARCH_UNDECIDED || search_is_over(r);
}

/* The rate that began at past[*i]; *i moves behind its steps. */
static struct probe take_probe(const struct search *s, size_t *i)
{
    const struct search_past *p = &s->past[*i];
    struct probe probe = {.kind = p->step.kind, .rate_rps = p->step.rate_rps};
    do {
        p = &s->past[(*i)++];
        probe.is_met = is_met(&p->result);
        probe.is_of_client = p->result.verdict == VERDICT_CLIENT_LIMITED;
        probe.is_decided = is_decided(&p->result) || probe.n_steps >= s->cfg->rates_extend;
        probe.n_steps++;
    } while (!probe.is_decided && *i < search_first_pass(s));
    return probe;
}

struct state {
    struct probe last;
    int64_t n_swept, n_down; // rates of the sweep; rates below its first
    int n_missed;            // the last so many of the sweep missed
    double met_rps, missed_rps;
};

/* A rate met above a missed one takes the miss back: only those above it bracket. */
static void note_sweep(struct state *st, const struct probe *p)
{
    st->n_swept++;
    st->n_missed = p->is_met ? 0 : st->n_missed + 1;
    if (p->is_met) {
        st->met_rps = p->rate_rps;
        st->missed_rps = 0.0;
    } else if (st->n_missed == 1) {
        st->missed_rps = p->rate_rps;
    }
}

static struct state state_so_far(const struct search *s)
{
    struct state st = {.last = {.is_decided = true}};
    for (size_t i = 0; i < search_first_pass(s);) {
        if (s->past[i].step.kind == STEP_BASE) {
            i++;
            continue;
        }
        struct probe p = st.last = take_probe(s, &i);
        if (p.kind == STEP_SWEEP) {
            note_sweep(&st, &p);
        } else if (p.kind == STEP_BISECT) {
            st.n_down += st.met_rps <= 0.0;
            *(p.is_met ? &st.met_rps : &st.missed_rps) = p.rate_rps;
        }
    }
    return st;
}

static bool sweep(const struct search *s, const struct state *st, struct search_step *out)
{
    double rate_rps = search_start_rps(s) * pow(s->cfg->rates_factor, (double)st->n_swept);
    *out = search_step_at(s, STEP_SWEEP, rate_rps);
    return st->n_missed < MISSED_RATES && st->n_swept < s->cfg->rates_max_steps;
}

static bool go_down(const struct search *s, const struct state *st, struct search_step *out)
{
    *out = search_step_at(s, STEP_BISECT, st->missed_rps / s->cfg->rates_factor);
    return st->met_rps <= 0.0 && st->missed_rps > 0.0 && st->n_down < s->cfg->rates_max_steps;
}

static bool bisect(const struct search *s, const struct state *st, struct search_step *out)
{
    double mid_rps = search_between(s, st->met_rps, st->missed_rps);
    *out = search_step_at(s, STEP_BISECT, mid_rps);
    return mid_rps > 0.0;
}

static bool extend(const struct search *s, const struct state *st, struct search_step *out)
{
    *out = search_step_at(s, STEP_REVISIT, st->last.rate_rps);
    out->duration_ns <<= st->last.n_steps;
    return !st->last.is_decided;
}

/* Whether the client ended the search; the drift's step is behind it. */
static bool is_of_client(const struct state *st)
{
    return st->last.is_of_client && st->last.kind != STEP_REVISIT;
}

bool search_slo_next(const struct search *s, struct search_step *out)
{
    struct state st = state_so_far(s);
    if (is_of_client(&st)) {
        return false;
    }
    if (extend(s, &st, out)) {
        return true;
    }
    bool is_ending = st.last.kind == STEP_REVISIT; // the drift's
    return !is_ending && (sweep(s, &st, out) || go_down(s, &st, out) || bisect(s, &st, out) ||
                          search_revisit(s, is_met, out));
}

const char *search_slo_ending(const struct search *s)
{
    struct state st = state_so_far(s);
    if (is_of_client(&st)) {
        return "the client, not the target, was the limit";
    }
    if (st.met_rps <= 0.0) {
        return "no rate met the objectives";
    }
    return st.missed_rps > 0.0 ? "the objectives hold up to a rate between the last two"
                               : "load.rates.max_steps is reached, and the objectives still hold";
}

int64_t search_slo_most(const struct search *s)
{
    int64_t n_rates = s->cfg->rates_max_steps + search_most_between(s);
    return n_rates * (1 + s->cfg->rates_extend) + s->cfg->rates_revisit;
}
