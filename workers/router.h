/*
 * Which experts a token takes, and with which weights, from its router logits: the top_k largest with a
 * softmax over those (gpt-oss), or sigmoid scores, a correction bias for the choice and the best groups
 * of experts first (DeepSeek-V3).
 *
 * A model with random weights has a random router, whose load on the experts is nothing like a trained
 * one's. So the choice, not the weights, can be drawn instead: every expert alike, or expert of rank r
 * with probability proportional to 1 / r^s, ranks shuffled anew for each layer. A draw is a function of
 * (layer, token id, position) alone: any batch or split gives the same one. Pure.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"

#define ROUTER_MAX_EXPERTS ARCH_MAX_EXPERTS
#define ROUTER_MAX_TOP     ARCH_MAX_TOP_EXPERTS

enum router_kind {
    ROUTER_MODEL, // what the logits say
    ROUTER_UNIFORM,
    ROUTER_ZIPF,
};

const char *router_name(enum router_kind kind); // "model", "uniform", "zipf"

struct moe_routing {
    enum router_kind kind;
    double s; // ROUTER_ZIPF, > 0
};

/* A token in a layer of the model. */
struct router_place {
    int layer;
    int32_t token;
    uint32_t pos;
};

/*
 * experts (top_k) in ascending order, and their weights (top_k), from logits (n_experts), bias
 * included; correction (n_experts) of ARCH_ROUTER_GROUPS.
 */
void router_choose(const struct arch *a, const struct moe_routing *routing, const float *logits,
                   const float *correction, const struct router_place *place, int *experts,
                   float *weights);

/* The choice alone where it is drawn: experts (top_k) in ascending order. */
void router_draw(const struct arch *a, const struct moe_routing *routing,
                 const struct router_place *place, int *experts);
