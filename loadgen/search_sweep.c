#include "loadgen/search_sweep.h"

#include "core/err.h"

#include <math.h>

#define OVERLOADED_STEPS 2
#define BURST            0.95 // served of offered: the bracket's lower end may have queued so little
#define NEAR             0.04 // of a rate: as good as measured

/* A queue that grew in a burst, while nearly everything offered was served. */
static bool kept_up(const struct search_result *r, double share)
{
    return r->output_tokens_per_s >= share * r->offered_output_tokens_per_s &&
           r->offered_output_tokens_per_s > 0.0;
}

/* Too short to be judged, and most of what was offered was not served. */
static bool fell_behind(const struct search_result *r)
{
    return r->verdict == VERDICT_TOO_SHORT && r->offered_output_tokens_per_s > 0.0 &&
           !kept_up(r, SEARCH_KEPT_UP);
}

/* --- the sweep -------------------------------------------------------------------------------------- */

static int over_after(int n_over, const struct search_result *r)
{
    if (r->verdict == VERDICT_STABLE) {
        return 0;
    }
    bool says_nothing = r->verdict == VERDICT_TOO_SHORT ||
                        (r->verdict == VERDICT_UNSTABLE && kept_up(r, SEARCH_KEPT_UP));
    return says_nothing ? n_over : n_over + 1;
}

struct sweep {
    int64_t n;                // rates done
    int n_over;               // the last so many that say something were overloaded
    double low_rps, high_rps; // the last rate that was good and the first bad one after it; 0: none
};

/* Queued for more than a burst, or worse. */
static bool is_bad(const struct search_result *r)
{
    return fell_behind(r) ||
           (search_is_over(r) && (r->verdict != VERDICT_UNSTABLE || !kept_up(r, BURST)));
}

static struct sweep sweep_so_far(const struct search *s)
{
    struct sweep w = {0};
    for (size_t i = 0; i < search_first_pass(s); i++) {
        const struct search_past *p = &s->past[i];
        if (p->step.kind != STEP_SWEEP) {
            continue;
        }
        w.n_over = over_after(w.n_over, &p->result);
        w.n++;
        if (!is_bad(&p->result)) {
            w.low_rps = p->step.rate_rps;
            w.high_rps = 0.0;
        } else if (w.high_rps <= 0.0) {
            w.high_rps = p->step.rate_rps;
        }
    }
    return w;
}

static int64_t most_rates(const struct search *s)
{
    return s->cfg->rates_list.n > 0 ? (int64_t)s->cfg->rates_list.n : s->cfg->rates_max_steps;
}

static bool is_refined(const struct search *s)
{
    return s->cfg->rates_list.n == 0 && s->cfg->rates_until == LOAD_UNTIL_SATURATED;
}

static bool is_saturated(const struct search *s, const struct sweep *w)
{
    return is_refined(s) && w->n_over >= OVERLOADED_STEPS;
}

static double next_rate(const struct search *s, int64_t n)
{
    return s->cfg->rates_list.n > 0 ? s->cfg->rates_list.v[n]
                                    : search_start_rps(s) * pow(s->cfg->rates_factor, (double)n);
}

/* --- what refines it -------------------------------------------------------------------------------- */

struct bracket {
    double low_rps, high_rps;
};

static bool is_high(const struct search_result *r)
{
    return search_is_over(r) || fell_behind(r);
}

static struct bracket bracket_so_far(const struct search *s, const struct sweep *w)
{
    struct bracket b = {w->low_rps, w->high_rps};
    for (size_t i = 0; i < search_first_pass(s); i++) {
        const struct search_past *p = &s->past[i];
        if (p->step.kind == STEP_BISECT) {
            *(is_high(&p->result) ? &b.high_rps : &b.low_rps) = p->step.rate_rps;
        }
    }
    return b;
}

static bool is_measured(const struct search *s, double rate_rps)
{
    for (size_t i = 0; i < search_first_pass(s); i++) {
        if (fabs(s->past[i].step.rate_rps - rate_rps) <= NEAR * rate_rps) {
            return true;
        }
    }
    return false;
}

static double fill_rate(const struct search *s, const struct bracket *b)
{
    double knee_rps = 0.5 * (b->low_rps + b->high_rps);
    for (size_t i = 0; b->low_rps > 0.0 && i < s->cfg->rates_fill.n; i++) {
        double rate_rps = s->cfg->rates_fill.v[i] * knee_rps;
        if (rate_rps > 0.0 && !is_measured(s, rate_rps)) {
            return rate_rps;
        }
    }
    return 0.0;
}

static bool is_stable(const struct search_result *r)
{
    return r->verdict == VERDICT_STABLE;
}

static bool refine(const struct search *s, const struct sweep *w, struct search_step *out)
{
    if (is_saturated(s, w)) {
        struct bracket b = bracket_so_far(s, w);
        double mid_rps = search_between(s, b.low_rps, b.high_rps);
        double fill_rps = mid_rps > 0.0 ? 0.0 : fill_rate(s, &b);
        if (mid_rps > 0.0 || fill_rps > 0.0) {
            *out = mid_rps > 0.0 ? search_step_at(s, STEP_BISECT, mid_rps)
                                 : search_step_at(s, STEP_FILL, fill_rps);
            return true;
        }
    }
    return search_revisit(s, is_stable, out);
}

/* --- the part --------------------------------------------------------------------------------------- */

bool search_sweep_next(const struct search *s, struct search_step *out)
{
    struct sweep w = sweep_so_far(s);
    if (w.n < most_rates(s) && !is_saturated(s, &w)) {
        *out = search_step_at(s, STEP_SWEEP, next_rate(s, w.n));
        return true;
    }
    return is_refined(s) && refine(s, &w, out);
}

const char *search_sweep_ending(const struct search *s)
{
    struct sweep w = sweep_so_far(s);
    if (is_saturated(s, &w)) {
        return "two overloaded steps in a row";
    }
    return s->cfg->rates_list.n > 0 ? "all rates of the list are done"
                                    : "load.rates.max_steps is reached";
}

int64_t search_sweep_most(const struct search *s)
{
    int64_t n = most_rates(s);
    if (!is_refined(s)) {
        return n;
    }
    for (size_t i = 0; i < s->cfg->rates_fill.n; i++) {
        n += s->cfg->rates_fill.v[i] > 0.0;
    }
    return n + search_most_between(s) + s->cfg->rates_revisit;
}
