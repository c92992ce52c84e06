#include "loadgen/plan.h"

#include "core/clock.h"
#include "loadgen/arrival.h"
#include "loadgen/turns.h"

#define XXH_STATIC_LINKING_ONLY // for the state as a plain struct
#include <xxhash.h>

#include <math.h>
#include <stdlib.h>

struct builder {
    struct plan plan;
    size_t cap; // of plan.events
    XXH64_state_t hash;
};

/* What is hashed of an event; written out so that no padding can get in. */
static void hash_event(XXH64_state_t *hash, const struct plan_event *ev)
{
    uint64_t words[4] = {ev->id, (uint64_t)ev->t_ns, (uint64_t)ev->n_in << 32 | ev->n_out,
                         ev->n_turns};
    XXH64_update(hash, words, (ev->n_turns > 0 ? 4 : 3) * sizeof words[0]);
}

static int reserve(struct builder *b, size_t cap, struct err *e)
{
    struct plan_event *events = NULL;
    if (cap <= SIZE_MAX / sizeof *events) {
        events = realloc(b->plan.events, cap * sizeof *events);
    }
    if (!events) {
        return err_set(e, ERR_ENV, "no memory for a schedule of %zu requests", cap);
    }
    b->plan.events = events;
    b->cap = cap;
    return 0;
}

/* Room for the expected number of own events and five standard deviations; a trace grows it. */
static int reserve_expected(struct builder *b, const struct load_config *cfg, double rate_rps,
                            int64_t duration_ns, int n_ranks, struct err *e)
{
    double all = load_has_rate(cfg) ? load_expected(cfg, rate_rps, duration_ns) : 0.0;
    double mean = all / n_ranks;
    double cap = mean + 5.0 * sqrt(mean) + 16.0;
    if (cap * sizeof(struct plan_event) > 0x1p46) {
        return err_set(e, ERR_INPUT,
                       "%g requests/s for %.0f s: a schedule that long does not fit in memory",
                       rate_rps, (double)duration_ns / (double)NS_PER_S);
    }
    return reserve(b, (size_t)cap, e);
}

static int keep(struct builder *b, const struct plan_event *ev, uint32_t redrawn, struct err *e)
{
    struct plan *p = &b->plan;
    if (p->n == b->cap && reserve(b, b->cap + b->cap / 2 + 16, e) != 0) {
        return -1;
    }
    p->events[p->n++] = *ev;
    p->n_tokens += ev->n_out;
    p->n_conversations += ev->n_turns > 1;
    p->n_filtered += redrawn;
    return 0;
}

int plan_check(const struct load_config *cfg, const struct dataset *ds, struct err *e)
{
    if (cfg->arrival == LOAD_TRACE && dataset_n_arrivals(ds) == 0) {
        return err_set(e, ERR_INPUT,
                       "load.arrival: trace needs a dataset with arrival times (a trace in CSV)");
    }
    if (cfg->arrival == LOAD_TRACE && dataset_arrival_ns(ds, dataset_n_arrivals(ds) - 1) == 0) {
        return err_set(
            e, ERR_INPUT,
            "load.arrival: all arrivals of the trace are at one time, so that it has no rate");
    }
    return 0;
}

int plan_build(struct plan *p, const struct load_config *cfg, const struct dataset *ds,
               double rate_rps, int64_t duration_ns, uint64_t seed, int rank, int n_ranks,
               struct err *e)
{
    CHECK(rank >= 0 && rank < n_ranks);
    if (plan_check(cfg, ds, e) != 0) {
        return -1;
    }
    struct builder b = {0};
    if (reserve_expected(&b, cfg, rate_rps, duration_ns, n_ranks, e) != 0) {
        return -1;
    }
    XXH64_reset(&b.hash, 0);
    struct arrival arrival;
    arrival_init(&arrival, cfg, rate_rps, duration_ns, seed, ds);
    uint64_t i = 0;
    for (int64_t t_ns; arrival_next(&arrival, &t_ns) && t_ns < duration_ns; i++) {
        struct plan_event ev;
        uint32_t redrawn = plan_turn(ds, seed, i, 0, &ev);
        ev.t_ns = t_ns;
        hash_event(&b.hash, &ev);
        if (i % (uint64_t)n_ranks == (uint64_t)rank && keep(&b, &ev, redrawn, e) != 0) {
            free(b.plan.events);
            return -1;
        }
    }
    b.plan.n_total = i;
    b.plan.hash = XXH64_digest(&b.hash);
    *p = b.plan;
    return 0;
}

void plan_build_closed(struct plan *p, const struct dataset *ds, uint64_t seed, uint32_t users)
{
    XXH64_state_t hash;
    XXH64_reset(&hash, 0);
    for (uint32_t u = 0; u < users; u++) {
        struct plan_event ev;
        (void)plan_turn(ds, seed, u, 0, &ev);
        hash_event(&hash, &ev);
    }
    *p = (struct plan){.hash = XXH64_digest(&hash)};
}

void plan_free(struct plan *p)
{
    free(p->events);
    *p = (struct plan){0};
}

uint32_t plan_turn(const struct dataset *ds, uint64_t seed, uint64_t event, uint32_t turn,
                   struct plan_event *ev)
{
    struct prompt prompt;
    dataset_get(ds, seed, event, turn, &prompt);
    *ev = (struct plan_event){
        .id = turns_id(event, turn),
        .n_in = prompt.n_in,
        .n_out = prompt.n_out,
        .n_turns = prompt.conversation > 0 ? prompt.n_turns : 0,
    };
    return prompt.redrawn;
}

int64_t plan_trace_ns(const struct dataset *ds)
{
    uint64_t n = dataset_n_arrivals(ds);
    if (n == 0) {
        return 0;
    }
    int64_t last_ns = dataset_arrival_ns(ds, n - 1);
    return last_ns + (n > 1 ? last_ns / (int64_t)(n - 1) : 0) + 1;
}
