/*
 * A number, or a distribution that numbers are drawn from, as settings say it: `512`, or
 * `{kind: lognormal, mean: 512, sd: 300, min: 16, max: 4096}`. A draw is a pure function of a uniform
 * one (the inverse of the distribution function), then clamped to min..max.
 */
#pragma once

#include <stdbool.h>

#include "core/err.h"

enum dist_kind {
    DIST_CONSTANT,    // mean
    DIST_UNIFORM,     // min..max
    DIST_NORMAL,      // mean, sd
    DIST_LOGNORMAL,   // mean, sd of the values themselves, not of their logarithms
    DIST_EXPONENTIAL, // mean
};

#define DIST_CHOICES "constant|uniform|normal|lognormal|exponential"

struct dist {
    int kind;                  // enum dist_kind
    double mean, sd, min, max; // max 0: no upper bound
};

/* Whether anything is asked for: a mean, or for uniform a max. */
bool dist_is_set(const struct dist *d);

/* What no single row can check: sd where there is one, min <= max. `key` names it in ERR_INPUT. */
int dist_check(const struct dist *d, const char *key, struct err *e) ERR_CHECKED;

/* The value at u in (0, 1). */
double dist_at(const struct dist *d, double u);

/* The x below which a standard normal variable is with probability u in (0, 1). */
double dist_normal_at(double u);
