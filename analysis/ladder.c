#include "analysis/ladder.h"

#include "analysis/repeats.h"
#include "core/mem.h"
#include "core/rng.h"

#include <math.h>
#include <stdlib.h>

/* --- rungs --------------------------------------------------------------------------------------- */

bool ladder_uses(const struct step_info *info, const struct measure *m)
{
    return info->users > 0 && info->rate_rps <= 0 && !m->recovered;
}

static bool is_rung(const struct step_info *i, const struct measure *m)
{
    return ladder_uses(i, m) && m->n_ok > 0;
}

/* All steps of one size, over passes. */
struct same {
    const struct measure **m;       // (n)
    struct stats_interval *through; // (n)
    struct slo_sample *slo;         // (n)
    size_t n;
};

static struct same gather(const struct step_info *info, const struct measure *m, size_t n,
                          uint32_t users)
{
    struct same s = {.m = xcalloc(n, sizeof *s.m),
                     .through = xcalloc(n, sizeof *s.through),
                     .slo = xcalloc(n, sizeof *s.slo)};
    for (size_t i = 0; i < n; i++) {
        if (is_rung(&info[i], &m[i]) && info[i].users == users) {
            s.m[s.n] = &m[i];
            s.through[s.n] = measure_rate_interval(&m[i], m[i].served_out);
            s.slo[s.n++] = slo_decision_sample(&m[i]);
        }
    }
    return s;
}

static struct ladder_rung make_rung(const struct same *s, uint32_t users, double quantile)
{
    struct ladder_rung r = {.users = users, .n_steps = s->n};
    r.output_tokens_per_s = repeats_mean(s->through, s->n).of;
    for (size_t i = 0; i < s->n; i++) {
        double part = 1 / (double)s->n;
        enum verdict v = s->m[i]->verdict.verdict;
        r.verdict = v > r.verdict ? v : r.verdict; // in the order of record.h
        r.requests_per_s += part * measure_rate(s->m[i], s->m[i]->done);
        r.e2e_mean_s += part * s->m[i]->latency[LATENCY_E2E].mean * 1e-3;
        r.ttft_p50_ms += part * s->m[i]->latency[LATENCY_TTFT].p50;
    }
    r.little = r.requests_per_s * r.e2e_mean_s / users;
    slo_decision(s->slo, s->n, quantile, &r.slo);
    return r;
}

/* The next size above `users` that was run; 0: none. */
static uint32_t size_above(const struct step_info *info, const struct measure *m, size_t n,
                           uint32_t users)
{
    uint32_t next = 0;
    for (size_t i = 0; i < n; i++) {
        if (is_rung(&info[i], &m[i]) && info[i].users > users &&
            (next == 0 || info[i].users < next)) {
            next = info[i].users;
        }
    }
    return next;
}

/* --- the best ------------------------------------------------------------------------------------- */

static bool is_sound(const struct ladder *l, size_t i)
{
    return l->rungs[i].verdict <= (l->is_short ? VERDICT_TOO_SHORT : VERDICT_STABLE);
}

/* Position of the best one that is sound; n: none meets. */
static size_t choose(const struct ladder *l, const double *through, const bool *meets)
{
    double most = 0;
    for (size_t i = 0; i < l->n; i++) {
        most = meets[i] && is_sound(l, i) ? fmax(most, through[i]) : most;
    }
    for (size_t i = 0; i < l->n; i++) {
        if (meets[i] && is_sound(l, i) && through[i] >= LADDER_ENOUGH * most) {
            return i;
        }
    }
    return l->n;
}

static double normal(uint64_t seed, uint64_t a, uint64_t b)
{
    double u = rng_uniform(seed, RNG_BOOTSTRAP, a, 2 * b);
    double v = rng_uniform(seed, RNG_BOOTSTRAP, a, 2 * b + 1);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

/* v moved by z standard errors. */
static double moved(const struct stats_interval *v, double z)
{
    double se = (v->hi - v->lo) / (2 * STATS_Z95);
    return isfinite(se) ? v->value + z * se : v->value;
}

static void find_interval(struct ladder *l, double quantile, uint64_t seed)
{
    double *best = xcalloc(LADDER_DRAWS, sizeof *best);
    double *through = xcalloc(l->n, sizeof *through);
    bool *meets = xcalloc(l->n, sizeof *meets);
    size_t n = 0;
    for (uint64_t d = 0; d < LADDER_DRAWS; d++) {
        for (size_t i = 0; i < l->n; i++) {
            const struct ladder_rung *r = &l->rungs[i];
            through[i] = moved(&r->output_tokens_per_s, normal(seed, d, 2 * i));
            double share = moved(&r->slo.share, normal(seed, d, 2 * i + 1));
            meets[i] = isnan(share) ? r->slo.meets : share >= quantile;
        }
        size_t at = choose(l, through, meets);
        if (at < l->n) {
            best[n++] = l->rungs[at].users;
        }
    }
    stats_sort(best, n);
    if (n > 0) {
        l->lo95 = best[(size_t)(0.025 * (double)n)];
        l->hi95 = best[(size_t)ceil(0.975 * (double)n) - 1];
    }
    free(best);
    free(through);
    free(meets);
}

static void find_best(struct ladder *l)
{
    double *through = xcalloc(l->n, sizeof *through);
    bool *meets = xcalloc(l->n, sizeof *meets);
    for (size_t i = 0; i < l->n; i++) {
        through[i] = l->rungs[i].output_tokens_per_s.value;
        meets[i] = l->rungs[i].slo.meets;
    }
    l->best = choose(l, through, meets);
    if (l->best == l->n) {
        l->is_short = true;
        l->best = choose(l, through, meets);
    }
    free(through);
    free(meets);
}

void ladder_find(const struct step_info *info, const struct measure *m, size_t n, double quantile,
                 uint64_t seed, struct ladder *out)
{
    *out = (struct ladder){.lo95 = STATS_NONE, .hi95 = STATS_NONE};
    uint32_t users = size_above(info, m, n, 0);
    if (users == 0 || size_above(info, m, n, users) == 0) {
        return;
    }
    out->rungs = xcalloc(n, sizeof *out->rungs);
    for (; users > 0; users = size_above(info, m, n, users)) {
        struct same s = gather(info, m, n, users);
        out->rungs[out->n++] = make_rung(&s, users, quantile);
        free(s.m);
        free(s.through);
        free(s.slo);
    }
    find_best(out);
    if (out->best < out->n) {
        find_interval(out, quantile, seed);
    }
}

void ladder_free(struct ladder *l)
{
    free(l->rungs);
    *l = (struct ladder){0};
}
