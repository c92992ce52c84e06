#include "core/dist.h"

#include <math.h>
#include <stddef.h>

bool dist_is_set(const struct dist *d)
{
    return d->mean > 0.0 || (d->kind == DIST_UNIFORM && d->max > 0.0);
}

int dist_check(const struct dist *d, const char *key, struct err *e)
{
    if (d->max > 0.0 && d->min > d->max) {
        return err_set(e, ERR_INPUT, "%s: min %g is above max %g", key, d->min, d->max);
    }
    if (d->kind == DIST_UNIFORM && d->max <= 0.0) {
        return err_set(e, ERR_INPUT, "%s: kind uniform needs min and max", key);
    }
    if (d->kind != DIST_UNIFORM && d->mean <= 0.0) {
        return err_set(e, ERR_INPUT, "%s: needs a mean above 0", key);
    }
    if ((d->kind == DIST_NORMAL || d->kind == DIST_LOGNORMAL) && d->sd <= 0.0) {
        return err_set(e, ERR_INPUT, "%s: kinds normal and lognormal need an sd above 0", key);
    }
    return 0;
}

/* A polynomial in x, highest power first. */
static double poly(const double *c, size_t n, double x)
{
    double y = 0.0;
    for (size_t i = 0; i < n; i++) {
        y = y * x + c[i];
    }
    return y;
}

/*
 * P. J. Acklam's rational approximation of the inverse normal distribution function (relative error
 * 1.15e-9), made exact to double precision by one step of Halley's method.
 */
double dist_normal_at(double u)
{
    static const double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,
                               -2.759285104469687e+02, 1.383577518672690e+02,
                               -3.066479806614716e+01, 2.506628277459239e+00};
    static const double b[] = {-5.447609879822406e+01, 1.615858368580409e+02,
                               -1.556989798598866e+02, 6.680131188771972e+01,
                               -1.328068155288572e+01, 1.0};
    static const double c[] = {-7.784894002430293e-03, -3.223964580411365e-01,
                               -2.400758277161838e+00, -2.549732539343734e+00,
                               4.374664141464968e+00,  2.938163982698783e+00};
    static const double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                               3.754408661907416e+00, 1.0};
    const double tail = 0.02425;
    double x;
    if (u < tail || u > 1.0 - tail) {
        double q = sqrt(-2.0 * log(u < tail ? u : 1.0 - u));
        x = poly(c, 6, q) / poly(d, 5, q) * (u < tail ? 1.0 : -1.0);
    } else {
        double q = u - 0.5;
        x = poly(a, 6, q * q) * q / poly(b, 6, q * q);
    }
    double off = 0.5 * erfc(-x / M_SQRT2) - u;
    double step = off * sqrt(2.0 * M_PI) * exp(x * x / 2.0);
    return x - step / (1.0 + x * step / 2.0);
}

static double lognormal_at(const struct dist *d, double u)
{
    double variance = log1p(d->sd * d->sd / (d->mean * d->mean)); // of the logarithm
    return exp(log(d->mean) - variance / 2.0 + sqrt(variance) * dist_normal_at(u));
}

static double unbounded_at(const struct dist *d, double u)
{
    switch (d->kind) {
    case DIST_UNIFORM:
        return d->min + (d->max - d->min) * u;
    case DIST_NORMAL:
        return d->mean + d->sd * dist_normal_at(u);
    case DIST_LOGNORMAL:
        return lognormal_at(d, u);
    case DIST_EXPONENTIAL:
        return -d->mean * log1p(-u);
    default:
        return d->mean;
    }
}

double dist_at(const struct dist *d, double u)
{
    double x = unbounded_at(d, u);
    x = x < d->min ? d->min : x;
    return d->max > 0.0 && x > d->max ? d->max : x;
}
