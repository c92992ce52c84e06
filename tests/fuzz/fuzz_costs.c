/* Any bytes as a file of costs: what is accepted gives times that are numbers, and is written as read. */
#include "workers/sim/costs.h"

#include <jansson.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct arch arch = {
    .n_layers = 4,
    .hidden = 64,
    .vocab = 100,
    .window = 16,
    .sliding = {true, false, true, false},
    .moe = {.n_experts = 8, .top_k = 2, .first_layer = 2},
};

static void check_costs(const struct costs *c)
{
    const struct costs_load l = costs_load_decode(&arch, 7, 100);
    double ns = costs_stage_ns(c, &arch, 0, 4, true, true, &l);
    CHECK(isfinite(ns) && ns >= 0 && isfinite(costs_hop_ns(c, 1e6)));
    struct costs again;
    struct err e = {0};
    json_t *root = costs_json(c, &arch);
    CHECK(root);
    char *text = json_dumps(root, JSON_REAL_PRECISION(17));
    CHECK(costs_parse(text, strlen(text), "again", &arch, &again, &e) == 0);
    CHECK(memcmp(again.kinds, c->kinds, sizeof c->kinds) == 0);
    free(text);
    json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct costs c;
    if (costs_parse((const char *)data, size, "input", &arch, &c, &e)) {
        CHECK(e.code == ERR_INPUT && strncmp(e.msg, "input:", 6) == 0);
    } else {
        check_costs(&c);
    }
    return 0;
}
