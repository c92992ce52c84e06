/*
 * One pipeline stage's loop: batches come in order (at the leader from the scheduler, elsewhere from
 * the stage before), wait for their hidden states, are computed by the backend one at a time, and go
 * on: batch and hidden states to the next stage, or, from the last one, ids to the leader and tokens
 * to the load ranks. While one batch is computed the next one is received and the last one leaves.
 *
 *   stage s -> s+1     WORKER_BATCH (encoded batch) ahead of its hidden states (transport.h), from
 *                      tensor rank t to tensor rank t: of T ranks each sends 1/T, which the next
 *                      stage's ranks gather as the batch begins (shard_hidden)
 *   leader -> stage 0  WORKER_BATCH to the other tensor ranks
 *   last -> leader     WORKER_IDS, from tensor rank 0
 *   leader -> others   WORKER_DRAINED: no batch of this step is under way any more
 *
 * The rank's main thread calls everything; nothing waits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "model/arch.h"
#include "model/layout.h"
#include "workers/backend.h"
#include "workers/batch.h"
#include "workers/hop.h"
#include "workers/spans.h"
#include "workers/tp_group.h"

enum worker_tag {
    WORKER_BATCH = WIRE_WORKERS,
    WORKER_IDS,
    WORKER_DRAINED,
};

struct worker_ids {
    uint64_t seq;
    uint32_t lane;
    uint32_t n_rows;
    int32_t ids[]; // (n_rows), -1 where nothing was sampled
};

struct worker_drained {
    uint32_t step;
};

struct stage_config {
    const struct layout *layout;
    int rank;
    const struct arch *arch; // borrowed, as is `backend`
    struct backend *backend;
    struct hop *in,
        *out;            // the backend's own, which the stage takes over; NULL: through host memory
    struct tp_group *tp; // what the backend's ranks meet through; NULL where it is one rank
    struct batch_limits limits; // whole
};

struct stage;

int stage_create(struct stage **out, const struct stage_config *cfg, struct err *e) ERR_CHECKED;
void stage_destroy(struct stage *st);

/* Largest message between stages, with these limits. */
size_t stage_max_message_bytes(const struct batch_limits *lim);

/* `batch_ns`: what a batch has at least, to be computed or to arrive (workers/patience.h). */
int stage_start(struct stage *st, struct comm *comm, int64_t batch_ns, struct err *e) ERR_CHECKED;
/* Let the backend finish and give up what is still to be received. */
int stage_stop(struct stage *st, struct err *e) ERR_CHECKED;

/* Batches of this step are computed from now on; those of a later step wait until it begins. */
void stage_begin_step(struct stage *st, uint32_t step, struct spans *spans, int64_t now_ns);
/* What comes out at the end of the pipeline is wanted by nobody any more. */
void stage_mute(struct stage *st);
/* Quiet, and to stay so until the next step begins. */
void stage_end_step(struct stage *st);

/* Leader: the batch to fill when the stage is free for one, else NULL; then enqueue it. */
struct batch *stage_free_batch(struct stage *st);
int stage_enqueue(struct stage *st, struct err *e) ERR_CHECKED;

/* Others: a WORKER_BATCH message. */
int stage_take_message(struct stage *st, const struct comm_msg *m, struct err *e) ERR_CHECKED;

/* One turn: 1 when anything moved, 0 when not, -1 on error, or when a batch is not computed or does not come
 * in time. */
int stage_turn(struct stage *st, struct err *e) ERR_CHECKED;

/* What carries hidden states to the next stage, at the last one from the stage before: "mpi"; "" of a single one. */
const char *stage_hop_name(const struct stage *st);

/* No batch here, and none leaving. */
bool stage_is_quiet(const struct stage *st);
