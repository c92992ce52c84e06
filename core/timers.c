#include "core/timers.h"

#include <stdlib.h>

#include "core/mem.h"

enum {
    WAYS = 4
};

static void put(struct timers *t, size_t i, struct timers_entry x)
{
    t->heap[i] = x;
    x.timer->place = i + 1;
}

static void sift_up(struct timers *t, size_t i, struct timers_entry x)
{
    while (i > 0 && x.at_ns < t->heap[(i - 1) / WAYS].at_ns) {
        put(t, i, t->heap[(i - 1) / WAYS]);
        i = (i - 1) / WAYS;
    }
    put(t, i, x);
}

static size_t earliest_child(const struct timers *t, size_t i)
{
    size_t first = i * WAYS + 1, best = first;
    for (size_t k = first + 1; k < first + WAYS && k < t->n; k++) {
        best = t->heap[k].at_ns < t->heap[best].at_ns ? k : best;
    }
    return best;
}

static void sift_down(struct timers *t, size_t i, struct timers_entry x)
{
    while (i * WAYS + 1 < t->n) {
        size_t child = earliest_child(t, i);
        if (x.at_ns <= t->heap[child].at_ns) {
            break;
        }
        put(t, i, t->heap[child]);
        i = child;
    }
    put(t, i, x);
}

static void settle(struct timers *t, size_t i, struct timers_entry x)
{
    if (i > 0 && x.at_ns < t->heap[(i - 1) / WAYS].at_ns) {
        sift_up(t, i, x);
    } else {
        sift_down(t, i, x);
    }
}

void timers_arm(struct timers *t, struct timer *x, int64_t at_ns)
{
    struct timers_entry entry = {at_ns, x};
    if (x->place) {
        settle(t, x->place - 1, entry);
        return;
    }
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->heap = xrealloc(t->heap, t->cap * sizeof *t->heap);
    }
    sift_up(t, t->n++, entry);
}

void timers_disarm(struct timers *t, struct timer *x)
{
    if (!x->place) {
        return;
    }
    size_t i = x->place - 1;
    struct timers_entry last = t->heap[--t->n];
    x->place = 0;
    if (last.timer != x) {
        settle(t, i, last);
    }
}

int64_t timers_next_ns(const struct timers *t)
{
    return t->n ? t->heap[0].at_ns : INT64_MAX;
}

struct timer *timers_pop(struct timers *t, int64_t now_ns)
{
    if (timers_next_ns(t) > now_ns || t->n == 0) {
        return NULL;
    }
    struct timer *x = t->heap[0].timer;
    timers_disarm(t, x);
    return x;
}

void timers_free(struct timers *t)
{
    free(t->heap);
    *t = (struct timers){0};
}
