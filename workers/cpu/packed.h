/*
 * One stage's weights, packed for the kernels. Matrices that share an input are one: q, k and v stand
 * under each other; gate and up alternate panel by panel, so that whoever computes a panel of both can
 * apply the activation at once. Read-only once loaded. A matrix or vector that a layer has not is empty.
 *
 * Rotary pairs (2j, 2j + 1) are brought to (j, j + half) by the order of the rows that make them: q and
 * k are permuted alike, so scores stay what they are. Norms that multiply by 1 + w hold 1 + w.
 *
 * Of a tensor-parallel group each rank holds its part (workers/shard.h): sizes below are then the part's.
 * Biases of partial sums are with rank 0.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "core/pool.h"
#include "model/arch.h"
#include "workers/cpu/matrix.h"
#include "workers/layers.h"
#include "workers/shard.h"
#include "workers/tally.h"

/*
 * Latent attention in absorbed form: a head's query times W_UK meets the cached latents themselves, and
 * the weighted sum of latents times W_UV is the head's output (DeepSeek-V2, 2024). Ranks and heads are
 * padded to whole panels: r = padded kv_rank, v = padded v_dim.
 */
struct packed_latent {
    struct matrix down;      // (padded q_rank + r + rope_dim, hidden): q_a, kv_a
    float *q_norm, *kv_norm; // (q_rank, padded), (kv_rank, padded)
    struct matrix queries;   // (n_heads * head_dim, q_rank, or hidden where that is 0)
    struct matrix keys_up;   // (n_heads * r, nope_dim): W_UK of each head, transposed
    struct matrix values_up; // (n_heads * v, kv_rank)
};

struct packed_experts {
    struct matrix router;   // (n_experts, hidden)
    float *router_bias;     // (n_experts, padded)
    float *correction_bias; // (n_experts, padded)
    struct matrix *gate_up; // (n_experts) of (2 * padded intermediate, hidden)
    struct matrix *down;    // (n_experts) of (hidden, intermediate)
    float *gate_up_bias;    // (n_experts, 2 * padded intermediate)
    float *down_bias;       // (n_experts, padded hidden)
};

struct packed_layer {
    float *attn_norm, *mlp_norm;           // (hidden, padded)
    float *post_attn_norm, *post_mlp_norm; // same
    struct matrix qkv;                     // ((n_heads + 2 n_kv_heads) * head_dim, hidden)
    float *qkv_bias;                       // (qkv's rows, padded)
    float *sinks;                          // (n_heads, padded)
    struct packed_latent latent;           // instead of qkv
    struct matrix o;                       // (hidden, n_heads * v_dim; latent: n_heads * v)
    float *o_bias;                         // (hidden, padded)
    struct matrix gate_up;                 // (2 * padded intermediate, hidden); the shared expert's
    struct matrix down;                    // (hidden, intermediate)
    struct packed_experts experts;
};

struct packed {
    int n_layers, n_experts;
    struct packed_layer *layers; // (n_layers)
    struct matrix embed;         // (vocab, hidden); empty unless the stage has it
    struct matrix head;          // same; empty where a tied embedding serves
    float *norm;                 // (hidden, padded) final
    struct tally kept, stored;   // of the matrices: in memory, pads included; as the model has them
    int64_t vector_bytes;        // float32, pads included
    int64_t n_weights;           // of both, without pads
};

/* The pool's threads, if there is one, each pack the panels that they will compute with. */
int packed_load(struct packed *p, const char *model, const struct arch *a,
                const struct layers_part *part, const struct shard *shard, int weight_bits,
                struct pool *pool, struct err *e) ERR_CHECKED;
void packed_free(struct packed *p);

/* The matrix that logits come from. */
const struct matrix *packed_head(const struct packed *p);
