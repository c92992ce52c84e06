/*
 * The layer driver: which operations a stage runs on a batch, in which order, with which numbers, for
 * every model family and every backend. A family differs in what struct arch says; a backend supplies
 * the operations. On the CPU each compute thread walks the list and does its share of every operation;
 * a device backend walks it once and queues work.
 */
#pragma once

#include <stdbool.h>

#include "model/arch.h"

/* Operations on the whole batch; each is complete, for all threads, before the next one begins. */
struct layers_ops {
    void (*begin)(void *ctx);              // hidden states from the ids or the stage before
    void (*attn_in)(void *ctx, int layer); // norm, q k v, rotary positions, write the KV cache
    void (*attend)(void *ctx, int layer, float scale);
    void (*attn_out)(void *ctx, int layer); // o, residual
    void (*mlp_in)(void *ctx, int layer);   // norm, gate and up, activation
    void (*mlp_out)(void *ctx, int layer);  // down, residual
    void (*end)(void *ctx);                 // hidden states for the next stage
    void (*head)(void *ctx);                // norm, logits, greedy ids
};

/* One pass over a stage's layers, 0 .. n_layers - 1 as the backend counts them. */
void layers_forward(const struct layers_ops *ops, void *ctx, const struct arch *a, int n_layers,
                    bool has_head);

/* Rotary frequencies: out (head_dim / 2). "llama3" scaling as in transformers' modeling_rope_utils. */
void layers_rope_frequencies(const struct arch *a, float *out);

/* cos and sin of positions 0 .. n - 1: each (n, head_dim / 2). */
void layers_rope_tables(const struct arch *a, int n, float *cosines, float *sines);
