/*
 * How many of a reply's tokens each of its events brought, when only the sum is known: in proportion to
 * a weight per event (tokens or bytes of its own text), running sums rounded, and at least one in each event:
 * it had text. Of fewer tokens than events the first event gets one.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct spread {        // zeroed: empty
    uint32_t *weights; // (n)
    size_t n, cap;
};

void spread_reserve(struct spread *s, size_t n); // so that adding n allocates nothing
void spread_add(struct spread *s, uint32_t weight);
/* Counts that add up to n_tokens >= 1, in place of the weights: (n), valid until the next change. */
const uint32_t *spread_tokens(struct spread *s, uint32_t n_tokens);
void spread_clear(struct spread *s); // keeps a little of the memory
void spread_free(struct spread *s);
