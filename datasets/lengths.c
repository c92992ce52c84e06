#include "datasets/lengths.h"

#include <math.h>

#define MAX_TOKENS 1e9
#define SHORTEST_U 1e-6

int lengths_init(struct lengths *l, const struct dist *forced, const struct quantile_table *table,
                 struct err *e)
{
    *l = (struct lengths){.is_forced = dist_is_set(forced), .forced = *forced};
    return quantile_init(&l->table, table, e);
}

uint32_t lengths_at(const struct lengths *l, double u)
{
    double x = l->is_forced ? round(dist_at(&l->forced, u)) : quantile_at(&l->table, u);
    return (uint32_t)fmin(fmax(x, 1.0), MAX_TOKENS);
}

uint32_t lengths_shortest(const struct lengths *l)
{
    return lengths_at(l, SHORTEST_U);
}

bool lengths_is_constant(const struct lengths *l)
{
    return l->is_forced && l->forced.kind == DIST_CONSTANT;
}
