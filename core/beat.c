#include "core/beat.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/mem.h"

#define SEND_AT_LEAST_NS (100 * NS_PER_MS) // no more often than this
#define NOT_UP_NS        (60 * NS_PER_S)   // ranks start watching within this of each other

static int64_t max_ns(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void beat_arm(struct beat *b, int rank, int size, int64_t timeout_ns, int64_t now_ns)
{
    beat_free(b);
    *b = (struct beat){
        .timeout_ns = timeout_ns,
        .send_every_ns = max_ns(timeout_ns / 8, SEND_AT_LEAST_NS),
        .last_turn_ns = now_ns,
        .next_turn_ns = now_ns,
        .next_send_ns = now_ns,
        .rank = rank,
        .size = size,
        .heard_ns = xcalloc((size_t)size, sizeof *b->heard_ns),
        .ever = xcalloc((size_t)size, sizeof *b->ever),
    };
    for (int r = 0; r < size; r++) {
        b->heard_ns[r] = now_ns;
    }
}

void beat_free(struct beat *b)
{
    free(b->heard_ns);
    free(b->ever);
    *b = (struct beat){0};
}

bool beat_turn(struct beat *b, int64_t now_ns)
{
    if (!b->timeout_ns) {
        return false;
    }
    if (now_ns - b->last_turn_ns > b->timeout_ns / 2) {
        for (int r = 0; r < b->size; r++) {
            b->heard_ns[r] = now_ns;
        }
    }
    b->last_turn_ns = now_ns;
    if (now_ns < b->next_turn_ns) {
        return false;
    }
    b->next_turn_ns = now_ns + b->send_every_ns / 4;
    return true;
}

bool beat_send_due(struct beat *b, int64_t now_ns)
{
    if (now_ns < b->next_send_ns) {
        return false;
    }
    b->next_send_ns = now_ns + b->send_every_ns;
    return true;
}

void beat_heard(struct beat *b, int rank, int64_t now_ns)
{
    if (b->timeout_ns) {
        b->heard_ns[rank] = now_ns;
        b->ever[rank] = true;
    }
}

int beat_silent(const struct beat *b, int64_t now_ns, int64_t *age_ns)
{
    int first = b->rank == 0 ? 1 : 0;
    int end = b->rank == 0 ? b->size : 1;
    for (int r = first; r < end; r++) {
        int64_t age = now_ns - b->heard_ns[r];
        int64_t limit = b->ever[r] ? b->timeout_ns : max_ns(b->timeout_ns, NOT_UP_NS);
        if (age > limit) {
            *age_ns = age;
            return r;
        }
    }
    return -1;
}
