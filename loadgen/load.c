#include "loadgen/load.h"

#include "core/clock.h"
#include "core/rng.h"
#include "core/units.h"

#include <math.h>
#include <string.h>

#define RATE_MIN_RPS      1e-6
#define RATE_MAX_RPS      1e8
#define STEP_MIN_NS       (10 * NS_PER_MS)
#define STEP_MAX_NS       (7 * 86400 * NS_PER_S)
#define STEP_MAX_REQUESTS 1e9
#define CV_MIN            0.01
#define CV_MAX            20
#define RAMP_MAX          1000
#define FILL_MAX          2
#define EXTEND_MAX        16 // doublings

#define ROW(key_, type_, def_, lo_, hi_, help_, field_)                                            \
    .key = (key_), .type = (type_), .def = (def_), .lo = (double)(lo_), .hi = (double)(hi_),       \
    .help = (help_), .offset = offsetof(struct load_config, field_)

static const struct opt rows[] = {
    {ROW("load.ranks", OPT_INT, "1", 1, 1e6, "MPI ranks that offer load", ranks)},
    {ROW("load.arrival.kind", OPT_CHOICE, "poisson", 0, 0,
         "open loop at a rate, at the dataset's own times, or a closed loop of load.users",
         arrival),
     .choices = "poisson|constant|gamma|trace|closed", .short_key = "load.arrival"},
    {ROW("load.arrival.cv", OPT_NUMBER, "1", CV_MIN, CV_MAX,
         "gamma: standard deviation of the gaps over their mean; > 1 comes in bursts", arrival_cv)},
    {ROW("load.ramp.kind", OPT_CHOICE, "none", 0, 0,
         "the rate changes within each step: in a line, or by a constant factor per time",
         ramp.kind),
     .choices = "none|linear|geometric", .short_key = "load.ramp"},
    {ROW("load.ramp.from", OPT_NUMBER, "0.5", 0, RAMP_MAX,
         "rate when a step begins, as a multiple of the step's rate", ramp.from)},
    {ROW("load.ramp.to", OPT_NUMBER, "1.5", 0, RAMP_MAX, "rate when it ends, the same way",
         ramp.to)},
    {ROW("load.users", OPT_INT, "0", 0, 1e7,
         "users of a closed loop and of the probe; 0: 32 per replica in the probe", users)},
    {ROW("load.rates.list", OPT_NUMBERS, NULL, RATE_MIN_RPS, RATE_MAX_RPS,
         "request rates of the steps, rising, in requests/s; empty: start, times factor, ...",
         rates_list),
     .short_key = "load.rates"},
    {ROW("load.rates.start", OPT_STRING, "auto", 0, 0,
         "first rate, or auto: 0.2 of what a closed-loop probe reaches", rates_start)},
    {ROW("load.rates.factor", OPT_NUMBER, "1.5", 1.01, 100, "each rate over the one before",
         rates_factor)},
    {ROW("load.rates.until", OPT_CHOICE, "saturated", 0, 0,
         "stop after two overloaded steps in a row, or only after max_steps", rates_until),
     .choices = "saturated|max_steps"},
    {ROW("load.rates.max_steps", OPT_INT, "9", 1, 1000, "most rates to try", rates_max_steps)},
    {ROW(
        "load.rates.bisect", OPT_SHARE, "5%", 0, 1,
        "then bisect between the last good and the first bad rate until they are so near; 0: do not",
        rates_bisect)},
    {ROW("load.rates.fill", OPT_NUMBERS, "0.7,0.85,0.95", 0, FILL_MAX,
         "then these multiples of the knee, where no rate was measured near it; 0: none",
         rates_fill)},
    {ROW("load.rates.revisit", OPT_BOOL, "true", 0, 0,
         "at the end the lowest good rate once more: has the target drifted?", rates_revisit)},
    {ROW("load.rates.slo", OPT_BOOL, "false", 0, 0,
         "search the highest rate at which the objectives (slo.*) hold, instead of saturation",
         rates_slo)},
    {ROW("load.rates.extend", OPT_INT, "3", 0, EXTEND_MAX,
         "slo: how often a rate is offered again, twice as long, until it is decided",
         rates_extend)},
    {ROW("load.rates.stop_early", OPT_BOOL, "true", 0, 0,
         "a searched rate that overloads the target beyond doubt ends before load.step is over",
         rates_stop_early)},
    {ROW("load.concurrency.search", OPT_CHOICE, "off", 0, 0,
         "best: closed loops of 1, 2, 4, ... users, for the best limit of requests in flight",
         concurrency),
     .choices = "off|best", .short_key = "load.concurrency"},
    {ROW("load.concurrency.list", OPT_NUMBERS, NULL, 1, 1e7,
         "a ladder of closed loops of so many users each, rising", concurrency_list),
     .short_key = "load.concurrency"},
    {ROW("load.repeats", OPT_INT, "1", 1, 1000,
         "passes over the same steps, each with new seeds: intervals then hold between runs",
         repeats)},
    {ROW("load.step", OPT_DURATION, "12s", STEP_MIN_NS, STEP_MAX_NS, "length of a step", step_ns)},
    {ROW("load.drain", OPT_DURATION, "5s", 0, STEP_MAX_NS,
         "time to finish after a step; what is left is cancelled and counts as failed", drain_ns)},
    {ROW("load.warmup", OPT_SHARE, "20%", 0, 0.9, "share of a step before its window opens",
         warmup)},
    {ROW("load.probe", OPT_DURATION, "5s", STEP_MIN_NS, STEP_MAX_NS,
         "length of the closed-loop probe", probe_ns)},
    {ROW("load.seed", OPT_INT, "1", 0, 0, "all that is drawn follows from it", seed)},
    {ROW("load.ignore_eos", OPT_BOOL, "true", 0, 0, "outputs have exactly the length asked for",
         ignore_eos)},
    {ROW(
        "target.max_concurrency", OPT_INT, "0", 0, 1 << 24,
        "cap on requests in flight, all load ranks together; what is due waits, shown as cap wait; "
        "0: none",
        max_concurrency)},
    {ROW("load.max_in_flight", OPT_INT, "16384", 1, 1 << 24,
         "requests in flight per load rank; what is due beyond is sent late", max_in_flight)},
};

const struct opt_table load_options = {rows, sizeof rows / sizeof rows[0]};

/* A step's whole schedule is made before it, and lies in memory. */
static int check_step_size(const struct load_config *c, const char *key, double rps, struct err *e)
{
    double n = load_expected(c, rps, c->step_ns);
    if (n > STEP_MAX_REQUESTS) {
        return err_set(e, ERR_INPUT,
                       "%s: %g requests/s for a load.step of %.0f s are %g requests (at most %g)",
                       key, rps, (double)c->step_ns / (double)NS_PER_S, n, STEP_MAX_REQUESTS);
    }
    return 0;
}

static int check_list(const struct load_config *c, struct err *e)
{
    const struct opt_numbers *list = &c->rates_list;
    for (size_t i = 1; i < list->n; i++) {
        if (list->v[i] <= list->v[i - 1]) {
            return err_set(e, ERR_INPUT,
                           "load.rates: %g after %g (each rate must be above the last)", list->v[i],
                           list->v[i - 1]);
        }
    }
    return list->n > 0 ? check_step_size(c, "load.rates", list->v[list->n - 1], e) : 0;
}

int load_check_rates(const struct load_config *c, struct err *e)
{
    struct load_config unset = {0};
    int rc = 0;
    opt_defaults(load_options, &unset);
    if (c->rates_list.n > 0 &&
        (strcmp(c->rates_start, unset.rates_start) != 0 ||
         fabs(c->rates_factor - unset.rates_factor) > 0 || c->rates_until != unset.rates_until ||
         c->rates_max_steps != unset.rates_max_steps)) {
        rc = err_set(e, ERR_INPUT,
                     "load.rates: start, factor, until and max_steps say nothing beside a list of "
                     "rates (load.rates={start: 2} replaces the list)");
    }
    opt_free(load_options, &unset);
    return rc;
}

static int check_ladder(const struct load_config *c, struct err *e)
{
    const struct opt_numbers *list = &c->concurrency_list;
    double most = (double)c->ranks * (double)c->max_in_flight;
    if (c->concurrency != LOAD_CONCURRENCY_OFF && list->n > 0) {
        return err_set(e, ERR_INPUT, "load.concurrency: best, or a list, not both");
    }
    for (size_t i = 0; i < list->n; i++) {
        if (list->v[i] != floor(list->v[i]) || list->v[i] > most ||
            (i > 0 && list->v[i] <= list->v[i - 1])) {
            return err_set(e, ERR_INPUT,
                           "load.concurrency: %g (whole numbers, rising, at most load.ranks x "
                           "load.max_in_flight = %g)",
                           list->v[i], most);
        }
    }
    if (load_is_ladder(c) && (c->rates_list.n > 0 || c->rates_slo || c->users > 0 ||
                              c->arrival == LOAD_TRACE || c->arrival == LOAD_CLOSED)) {
        return err_set(
            e, ERR_INPUT,
            "load.concurrency: is a load of its own (not with load.rates, load.users, or "
            "load.arrival=trace or closed)");
    }
    return 0;
}

static int check_slo(const struct load_config *c, struct err *e)
{
    if (c->rates_slo && (c->rates_list.n > 0 || !load_has_rate(c))) {
        return err_set(e, ERR_INPUT, "load.rates.slo: not with %s",
                       c->rates_list.n > 0 ? "a list of rates (load.rates.start and .factor)"
                                           : "load.arrival=trace or closed (there is no rate)");
    }
    return 0;
}

static int check_start(const struct load_config *c, struct err *e)
{
    const char *start = c->rates_start;
    double rps;
    if (strcmp(start, "auto") == 0) {
        return 0;
    }
    if (units_parse_number(start, &rps, e) != 0) {
        return err_wrap(e, "load.rates.start (auto or a rate)");
    }
    if (!(rps >= RATE_MIN_RPS && rps <= RATE_MAX_RPS)) {
        return err_set(e, ERR_INPUT, "load.rates.start: %s is out of range (auto, or %g..%g)",
                       start, RATE_MIN_RPS, RATE_MAX_RPS);
    }
    return check_step_size(c, "load.rates.start", rps, e);
}

static int check_ramp(const struct load_config *c, struct err *e)
{
    const struct ramp *r = &c->ramp;
    if (r->kind != RAMP_NONE && !load_has_rate(c)) {
        return err_set(e, ERR_INPUT, "load.ramp: not with load.arrival=%s (there is no rate)",
                       c->arrival == LOAD_CLOSED ? "closed" : "trace");
    }
    if (r->kind == RAMP_GEOMETRIC && (r->from <= 0.0 || r->to <= 0.0)) {
        return err_set(e, ERR_INPUT, "load.ramp: from %g to %g (above 0 where geometric)", r->from,
                       r->to);
    }
    if (r->kind == RAMP_LINEAR && r->from <= 0.0 && r->to <= 0.0) {
        return err_set(e, ERR_INPUT, "load.ramp: from 0 to 0 (no request would be sent)");
    }
    return 0;
}

static int check_arrival(const struct load_config *c, struct err *e)
{
    if (c->arrival != LOAD_GAMMA && c->arrival_cv != 1.0) {
        return err_set(e, ERR_INPUT, "load.arrival.cv: %g without load.arrival.kind=gamma",
                       c->arrival_cv);
    }
    return check_ramp(c, e);
}

int load_check(const struct load_config *c, struct err *e)
{
    if (check_arrival(c, e) != 0 || check_list(c, e) != 0 || check_start(c, e) != 0 ||
        check_ladder(c, e) != 0 || check_slo(c, e) != 0) {
        return -1;
    }
    if (c->arrival == LOAD_CLOSED && c->users < 1) {
        return err_set(e, ERR_INPUT, "load.users: 0 with load.arrival=closed (at least 1)");
    }
    if ((c->arrival == LOAD_CLOSED || c->arrival == LOAD_TRACE) && c->rates_list.n > 0) {
        return err_set(e, ERR_INPUT, "load.rates: not with load.arrival=%s (%s)",
                       c->arrival == LOAD_CLOSED ? "closed" : "trace",
                       c->arrival == LOAD_CLOSED ? "load.users sets the load"
                                                 : "load.dataset.time_scale changes the speed");
    }
    if (c->max_concurrency > 0 && c->max_concurrency < c->ranks) {
        return err_set(e, ERR_INPUT,
                       "target.max_concurrency: %lld for %lld load ranks (at least one each, or 0)",
                       (long long)c->max_concurrency, (long long)c->ranks);
    }
    if (c->users > c->ranks * c->max_in_flight) {
        return err_set(e, ERR_INPUT, "load.users: %lld over load.ranks x load.max_in_flight = %lld",
                       (long long)c->users, (long long)(c->ranks * c->max_in_flight));
    }
    return 0;
}

bool load_is_ladder(const struct load_config *c)
{
    return c->concurrency != LOAD_CONCURRENCY_OFF || c->concurrency_list.n > 0;
}

bool load_has_rate(const struct load_config *c)
{
    return c->arrival == LOAD_POISSON || c->arrival == LOAD_CONSTANT || c->arrival == LOAD_GAMMA;
}

double load_expected(const struct load_config *c, double rate_rps, int64_t step_ns)
{
    return rate_rps * (double)step_ns / (double)NS_PER_S * ramp_mean(c->ramp);
}

uint64_t load_step_seed(const struct load_config *c, uint32_t step)
{
    return rng_u64((uint64_t)c->seed, RNG_STEP, step, 0);
}

double load_start_rps(const struct load_config *c)
{
    struct err ignored;
    double rps;
    if (strcmp(c->rates_start, "auto") == 0 ||
        units_parse_number(c->rates_start, &rps, &ignored) != 0) {
        return 0.0;
    }
    return rps;
}
