#include "model/split.h"

#include "core/mem.h"
#include "model/sizes.h"

#include <math.h>
#include <stdlib.h>

struct problem {
    const struct split_costs *costs;
    const struct split_memory *memory; // NULL: no limit
    int n_stages;
    double *cost_sum, *memory_sum; // (n_layers + 1) of the layers before
    double limit;                  // of a stage's cost
    double *best; // (n_stages + 1, n_layers + 1) for the first s stages holding l layers
    int *taken;   // same shape: layers of stage s - 1 in that best
};

static double *prefix_sums(const double *v, int n)
{
    double *sums = xcalloc((size_t)n + 1, sizeof *sums);
    for (int i = 0; i < n; i++) {
        sums[i + 1] = sums[i] + v[i];
    }
    return sums;
}

/* Of stage s with layers from .. to - 1; HUGE_VAL where it does not fit. */
static double stage_cost(const struct problem *p, int s, int from, int to)
{
    bool is_first = s == 0, is_last = s == p->n_stages - 1;
    if (p->memory) {
        double held = p->memory_sum[to] - p->memory_sum[from] + (is_first ? p->memory->embed : 0) +
                      (is_last ? p->memory->head : 0);
        if (held > p->memory->limit) {
            return HUGE_VAL;
        }
    }
    double cost = p->cost_sum[to] - p->cost_sum[from] + (is_first ? p->costs->embed : 0) +
                  (is_last ? p->costs->head : 0);
    return cost <= p->limit ? cost : HUGE_VAL;
}

static double larger(double so_far, double cost)
{
    return cost > so_far ? cost : so_far;
}

static double add_square(double so_far, double cost)
{
    return so_far + cost * cost;
}

/* The smallest fold of stage costs, none above p->limit; HUGE_VAL: there is none. */
static double best_split(struct problem *p, double (*fold)(double, double))
{
    int n_layers = p->costs->n_layers;
    size_t width = (size_t)n_layers + 1;
    for (size_t i = 0; i < width * ((size_t)p->n_stages + 1); i++) {
        p->best[i] = HUGE_VAL;
    }
    p->best[0] = 0;
    for (int s = 1; s <= p->n_stages; s++) {
        const double *from = p->best + (size_t)(s - 1) * width;
        double *to = p->best + (size_t)s * width;
        int *taken = p->taken + (size_t)s * width;
        for (int l = s; l <= n_layers - (p->n_stages - s); l++) {
            for (int n = 1; n <= l - (s - 1); n++) {
                double cost = stage_cost(p, s - 1, l - n, l), total = fold(from[l - n], cost);
                if (fold(0, cost) >= to[l]) {
                    break; // and more layers cost no less
                }
                if (total < to[l]) {
                    to[l] = total;
                    taken[l] = n;
                }
            }
        }
    }
    return p->best[(size_t)p->n_stages * width + (size_t)n_layers];
}

/* Sums of other orders may differ in the last bits from the limit that was found. */
static double just_above(double limit)
{
    return limit * (1 + 1e-12);
}

bool split_layers(const struct split_costs *c, const struct split_memory *m, int n_stages,
                  int *first)
{
    CHECK(n_stages >= 1 && n_stages <= c->n_layers);
    size_t cells = ((size_t)n_stages + 1) * ((size_t)c->n_layers + 1);
    struct problem p = {
        .costs = c,
        .memory = m,
        .n_stages = n_stages,
        .cost_sum = prefix_sums(c->layer, c->n_layers),
        .memory_sum = m ? prefix_sums(m->layer, c->n_layers) : NULL,
        .limit = HUGE_VAL,
        .best = xcalloc(cells, sizeof *p.best),
        .taken = xcalloc(cells, sizeof *p.taken),
    };
    p.limit = just_above(best_split(&p, larger));
    bool fits = isfinite(p.limit);
    if (fits) {
        best_split(&p, add_square);
        first[n_stages] = c->n_layers;
        for (int s = n_stages; s > 0; s--) {
            size_t at = (size_t)s * ((size_t)c->n_layers + 1) + (size_t)first[s];
            first[s - 1] = first[s] - p.taken[at];
        }
    }
    free(p.cost_sum);
    free(p.memory_sum);
    free(p.best);
    free(p.taken);
    return fits;
}

void split_equal(int n_layers, int n_stages, int *first)
{
    CHECK(n_stages >= 1 && n_stages <= n_layers);
    int each = n_layers / n_stages, left = n_layers % n_stages;
    int from = (n_stages - left) / 2; // the first of the stages that have one more
    first[0] = 0;
    for (int s = 0; s < n_stages; s++) {
        first[s + 1] = first[s] + each + (s >= from && s < from + left);
    }
}

double split_stage_cost(const struct split_costs *c, int n_stages, const int *first, int s)
{
    double cost = (s == 0 ? c->embed : 0) + (s == n_stages - 1 ? c->head : 0);
    for (int l = first[s]; l < first[s + 1]; l++) {
        cost += c->layer[l];
    }
    return cost;
}

double split_imbalance(const struct split_costs *c, int n_stages, const int *first)
{
    double slowest = 0, sum = 0;
    for (int s = 0; s < n_stages; s++) {
        double cost = split_stage_cost(c, n_stages, first, s);
        slowest = cost > slowest ? cost : slowest;
        sum += cost;
    }
    return sum > 0 ? slowest * n_stages / sum : 1;
}

void split_by_bytes(const struct arch *a, double n_tokens, int n_stages, int *first)
{
    double *layer = xcalloc((size_t)a->n_layers, sizeof *layer);
    for (int i = 0; i < a->n_layers; i++) {
        struct sizes_layer l = sizes_layer(a, i);
        layer[i] = sizes_read_bytes(a, &l, n_tokens);
    }
    const struct split_costs c = {
        .n_layers = a->n_layers,
        .layer = layer,
        .embed = n_tokens * a->hidden * sizes_value_bytes(a->dtype),
        .head = sizes_head_bytes(a),
    };
    CHECK(split_layers(&c, NULL, n_stages, first));
    free(layer);
}
