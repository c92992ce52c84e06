/*
 * The edges between the ranks of a job as they were measured: each ordered pair of ranks over each
 * transport and message size, the same machine's plain copies beside, and what follows: a line
 * fitted to each edge, its bandwidth, and the edges that are slower than others of their kind.
 *
 *   one way     of n bytes: from the send until an answer of 8 bytes is back, less what the answer took,
 *               half of the median of 8 bytes there and 8 back; never less than half of all, which is what
 *               8 bytes take
 *   fit         one way = latency + bytes x byte_ns through the medians of all sizes, of all lines
 *               through two of them the one with the least sum of ratios' logarithms: a size that is off,
 *               or a change of protocol, does not bend it
 *   bandwidth   bytes over the median time, the best of the sizes from EDGES_LARGE_BYTES on (of the
 *               largest there is, where those took too long)
 *   outlier     its median time is more than EDGES_OUTLIER times the median of the edges of its kind
 *               (transport, and within a host or between hosts), and no spread explains it: it lies more
 *               than EDGES_DEVIATIONS median deviations above, it is longer than most edges of the kind
 *               ever take (the median of their 99th percentiles), and even its fastest message took longer
 *               than the kind's median. At the smallest size, there in both directions, for both are half
 *               of one way there and back; and at the largest size that all edges of the kind have.
 *
 * Transparent; what is measured is filled in by edges_measure.h, the rest by edges_judge. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/edges_plan.h"

#define EDGES_LARGE_BYTES    ((size_t)1 << 20)
#define EDGES_OUTLIER        1.5
#define EDGES_DEVIATIONS     5.0
#define EDGES_MAX_TRANSPORTS 4

/* Times of n messages; n 0: not measured. */
struct edges_times {
    double min_ns, median_ns, p99_ns;
    int64_t n;
};

/* Of n times, which are sorted here. */
struct edges_times edges_times_of(double *ns, int n);

struct edges_fit {
    double latency_ns, byte_ns;
    double error; // of the median size, relative
};

/* Through points (n > 0, all ns > 0); both coefficients are at least 0. */
struct edges_fit edges_fit_line(const double *bytes, const double *ns, int n);

struct edges_link {
    struct edges_times times[EDGES_PLAN_MAX_SIZES]; // by the transport's sizes
    struct edges_fit fit;
    int best; // the size that bandwidth is of; -1: nothing was measured, or there is no such edge
    double bytes_per_s; // its bandwidth
    double copy_share;  // of the better side's copy of that size; NaN: that was not measured
    double slow_by,
        thin_by; // as an outlier at small and at large messages: over the kind's median; else 0
};

struct edges_transport {
    const char *name;
    bool carries_hidden; // hidden states between stages, not only what is said about them
    bool on_device;      // from and into the memory of GPUs
    int n_sizes;
    size_t sizes[EDGES_PLAN_MAX_SIZES];
    struct edges_link *links; // (n_ranks, n_ranks): [from][to], owned
    int64_t n_left_out;       // sizes that did not fit an edge's turn, over all edges
};

struct edges_rank {
    char host[65];
    int32_t n_cpus; // that it may run on
    int32_t spins;  // while it waits; else it sleeps 50 us between looks
    double look_ns; // from one look to the next in a long wait
    // Best copies of each of the sizes, in the host's memory and within the GPU's; 0: none.
    double copy_ns[EDGES_PLAN_MAX_SIZES], gpu_copy_ns[EDGES_PLAN_MAX_SIZES];
    char gpu[81]; // its name; empty: none
};

struct edges {
    int n_ranks, n_transports;
    struct edges_rank ranks[EDGES_PLAN_MAX_RANKS];
    struct edges_transport transports[EDGES_MAX_TRANSPORTS];
    int n_sizes; // of copies
    size_t sizes[EDGES_PLAN_MAX_SIZES];
    double budget_s, took_s;
};

void edges_free(struct edges *e);

struct edges_link *edges_link(const struct edges_transport *t, int n_ranks, int from, int to);
bool edges_same_host(const struct edges *e, int a, int b);

/* Pairs that measure beside an edge's own in its round. */
int edges_beside(const struct edges *e);

/* The transport that hidden states take there: the first that was measured; NULL: none. */
const struct edges_transport *edges_carrier(const struct edges *e, int from, int to);

/* Fits, bandwidths and outliers of all that was measured. */
void edges_judge(struct edges *e);

/* Median over a kind's edges of what `of` says; NaN: it has none. */
double edges_median(const struct edges *e, const struct edges_transport *t, bool same_host,
                    double (*of)(const struct edges_link *l, int size), int size);
double edges_median_ns(const struct edges_link *l, int size); // median one way
double edges_bandwidth(const struct edges_link *l, int size); // of whatever size it is
