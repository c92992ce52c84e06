/*
 * The forms a model can be measured in: what its weights are made at load, and what keys and values are
 * cached in.
 */
#pragma once

#include <stdbool.h>

#include "core/err.h"
#include "model/arch.h"
#include "workers/bench.h"

#define BENCH_FORMS_WEIGHTS 4 // forms that there are
#define BENCH_FORMS_KV      4
#define BENCH_FORMS_MAX     (BENCH_FORMS_WEIGHTS * BENCH_FORMS_KV + 1)

struct bench_form {
    const char *weights, *kv; // static
};

struct bench_forms {
    struct bench_form v[BENCH_FORMS_MAX];
    int n;
};

/*
 * One form of each: the texts of --weights and --kv, NULL for as-is and for what the backend's attention is made
 * for: f32, of cuda bf16.
 */
int bench_forms_one(struct bench_form *f, const char *backend, const char *weights, const char *kv,
                    struct err *e) ERR_CHECKED;

/*
 * The baseline, bf16 in bf16, then all of the lists' pairs, once each; NULL: of everything there is. For
 * a model whose weights are kept in bf16 anyway, as-is and bf16 are one form, named bf16.
 */
int bench_forms_all(struct bench_forms *f, const struct arch *a, const char *weights,
                    const char *kv, struct err *e) ERR_CHECKED;

void bench_forms_apply(const struct bench_form *f, struct bench_config *cfg);
