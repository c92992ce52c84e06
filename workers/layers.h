/*
 * The layer driver: which operations a stage runs on a batch, in which order, with which numbers, for
 * every model family and every backend. A family differs in what struct arch says; a backend supplies
 * the operations. On the CPU each compute thread walks the list and does its share of every operation;
 * a device backend walks it once and queues work.
 *
 * At the end of a layer hidden states are rounded to arch_carried, by whichever operation the backend likes: so the
 * cut between two stages changes no bit.
 *
 *   attention   attn_in, attend, attn_out
 *   dense MLP   mlp_in, mlp_out
 *   experts     route, [mlp_in of the shared expert,] experts, [mlp_out of the shared expert]
 */
#pragma once

#include <stdbool.h>

#include "model/arch.h"

/* What distinguishes one layer's softmax(q . k) . v from another's. */
struct layers_attention {
    float scale;   // of scores
    float softcap; // c tanh(s / c) on scaled scores, before the mask; 0: none
    int window;    // positions that a token sees, its own included; 0: all before it
};

/*
 * Operations on the whole batch; each is complete, for all threads, before the next one begins.
 * Layers are counted from the stage's first. "Residual": added to the hidden states, after a norm of
 * its own where the family has one.
 */
struct layers_ops {
    void (*begin)(void *ctx);              // hidden states from the ids or the stage before
    void (*attn_in)(void *ctx, int layer); // norm, q k v, rotary positions, write the KV cache
    void (*attend)(void *ctx, int layer, const struct layers_attention *a);
    void (*attn_out)(void *ctx, int layer); // o, residual
    void (*mlp_in)(void *ctx, int layer);   // norm, gate and up, activation
    void (*mlp_out)(void *ctx, int layer);  // down, residual
    void (*route)(void *ctx, int layer);    // norm, each token's experts and their weights
    void (*experts)(void *ctx, int layer);  // their MLPs; weighted sum, residual
    void (*end)(void *ctx);                 // hidden states for the next stage
    void (*head)(void *ctx);                // norm, logits, greedy ids
};

/* A stage's share of a model. */
struct layers_part {
    int first_layer, n_layers;
    bool has_embed, has_head;
};

/* One pass over a stage's layers. */
void layers_forward(const struct layers_ops *ops, void *ctx, const struct arch *a,
                    const struct layers_part *part);

/*
 * Rotary frequencies: out (rope_dim / 2). "llama3" and "yarn" scaling (Peng et al. 2023) as in
 * transformers' modeling_rope_utils.
 */
void layers_rope_frequencies(const struct arch *a, float *out);

/* cos and sin of positions 0 .. n - 1, times yarn's attention factor: each (n, rope_dim / 2). */
void layers_rope_tables(const struct arch *a, int n, float *cosines, float *sines);

/*
 * Where rotary pairs are (2j, 2j + 1) and are wanted as (j, j + half): which row of a tensor of heads of `head`
 * rows, whose last rope_dim rotate, stands at place `row`.
 */
static inline int layers_rotary_source(int row, int head, int rope_dim)
{
    const int in_head = row % head, j = in_head - (head - rope_dim), half = rope_dim / 2;
    return j < 0 ? row : row - j + (j < half ? 2 * j : 2 * (j - half) + 1);
}
