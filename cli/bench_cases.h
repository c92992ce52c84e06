/*
 * What `tidemark bench` measures: prompts and decoding at the lengths and batches that its options name.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "workers/bench.h"

#define BENCH_CASES_LIST 16 // numbers of one option

struct bench_cases {
    int n, n_repeats;
    uint32_t max_prompt, max_gen, max_batch;
    struct bench_case v[BENCH_CASES_LIST + BENCH_CASES_LIST * BENCH_CASES_LIST]; // (n)
};

/* From the texts of --prompt, --gen, --batch and --repeats. ERR_INPUT: no numbers; nothing to measure. */
int bench_cases_parse(struct bench_cases *c, const char *prompt, const char *gen, const char *batch,
                      const char *repeats, struct err *e) ERR_CHECKED;

/* One number of an option. */
int bench_cases_number(const char *flag, const char *text, uint32_t lo, uint32_t hi, uint32_t *out,
                       struct err *e) ERR_CHECKED;

/* Run all cases, `whose` for the terminal; out (c->n). */
void bench_cases_run(const struct bench_cases *c, struct bench *b, const char *whose,
                     struct bench_result *out);

/* "prompt 512", "gen 64 x 16" */
const char *bench_cases_name(const struct bench_case *c, char *buf, size_t cap);
