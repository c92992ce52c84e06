/*
 * `tidemark bench --edges`: latency and bandwidth of every transport between the ranks of this job.
 * Under mpirun or srun it measures the world it is in; started alone it starts --ranks N by itself.
 */
#pragma once

#include "core/err.h"

struct bench_edges_ask { // texts of the options of these names; NULL: not given
    const char *ranks, *seconds, *max_size, *hostfile, *output, *heatmap, *costs;
    const char *model, *prompt, *batch, *format, *backend;
};

#define BENCH_EDGES_SECONDS "60"
#define BENCH_EDGES_SIZE    "64MiB"

/* argv[0] is the subcommand's name. The exit code. */
int bench_edges_run(const struct bench_edges_ask *ask, int argc, char **argv, struct err *e);
