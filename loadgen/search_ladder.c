#include "loadgen/search_ladder.h"

#include "core/err.h"

#include <math.h>

#define FLAT_RUNGS 2
#define GAIN       (1.0 / SEARCH_ENOUGH)
#define APART      1.15
#define MOST_REFINED                                                                               \
    8 // rungs between the doublings, both sides: log2(log(2) / log(1.15)) each, and luck

static uint32_t most_users(const struct search *s)
{
    double most = (double)s->cfg->ranks * (double)s->cfg->max_in_flight;
    return (uint32_t)fmin(most, 1 << 20);
}

/* A target that refuses, or a client at its limit, says nothing for more users. */
static bool can_be_best(const struct search_result *r)
{
    return r->meets && !search_is_over(r);
}

struct climb {
    uint32_t users;       // of the last doubling, 0: none yet
    double best;          // output tokens/s of the doublings so far
    int n_flat;           // the last so many doublings added nothing
    int n_missed;         // the last so many missed the objectives, or were over
    int n_refined;        // rungs between doublings
    enum verdict verdict; // of the last doubling
};

static struct climb climb_so_far(const struct search *s)
{
    struct climb c = {0};
    for (size_t i = 0; i < search_first_pass(s); i++) {
        const struct search_past *p = &s->past[i];
        if (p->step.users <= c.users) { // doublings rise, what refines them lies between
            c.n_refined++;
            continue;
        }
        double x = search_is_over(&p->result) ? 0.0 : p->result.output_tokens_per_s;
        c.verdict = p->result.verdict;
        c.users = p->step.users;
        c.n_flat = x > GAIN * c.best ? 0 : c.n_flat + 1;
        c.n_missed = can_be_best(&p->result) ? 0 : c.n_missed + 1;
        c.best = fmax(c.best, x);
    }
    return c;
}

static bool is_climbing(const struct search *s, const struct climb *c)
{
    bool has_room = 2 * (uint64_t)c->users <= most_users(s);
    return c->n_flat < FLAT_RUNGS && c->n_missed < FLAT_RUNGS && has_room;
}

/* Between two rungs, or 0 when they are near enough. */
static uint32_t between(uint32_t low, uint32_t high)
{
    if (low == 0 || high <= low + 1 || high < APART * low) {
        return 0;
    }
    uint32_t mid = (uint32_t)lround(sqrt((double)low * high));
    return mid > low && mid < high ? mid : 0;
}

/* The highest rung that meets the objectives, the lowest above it; 0: none. */
static void edge_of_meeting(const struct search *s, uint32_t *low, uint32_t *high)
{
    *low = *high = 0;
    for (size_t i = 0; i < search_first_pass(s); i++) {
        const struct search_past *p = &s->past[i];
        *low = can_be_best(&p->result) && p->step.users > *low ? p->step.users : *low;
    }
    for (size_t i = 0; i < search_first_pass(s); i++) {
        uint32_t users = s->past[i].step.users;
        *high = users > *low && (*high == 0 || users < *high) ? users : *high;
    }
    *high = *low == 0 ? 0 : *high;
}

/* The lowest rung that meets the objectives with enough of the highest throughput, the one below. */
static void edge_of_throughput(const struct search *s, uint32_t *low, uint32_t *high)
{
    double best = 0.0;
    *low = *high = 0;
    for (size_t i = 0; i < search_first_pass(s); i++) {
        const struct search_result *r = &s->past[i].result;
        best = can_be_best(r) ? fmax(best, r->output_tokens_per_s) : best;
    }
    for (size_t i = 0; i < search_first_pass(s); i++) {
        const struct search_past *p = &s->past[i];
        bool has_enough =
            can_be_best(&p->result) && p->result.output_tokens_per_s >= SEARCH_ENOUGH * best;
        *high = has_enough && (*high == 0 || p->step.users < *high) ? p->step.users : *high;
    }
    for (size_t i = 0; i < search_first_pass(s); i++) {
        uint32_t users = s->past[i].step.users;
        *low = users < *high && users > *low ? users : *low;
    }
}

static struct search_step rung(const struct search *s, uint32_t users)
{
    return (struct search_step){.kind = STEP_BASE, .users = users, .duration_ns = s->cfg->step_ns};
}

static bool list_next(const struct search *s, struct search_step *out)
{
    if (s->n_past >= s->cfg->concurrency_list.n) {
        return false;
    }
    *out = rung(s, (uint32_t)s->cfg->concurrency_list.v[s->n_past]);
    return true;
}

bool search_ladder_next(const struct search *s, struct search_step *out)
{
    if (s->cfg->concurrency_list.n > 0) {
        return list_next(s, out);
    }
    struct climb c = climb_so_far(s);
    if (c.n_refined == 0 && is_climbing(s, &c)) {
        *out = rung(s, c.users ? 2 * c.users : 1);
        return true;
    }
    uint32_t low, high, mid;
    edge_of_meeting(s, &low, &high);
    mid = between(low, high);
    if (mid == 0) {
        edge_of_throughput(s, &low, &high);
        mid = between(low, high);
    }
    *out = rung(s, mid);
    return mid > 0 && c.n_refined < MOST_REFINED;
}

const char *search_ladder_ending(const struct search *s)
{
    if (s->cfg->concurrency_list.n > 0) {
        return "all rungs of the list are done";
    }
    struct climb c = climb_so_far(s);
    if (c.n_missed >= FLAT_RUNGS && c.verdict == VERDICT_CLIENT_LIMITED) {
        return "the client, not the target, was the limit";
    }
    if (c.n_missed >= FLAT_RUNGS && c.verdict == VERDICT_ERRORS) {
        return "requests fail above the best limit";
    }
    if (c.n_missed >= FLAT_RUNGS) {
        return "the objectives are missed above the best limit";
    }
    return c.n_flat >= FLAT_RUNGS ? "more users add no throughput"
                                  : "load.max_in_flight allows no more users";
}

int64_t search_ladder_most(const struct search *s)
{
    if (s->cfg->concurrency_list.n > 0) {
        return (int64_t)s->cfg->concurrency_list.n;
    }
    return 1 + (int64_t)log2(most_users(s)) + MOST_REFINED;
}
