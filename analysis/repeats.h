/*
 * What several passes over the same steps say together (load.repeats): independent replications
 * (Law 2015, Simulation Modeling and Analysis, 9.4.1). With N passes the interval of their mean is
 *
 *     mean +- max( t(0.975, N - 1) s / sqrt(N),  h / sqrt(N) )
 *
 * where s is the standard deviation between passes and h the root mean square of the half-widths within
 * them (batch means, order statistics or bootstrap). The first part has all of the variance, between and
 * within; the second keeps two or three passes that happen to agree from claiming more than each of
 * them knows. Pure.
 */
#pragma once

#include <stddef.h>

#include "analysis/stats.h"

struct repeats_mean {
    size_t n;                 // passes with a value
    struct stats_interval of; // mean and interval; no interval with one pass that has none
    double between_sd;        // s; STATS_NONE with fewer than 2
};

/* One value with its own interval per pass, n of them; those without a value are left out. A bound that
 * is missing makes h that of the others. */
struct repeats_mean repeats_mean(const struct stats_interval *pass, size_t n);
