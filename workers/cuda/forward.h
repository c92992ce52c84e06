/*
 * The layer driver's operations on a device: one thread walks the list (workers/layers.h) and queues kernels;
 * nothing waits until a batch's ids, or hidden states, are on their way back. Batches in which every row has
 * one token are queued as a graph (CUDA graphs), one per size by steps, made beforehand; rows that fill it up
 * store nothing and nobody reads what becomes of them.
 *
 * Hidden states are float32 inside a layer, and rounded to arch_carried at its end. A product's inputs are
 * bfloat16, of F32 weights float32; its sums are float32, as are activations, the softmax and routing. Norms round
 * in the family's order (norm.h).
 *
 * One batch at a time; not for several threads at once.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "workers/batch.h"
#include "workers/cuda/device_weights.h"
#include "workers/cuda/gpu.h"
#include "workers/kv.h"
#include "workers/layers.h"
#include "workers/router.h"
#include "workers/sampler.h"
#include "workers/shard.h"

enum {
    FORWARD_HEAD_ROWS = 256, // rows of logits that there are at once
};

struct forward;
struct nccl_library;

struct forward_config {
    struct gpu *gpu;
    const struct device_weights *weights;
    const struct arch *arch;
    struct layers_part part;
    uint32_t max_tokens, max_rows; // of a batch
    uint32_t n_slots, slot_blocks; // of the block tables: slots, and blocks of one
    enum arch_dtype kv_dtype;      // F32, BF16, FP8 or INT8
    struct moe_routing routing;
    struct shard_group
        group; // the ranks that share the layers; its `gather` is used once, its `sum` never
    const struct nccl_library *nccl; // what they put results together by; NULL: memory they share
};

/* As backend_submit. */
struct forward_io {
    const struct batch *batch;
    const struct kv_tables *tables;   // of n_slots, slot_blocks
    const void *in;                   // this rank's part of (n_tokens, hidden) unless has_embed
    void *out;                        // likewise unless has_head
    bool in_on_device, out_on_device; // else the host's memory
    int32_t *ids;                     // (n_rows) when has_head
    const struct sampler_jobs *jobs;  // or NULL
    float *logits;                    // (rows with BATCH_SAMPLE in order, vocab) or NULL
};

/* Everything but the cache. `cfg`'s pointers stay valid. ERR_INPUT: dimensions that kernels do not take. */
int forward_create(struct forward **out, const struct forward_config *cfg,
                   struct err *e) ERR_CHECKED;
void forward_destroy(struct forward *f); // may be NULL

/* Bytes of one block of 16 positions in all of the stage's layers. */
int64_t forward_block_bytes(const struct forward *f);

/*
 * The largest batches there can be, with a cache just for them: what the device takes at first use, it has
 * taken then.
 */
int forward_profile(struct forward *f, struct err *e) ERR_CHECKED;

/* The cache, and the graphs that know where it is. Again with another number: the last one is given back. */
int forward_take_cache(struct forward *f, uint32_t n_blocks, struct err *e) ERR_CHECKED;
void forward_give_cache(struct forward *f);

/*
 * Run a batch to its end. ERR_ENV: what the device said, once more after the first time; or it did not end within
 * `limit_ns`, which count from when the stage's ranks have met: they do so in the first batch after the profile.
 */
int forward_run(struct forward *f, const struct forward_io *io, int64_t limit_ns,
                struct err *e) ERR_CHECKED;
/* Of the last batch: how long the device was at it. */
int64_t forward_busy_ns(const struct forward *f);
