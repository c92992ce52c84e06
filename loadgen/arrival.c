#include "loadgen/arrival.h"

#include "core/clock.h"
#include "core/err.h"
#include "core/rng.h"

#include <math.h>

#define FAR_NS 0x1p62 // beyond any step; still exact to convert
#define TWO_PI 6.283185307179586

void arrival_init(struct arrival *a, const struct load_config *cfg, double rate_rps,
                  int64_t step_ns, uint64_t seed, const struct dataset *ds)
{
    CHECK(cfg->arrival == LOAD_TRACE || (load_has_rate(cfg) && rate_rps > 0.0));
    *a = (struct arrival){
        .cfg = cfg, .rate_rps = rate_rps, .step_ns = step_ns, .seed = seed, .ds = ds};
}

static double uniform(const struct arrival *a, uint64_t i, uint64_t b)
{
    return rng_uniform(a->seed, RNG_ARRIVAL, i, b);
}

/*
 * A gamma variate of this shape and mean 1 for event i: Marsaglia and Tsang 2000, "A simple method for
 * generating gamma variables", which accepts more than 95 % of its attempts; a shape below 1 by their
 * power of a uniform. Attempt k draws with the second counter word 3k + 1 .. 3k + 3, the power with 0.
 */
static double gamma_gap(const struct arrival *a, uint64_t i, double shape)
{
    bool is_raised = shape < 1.0;
    double d = (is_raised ? shape + 1.0 : shape) - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d), v = 0.0;
    for (uint64_t b = 1;; b += 3) {
        double normal = sqrt(-2.0 * log(uniform(a, i, b))) * cos(TWO_PI * uniform(a, i, b + 1));
        v = 1.0 + c * normal;
        v = v * v * v;
        if (v > 0.0 && log(uniform(a, i, b + 2)) < 0.5 * normal * normal + d - d * v + d * log(v)) {
            break;
        }
    }
    return d * v / shape * (is_raised ? pow(uniform(a, i, 0), 1.0 / shape) : 1.0);
}

static double gap(const struct arrival *a, uint64_t i)
{
    if (a->cfg->arrival == LOAD_POISSON) {
        return -log(uniform(a, i, 0));
    }
    return gamma_gap(a, i, 1.0 / (a->cfg->arrival_cv * a->cfg->arrival_cv));
}

/* Where a process of steady rate has its next event. */
static double next_steady_ns(struct arrival *a, uint64_t i)
{
    if (a->cfg->arrival == LOAD_CONSTANT) {
        return (double)i * (double)NS_PER_S / a->rate_rps;
    }
    a->sum_ns += gap(a, i) / a->rate_rps * (double)NS_PER_S;
    return a->sum_ns;
}

bool arrival_next(struct arrival *a, int64_t *t_ns)
{
    uint64_t i = a->i++;
    if (a->cfg->arrival == LOAD_TRACE) {
        if (i >= dataset_n_arrivals(a->ds)) {
            return false;
        }
        *t_ns = dataset_arrival_ns(a->ds, i);
        return true;
    }
    double steady_ns = next_steady_ns(a, i), step_ns = (double)a->step_ns;
    if (a->cfg->ramp.kind != RAMP_NONE) {
        steady_ns = ramp_inverse(a->cfg->ramp, steady_ns / step_ns) * step_ns;
    }
    *t_ns = (int64_t)fmin(steady_ns, FAR_NS);
    return true;
}
