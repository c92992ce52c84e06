/*
 * What the ranks of a run say to each other over comm's message plane: load ranks, leaders, last
 * stages and rank 0. Plain structs in host byte order (one job, one architecture); every receiver
 * checks sizes. Messages inside one replica (batches, sampled ids) are workers' own business:
 * tags from WIRE_WORKERS on.
 *
 *   rank 0 -> all        WIRE_STEP, WIRE_STEP_END, WIRE_SHUTDOWN
 *   load -> leader       WIRE_REQUEST, WIRE_CANCEL
 *   leader -> load       WIRE_REJECT, WIRE_LOAD
 *   last stage -> load   WIRE_TRACE, WIRE_LOGPROBS, WIRE_TOKENS (in this order for one token)
 *   any -> rank 0        WIRE_JOURNAL, WIRE_STEP_DONE
 *   load -> rank 0       WIRE_WAITING, while a step may stop early
 *   rank 0 -> load       WIRE_STEP_STOP
 */
#pragma once

#include <stdint.h>

enum wire_tag {
    WIRE_STEP = 1,
    WIRE_STEP_END,
    WIRE_SHUTDOWN,
    WIRE_REQUEST,
    WIRE_CANCEL,
    WIRE_REJECT,
    WIRE_TRACE,
    WIRE_TOKENS,
    WIRE_JOURNAL,
    WIRE_STEP_DONE,
    WIRE_WAITING,
    WIRE_STEP_STOP,
    WIRE_LOGPROBS,
    WIRE_LOAD,
    WIRE_WORKERS = 100,
};

/* One rate level, as rank 0 announces it. Times are on rank 0's clock. */
struct wire_step {
    uint32_t index;  // position in the run, 0-based
    int32_t kind;    // enum step_kind of results/record.h
    double rate_rps; // offered; 0 for a closed loop
    uint32_t users;  // closed loop: concurrent users over all load ranks; 0: open loop
    uint32_t
        may_stop;  // 1: load ranks say how many wait (WIRE_WAITING), and the step may stop early
    uint64_t seed; // of this step: f(run seed, index)
    int64_t t_begin_ns, t_warm_ns, t_end_ns, t_drain_ns; // absolute
    uint32_t repeat;                                     // pass over the rates, 0-based
    uint32_t reserved;
};

/* Requests of one load rank that are due and have no first token yet. */
struct wire_waiting {
    uint32_t index; // of the step
    uint32_t reserved;
    uint64_t n_waiting;
};

/* The step's load ends sooner than announced; what was due later is never offered. Absolute times. */
struct wire_step_stop {
    uint32_t index;
    uint32_t reserved;
    int64_t t_warm_ns, t_end_ns, t_drain_ns;
};

/* Ends a step for the workers: whatever is still in their queues is dropped. */
struct wire_step_end {
    uint32_t index;
    uint32_t reserved;
};

/* A rank has sent rank 0 everything of this step. */
struct wire_step_done {
    uint32_t index;
    uint32_t n_records;          // load ranks: records sent
    uint64_t n_scheduled;        // load ranks: events of the whole schedule that this rank owned
    uint64_t n_filtered;         // draws that did not fit the context, own share
    uint64_t schedule_hash;      // load ranks: xxh64 over the whole step's schedule, same on all
    uint64_t poll_gap_ns[2];     // p50, p99 of the time between two turns of the rank's loop
    int64_t t_cpu_ns, t_wall_ns; // CPU time of the rank's process in this step; how long it took
    uint64_t stamp_ns[2]; // p50, p99 from arrival to reading (loadgen/client.h); 0: no sockets
    uint64_t chunk_ns[2]; // p50, p99 to deal with what a socket brought; 0: no sockets
};

/* Where a reply goes: an index into the load rank's live slots, and a number that must match. */
struct wire_ticket {
    uint32_t slot;
    uint32_t generation;
};

enum wire_request_flags {
    WIRE_STOP_AT_EOS = 1, // else exactly n_out tokens
    WIRE_SAMPLED = 2,     // a struct wire_sampling follows the ids; else greedy
};

enum {
    WIRE_MAX_STOP_IDS = 16,
    WIRE_MAX_TOP = 20, // alternatives told with a token
};

/*
 * How a request's tokens are chosen (workers/sampler.h has the meaning), and what comes with them.
 * Only requests that ask for more than the largest logit carry one.
 */
struct wire_sampling {
    uint64_t seed;
    float temperature;  // 0: the largest logit
    float top_p, min_p; // 0 < top_p <= 1, 1: no bound; 0 <= min_p <= 1, 0: no bound
    uint32_t top_k;     // 0: no bound
    uint32_t min_out;   // so many tokens come before EOS or a stop id may
    uint32_t logprobs;  // 0: none; else 1 + the number of alternatives
    uint32_t n_stop_ids;
    uint32_t reserved;
    int32_t stop_ids[WIRE_MAX_STOP_IDS]; // each ends the request, whatever WIRE_STOP_AT_EOS says
};

struct wire_request {
    struct wire_ticket ticket;
    uint32_t n_in;  // >= 1
    uint32_t n_out; // >= 1; n_in + n_out <= context
    uint32_t flags;
    uint32_t reserved;
    int32_t ids[]; // (n_in); then, with WIRE_SAMPLED, a struct wire_sampling, at 4 bytes
};

struct wire_cancel {
    struct wire_ticket ticket;
};

/* The leader's queue is full (target.max_waiting), or the request cannot ever fit. */
struct wire_reject {
    struct wire_ticket ticket;
};

/* What a leader has to do for other load ranks than the one that is told. */
struct wire_load {
    uint32_t step, replica;
    uint64_t n_tokens; // prompt and output tokens outstanding
};

enum wire_token_flags {
    WIRE_FIRST = 1,
    WIRE_LAST = 2,
    WIRE_STOPPED = 4, // with WIRE_LAST: it is EOS or a stop id
};

/* WIRE_TOKENS carries an array of these. */
struct wire_token {
    struct wire_ticket ticket;
    int32_t id;
    uint32_t flags;
    int64_t t_emit_ns; // stamped by the last stage when it had the id
};

/* An id and the natural logarithm of its probability, by the logits as the model gave them. */
struct wire_logprob {
    int32_t id;
    float logprob;
};

/* Ahead of its token, for requests that ask: the token's own, and the likeliest ids of its place. */
struct wire_logprobs {
    struct wire_ticket ticket;
    struct wire_logprob token;
    uint32_t n_top;
    struct wire_logprob top[]; // (n_top) likeliest first
};

/*
 * Where a request's time went inside the replica, up to its first token (phase WIRE_FIRST) and up
 * to its last (WIRE_LAST); comes before that token. Sums over the request's micro-batches; the parts
 * cover t_recv .. t_emit without gaps:
 *   queue [t_recv, t_admit], wait for the first batch counts as bubble; per batch: stage_us compute,
 *   hop_us between stages and back to the leader, bubble_us waiting for a busy stage, a free lane or a
 *   KV block; after a preemption requeue_us in the queue again, and what is computed anew as before.
 */
struct wire_trace {
    struct wire_ticket ticket;
    uint32_t phase;
    uint32_t n_stages;
    int64_t t_recv_ns, t_admit_ns, t_prefill_ns; // at the leader; prefill = first batch built
    uint32_t hop_us, bubble_us;
    uint32_t requeue_us;  // waiting to be admitted anew, after preemptions
    uint32_t n_preempted; // times it was computed anew
    uint32_t n_cached;    // prompt tokens found in the prefix cache
    uint32_t reserved;
    uint32_t stage_us[]; // (n_stages)
};

enum wire_journal_kind { // the values of enum journal_kind in results/journal.h
    WIRE_JOURNAL_RECORDS = 2,
    WIRE_JOURNAL_SPANS = 3,
    WIRE_JOURNAL_SERIES = 4,
    WIRE_JOURNAL_GPUS = 7,
};

struct wire_journal { // entries for rank 0's journal
    uint32_t kind;    // enum wire_journal_kind
    uint32_t step;
    uint8_t bytes[];
};
