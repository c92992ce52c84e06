#include "analysis/gaps.h"

#include "core/err.h"
#include "core/mem.h"

#include <stdlib.h>

static uint32_t *page_of(struct gaps *g, size_t page)
{
    if (!g->pages[page]) {
        g->pages[page] = xcalloc(GAPS_PAGE_VALUES, sizeof **g->pages);
    }
    return g->pages[page];
}

static void add_long(struct gaps *g, uint32_t us)
{
    if (g->n_longs == g->cap_longs) {
        g->cap_longs = g->cap_longs ? 2 * g->cap_longs : 64;
        g->longs = xrealloc(g->longs, g->cap_longs * sizeof *g->longs);
    }
    g->longs[g->n_longs++] = us;
}

void gaps_add(struct gaps *g, uint32_t us)
{
    g->n++;
    g->sum_us += us;
    g->squares_us += (double)us * us;
    if (us >= GAPS_LONG_US) {
        add_long(g, us);
        return;
    }
    uint32_t page = us / GAPS_PAGE_VALUES;
    page_of(g, page)[us % GAPS_PAGE_VALUES]++;
    g->on_page[page]++;
}

void gaps_merge(struct gaps *g, const struct gaps *from)
{
    g->n += from->n;
    g->sum_us += from->sum_us;
    g->squares_us += from->squares_us;
    for (size_t page = 0; page < GAPS_PAGES; page++) {
        for (size_t i = 0; from->pages[page] && i < GAPS_PAGE_VALUES; i++) {
            page_of(g, page)[i] += from->pages[page][i];
        }
        g->on_page[page] += from->on_page[page];
    }
    for (size_t i = 0; i < from->n_longs; i++) {
        add_long(g, from->longs[i]);
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void gaps_seal(struct gaps *g)
{
    if (g->n_longs > 1) {
        qsort(g->longs, g->n_longs, sizeof *g->longs, compare);
    }
}

double gaps_order(const struct gaps *g, uint64_t k)
{
    CHECK(k < g->n);
    size_t page = 0;
    while (page < GAPS_PAGES && k >= g->on_page[page]) {
        k -= g->on_page[page++];
    }
    if (page == GAPS_PAGES) {
        return g->longs[k];
    }
    size_t value = 0;
    while (k >= g->pages[page][value]) {
        k -= g->pages[page][value++];
    }
    return (double)(page * GAPS_PAGE_VALUES + value);
}

uint64_t gaps_at_most(const struct gaps *g, uint32_t us)
{
    uint64_t n = 0;
    size_t last = us < GAPS_LONG_US ? us / GAPS_PAGE_VALUES : GAPS_PAGES;
    for (size_t page = 0; page < last; page++) {
        n += g->on_page[page];
    }
    for (size_t i = 0; last < GAPS_PAGES && g->pages[last] && i <= us % GAPS_PAGE_VALUES; i++) {
        n += g->pages[last][i];
    }
    for (size_t i = 0; last == GAPS_PAGES && i < g->n_longs && g->longs[i] <= us; i++) {
        n++;
    }
    return n;
}

void gaps_free(struct gaps *g)
{
    for (size_t i = 0; i < GAPS_PAGES; i++) {
        free(g->pages[i]);
    }
    free(g->longs);
    *g = (struct gaps){0};
}
