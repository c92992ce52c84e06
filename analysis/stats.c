#include "analysis/stats.h"

#include "core/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXACT_RANKS 2000 // up to here binomial sums, beyond the normal approximation

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void stats_sort(double *v, size_t n)
{
    if (n > 1) {
        qsort(v, n, sizeof *v, compare);
    }
}

double stats_percentile(const double *v, size_t n, double p)
{
    if (n == 0) {
        return STATS_NONE;
    }
    double h = (double)(n - 1) * p;
    size_t k = (size_t)h;
    return k + 1 < n ? v[k] + (h - (double)k) * (v[k + 1] - v[k]) : v[n - 1];
}

double stats_median(const double *v, size_t n)
{
    if (n == 0) {
        return STATS_NONE;
    }
    double *copy = xmalloc(n * sizeof *copy);
    memcpy(copy, v, n * sizeof *copy);
    stats_sort(copy, n);
    double m = stats_percentile(copy, n, 0.5);
    free(copy);
    return m;
}

double stats_mean(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i];
    }
    return n ? sum / (double)n : STATS_NONE;
}

double stats_sd(const double *v, size_t n)
{
    if (n < 2) {
        return STATS_NONE;
    }
    double mean = stats_mean(v, n), sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (v[i] - mean) * (v[i] - mean);
    }
    return sqrt(sum / (double)(n - 1));
}

/* P(B = k) for B binomial (n, p), 0 < p < 1. */
static double binomial_pmf(uint64_t n, double p, uint64_t k)
{
    double nd = (double)n, kd = (double)k;
    return exp(lgamma(nd + 1) - lgamma(kd + 1) - lgamma(nd - kd + 1) + kd * log(p) +
               (nd - kd) * log1p(-p));
}

static struct stats_ranks exact_ranks(uint64_t n, double p)
{
    struct stats_ranks r = {0, 0};
    double below = 0; // P(B <= k - 1)
    for (uint64_t k = 1; k <= n && r.hi == 0; k++) {
        below += binomial_pmf(n, p, k - 1);
        r.lo = below <= 0.025 ? k : r.lo;
        r.hi = below >= 0.975 ? k : 0;
    }
    return r;
}

struct stats_ranks stats_quantile_ranks(uint64_t n, double p)
{
    if (n <= EXACT_RANKS) {
        return exact_ranks(n, p);
    }
    double np = (double)n * p, half = STATS_Z95 * sqrt(np * (1 - p));
    double lo = floor(np - half), hi = ceil(np + half) + 1;
    return (struct stats_ranks){
        .lo = lo >= 1 ? (uint64_t)lo : 0,
        .hi = hi <= (double)n ? (uint64_t)hi : 0,
    };
}

static struct stats_interval around(double value, double se, size_t k, double confidence)
{
    if (k < 2) {
        return (struct stats_interval){value, STATS_NONE, STATS_NONE};
    }
    double half = stats_t_quantile(0.5 + confidence / 2, (double)(k - 1)) * se;
    return (struct stats_interval){value, fmax(value - half, fmin(value, 0)), value + half};
}

struct stats_interval stats_batch_means(const double *batch, size_t k)
{
    return around(stats_mean(batch, k), stats_sd(batch, k) / sqrt((double)k), k, 0.95);
}

struct stats_interval stats_batch_ratio(const double *sum, const double *count, size_t k)
{
    return stats_batch_ratio_at(sum, count, k, 0.95);
}

struct stats_interval stats_batch_ratio_at(const double *sum, const double *count, size_t k,
                                           double confidence)
{
    double total = 0, n = 0;
    size_t used = 0;
    for (size_t i = 0; i < k; i++) {
        total += sum[i];
        n += count[i];
        used += count[i] > 0;
    }
    if (used == 0) {
        return (struct stats_interval){STATS_NONE, STATS_NONE, STATS_NONE};
    }
    double mean = total / n, squares = 0;
    for (size_t i = 0; i < k; i++) {
        double residual = sum[i] - mean * count[i]; // 0 for an empty batch
        squares += residual * residual;
    }
    double se = used > 1 ? sqrt((double)used * squares / (double)(used - 1)) / n : STATS_NONE;
    return around(mean, se, used, confidence);
}

/* --- Student's t ----------------------------------------------------------------------------- */

/* Continued fraction of the incomplete beta function, modified Lentz (Press et al. 2007, 6.4). */
static double beta_fraction(double a, double b, double x)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double h = d;
    for (int m = 1; m < 500; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double step = 1;
        for (int half = 0; half < 2; half++) {
            double term = half == 0 ? even : odd;
            d = 1 + term * d;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = 1 + term / c;
            c = fabs(c) < tiny ? tiny : c;
            step = c * d;
            h *= step;
        }
        if (fabs(step - 1) < 1e-15) {
            break;
        }
    }
    return h;
}

static double log_gamma(double x)
{
    int sign;
    return lgamma_r(x, &sign);
}

/* Regularised incomplete beta function I_x(a, b). */
static double beta_inc(double a, double b, double x)
{
    if (x <= 0 || x >= 1) {
        return x <= 0 ? 0 : 1;
    }
    double front = exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                     : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

/* x with I_x(a, b) = p. */
static double beta_quantile(double a, double b, double p)
{
    double lo = 0, hi = 1;
    for (int i = 0; i < 60; i++) {
        double mid = 0.5 * (lo + hi);
        if (beta_inc(a, b, mid) < p) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    return 0.5 * (lo + hi);
}

struct stats_interval stats_binomial(double k, double n, double confidence)
{
    double tail = 0.5 * (1 - confidence);
    return (struct stats_interval){
        .value = k / n,
        .lo = k > 0 ? beta_quantile(k, n - k + 1, tail) : 0,
        .hi = k < n ? beta_quantile(k + 1, n - k, 1 - tail) : 1,
    };
}

/* P(T > t), t >= 0. */
static double t_upper_tail(double t, double df)
{
    return 0.5 * beta_inc(df / 2, 0.5, df / (df + t * t));
}

double stats_t_quantile(double p, double df)
{
    if (!(df > 0) || !(p > 0) || !(p < 1)) {
        return STATS_NONE;
    }
    double tail = p < 0.5 ? p : 1 - p;
    double lo = 0, hi = 1;
    while (t_upper_tail(hi, df) > tail && hi < 1e12) {
        hi *= 2;
    }
    for (int i = 0; i < 200 && hi - lo > 1e-13 * hi; i++) {
        double mid = 0.5 * (lo + hi);
        if (t_upper_tail(mid, df) > tail) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    double t = 0.5 * (lo + hi);
    return p < 0.5 ? -t : t;
}

/* --- slopes ---------------------------------------------------------------------------------- */

#define MIN_EFFECTIVE 6

struct stats_slope stats_slope_ar1(const double *y, size_t m, double dt)
{
    if (m < 4) {
        return (struct stats_slope){STATS_NONE, STATS_NONE, 0};
    }
    double mean = stats_mean(y, m), centre = 0.5 * (double)(m - 1) * dt, sxx = 0, sxy = 0;
    for (size_t i = 0; i < m; i++) {
        double x = (double)i * dt - centre;
        sxx += x * x;
        sxy += x * (y[i] - mean);
    }
    double slope = sxy / sxx, squares = 0, lagged = 0, before = 0;
    for (size_t i = 0; i < m; i++) {
        double residual = y[i] - mean - slope * ((double)i * dt - centre);
        squares += residual * residual;
        lagged += i > 0 ? residual * before : 0;
        before = residual;
    }
    double r = squares > 0 ? fmax(0, lagged / squares) : 0;
    double n = fmax(MIN_EFFECTIVE, (double)m * (1 - r) / (1 + r));
    double se = sqrt(squares / (double)(m - 2) / sxx * (double)m / n);
    return (struct stats_slope){slope, slope - stats_t_quantile(0.95, n - 2) * se, n};
}
