#include "loadgen/spread.h"

#include "core/mem.h"

#include <stdlib.h>

#define KEEP_WEIGHTS 1024

void spread_reserve(struct spread *s, size_t n)
{
    if (n > s->cap) {
        s->weights = xrealloc(s->weights, n * sizeof *s->weights);
        s->cap = n;
    }
}

void spread_add(struct spread *s, uint32_t weight)
{
    if (s->n == s->cap) {
        spread_reserve(s, s->cap > 0 ? 2 * s->cap : 64);
    }
    s->weights[s->n++] = weight;
}

const uint32_t *spread_tokens(struct spread *s, uint32_t n_tokens)
{
    uint64_t total = 0, sum = 0, given = 0;
    for (size_t i = 0; i < s->n; i++) {
        total += s->weights[i];
    }
    for (size_t i = 0; i < s->n; i++) {
        sum += total > 0 ? s->weights[i] : 1;
        uint64_t of = total > 0 ? total : s->n;
        uint64_t up_to = (uint64_t)((double)n_tokens * (double)sum / (double)of + 0.5);
        if (n_tokens >= s->n) { // each event had text, so it had a token
            const uint64_t least = given + 1, most = n_tokens - (s->n - 1 - i);
            up_to = up_to < least ? least : up_to > most ? most : up_to;
        }
        up_to = up_to == 0 ? 1 : up_to; // the first one in any case
        up_to = i + 1 == s->n ? n_tokens : up_to;
        s->weights[i] = (uint32_t)(up_to - given);
        given = up_to;
    }
    return s->weights;
}

void spread_clear(struct spread *s)
{
    if (s->cap > KEEP_WEIGHTS) {
        spread_free(s);
    }
    s->n = 0;
}

void spread_free(struct spread *s)
{
    free(s->weights);
    *s = (struct spread){0};
}
