/*
 * A log-linear histogram of whole numbers >= 0 (nanoseconds, mostly): buckets of equal width inside
 * each power of two, 64 of them, so that a quantile read back is within 1/128 (0.8 %) of a recorded
 * value; below 128 it is exact. Recording is O(1) and never allocates. Transparent, zero is not a
 * valid state: hist_reset first. For what is watched while a run goes on; results rest on raw records.
 */
#pragma once

#include <stdint.h>

#define HIST_SUB_BITS 6
#define HIST_BUCKETS  ((63 - HIST_SUB_BITS + 1) << HIST_SUB_BITS)

struct hist {
    uint64_t n;
    int64_t min, max;
    uint64_t counts[HIST_BUCKETS];
};

void hist_reset(struct hist *h);

/* Negative values count as 0. */
void hist_record(struct hist *h, int64_t v);

/* The value at rank ceil(q * n), q in [0, 1]; the first and the last are exact. 0 for no values. */
int64_t hist_quantile(const struct hist *h, double q);
