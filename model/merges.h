/*
 * The merges of byte-pair encoding, and their application: of all adjacent pairs of symbols the one
 * with the lowest rank is joined, leftmost first among equals, until no merge is left (Sennrich et
 * al. 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2).
 *
 * Filled once, then read-only; callers bring a work space each.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Open addressing over pairs of symbols. */
struct merges {
    struct merges_pair *slots; // (mask + 1)
    size_t mask, n;
    uint64_t *hints; // (hint_mask + 1) bits: whether pairs may be in the slots
    size_t hint_mask;
};

/* Scratch memory of one caller, reused between words. A zeroed one is ready. */
struct merges_work {
    uint32_t *prev, *next; // (list_cap) neighbours of the symbols of a long word
    size_t list_cap;
    struct merges_candidate *heap; // (n_heap)
    size_t n_heap, heap_cap;
};
void merges_work_free(struct merges_work *w);

void merges_init(struct merges *m, size_t n_max);
void merges_free(struct merges *m);

/*
 * left and right become `merged`; a pair that is there already takes the later rank. Ranks are below
 * UINT32_MAX; pairs may share one.
 */
void merges_add(struct merges *m, int32_t left, int32_t right, uint32_t rank, int32_t merged);

/* Merge n < 2^30 symbols (>= 0) in place; returns how many are left. */
size_t merges_apply(const struct merges *m, struct merges_work *w, int32_t *symbols, size_t n);
