/*
 * The length of prompts or outputs: forced by the user (a number, a distribution), or drawn from the
 * published table where the source gives none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/dist.h"
#include "core/err.h"
#include "datasets/quantile.h"

struct lengths {
    bool is_forced;
    struct dist forced;
    struct quantile_sampler table;
};

int lengths_init(struct lengths *l, const struct dist *forced, const struct quantile_table *table,
                 struct err *e) ERR_CHECKED;

/* Tokens at u in (0, 1): at least 1. */
uint32_t lengths_at(const struct lengths *l, double u);

/* The shortest that is worth waiting for: what is left when every draw was too long. */
uint32_t lengths_shortest(const struct lengths *l);

/* Whether all of them are the same. */
bool lengths_is_constant(const struct lengths *l);
