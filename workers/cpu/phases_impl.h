/*
 * What the files of the phases share: phases.c (buffers, a batch, embedding and hand-over),
 * phases_attn.c, phases_mlp.c, phases_moe.c, phases_head.c.
 */
#pragma once

#include <stdatomic.h>

#include "workers/cpu/attention.h"
#include "workers/cpu/phases.h"

/* Consecutive tokens of one row that attend together. */
struct phases_group {
    uint32_t row;
    int first, n; // tokens of the row
};

struct phases_member {
    float *normed;  // (PHASES_SHARED_ROWS, ld.hidden)
    char *narrowed; // (PHASES_SHARED_ROWS, narrow_bytes)
    float *scratch; // (attention_scratch_values)
    float *logits;  // (max_rows, some panels)
    float *best;    // (max_rows)
    int32_t *ids;   // (max_rows)
    char *gathered; // (PHASES_EXPERT_ROWS, input row) hidden states of one expert's tokens
    float *made;    // (PHASES_EXPERT_ROWS, columns of one unit) what an expert makes of them
};

/* The largest logit and its id. */
struct phases_found {
    float value;
    int32_t id;
};

/* Rows of the head that are drawn from rather than greedy (workers/sampler.h). */
struct phases_jobs {
    int32_t *of_sample;        // (n_samples) its job; -1: greedy
    float *logits;             // (some rows, vocab) of a run of jobs
    float *part, *all;         // of a group: its ranks' parts of them, this one's and all
    struct sampler **samplers; // (n_members)
};

/* Sizes of rows, in floats. */
struct phases_widths {
    size_t hidden, qkv, latent, absorbed, attended, heads, mlp, gate_up, expert, experts;
};

struct phases {
    struct phases_config cfg;
    struct arch arch; // with this rank's part of the heads; cfg.arch points here
    struct shard shard;
    struct phases_widths ld;
    struct cache cache;
    size_t narrow_bytes;    // of the widest row in a narrow form
    size_t kv_bytes;        // of a layer in one block
    int unit_panels;        // of qkv: whole panels that hold whole heads
    float *x;               // (max_tokens, ld.hidden) hidden states
    char *arrived;          // (size, each_bytes) shard_hidden's parts of several ranks
    float *branch;          // (max_tokens, ld.hidden) what is to be added to them
    float *normed;          // (max_tokens, ld.hidden)
    float *qkv;             // (max_tokens, ld.qkv); latent attention: queries of all heads
    float *latent;          // (max_tokens, ld.latent) q_a, kv_a
    float *absorbed;        // (max_tokens, ld.absorbed) queries that meet the latents
    float *attended;        // (max_tokens, ld.attended) by heads: of values or of latents
    float *heads;           // (max_tokens, ld.heads) input of o; `attended` but with latents
    float *gate_up;         // (max_tokens, ld.gate_up)
    float *act;             // (max_tokens, ld.mlp)
    char *narrowed;         // (rows, narrow_bytes) the inputs of a product in a narrow form
    char *kv;               // (n_layers, n_blocks, n_kv_heads, cache.block_bytes)
    float *cosines, *sines; // (positions, rope_dim / 2)

    // Mixture of experts. A slot is one of a token's experts; `sorted` slots stand by expert.
    float *router_logits; // (max_tokens, ld.experts)
    int *chosen;          // (max_tokens, top_k) experts, ascending
    float *weights;       // (max_tokens, top_k)
    int *sorted;          // (max_tokens * top_k) slots: token * top_k + which
    int *expert_first;    // (n_experts + 1) where an expert's slots begin in `sorted`
    int *busy;            // (n_busy) experts that have any
    int n_busy;
    float *expert_act; // (max_tokens * top_k, ld.expert) in the order of `sorted`

    struct phases_member *members; // (n_members)
    atomic_int *next;              // (n_layers, PHASES_COUNTERS) units handed out

    struct phases_found *mine; // (max_rows) the samples' largest logits
    // Tensor parallelism, the last stage: what the ranks found.
    float *part_logits;       // (max_rows, most vocab of a rank) this one's
    float *all_logits;        // (size, max_rows, most vocab of a rank)
    struct phases_found *all; // (size, max_rows)

    // of the batch at hand
    struct phases_io io;
    int n_tokens, n_groups, n_samples;
    struct phases_group *groups; // (n_groups)
    uint32_t *sample_tokens;     // (n_samples) index in the batch
    uint32_t *sample_rows;       // (n_samples)
    struct phases_jobs jobs;     // with a head
};

enum phases_counter {
    PHASES_ATTEND,
    PHASES_EXPERTS_IN,
    PHASES_EXPERTS_OUT,
    PHASES_COUNTERS,
};

enum {
    PHASES_SHARED_ROWS = 16,   // from here on a barrier is cheaper than normalising on every member
    PHASES_HEAD_PANELS = 16,   // logits made between two looks for the largest
    PHASES_EXPERT_ROWS = 32,   // rows of one expert that are computed together
    PHASES_EXPERT_PANELS = 16, // of a unit of expert work
};

/* What one member carries through the operations. */
struct phases_walk {
    struct phases *p;
    struct pool *pool;
    int member;
};

struct phases_range {
    int from, to;
};

/* What the head needs of its own; its jobs of the batch at hand. */
int phases_head_create(struct phases *p, struct err *e) ERR_CHECKED;
void phases_head_free(struct phases *p);
void phases_head_begin(struct phases *p);

/* This member's part of 0 .. n - 1. */
struct phases_range phases_impl_share(const struct phases_walk *w, int n);

/* Wait for all members. */
void phases_impl_meet(const struct phases_walk *w);

/* The next unit of a layer's work that is handed out one by one. */
int phases_impl_next(const struct phases_walk *w, int layer, enum phases_counter counter);

/*
 * Normalised hidden states of all tokens, or of the `n` in `tokens`, for every member to read. Few of
 * them each member makes for itself; many are shared out, for one more barrier.
 */
const float *phases_impl_normed(const struct phases_walk *w, const float *weight,
                                const uint32_t *tokens, int n);

/* Those of all tokens in p->normed, however few. */
void phases_impl_norm_all(const struct phases_walk *w, const float *weight);

/*
 * Where activations become the input of a product with `m`: n rows x of m->n_cols floats, `ld` apart,
 * complete for all members. Every member calls it.
 */
struct kernels_rows phases_impl_input(const struct phases_walk *w, const struct matrix *m,
                                      const float *x, size_t ld, int n);

/* Columns of panels from .. to - 1 of m rows x . w^T (+ bias) in y (m, ldy), whole rows of it. */
void phases_impl_product(const struct phases *p, const struct matrix *w, struct phases_range panels,
                         const struct kernels_rows *x, int m, const float *bias, float *y,
                         size_t ldy);

/* How the model's norms go with these weights. */
struct kernels_norm phases_impl_norm(const struct phases *p, const float *w);

/* Whether hidden states are rounded at the end of a layer (arch_carried); and those columns of all tokens. */
bool phases_impl_rounds(const struct phases *p);
void phases_impl_round(const struct phases *p, struct phases_range panels);

/* Whether hidden states grow by way of p->branch: it is normed, or summed over ranks. */
bool phases_impl_apart(const struct phases *p, const float *norm);

/* What a layer adds to the hidden states: m's product, normed if there is a norm. */
struct phases_residual {
    const struct matrix *m;
    const float *bias, *norm; // or NULL
    bool onto;                // p->branch holds a part of the same sum
    bool is_last;             // of its layer
};

/* Hidden states += y . m^T (+ bias), split by panels. */
void phases_impl_residual(const struct phases_walk *w, const struct phases_residual *r,
                          const float *y, size_t ldy);

/* Hidden states += p->branch, which members have filled: summed over ranks, normed. */
void phases_impl_add_branch(const struct phases_walk *w, const float *norm, bool is_last);

/* The operations of layers.h; ctx is a struct phases_walk. */
void phases_attn_in(void *ctx, int layer);
void phases_attn_attend(void *ctx, int layer, const struct layers_attention *a);
void phases_attn_out(void *ctx, int layer);
/* Query heads that one call of attention takes: they share a KV head. */
int phases_attn_heads(const struct arch *a);
void phases_mlp_in(void *ctx, int layer);
void phases_mlp_out(void *ctx, int layer);
void phases_moe_route(void *ctx, int layer);
void phases_moe_experts(void *ctx, int layer);
void phases_head(void *ctx);
