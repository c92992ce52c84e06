#include "loadgen/arrival.h"

#include "core/clock.h"
#include "core/err.h"
#include "core/rng.h"

#include <math.h>

#define FAR_NS 0x1p62 // beyond any step; still exact to convert

void arrival_init(struct arrival *a, enum load_arrival kind, double rate_rps, uint64_t seed,
                  const struct dataset *ds)
{
    CHECK(kind != LOAD_CLOSED);
    CHECK(kind == LOAD_TRACE || rate_rps > 0.0);
    *a = (struct arrival){.kind = kind, .rate_rps = rate_rps, .seed = seed, .ds = ds};
}

static bool at(double t_ns, int64_t *out)
{
    *out = (int64_t)fmin(t_ns, FAR_NS);
    return true;
}

bool arrival_next(struct arrival *a, int64_t *t_ns)
{
    uint64_t i = a->i++;
    switch (a->kind) {
    case LOAD_POISSON:
        a->sum_ns += -log(rng_uniform(a->seed, RNG_ARRIVAL, i, 0)) / a->rate_rps * (double)NS_PER_S;
        return at(a->sum_ns, t_ns);
    case LOAD_CONSTANT:
        return at((double)i * (double)NS_PER_S / a->rate_rps, t_ns);
    case LOAD_TRACE:
        if (i >= dataset_n_arrivals(a->ds)) {
            return false;
        }
        *t_ns = dataset_arrival_ns(a->ds, i);
        return true;
    case LOAD_CLOSED:
        break;
    }
    return false;
}
