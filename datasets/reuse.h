/*
 * What the requests of a dataset have in common, and so what caches in front of a model could save:
 * how many are exact repeats of an earlier request (an exact or semantic cache), and how many of
 * their tokens continue a prefix that an earlier prompt began with (a prefix cache of unlimited size,
 * in blocks of 16 tokens).
 */
#pragma once

#include <stdint.h>

#include "datasets/dataset.h"

#define REUSE_BLOCK_TOKENS 16

struct reuse {
    uint64_t n_requests, n_tokens;
    double repeat_share; // of requests: the whole prompt was there before
    double
        prefix_share; // of tokens: in blocks that were there before, with all that is before them
};

/* Over the events 0.. of one seed, all turns of each: every entry once, at most 100,000 events. */
struct reuse reuse_measure(const struct dataset *d);
