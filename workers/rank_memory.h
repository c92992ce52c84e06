/*
 * What a worker on a GPU takes of its memory, worked out from the model's shape alone: its weights in the forms in which
 * workers/cuda/device_weights.h keeps them, the buffers of its largest batch, and its part of a token in the KV
 * cache. The worker itself counts what it has taken (backend_room); this is what can be said without a GPU. Left
 * out is what depends on the GPU: what attention keeps between two kernels, tens of MB; and what sums and hops over NCCL take, in
 * its own buffers and for logits of all ranks. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "model/arch.h"
#include "workers/batch.h"
#include "workers/cuda/gemm.h"
#include "workers/layers.h"
#include "workers/shard.h"

#define RANK_MEMORY_CONTEXT_BYTES ((int64_t)600 << 20) // CUDA's own context, kernels included
#define RANK_MEMORY_PRODUCT_BYTES                                                                  \
    ((int64_t)GEMM_WORKSPACE_BYTES + (int64_t)GEMM_SCRATCH_BYTES) // products of many tokens work in

struct rank_memory_config {
    const struct arch *arch;
    struct layers_part part;
    struct shard shard;
    int weight_bits; // as in struct backend_config
    enum arch_dtype kv_dtype;
    struct batch_limits limits;
    bool hops_on_device; // hidden states have buffers there
};

struct rank_memory {
    double weight_bytes;
    double batch_bytes;    // of the largest batch: activations, logits, sums, hidden states
    double fixed_bytes;    // whatever the model is
    double kv_token_bytes; // of one token
};

void rank_memory_find(const struct rank_memory_config *cfg, struct rank_memory *out);

/* Tokens that the cache has room for in so many bytes; below 0: what lacks for the rest. */
double rank_memory_tokens(const struct rank_memory *m, double bytes);
