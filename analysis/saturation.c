#include "analysis/saturation.h"

#include "core/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define VERDICT_NOISE 0.15  // how finely the verdict of a short step can tell a queue that grows
#define CERTAIN       0.975 // share of draws that must have a plateau
#define BELOW_X_MAX   0.98  // a corner nearer to the highest offered rate than this is no plateau
#define BLOCK_OF_P99  2.0   // block length of the bootstrap in p99 E2E
#define MAX_BLOCK     (MEASURE_BINS / 3)
#define MIN_BLOCK     MEASURE_BINS_PER_BATCH

const char *const saturation_names[SATURATION_N] = {"found", "not_reached", "first_step",
                                                    "inconclusive"};

static bool is_open_loop(const struct saturation_step *s)
{
    return !s->m->closed_loop && !s->m->recovered && s->rate_rps > 0;
}

bool saturation_uses(const struct saturation_step *s)
{
    bool transient = s->m->verdict.short_window && s->m->verdict.verdict == VERDICT_TOO_SHORT;
    return is_open_loop(s) && s->m->window_s > 0 && s->m->n_due > 0 && !transient;
}

/* --- the verdicts of single steps ------------------------------------------------------------- */

static bool is_unstable(const struct saturation_step *s)
{
    return s->m->verdict.verdict == VERDICT_UNSTABLE;
}

static bool is_stable(const struct saturation_step *s)
{
    return s->m->verdict.verdict == VERDICT_STABLE;
}

/* How many steps below (rank < k) are unstable and above stable. */
static size_t misjudged(const struct saturation_step *s, size_t n, size_t k)
{
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        wrong += i < k ? is_unstable(&s[i]) : is_stable(&s[i]);
    }
    return wrong;
}

/* Steps sorted by rate: the change with the fewest steps on the wrong side. */
static void find_change(const struct saturation_step *s, size_t n, struct saturation_check *c)
{
    c->highest_stable_rps = c->lowest_unstable_rps = c->lowest_failing_rps = STATS_NONE;
    size_t change = n;
    for (size_t k = n; k-- > 0;) {
        if (misjudged(s, n, k) < misjudged(s, n, change)) {
            change = k;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (i < change && is_stable(&s[i])) {
            c->highest_stable_rps = s[i].rate_rps;
        }
        if (i >= change && is_unstable(&s[i]) && isnan(c->lowest_unstable_rps)) {
            c->lowest_unstable_rps = s[i].rate_rps;
        }
        if (s[i].m->verdict.verdict == VERDICT_ERRORS && isnan(c->lowest_failing_rps)) {
            c->lowest_failing_rps = s[i].rate_rps;
        }
    }
    c->rate_rps = 0.5 * (c->highest_stable_rps + c->lowest_unstable_rps);
    c->grid_rps = c->lowest_unstable_rps - c->highest_stable_rps;
}

/* --- the interval ----------------------------------------------------------------------------- */

struct stats_interval saturation_interval(const struct saturation *s, double value,
                                          double (*f)(const struct fit_result *draw, const void *),
                                          const void *arg)
{
    struct stats_interval out = {value, STATS_NONE, STATS_NONE};
    double *v = xmalloc(FIT_DRAWS * sizeof *v);
    size_t n = 0;
    for (size_t i = 0; s->draws && i < FIT_DRAWS; i++) {
        double x = f(&s->draws[i], arg);
        v[n] = isnan(x) ? STATS_INF : x;
        n++;
    }
    if (n > 0) {
        stats_sort(v, n);
        out.lo = v[(size_t)(0.025 * (double)n)];
        out.hi = v[(size_t)(0.975 * (double)n) - 1];
    }
    free(v);
    out.lo = isinf(out.lo) ? STATS_NONE : out.lo;
    out.hi = isinf(out.hi) ? STATS_NONE : out.hi;
    return out;
}

static double draw_rate(const struct fit_result *d, const void *arg)
{
    (void)arg;
    return d->rate_rps;
}

static double draw_plateau(const struct fit_result *d, const void *arg)
{
    (void)arg;
    return d->stick.plateau;
}

/* Share of draws whose corner lies clearly below the highest offered rate. */
static double plateau_share(const struct saturation *s)
{
    size_t n = 0;
    for (size_t i = 0; i < FIT_DRAWS; i++) {
        const struct fit_result *d = &s->draws[i];
        n += d->stick.plateau / d->stick.slope < BELOW_X_MAX * d->x_max;
    }
    return (double)n / FIT_DRAWS;
}

/* --- the answer ------------------------------------------------------------------------------- */

static void conclude(struct saturation *s, enum saturation_verdict v, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void conclude(struct saturation *s, enum saturation_verdict v, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    s->verdict = v;
    vsnprintf(s->reason, sizeof s->reason, fmt, ap);
    va_end(ap);
}

static void answer(struct saturation *s)
{
    if (isfinite(s->fit.rate_rps)) {
        s->rate_rps = saturation_interval(s, s->fit.rate_rps, draw_rate, NULL);
        s->output_tokens_per_s = saturation_interval(s, s->fit.stick.plateau, draw_plateau, NULL);
    }
}

/* Everything is overload: the plateau is the mean served, the line below it an assumption. */
static void assume_slope_one(struct fit_result *f, const struct fit_result *line)
{
    f->stick.plateau =
        isfinite(line->stick.plateau) ? line->stick.plateau : line->stick.slope * line->x_max;
    f->stick.slope = 1;
    f->rate_rps = f->stick.plateau / f->out_per_request;
}

static void first_step(struct saturation *s)
{
    assume_slope_one(&s->fit, &s->fit);
    for (size_t i = 0; i < FIT_DRAWS; i++) {
        assume_slope_one(&s->draws[i], &s->draws[i]);
    }
    answer(s);
    conclude(s, SATURATION_FIRST_STEP,
             "the lowest rate, %.4g/s, was unstable already: start lower for a corner",
             s->check.lowest_unstable_rps);
}

static void without_unstable(struct saturation *s, double plateau)
{
    if (plateau < CERTAIN && !isnan(s->check.lowest_failing_rps)) {
        conclude(s, SATURATION_INCONCLUSIVE,
                 "requests failed from %.4g/s on, and who is turned away leaves no queue to see",
                 s->check.lowest_failing_rps);
        return;
    }
    if (plateau < CERTAIN) {
        conclude(s, SATURATION_NOT_REACHED,
                 "served follows offered up to the highest rate: raise load.rates");
        return;
    }
    answer(s);
    conclude(s, SATURATION_INCONCLUSIVE,
             "served tokens level off at %.4g/s, but no step was unstable", s->fit.stick.plateau);
}

static void with_unstable(struct saturation *s, double plateau)
{
    struct saturation_check *c = &s->check;
    c->agrees =
        fabs(s->fit.rate_rps - c->rate_rps) <= fmax(c->grid_rps, VERDICT_NOISE * c->rate_rps);
    answer(s);
    if (plateau < CERTAIN) {
        conclude(s, SATURATION_INCONCLUSIVE,
                 "unstable from %.4g/s, but served tokens do not level off with certainty "
                 "(%.0f %% of draws): add rates above it",
                 c->lowest_unstable_rps, 100 * plateau);
    } else if (!c->agrees) {
        conclude(
            s, SATURATION_INCONCLUSIVE,
            "the corner at %.4g/s is more than one grid step (and 15 %%) from the change of verdicts "
            "between %.4g and %.4g/s",
            s->fit.rate_rps, c->highest_stable_rps, c->lowest_unstable_rps);
    } else {
        conclude(s, SATURATION_FOUND, "corner and verdicts agree (change between %.4g and %.4g/s)",
                 c->highest_stable_rps, c->lowest_unstable_rps);
    }
}

static struct fit_step to_fit(const struct measure *m)
{
    double bin_ms = m->window_s * 1e3 / MEASURE_BINS;
    double bins = ceil(BLOCK_OF_P99 * m->latency[LATENCY_E2E].p99 / bin_ms);
    bins = isnan(bins) ? MAX_BLOCK : fmin(fmax(bins, MIN_BLOCK), MAX_BLOCK);
    return (struct fit_step){
        .due = m->due,
        .due_in = m->due_in,
        .due_out = m->due_out,
        .served_out = m->served_out,
        .n_bins = MEASURE_BINS,
        .block_bins = (size_t)bins,
        .window_s = m->window_s,
        .n_requests = m->n_requests,
        .tokens_in = m->tokens_in,
        .tokens_out = m->tokens_out,
    };
}

static int by_rate(const void *a, const void *b)
{
    double x = ((const struct saturation_step *)a)->rate_rps;
    double y = ((const struct saturation_step *)b)->rate_rps;
    return (x > y) - (x < y);
}

static void decide(struct saturation *out)
{
    double plateau = plateau_share(out);
    const struct saturation_check *c = &out->check;
    if (isnan(c->lowest_unstable_rps)) {
        without_unstable(out, plateau);
    } else if (c->lowest_unstable_rps <= c->lowest_rps) {
        first_step(out);
    } else if (isnan(c->highest_stable_rps)) {
        answer(out);
        conclude(out, SATURATION_INCONCLUSIVE,
                 "unstable from %.4g/s, but no lower step was long enough to be called stable",
                 c->lowest_unstable_rps);
    } else {
        with_unstable(out, plateau);
    }
}

void saturation_find(const struct saturation_step *steps, size_t n, uint64_t seed,
                     struct saturation *out)
{
    *out = (struct saturation){
        .rate_rps = {STATS_NONE, STATS_NONE, STATS_NONE},
        .output_tokens_per_s = {STATS_NONE, STATS_NONE, STATS_NONE},
        .check.lowest_rps = STATS_INF,
    };
    struct saturation_step *used = xcalloc(n + 1, sizeof *used);
    struct fit_step *fit = xcalloc(n + 1, sizeof *fit);
    for (size_t i = 0; i < n; i++) {
        if (is_open_loop(&steps[i])) {
            out->check.lowest_rps = fmin(out->check.lowest_rps, steps[i].rate_rps);
        }
        if (saturation_uses(&steps[i])) {
            used[out->n_steps++] = steps[i];
        }
    }
    qsort(used, out->n_steps, sizeof *used, by_rate);
    for (size_t i = 0; i < out->n_steps; i++) {
        fit[i] = to_fit(used[i].m);
    }
    find_change(used, out->n_steps, &out->check);
    if (out->n_steps == 0) {
        conclude(out, SATURATION_INCONCLUSIVE,
                 "no open-loop step was long enough for its rates to be a steady state's");
    } else {
        out->draws = xcalloc(FIT_DRAWS, sizeof *out->draws);
        fit_steps(fit, out->n_steps, &out->fit);
        fit_bootstrap(fit, out->n_steps, seed, out->draws);
        decide(out);
    }
    free(used);
    free(fit);
}

void saturation_free(struct saturation *s)
{
    free(s->draws);
    s->draws = NULL;
}
