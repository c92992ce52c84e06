/*
 * A rate that changes within a step, by a change of time. A step of nominal rate R and length D has the
 * rate R g(x) at the share x of it, with g from `from` to `to` in a line or by a constant factor. An
 * event that a process of steady rate R would have at the share y of the step is moved to x = G^-1(y),
 * G(x) = integral of g over [0, x]: so the gaps keep their distribution in the number of expected events,
 * nothing is thinned out, and event i stays a function of (seed, i).
 *
 *   linear      g = a + (b - a) x     G^-1(y) = 2 y / (a + sqrt(a^2 + 2 (b - a) y))
 *   geometric   g = a (b / a)^x       G^-1(y) = ln(1 + y ln(b / a) / a) / ln(b / a)
 *
 * (Cinlar 1975, "Introduction to stochastic processes", 4.7: inversion of the expected count.) Pure.
 */
#pragma once

enum ramp_kind {
    RAMP_NONE, // g = 1
    RAMP_LINEAR,
    RAMP_GEOMETRIC,
};

struct ramp {
    int kind;        // enum ramp_kind
    double from, to; // shares of the nominal rate: a, b >= 0; > 0 where geometric
};

/* G(1): the step's expected events over those of a steady rate. */
double ramp_mean(struct ramp r);

/* G^-1(y), y >= 0; infinity for an event that falls past the end of the ramp. */
double ramp_inverse(struct ramp r, double y);
