/*
 * Exact percentiles of many small whole numbers (gaps between tokens, us) in bounded memory:
 * counters by value on pages of 4096 values that exist once a value falls on them. Gaps of 4.2 s and
 * more are rare (each takes as long as it says) and kept one by one. At most 16 MiB + 4 bytes per
 * such gap, however many tokens. Owned by one thread; zero is a valid empty state.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define GAPS_PAGE_VALUES 4096
#define GAPS_PAGES       1024
#define GAPS_LONG_US     ((uint32_t)GAPS_PAGE_VALUES * GAPS_PAGES)

struct gaps {
    uint64_t n;
    double sum_us, squares_us;    // of all values
    uint32_t *pages[GAPS_PAGES];  // (GAPS_PAGE_VALUES) counts each, NULL: all zero
    uint64_t on_page[GAPS_PAGES]; // values per page
    uint32_t *longs;              // (n_longs) values >= GAPS_LONG_US, sorted by gaps_seal
    size_t n_longs, cap_longs;
};

void gaps_add(struct gaps *g, uint32_t us);

/* Adds all values of `from`. */
void gaps_merge(struct gaps *g, const struct gaps *from);

/* After the last gaps_add and gaps_merge, before gaps_order. */
void gaps_seal(struct gaps *g);

/* The k-th smallest value, k = 0..n-1, in us. */
double gaps_order(const struct gaps *g, uint64_t k);

/* How many values are at most `us`. After gaps_seal. */
uint64_t gaps_at_most(const struct gaps *g, uint32_t us);

void gaps_free(struct gaps *g);
