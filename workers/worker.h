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
    int index,
        n_neighbours; // among the workers of this host, who share its GPUs: neighbours together
    const char *hop_in,
        *hop_out;     // kinds of backend_hop from the stage before, to the next; NULL: mpi
    const char *sums; // as backend_config has it
};

/*
 * Weights, KV pool, buffers. Uses no comm: safe in a helper thread while the main thread waits. On a GPU all
 * but the pool, whose size is the least that any stage has room for: worker_settle.
 */
int worker_create(struct worker **out, const struct layout *layout, int rank,
                  const struct worker_cores *cores, const struct target_config *t,
                  const struct arch *a, struct err *e) ERR_CHECKED;

/* KV blocks that there is room for, by what the target asks: -1 when the pool is there already. */
int64_t worker_room(const struct worker *w);
/* The pool, and what depends on its size; t->chosen.kv_tokens is that of all ranks. Uses no comm. */
int worker_settle(struct worker *w, const struct target_config *t, struct err *e) ERR_CHECKED;

/*
 * Serve until WIRE_SHUTDOWN from rank 0. On WIRE_STEP statistics restart; on WIRE_STEP_END everything
 * still queued or running is dropped, spans and series go to rank 0, then WIRE_STEP_DONE.
 * -1: a peer is silent or sent nonsense; the caller aborts the job.
 */
int worker_serve(struct worker *w, struct comm *comm, struct err *e) ERR_CHECKED;

/* What a batch has at least, in a stage, before the job ends (workers/patience.h); 30 s where nobody says. */
void worker_set_deadline(struct worker *w, int64_t batch_ns);

/* This rank looks at GPUs, too: their samples go to rank 0 with the rest. Borrowed; NULL: it does not. */
void worker_set_telemetry(struct worker *w, struct telemetry *t);

/* What it computes with, and whether compute threads got SCHED_IDLE: for the results. */
void worker_about(const struct worker *w, struct engine *out);
bool worker_idle_class(const struct worker *w);
void worker_destroy(struct worker *w);
