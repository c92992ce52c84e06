#include "model/token_ids.h"

#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

#define MIN_CAP 64u

void token_ids_reserve(struct token_ids *t, size_t n)
{
    if (t->cap - t->n >= n) {
        return;
    }
    size_t cap = t->cap != 0 ? t->cap : MIN_CAP;
    while (cap - t->n < n) {
        cap *= 2;
    }
    t->v = xrealloc(t->v, cap * sizeof *t->v);
    t->cap = cap;
}

void token_ids_push(struct token_ids *t, int32_t id)
{
    token_ids_reserve(t, 1);
    t->v[t->n++] = id;
}

void token_ids_append(struct token_ids *t, const int32_t *ids, size_t n)
{
    token_ids_reserve(t, n);
    if (n > 0) {
        memcpy(t->v + t->n, ids, n * sizeof *ids);
    }
    t->n += n;
}

void token_ids_free(struct token_ids *t)
{
    free(t->v);
    *t = (struct token_ids){0};
}
