#include "model/merges.h"

#include "core/err.h"
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

#define NO_MERGE  UINT64_MAX
#define NO_SYMBOL UINT32_MAX
#define SCAN_MAX  96u // symbols of a word that is merged by scanning

#define HINTS_PER_SLOT 8

struct merges_pair {
    uint64_t key;   // left << 32 | right
    uint64_t merge; // rank << 32 | merged symbol; NO_MERGE: free slot
};

/* One possible merge at a position of a long word. */
struct merges_candidate {
    uint64_t order; // rank << 32 | position: lowest rank first, then leftmost
    int32_t merged;
};

/* --- pairs ------------------------------------------------------------------------------------ */

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static uint64_t hash_of(uint64_t key)
{
    return key * 0x9E3779B97F4A7C15ULL;
}

/* The pair's slot, or the free slot where it would go. */
static struct merges_pair *pair_at(const struct merges *m, uint64_t key)
{
    uint64_t h = hash_of(key);
    size_t i = (size_t)(h ^ h >> 32) & m->mask;
    while (m->slots[i].merge != NO_MERGE && m->slots[i].key != key) {
        i = (i + 1) & m->mask;
    }
    return &m->slots[i];
}

/* The pair's bit among m->hints; other pairs may share it. */
static size_t hint_of(const struct merges *m, uint64_t key)
{
    return (size_t)(hash_of(key) >> 32) & m->hint_mask;
}

/* Most pairs have no merge: their bits say so, which stay in the cache where slots do not. */
static uint64_t merge_of(const struct merges *m, int32_t left, int32_t right)
{
    uint64_t key = pair_key(left, right);
    size_t hint = hint_of(m, key);
    return (m->hints[hint / 64] >> hint % 64 & 1) != 0 ? pair_at(m, key)->merge : NO_MERGE;
}

void merges_init(struct merges *m, size_t n_max)
{
    size_t n_slots = 16;
    while (n_slots < 2 * n_max) {
        n_slots *= 2;
    }
    *m = (struct merges){.slots = xmalloc(n_slots * sizeof *m->slots), .mask = n_slots - 1};
    memset(m->slots, 0xFF, n_slots * sizeof *m->slots);
    m->hint_mask = HINTS_PER_SLOT * n_slots - 1;
    m->hints = xcalloc(HINTS_PER_SLOT * n_slots / 64, sizeof *m->hints);
}

void merges_free(struct merges *m)
{
    free(m->slots);
    free(m->hints);
    *m = (struct merges){0};
}

void merges_add(struct merges *m, int32_t left, int32_t right, uint32_t rank, int32_t merged)
{
    uint64_t key = pair_key(left, right);
    struct merges_pair *at = pair_at(m, key);
    m->n += at->merge == NO_MERGE;
    CHECK(2 * m->n <= m->mask + 1);
    size_t hint = hint_of(m, key);
    m->hints[hint / 64] |= 1ULL << hint % 64;
    *at = (struct merges_pair){.key = key, .merge = (uint64_t)rank << 32 | (uint32_t)merged};
}

/* --- short words ------------------------------------------------------------------------------ */

/* The leftmost of the lowest rank. */
static size_t lowest_of(const uint64_t *merge, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        best = merge[i] >> 32 < merge[best] >> 32 ? i : best;
    }
    return best;
}

/* Scan for the lowest rank, merge, close the gap: quadratic, and the fastest for words. */
static size_t merge_by_scan(const struct merges *m, int32_t *symbols, size_t n)
{
    uint64_t merge[SCAN_MAX]; // (n - 1) of the pairs (i, i + 1)
    for (size_t i = 0; i + 1 < n; i++) {
        merge[i] = merge_of(m, symbols[i], symbols[i + 1]);
    }
    while (n > 1) {
        size_t best = lowest_of(merge, n - 1);
        if (merge[best] == NO_MERGE) {
            break;
        }
        symbols[best] = (int32_t)(uint32_t)merge[best];
        n--;
        memmove(symbols + best + 1, symbols + best + 2, (n - best - 1) * sizeof *symbols);
        if (best + 1 < n) {
            memmove(merge + best, merge + best + 1, (n - best - 1) * sizeof *merge);
            merge[best] = merge_of(m, symbols[best], symbols[best + 1]);
        }
        if (best > 0) {
            merge[best - 1] = merge_of(m, symbols[best - 1], symbols[best]);
        }
    }
    return n;
}

/* --- long words ------------------------------------------------------------------------------- */

static void heap_push(struct merges_work *w, struct merges_candidate c)
{
    if (w->n_heap == w->heap_cap) {
        w->heap_cap = w->heap_cap != 0 ? 2 * w->heap_cap : 256;
        w->heap = xrealloc(w->heap, w->heap_cap * sizeof *w->heap);
    }
    size_t i = w->n_heap++;
    while (i > 0 && w->heap[(i - 1) / 2].order > c.order) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
}

static struct merges_candidate heap_pop(struct merges_work *w)
{
    struct merges_candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap) {
            break;
        }
        if (child + 1 < w->n_heap && w->heap[child + 1].order < w->heap[child].order) {
            child++;
        }
        if (w->heap[child].order >= last.order) {
            break;
        }
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* Offer the pair that begins at position i, if there is a merge for it. */
static void offer_pair(const struct merges *m, struct merges_work *w, const int32_t *symbols,
                       uint32_t i)
{
    if (i == NO_SYMBOL || w->next[i] == NO_SYMBOL) {
        return;
    }
    uint64_t merge = merge_of(m, symbols[i], symbols[w->next[i]]);
    if (merge != NO_MERGE) {
        heap_push(w, (struct merges_candidate){.order = (merge >> 32 << 32) | i,
                                               .merged = (int32_t)(uint32_t)merge});
    }
}

static void link_symbols(struct merges_work *w, size_t n)
{
    if (n > w->list_cap) {
        w->list_cap = 2 * n;
        w->prev = xrealloc(w->prev, w->list_cap * sizeof *w->prev);
        w->next = xrealloc(w->next, w->list_cap * sizeof *w->next);
    }
    for (uint32_t i = 0; i < n; i++) {
        w->prev[i] = i > 0 ? i - 1 : NO_SYMBOL;
        w->next[i] = i + 1 < n ? i + 1 : NO_SYMBOL;
    }
}

/* Join position i with the one to its right, which becomes -1. */
static void join(struct merges_work *w, int32_t *symbols, uint32_t i, int32_t merged)
{
    uint32_t right = w->next[i];
    symbols[i] = merged;
    symbols[right] = -1;
    w->next[i] = w->next[right];
    if (w->next[i] != NO_SYMBOL) {
        w->prev[w->next[i]] = i;
    }
}

/*
 * A heap of candidates over a linked list of symbols: n log n. A candidate is stale when its symbol
 * is gone or its pair now makes another token; the text of a pair only grows, so the same token
 * means the same pair.
 */
static size_t merge_by_heap(const struct merges *m, struct merges_work *w, int32_t *symbols,
                            size_t n)
{
    link_symbols(w, n);
    w->n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        offer_pair(m, w, symbols, i);
    }
    while (w->n_heap > 0) {
        struct merges_candidate c = heap_pop(w);
        uint32_t i = (uint32_t)c.order, right = w->next[i];
        if (symbols[i] < 0 || right == NO_SYMBOL) {
            continue;
        }
        uint64_t merge = merge_of(m, symbols[i], symbols[right]);
        if (merge != NO_MERGE && (int32_t)(uint32_t)merge == c.merged) {
            join(w, symbols, i, c.merged);
            offer_pair(m, w, symbols, w->prev[i]);
            offer_pair(m, w, symbols, i);
        }
    }
    size_t left = 0;
    for (uint32_t i = 0; i != NO_SYMBOL; i = w->next[i]) {
        symbols[left++] = symbols[i];
    }
    return left;
}

size_t merges_apply(const struct merges *m, struct merges_work *w, int32_t *symbols, size_t n)
{
    return n <= SCAN_MAX ? merge_by_scan(m, symbols, n) : merge_by_heap(m, w, symbols, n);
}

void merges_work_free(struct merges_work *w)
{
    free(w->prev);
    free(w->next);
    free(w->heap);
    *w = (struct merges_work){0};
}
