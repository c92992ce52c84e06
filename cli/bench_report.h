/* What `tidemark bench` prints of speeds: a table, or JSON. */
#pragma once

#include <stddef.h>

#include "cli/bench_cases.h"
#include "cli/bench_forms.h"
#include "core/json_out.h"
#include "results/record.h"
#include "workers/bench.h"

#define BENCH_REPORT_WIRE "tidemark.bench/1"

struct bench_report {
    const struct bench *b;
    const char *model;
    struct bench_form form;
    const struct bench_cases *cases;
    const struct bench_result *results; // (cases->n)
};

void bench_report_table(const struct bench_report *r);
void bench_report_json(const struct bench_report *r);

/* Who computed: "cpu, 2 threads, kernels amx" or "cuda, NVIDIA H200", and as JSON's backend, device, kernels, threads. */
const char *bench_report_engine(const struct engine *g, char *buf, size_t cap);
void bench_report_put_engine(struct json_out *o, const struct engine *g);

/* A case and its tokens per second, as the members of an object that is open. */
void bench_report_put_speed(struct json_out *o, const struct bench_case *c,
                            const struct bench_result *r);
