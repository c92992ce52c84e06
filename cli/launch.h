/*
 * Self-launch: `tidemark run` started alone starts its ranks through mpirun and stays as their
 * guardian. It keeps mpirun out of the terminal's process group, turns the first SIGINT/SIGTERM into
 * SIGUSR1 (graceful stop: finish the step, write the file) and the second into SIGTERM (abort:
 * write what there is), boils Open MPI's messages down to one line that names the rank, kills what
 * is left when mpirun has ended, and removes the run's session and shared-memory folders; folders of
 * launchers that died are swept at the next start.
 */
#pragma once

#include "core/err.h"

#include <stdbool.h>

struct launch {
    int n_ranks;
    const char *hostfile;   // NULL: this host only
    const char *what_ranks; // one line per rank kind for messages, may be NULL
    bool quiet;             // say nothing but errors
    char **argv;            // NULL-terminated: arguments of this binary, without argv[0]
    const char *(*describe_rank)(void *arg, int rank, char *buf,
                                 unsigned long cap); // "worker, stage 1"
    void *arg;
};

/* Runs the world to its end. The ranks' exit code, or -1 with the reason. */
int launch_world(const struct launch *l, struct err *e) ERR_CHECKED;
