#include "loadgen/ramp.h"

#include "core/err.h"

#include <math.h>

double ramp_mean(struct ramp r)
{
    double a = r.from, b = r.to;
    switch ((enum ramp_kind)r.kind) {
    case RAMP_NONE:
        return 1.0;
    case RAMP_LINEAR:
        return 0.5 * (a + b);
    case RAMP_GEOMETRIC:
        return a == b ? a : (b - a) / log(b / a);
    }
    CHECK(false);
    return 0.0;
}

static double linear_inverse(double a, double b, double y)
{
    double square = a * a + 2.0 * (b - a) * y;
    if (y == 0.0 || square < 0.0) {
        return y == 0.0 ? 0.0 : (double)INFINITY;
    }
    return 2.0 * y / (a + sqrt(square));
}

static double geometric_inverse(double a, double b, double y)
{
    double k = log(b / a), z = y * k / a;
    if (z <= -1.0) {
        return INFINITY;
    }
    return k == 0.0 ? y / a : log1p(z) / k;
}

double ramp_inverse(struct ramp r, double y)
{
    switch ((enum ramp_kind)r.kind) {
    case RAMP_NONE:
        return y;
    case RAMP_LINEAR:
        return linear_inverse(r.from, r.to, y);
    case RAMP_GEOMETRIC:
        return geometric_inverse(r.from, r.to, y);
    }
    CHECK(false);
    return 0.0;
}
