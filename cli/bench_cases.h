/*
 * What `tidemark bench` measures: prompts and decoding at the lengths, batches and depths that its options
 * name.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "workers/bench.h"

#define BENCH_CASES_LIST 16 // numbers of one option

struct bench_cases {
    int n, n_repeats;
    struct bench_case v[BENCH_CASES_LIST * BENCH_CASES_LIST * (1 + BENCH_CASES_LIST)]; // (n)
};

/* Texts of the options of these names. */
struct bench_cases_ask {
    const char *prompt, *gen, *batch, *depth, *repeats;
};

/* ERR_INPUT: no numbers; nothing to measure. */
int bench_cases_parse(struct bench_cases *c, const struct bench_cases_ask *ask,
                      struct err *e) ERR_CHECKED;

/* One number of an option. */
int bench_cases_number(const char *flag, const char *text, uint32_t lo, uint32_t hi, uint32_t *out,
                       struct err *e) ERR_CHECKED;

/* Run all cases, `whose` for the terminal; out (c->n). */
int bench_cases_run(const struct bench_cases *c, struct bench *b, const char *whose,
                    struct bench_result *out, struct err *e) ERR_CHECKED;

/* "prompt 512", "gen 64 x 16 at 2048": behind so many positions. */
const char *bench_cases_name(const struct bench_case *c, char *buf, size_t cap);
