/*
 * A worker rank: one stage of one replica. Its main thread owns the comm, moves batches and hidden
 * states, and, on the leader, runs the scheduler; the backend computes in its own threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "model/arch.h"
#include "model/layout.h"
#include "results/record.h"
#include "workers/target.h"

struct worker;
struct telemetry;

/* Largest message that workers and their clients exchange: for comm_start. */
size_t worker_max_message_bytes(const struct target_config *t, const struct arch *a);

/* What computes. */
struct worker_cores {
    int n_threads;
    const int *cpus;       // (n_threads) that they are pinned to, or NULL
    const char *placement; // why so, for the results; static
};

/* Weights, KV pool, buffers. Uses no comm: safe in a helper thread while the main thread waits. */
int worker_create(struct worker **out, const struct layout *layout, int rank,
                  const struct worker_cores *cores, const struct target_config *t,
                  const struct arch *a, struct err *e) ERR_CHECKED;

/*
 * Serve until WIRE_SHUTDOWN from rank 0. On WIRE_STEP statistics restart; on WIRE_STEP_END everything
 * still queued or running is dropped, spans and series go to rank 0, then WIRE_STEP_DONE.
 * -1: a peer is silent or sent nonsense; the caller aborts the job.
 */
int worker_serve(struct worker *w, struct comm *comm, struct err *e) ERR_CHECKED;

/* This rank looks at GPUs, too: their samples go to rank 0 with the rest. Borrowed; NULL: it does not. */
void worker_set_telemetry(struct worker *w, struct telemetry *t);

/* What it computes with, and whether compute threads got SCHED_IDLE: for the results. */
void worker_about(const struct worker *w, struct engine *out);
bool worker_idle_class(const struct worker *w);
void worker_destroy(struct worker *w);
