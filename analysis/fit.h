/*
 * The broken stick through the origin, y = min(a x, C): served output tokens/s (y) against the output
 * tokens/s that the realised draw of a step really offered (x). Regressing on the realised draw and
 * not on the nominal rate takes the noise of heavy-tailed lengths out of x and y alike. One step is one
 * point; its weight is the length of its window.
 *
 * Saturation in requests/s is the corner, C / a, over the mean output tokens of a request.
 *
 * The interval is by a circular block bootstrap (Politis and Romano 1992): in each step blocks of time
 * are drawn with replacement, offered and served together, so that what ties them stays tied. Pure;
 * the same seed gives the same draws.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FIT_DRAWS 1000

struct fit_point {
    double x, y, weight;
};

/* plateau INFINITY: the straight line through the origin fits best. */
struct fit_stick {
    double slope, plateau, squares; // weighted sum of squared residuals
};

/* Least squares over slope and plateau, exact: every split of the points and every corner at a
 * point is tried. Points sorted by x; n >= 1. All zero x: slope NAN. */
void fit_stick(const struct fit_point *p, size_t n, struct fit_stick *out);

/* A step as its window's parts: (n_bins) each, by the time of the event. */
struct fit_step {
    const double *due, *due_in, *due_out; // requests; input and output tokens asked for
    const double *served_out;             // output tokens
    size_t n_bins;
    size_t block_bins; // length of a bootstrap block, 1..n_bins
    double window_s;
    double n_requests, tokens_in, tokens_out; // asked for in the whole step, warm-up included
};

struct fit_result {
    struct fit_stick stick;
    double rate_rps;                        // of the corner; INFINITY without a plateau
    double in_per_request, out_per_request; // mean tokens asked for, over all steps
    double x_max;                           // the largest offered tokens/s
};

/* Fit n steps in any order. n >= 1. */
void fit_steps(const struct fit_step *steps, size_t n, struct fit_result *out);

/* FIT_DRAWS refits of resampled steps: draws (FIT_DRAWS). */
void fit_bootstrap(const struct fit_step *steps, size_t n, uint64_t seed, struct fit_result *draws);
