/*
 * Whether a step is overloaded beyond doubt while it still runs, from how many requests wait for their first
 * token, over all load ranks: a sequential test, so that a saturated step need not be offered to its
 * end.
 *
 * At and below capacity the number that wait is bounded or, at worst, a random walk of Poisson arrivals
 * less services, with a variance of at most 2 rate t after t seconds (unit variances of both:
 * Whitt 2002, Stochastic-Process Limits, 5.4). Overload makes it grow by a constant share of the rate. The
 * step is overloaded when
 *
 *     waiting > 3 rate TTFT + 4 sqrt(v rate t)   and   waiting > 0.1 rate t,   v = 1 + cv^2 of the gaps
 *
 * at four looks in a row, a quarter of a second apart, after OVERLOAD_MIN_NS or a third of the step,
 * whichever comes first. TTFT is what the last step that was not overloaded had: by Little's law 3 rate
 * TTFT is three times what then waited. Where it is not known, nothing is stopped. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define OVERLOAD_MIN_NS    10000000000LL
#define OVERLOAD_PERIOD_NS 250000000LL

struct overload {
    double rate_rps, ttft_s, variance;
    int64_t t_begin_ns, t_next_ns; // of the step; of the next look
    int n_over;                    // looks in a row
};

/* ttft_s: mean of the last good step; <= 0 or NAN: not known. cv: of the gaps between arrivals. */
void overload_begin(struct overload *o, double rate_rps, double cv, double ttft_s,
                    int64_t t_begin_ns, int64_t duration_ns);

/* Whether it is time to count: counting may cost something. */
bool overload_is_due(const struct overload *o, int64_t now_ns);

/* One look; true: stop. */
bool overload_look(struct overload *o, int64_t now_ns, uint64_t n_waiting);
