/* What `tidemark bench --edges` says: a table, JSON (schema tidemark.edges/1), a heat map as SVG. */
#pragma once

#include <stdio.h>

#include "cli/bench_hops.h"
#include "core/str.h"
#include "workers/edges.h"

#define BENCH_EDGES_MATRIX 8 // ranks of which all pairs are printed

struct bench_edges_report {
    const struct edges *edges;
    const struct bench_hops *hops; // NULL: of no model
    const char *library;           // of MPI
};

void bench_edges_report_table(const struct bench_edges_report *r);
/* provenance: borrowed. */
void bench_edges_report_json(const struct bench_edges_report *r, const struct json_t *provenance,
                             FILE *f);
void bench_edges_report_heatmap(const struct bench_edges_report *r, struct str *out);
