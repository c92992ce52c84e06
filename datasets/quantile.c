/*
 * The inverse CDF, piece by piece. The published quantiles are knots (0.5, median), (0.9, P90),
 * (0.99, P99); an atom of mass A sits at each end, so that min and max really come out; between two
 * knots
 *
 *   Q(u) = a + (b - a) s^k,   s = (u - u_a) / (u_b - u_a)
 *
 * with one exponent k for all pieces. A piece contributes width (a + (b - a) / (k + 1)) to the
 * mean, so the k that gives the published mean has a closed form. For the published tables k is
 * 1.50 and 1.63: convex. Straight lines (k = 1) would give means of 255 and 223 for 226 and 195.
 */
#include "datasets/quantile.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#define ATOM      0.0005 // mass at min and at max: 100,000 draws miss one with probability e^-50
#define SHAPE_MIN 0.05
#define SHAPE_MAX 20.0

const struct quantile_table quantile_sharegpt_input = {
    .min = 4, .median = 108, .mean = 226, .p90 = 635, .p99 = 887, .max = 1024};
const struct quantile_table quantile_sharegpt_output = {
    .min = 1, .median = 132, .mean = 195, .p90 = 488, .p99 = 778, .max = 1024};

static int check_order(const struct quantile_table *t, struct err *e)
{
    bool rises = t->min >= 0 && t->min <= t->median && t->median <= t->p90 && t->p90 <= t->p99 &&
                 t->p99 <= t->max && isfinite(t->max) && isfinite(t->mean);
    if (!rises) {
        return err_set(e, ERR_INPUT,
                       "quantiles: 0 <= min <= median <= p90 <= p99 <= max is needed");
    }
    return 0;
}

int quantile_init(struct quantile_sampler *q, const struct quantile_table *t, struct err *e)
{
    if (check_order(t, e) != 0) {
        return -1;
    }
    struct quantile_sampler s = {
        .table = *t,
        .knots = {ATOM, 0.5, 0.9, 0.99, 1.0 - ATOM},
        .values = {t->min, t->median, t->p90, t->p99, t->max},
        .n_pieces = 4,
    };
    double base = ATOM * (t->min + t->max), rise = 0.0; // mean = base + rise / (k + 1)
    for (int i = 0; i < s.n_pieces; i++) {
        double width = s.knots[i + 1] - s.knots[i];
        base += width * s.values[i];
        rise += width * (s.values[i + 1] - s.values[i]);
    }
    bool is_constant = rise <= 0.0;
    double shape = is_constant ? 1.0 : rise / (t->mean - base) - 1.0;
    bool fits = is_constant ? t->mean == t->min
                            : t->mean > base && shape >= SHAPE_MIN && shape <= SHAPE_MAX;
    if (!fits) {
        return err_set(e, ERR_INPUT,
                       "quantiles: a mean of %g does not go with the others (%.5g to %.5g does)",
                       t->mean, base + rise / (SHAPE_MAX + 1.0), base + rise / (SHAPE_MIN + 1.0));
    }
    for (int i = 0; i < s.n_pieces; i++) {
        s.shape[i] = shape;
    }
    *q = s;
    return 0;
}

double quantile_at(const struct quantile_sampler *q, double u)
{
    if (u <= q->knots[0]) {
        return round(q->values[0]);
    }
    int i = 0;
    while (i < q->n_pieces && u > q->knots[i + 1]) {
        i++;
    }
    if (i == q->n_pieces) {
        return round(q->values[q->n_pieces]);
    }
    double s = (u - q->knots[i]) / (q->knots[i + 1] - q->knots[i]);
    return round(q->values[i] + (q->values[i + 1] - q->values[i]) * pow(s, q->shape[i]));
}
