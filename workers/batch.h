/*
 * A micro-batch: which tokens of which requests go through the stages together. Built by the
 * scheduler at the leader, sent down the stages ahead of the hidden states, executed by a backend.
 *
 * KV blocks are numbered alike in all stages of a replica; each stage holds its own layers' part of
 * every block. A batch carries only the blocks that a request got since its last batch; each stage
 * keeps the whole table per scheduler slot (kv.h, struct kv_tables).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/wire.h"
#include "results/record.h"

#define BATCH_KV_BLOCK   16   // tokens per KV block
#define BATCH_NOT_FINITE (-2) // for a row's token: among its logits is a NaN or an infinity

enum batch_row_flags {
    BATCH_SAMPLE = 1,     // the row's last token yields an output token
    BATCH_PREFILL = 2,    // tokens known before the batch was built (one or many)
    BATCH_BEGIN = 4,      // first batch since its admission: its slot's tables start empty
    BATCH_FIRST = 8,      // the sampled token is the request's first
    BATCH_LAST = 16,      // ... and this one its last (fixed length reached)
    BATCH_STOP_EOS = 32,  // an EOS id also ends it
    BATCH_AGAIN = 64,     // with BATCH_BEGIN: it ran before, was preempted, and is computed anew
    BATCH_STOP_IDS = 128, // any of the request's own stop ids also ends it
    BATCH_PARAMS = 256,   // with BATCH_BEGIN: the request is not greedy, `params` has one more
};

/* What the last stage must know of a request that is not greedy. */
struct batch_params {
    struct wire_sampling how;
    uint32_t n_in; // the prompt's length: outputs are counted from there
    uint32_t reserved;
};

struct batch_row {
    uint32_t slot; // scheduler slot, 0..max_running-1
    uint32_t flags;
    uint32_t first;    // index of its first token in the batch
    uint32_t n_tokens; // >= 1
    uint32_t pos; // position of that token in the request; behind BATCH_BEGIN > 0: cached blocks
    uint32_t first_block, n_blocks; // new KV blocks: blocks[first_block ..]
    int32_t load_rank;              // who gets the token
    struct wire_ticket ticket;
    int64_t t_recv_ns, t_admit_ns; // with BATCH_BEGIN: in the queue since then, until then
};

/* What one stage did with the batch; the trace of a request is summed from these. */
struct batch_stage_times {
    int64_t t_recv_ns;            // batch and hidden states there
    int64_t t_begin_ns, t_end_ns; // compute
    int64_t t_send_ns;            // handed to the transport
};

struct batch {
    uint64_t seq;  // of the leader, from 1 in each step
    uint32_t step; // index
    uint16_t lane;
    uint16_t n_stages;
    uint32_t n_rows, n_tokens, n_blocks, n_params;
    int64_t t_build_ns;
    int64_t t_ready_ns;     // when the lane's batch before this one was back at the leader; 0: none
    struct batch_row *rows; // (n_rows)
    int32_t *tokens;        // (n_tokens) ids, in row order
    uint32_t *blocks;       // (n_blocks)
    struct batch_params *params;     // (n_params) of rows with BATCH_PARAMS, in their order
    struct batch_stage_times *times; // (n_stages)
};

struct batch_limits {
    uint32_t max_rows, max_tokens, max_blocks, n_stages; // sizes of the arrays
    // What a batch from another rank may name; batch_create does not look at these.
    uint32_t n_slots, n_kv_blocks, n_lanes, n_load_ranks;
};

/*
 * New KV blocks of a batch, at most: each row fills up its request's last block first, so n tokens
 * need at most n / BATCH_KV_BLOCK + 1 more.
 */
static inline uint32_t batch_max_blocks(uint32_t max_rows, uint32_t max_tokens)
{
    return max_rows + max_tokens / BATCH_KV_BLOCK;
}

/* One allocation; arrays at their limits. */
int batch_create(struct batch **out, const struct batch_limits *lim, struct err *e) ERR_CHECKED;
void batch_destroy(struct batch *b);

/*
 * The end that a token with this id, sampled for a row with these flags, makes of its request:
 * WIRE_LAST, with WIRE_STOPPED where the id ends it; 0: none. `how` is the request's, NULL: greedy.
 */
uint32_t batch_ends(uint32_t row_flags, int32_t id, const int *eos_ids /* (n_eos) */, int n_eos,
                    const struct wire_sampling *how);

/* Wire form. Encoded size is at most batch_max_bytes; decode checks every size and index against lim. */
size_t batch_max_bytes(const struct batch_limits *lim);
size_t batch_encode(const struct batch *b, void *out);
int batch_decode(struct batch *b, const struct batch_limits *lim, const void *in, size_t n_bytes,
                 struct err *e) ERR_CHECKED;
