#include "model/token_ids.h"

#include "core/mem.h"

#include <stdlib.h>

#define MIN_CAP 64u

void token_ids_push(struct token_ids *t, int32_t id)
{
    if (t->n == t->cap) {
        t->cap = t->cap != 0 ? 2 * t->cap : MIN_CAP;
        t->v = xrealloc(t->v, t->cap * sizeof *t->v);
    }
    t->v[t->n++] = id;
}

void token_ids_free(struct token_ids *t)
{
    free(t->v);
    *t = (struct token_ids){0};
}
