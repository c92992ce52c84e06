#include "loadgen/ready.h"

#include <stdlib.h>

static struct ready_slot *slot(struct ready *r, size_t event)
{
    return &r->slots[event % r->cap];
}

int ready_begin(struct ready *r, size_t cap, size_t max_bytes, struct err *e)
{
    CHECK(cap > 0);
    if (cap != r->cap) {
        ready_free(r);
        r->slots = calloc(cap, sizeof *r->slots);
        if (!r->slots) {
            return err_set(e, ERR_ENV, "no memory for %zu requests ahead", cap);
        }
    }
    r->cap = cap;
    r->max_bytes = max_bytes;
    r->first = r->n = r->n_bytes = 0;
    return 0;
}

void ready_free(struct ready *r)
{
    for (size_t i = 0; i < r->cap; i++) {
        str_free(&r->slots[i].payload);
    }
    free(r->slots);
    *r = (struct ready){0};
}

bool ready_has_room(const struct ready *r)
{
    return r->n < r->cap && r->n_bytes < r->max_bytes;
}

struct str *ready_next(struct ready *r, size_t *event)
{
    CHECK(ready_has_room(r));
    *event = r->first + r->n;
    struct str *s = &slot(r, *event)->payload;
    str_clear(s);
    return s;
}

void ready_done(struct ready *r)
{
    struct ready_slot *s = slot(r, r->first + r->n++);
    s->n_bytes = s->payload.len;
    r->n_bytes += s->n_bytes;
}

struct str *ready_find(struct ready *r, size_t event)
{
    return event >= r->first && event < r->first + r->n ? &slot(r, event)->payload : NULL;
}

void ready_drop(struct ready *r, size_t event)
{
    for (; r->n > 0 && r->first <= event; r->first++, r->n--) {
        r->n_bytes -= slot(r, r->first)->n_bytes;
    }
    if (r->n == 0 && r->first <= event) {
        r->first = event + 1;
    }
}
