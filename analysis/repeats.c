#include "analysis/repeats.h"

#include "core/mem.h"

#include <math.h>
#include <stdlib.h>

static double half_width(const struct stats_interval *v)
{
    double half = 0.5 * (v->hi - v->lo);
    return isfinite(half) ? half : STATS_NONE;
}

struct repeats_mean repeats_mean(const struct stats_interval *pass, size_t n)
{
    struct repeats_mean out = {.of = {STATS_NONE, STATS_NONE, STATS_NONE},
                               .between_sd = STATS_NONE};
    double *value = xcalloc(n + 1, sizeof *value), squares = 0;
    size_t n_halves = 0, only = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(pass[i].value)) {
            continue;
        }
        only = i;
        value[out.n++] = pass[i].value;
        double half = half_width(&pass[i]);
        squares += isnan(half) ? 0 : half * half;
        n_halves += !isnan(half);
    }
    if (out.n == 1) {
        out.of = pass[only];
    } else if (out.n > 1) {
        double root = sqrt((double)out.n), within = n_halves ? sqrt(squares / (double)n_halves) : 0;
        out.between_sd = stats_sd(value, out.n);
        double half = stats_t_quantile(0.975, (double)(out.n - 1)) * out.between_sd / root;
        half = fmax(half, within / root);
        double mean = stats_mean(value, out.n);
        out.of = (struct stats_interval){mean, fmax(mean - half, fmin(mean, 0)), mean + half};
    }
    free(value);
    return out;
}
