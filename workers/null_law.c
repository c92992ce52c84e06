#include "workers/null_law.h"

#include "core/dist.h"
#include "core/rng.h"

static int64_t draw(const struct serve_config *c, int64_t mean_ns, uint64_t request, uint64_t token)
{
    static const int kinds[] = {
        [SERVE_CONSTANT] = DIST_CONSTANT,
        [SERVE_EXPONENTIAL] = DIST_EXPONENTIAL,
        [SERVE_LOGNORMAL] = DIST_LOGNORMAL,
    };
    if (c->law == SERVE_CONSTANT || mean_ns == 0) {
        return mean_ns;
    }
    const struct dist d = {
        .kind = kinds[c->law], .mean = (double)mean_ns, .sd = c->cv * (double)mean_ns};
    return (int64_t)dist_at(&d, rng_uniform((uint64_t)c->seed, RNG_SERVE, request, token));
}

int64_t null_law_ttft_ns(const struct serve_config *c, uint64_t request)
{
    return draw(c, c->ttft_ns, request, 0);
}

int64_t null_law_gap_ns(const struct serve_config *c, uint64_t request, int64_t token)
{
    return draw(c, c->itl_ns, request, (uint64_t)token);
}
