/*
 * The layer driver's operations on CPU threads. Every thread of the team calls phases_run with its
 * index; an operation is split by panels of outputs (matrices), by rows (norms, embedding), by heads
 * (attention) or by experts and panels, and ends with a barrier unless the team is one thread. Who
 * computes a value never changes its bits.
 *
 * One batch at a time: phases_begin on the submitting thread, then phases_run on all members.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/pool.h"
#include "model/arch.h"
#include "workers/batch.h"
#include "workers/cpu/kernels.h"
#include "workers/cpu/packed.h"
#include "workers/kv.h"
#include "workers/layers.h"
#include "workers/router.h"
#include "workers/shard.h"
#include "workers/sampler.h"

struct phases;

struct phases_config {
    const struct kernels *kernels;
    const struct packed *weights;
    const struct arch *arch;
    struct layers_part part;
    uint32_t max_tokens, max_rows, n_blocks;
    enum arch_dtype kv_dtype; // F32, BF16, FP8 or INT8
    struct moe_routing routing;
    struct shard_group group; // whose part of the weights these are
    int n_members;
};

/* Activations and the KV pool. `cfg`'s pointers stay valid until phases_destroy. */
int phases_create(struct phases **out, const struct phases_config *cfg, struct err *e) ERR_CHECKED;
void phases_destroy(struct phases *p);

double phases_kv_bytes_per_token(const struct phases *p); // factors and pads included

/* As backend_submit. */
struct phases_io {
    const struct batch *batch;
    const struct kv_tables *tables;
    const void *in;                  // this rank's part of (n_tokens, hidden) unless has_embed
    void *out;                       // likewise unless has_head
    int32_t *ids;                    // (n_rows) when has_head
    const struct sampler_jobs *jobs; // rows whose id is not the greedy one; or NULL
    float
        *logits; // (rows with BATCH_SAMPLE in order, vocab) or NULL; alike on all ranks of a group
};

/* Note the work of a batch. Anything out of bounds is a bug of the caller. */
void phases_begin(struct phases *p, const struct phases_io *io);

/* One member's share, from the embedding or `in` to `out` or `ids`. */
void phases_run(struct phases *p, struct pool *pool, int member);
