#include "workers/router.h"

#include "core/rng.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

const char *router_name(enum router_kind kind)
{
    static const char *const names[] = {"model", "uniform", "zipf"};
    return names[kind];
}

/* The k largest of n, the first of equals, as ascending indices. */
static void choose_largest(const float *values, int n, int k, int *out)
{
    bool taken[ROUTER_MAX_EXPERTS] = {false};
    for (int i = 0; i < k; i++) {
        int best = -1;
        for (int j = 0; j < n; j++) {
            if (!taken[j] && (best < 0 || values[j] > values[best])) {
                best = j;
            }
        }
        taken[best] = true;
    }
    for (int j = 0, i = 0; j < n; j++) {
        if (taken[j]) {
            out[i++] = j;
        }
    }
}

/* The sum of a group's two best choices. */
static float group_score(const float *choices, int n)
{
    float best = -FLT_MAX, second = -FLT_MAX;
    for (int i = 0; i < n; i++) {
        if (choices[i] > best) {
            second = best;
            best = choices[i];
        } else if (choices[i] > second) {
            second = choices[i];
        }
    }
    return n > 1 ? best + second : best;
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

static void choose_in_groups(const struct arch *a, const float *logits, const float *correction,
                             int *experts)
{
    float choices[ROUTER_MAX_EXPERTS] = {0}, scores[ROUTER_MAX_EXPERTS] = {0};
    int groups[ROUTER_MAX_EXPERTS];
    const int n = a->moe.n_experts, in_group = n / a->moe.n_groups;
    for (int i = 0; i < n; i++) {
        choices[i] = sigmoid(logits[i]) + correction[i];
    }
    for (int g = 0; g < a->moe.n_groups; g++) {
        scores[g] = group_score(choices + g * in_group, in_group);
    }
    choose_largest(scores, a->moe.n_groups, a->moe.top_groups, groups);
    for (int g = 0, kept = 0; g < a->moe.n_groups; g++) {
        if (kept < a->moe.top_groups && groups[kept] == g) {
            kept++;
            continue;
        }
        // 0, not minus infinity: as the reference implementation has it.
        memset(choices + g * in_group, 0, (size_t)in_group * sizeof *choices);
    }
    choose_largest(choices, n, a->moe.top_k, experts);
}

/* --- drawn ------------------------------------------------------------------------------------ */

static double share_of(const struct arch *a, const struct moe_routing *routing, int layer,
                       uint64_t expert)
{
    if (routing->kind == ROUTER_UNIFORM) {
        return 1;
    }
    const uint64_t n = (uint64_t)a->moe.n_experts;
    const uint64_t rank = rng_permute(expert, n, 0, RNG_ROUTE, (uint64_t)layer);
    return pow((double)(rank + 1), -routing->s);
}

/* top_k experts, one after the other among those not drawn yet. */
void router_draw(const struct arch *a, const struct moe_routing *routing,
                 const struct router_place *place, int *experts)
{
    float drawn[ROUTER_MAX_EXPERTS] = {0};
    double shares[ROUTER_MAX_EXPERTS], sum = 0;
    const uint64_t n = (uint64_t)a->moe.n_experts, layer = (uint64_t)place->layer;
    for (uint64_t i = 0; i < n; i++) {
        shares[i] = share_of(a, routing, place->layer, i);
        sum += shares[i];
    }
    const uint64_t at = (uint64_t)place->pos << 32 | (uint32_t)place->token;
    for (int k = 0; k < a->moe.top_k; k++) {
        double left = rng_uniform(layer, RNG_ROUTE, at, (uint64_t)k) * sum;
        uint64_t last = 0;
        for (uint64_t i = 0; i < n && left >= 0; i++) {
            if (drawn[i] == 0) {
                left -= shares[i];
                last = i;
            }
        }
        drawn[last] = 1;
        sum -= shares[last];
    }
    choose_largest(drawn, a->moe.n_experts, a->moe.top_k, experts);
}

/* --- weights ---------------------------------------------------------------------------------- */

static void softmax(float *x, int n)
{
    float largest = x[0], sum = 0;
    for (int i = 1; i < n; i++) {
        largest = fmaxf(largest, x[i]);
    }
    for (int i = 0; i < n; i++) {
        x[i] = expf(x[i] - largest);
        sum += x[i];
    }
    for (int i = 0; i < n; i++) {
        x[i] /= sum;
    }
}

static void weigh(const struct arch *a, float *x)
{
    const int n = a->moe.top_k;
    if (a->moe.router == ARCH_ROUTER_SOFTMAX) {
        softmax(x, n);
        return;
    }
    float sum = 1e-20f;
    for (int i = 0; i < n; i++) {
        x[i] = sigmoid(x[i]);
        sum += x[i];
    }
    for (int i = 0; i < n; i++) {
        x[i] = (a->moe.normalise ? x[i] / sum : x[i]) * a->moe.scale;
    }
}

void router_choose(const struct arch *a, const struct moe_routing *routing, const float *logits,
                   const float *correction, const struct router_place *place, int *experts,
                   float *weights)
{
    CHECK(a->moe.n_experts <= ROUTER_MAX_EXPERTS && a->moe.top_k <= ROUTER_MAX_TOP);
    if (routing->kind != ROUTER_MODEL) {
        router_draw(a, routing, place, experts);
    } else if (a->moe.router == ARCH_ROUTER_GROUPS) {
        choose_in_groups(a, logits, correction, experts);
    } else {
        choose_largest(logits, a->moe.n_experts, a->moe.top_k, experts);
    }
    for (int i = 0; i < a->moe.top_k; i++) {
        weights[i] = logits[experts[i]];
    }
    weigh(a, weights);
}
