/*
 * The scheduler of one replica: continuous batching with chunked prefill, over lanes. Pure: no I/O,
 * no clock (the time is passed in); the same calls give the same batches. Owned by the leader's main
 * thread. In the manner of vLLM V1's scheduler, with one difference: running requests are spread evenly
 * over lanes, so that a pipeline has as many batches in flight as it has stages.
 *
 *   waiting --admit--> running in one lane --build--> in flight --complete--> running | finished
 *      ^------------------preempt--'
 *
 * Admission is first come, first served, without overtaking: a request is admitted when the blocks of
 * all its known tokens are free, beside those that prompts under way still need and a reserve for those
 * that run. A lane has at most one batch in flight, a request at most one row. A batch takes one token of
 * each decoding request of its lane first, then prompt chunks of the others, oldest first, up to the
 * token budget.
 *
 * KV blocks are taken as tokens come. When none is free for a request, younger ones are preempted, the
 * youngest that is not in flight first, of whatever lane: its blocks are freed, and it waits ahead of all
 * that never ran. Its prompt and what it has said so far are computed again as one prompt; nothing is said
 * twice. Where no younger one can be preempted the request has no row in this batch. So the oldest always
 * gets on, and nothing that it has computed is ever lost.
 *
 * With a prefix cache, full blocks whose tokens are known (kv.h) are shared on admission; the last known
 * token is always computed. Blocks can be found once the batch that filled them is back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "model/wire.h"
#include "workers/batch.h"

struct sched;

struct sched_config {
    uint32_t lanes;
    uint32_t max_running, max_waiting;
    uint32_t max_batch_tokens;
    uint32_t max_context; // n_in + n_out of a request, at most
    uint32_t n_kv_blocks; // in the pool
    bool prefix_cache;
    uint32_t vocab;
    const int *eos_ids; // (n_eos) borrowed
    int n_eos;
    int n_load_ranks; // whose outstanding tokens are counted; 0: nobody's
};

struct sched_request {
    int32_t load_rank;
    struct wire_ticket ticket;
    uint32_t n_in, n_out;            // both >= 1
    uint32_t flags;                  // enum wire_request_flags
    const int32_t *ids;              // (n_in) in 0..vocab-1; copied
    const struct wire_sampling *how; // checked; copied. NULL: greedy
    int64_t t_recv_ns;
};

struct sched_counts {
    uint32_t waiting;           // preempted ones as well
    uint32_t running;           // admitted and not ended
    uint32_t in_flight;         // batches
    uint32_t kv_taken, kv_size; // blocks
    // Since the scheduler was made:
    uint64_t n_preempted;
    uint64_t n_queried_tokens; // prompt tokens looked up in the prefix cache, each request's once
    uint64_t n_cached_tokens;  // of these, found there
};

int sched_create(struct sched **out, const struct sched_config *cfg, struct err *e) ERR_CHECKED;
void sched_destroy(struct sched *s);

/* Array sizes for the batches that sched_build fills (n_stages and what decoding needs are the caller's). */
struct batch_limits sched_batch_limits(const struct sched_config *cfg);

/* A new step: sequence numbers start at 1 again. No batch may be in flight. */
void sched_begin_step(struct sched *s, uint32_t step);

/* Admit or queue it; false: rejected, because the queue is full or it can never fit. */
bool sched_submit(struct sched *s, const struct sched_request *r, int64_t now_ns);

/* Forget a request; what is in flight is ignored when it comes back. False: no such request. */
bool sched_cancel(struct sched *s, int32_t load_rank, struct wire_ticket ticket, int64_t now_ns);
/* Forget all of them. */
void sched_drop_all(struct sched *s);

/*
 * Fill `b` with the next free lane's batch, lanes in turn; false when no lane has anything to do.
 * It is in flight from then on.
 */
bool sched_build(struct sched *s, struct batch *b, int64_t now_ns);

/*
 * The lane's batch is back: ids (n_rows), in the order of its rows, -1 where nothing was sampled.
 * ERR_ENV, and nothing changed, when that batch is not in flight or the ids do not fit it.
 */
int sched_complete(struct sched *s, uint32_t lane, uint64_t seq, const int32_t *ids,
                   uint32_t n_rows, int64_t now_ns, struct err *e) ERR_CHECKED;

struct sched_counts sched_counts(const struct sched *s);
/* Prompt and output tokens still to come of a load rank's requests; a prompt is through with its first token. */
uint64_t sched_outstanding(const struct sched *s, int load_rank);
/* Requests running in a lane: for tests and displays. */
uint32_t sched_lane_running(const struct sched *s, uint32_t lane);
