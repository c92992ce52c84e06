#include "workers/quality.h"

#include <math.h>
#include <stdlib.h>

/* --- one position ----------------------------------------------------------------------------- */

/* ln of what exp of the logits must be divided by to be a distribution. */
struct normaliser {
    double log_sum;
    int32_t top;
};

static struct normaliser normalise(const float *logits, int vocab)
{
    int32_t top = 0;
    for (int i = 1; i < vocab; i++) {
        top = logits[i] > logits[top] ? i : top;
    }
    const double largest = (double)logits[top];
    double sum = 0;
    for (int i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - largest);
    }
    return (struct normaliser){largest + log(sum), top};
}

struct quality_position quality_compare(const float *base, const float *logits, int vocab,
                                        int32_t next)
{
    const struct normaliser p = normalise(base, vocab), q = normalise(logits, vocab);
    double kl = 0;
    for (int i = 0; i < vocab; i++) {
        const double log_p = (double)base[i] - p.log_sum, chance = exp(log_p);
        if (chance > 0 || isnan(chance)) { // 0 ln 0 counts as 0
            kl += chance * (log_p - ((double)logits[i] - q.log_sum));
        }
    }
    return (struct quality_position){
        .base_surprise = p.log_sum - (double)base[next],
        .surprise = q.log_sum - (double)logits[next],
        .kl = kl < 0 ? 0 : kl, // what is below is rounding
        .base_top = p.top,
        .top = q.top,
    };
}

/* --- all of them ------------------------------------------------------------------------------ */

static struct quality_estimate mean_of(const double *v, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i];
    }
    const double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) {
        squares += (v[i] - mean) * (v[i] - mean);
    }
    const double se = n > 1 ? sqrt(squares / ((double)n * (double)(n - 1))) : (double)NAN;
    return (struct quality_estimate){mean, se};
}

static struct quality_estimate exp_of(struct quality_estimate x)
{
    const double value = exp(x.value);
    return (struct quality_estimate){value, value * x.se};
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* v (n) ascending. */
static double percentile(const double *v, size_t n, double share)
{
    const double at = share * (double)(n - 1);
    const size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
    return v[below] + (at - (double)below) * (v[above] - v[below]);
}

static void summarise_kl(double *kl, size_t n, struct quality_summary *out)
{
    out->kl = mean_of(kl, n);
    if (isnan(out->kl.value)) { // nothing to be ordered
        out->kl_p99 = out->kl_max = (double)NAN;
        return;
    }
    qsort(kl, n, sizeof *kl, ascending);
    out->kl_p99 = percentile(kl, n, 0.99);
    out->kl_max = kl[n - 1];
}

int quality_summarise(const struct quality_position *positions, size_t n,
                      struct quality_summary *out, struct err *e)
{
    CHECK(n >= 1);
    double *v = malloc(n * sizeof *v);
    if (!v) {
        return err_set(e, ERR_ENV, "no memory for %zu positions of a text", n);
    }
    *out = (struct quality_summary){.n = n};
    for (size_t i = 0; i < n; i++) {
        v[i] = positions[i].surprise;
    }
    out->perplexity = exp_of(mean_of(v, n));
    for (size_t i = 0; i < n; i++) {
        v[i] -= positions[i].base_surprise;
    }
    out->ratio = exp_of(mean_of(v, n));
    size_t same = 0;
    for (size_t i = 0; i < n; i++) {
        v[i] = positions[i].kl;
        same += positions[i].top == positions[i].base_top;
    }
    const double share = (double)same / (double)n;
    out->same_top.value = share;
    out->same_top.se = n > 1 ? sqrt(share * (1 - share) / (double)(n - 1)) : (double)NAN;
    summarise_kl(v, n, out);
    free(v);
    return 0;
}
