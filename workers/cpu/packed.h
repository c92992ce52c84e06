/*
 * One stage's weights, packed for the kernels. Matrices that share an input are one: q, k and v stand
 * under each other; gate and up alternate panel by panel, so that whoever computes a panel of both can
 * apply the activation at once. Read-only once loaded.
 */
#pragma once

#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "workers/cpu/matrix.h"

struct packed_layer {
    float *attn_norm, *mlp_norm; // (hidden, padded)
    struct matrix qkv;           // ((n_heads + 2 n_kv_heads) * head_dim, hidden)
    struct matrix o;             // (hidden, n_heads * head_dim)
    struct matrix gate_up;       // (2 * padded intermediate, hidden)
    struct matrix down;          // (hidden, intermediate)
};

struct packed {
    int n_layers;
    struct packed_layer *layers; // (n_layers)
    struct matrix embed;         // (vocab, hidden); empty unless the stage has it
    struct matrix head;          // same; empty where a tied embedding serves
    float *norm;                 // (hidden, padded) final
    int64_t n_bytes;             // of weights, without pads
};

/* What a stage holds. */
struct packed_part {
    int first_layer, n_layers;
    bool has_embed, has_head;
};

int packed_load(struct packed *p, const char *model, const struct arch *a,
                const struct packed_part *part, struct err *e) ERR_CHECKED;
void packed_free(struct packed *p);

/* The matrix that logits come from. */
const struct matrix *packed_head(const struct packed *p);
