#include "workers/ceilings.h"

#include <string.h>

#include "core/err.h"

const struct ceiling *ceilings_find(const struct ceilings *c, const char *name)
{
    for (int i = 0; i < c->n; i++) {
        if (strcmp(c->v[i].name, name) == 0) {
            return &c->v[i];
        }
    }
    return NULL;
}

double ceilings_rate(const struct ceilings *c, const char *name)
{
    const struct ceiling *found = ceilings_find(c, name);
    return found ? found->per_s : 0;
}

void ceilings_keep(struct ceilings *c, const char *name, enum ceilings_unit unit, const char *how,
                   double per_s)
{
    int i = 0;
    while (i < c->n && strcmp(c->v[i].name, name) != 0) {
        i++;
    }
    if (i == c->n) {
        CHECK(c->n < CEILINGS_MAX);
        c->v[c->n++] = (struct ceiling){name, unit, "", 0};
    }
    if (per_s > c->v[i].per_s) {
        c->v[i].how = how;
        c->v[i].per_s = per_s;
    }
}
