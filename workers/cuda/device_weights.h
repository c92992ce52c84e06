/*
 * One stage's weights in one piece of the device's memory, in the forms that its kernels read. Matrices that
 * share an input stand under each other: q, k, v; the gates over the ups; the experts' one after the other. Norms that
 * multiply by 1 + w hold 1 + w. A matrix or vector that a layer has not is NULL.
 *
 * Rotary pairs (2j, 2j + 1) are brought to (j, j + half) by the order of the rows that make them. Of a
 * tensor-parallel group each rank holds its part (workers/shard.h); biases of partial sums are with rank 0.
 *
 * Values are as in workers/cpu/packed.h, but that FP8 and MXFP4 stay what they are, unless weight_bits is 16 or a
 * rank's part of the columns cuts a factor's; then they become BF16. F16 becomes F32. Latent attention's products
 * with single heads are BF16, or F32 with F32 weights, and the router's is F32.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "core/pool.h"
#include "model/arch.h"
#include "workers/cuda/device_matrix.h"
#include "workers/cuda/gpu.h"
#include "workers/layers.h"
#include "workers/shard.h"
#include "workers/tally.h"

struct device_latent {
    struct device_matrix down;      // (q_rank + kv_rank + rope_dim, hidden): q_a, kv_a
    const float *q_norm, *kv_norm;  // (q_rank), (kv_rank)
    struct device_matrix queries;   // (n_heads * head_dim, q_rank, or hidden where that is 0)
    struct device_matrix keys_up;   // (n_heads * kv_rank, nope_dim): W_UK of each head, transposed
    struct device_matrix values_up; // (n_heads * v_dim, kv_rank)
};

struct device_experts {
    struct device_matrix router;  // (n_experts, hidden)
    const float *router_bias;     // (n_experts)
    const float *correction_bias; // (n_experts)
    struct device_matrix gate_up; // n_rows of one: 2 * inner; (n_experts * n_rows, hidden)
    struct device_matrix down;    // n_rows of one: hidden; (n_experts * n_rows, inner)
    const float *gate_up_bias;    // (n_experts, 2 * inner)
    const float *down_bias;       // (n_experts, hidden)
};

struct device_layer {
    const float *attn_norm, *mlp_norm;           // (hidden)
    const float *post_attn_norm, *post_mlp_norm; // (hidden)
    struct device_matrix qkv;                    // ((n_heads + 2 n_kv_heads) * head_dim, hidden)
    const float *qkv_bias;                       // (rows of qkv)
    const float *sinks;                          // (n_heads) this rank's
    struct device_latent latent;                 // instead of qkv
    struct device_matrix o;                      // (hidden, n_heads * v_dim)
    const float *o_bias;                         // (hidden)
    struct device_matrix gate_up;                // (2 * inner, hidden); the shared expert's
    struct device_matrix down;                   // (hidden, inner)
    struct device_experts experts;
};

struct device_weights {
    int n_layers;
    struct device_layer *layers; // (n_layers)
    struct device_matrix embed,
        head;          // (vocab of this rank, hidden); head is the embedding where they are tied
    const float *norm; // (hidden) final
    struct tally kept,
        stored;           // of the matrices: on the device, pads included; as the model has them
    int64_t vector_bytes; // float32, pads included
    int64_t n_bytes, n_weights; // in the device's memory, and how many weights they are
};

/*
 * Load a part of a model through `pool`'s threads. Takes memory of `g`, which owns it; device_weights_free
 * frees the rest. ERR_INPUT: what weights_find refuses, or FP8 and MXFP4 codes that are no numbers; ERR_ENV: no
 * memory, or the device.
 */
struct device_weights_config {
    const char *model;
    const struct arch *arch;
    struct layers_part part;
    struct shard shard;
    int weight_bits; // as in struct backend_config
    struct pool *pool;
};

int device_weights_load(struct device_weights *w, struct gpu *g,
                        const struct device_weights_config *cfg, struct err *e) ERR_CHECKED;
void device_weights_free(struct device_weights *w);
