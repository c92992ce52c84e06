/*
 * What the files of the forward pass share: forward.c (life, a batch from its beginning to its end),
 * forward_room.c (buffers), forward_slate.c (what the host says of a batch), forward_ops.c (the operations),
 * forward_head.c (logits and ids), forward_graphs.c, forward_group.c (what ranks put together).
 */
#pragma once

#include "core/clock.h"
#include "workers/cuda/attention.h"
#include "workers/cuda/cache.h"
#include "workers/cuda/forward.h"
#include "workers/cuda/gemm.h"
#include "workers/cuda/group.h"
#include "workers/cuda/head.h"
#include "workers/cuda/sample.h"
#include "workers/cuda/tables.h"

enum {
    FORWARD_WINDOWS = 2, // attention of different reach in one model, at most
    FORWARD_GRAPHS = 15, // sizes of graphs (forward_graphs.c)
    FORWARD_BANNED = 32, // ids that a request may not be given, at most
};

#define FORWARD_SETUP_NS (60 * NS_PER_S) // for a copy, or a first batch, before traffic

/*
 * What the host says of a batch's tokens, in one piece of pinned memory and one of the device's, copied as a
 * whole. One is for graphs, one for what is not: offsets depend on the most tokens.
 */
struct forward_slate {
    uint32_t max_rows, max_tokens;
    struct attention_limits limits;
    size_t pos_at, row_at, work_at[FORWARD_WINDOWS],
        bytes;                                   // ids are at 0; rows of the tables: slots
    char *host, *device;                         // (bytes)
    struct attention_work work[FORWARD_WINDOWS]; // of the batch; arrays on the host
};

/* Buffers on the device; "narrow": bfloat16 where the product's weights are not F32. */
struct forward_room {
    float *x;        // (max_tokens, hidden) hidden states
    float *branch;   // (max_tokens, hidden) that is normed or summed before it is added; or NULL
    void *normed;    // (max_tokens, hidden) narrow
    float *qkv;      // (max_tokens, rows of qkv); latent attention: queries of all heads
    void *q;         // (max_tokens, n_heads, key_dim) for attention
    void *attended;  // (max_tokens, n_heads, value_dim) narrow
    float *partials; // of attention
    float *latents;  // (max_tokens, q_rank + kv_rank + rope_dim)
    void *q_latents; // (max_tokens, q_rank) narrow
    float *absorbed; // (max_tokens, n_heads, kv_rank)
    float *heads;    // (max_tokens, n_heads, v_dim) latent attention's, out of latents
    void *narrowed;  // (max_tokens, n_heads * widest of a head) bfloat16
    float *gate_up;  // (max_tokens or slots, 2 * inner)
    void *act, *expert_act;           // (max_tokens, inner), (slots, inner) narrow
    float *router_logits, *weights;   // (max_tokens, n_experts), (.., top_k)
    int32_t *chosen, *first, *sorted; // (max_tokens, top_k), (n_experts + 1), (slots)
    float *made;                      // (slots, hidden) what experts give
    int32_t *drawn;                   // (moe layers, max_tokens, top_k), or NULL
    uint32_t *sampled;                // (max_rows) tokens whose logits are wanted
    void *head_in;                    // (FORWARD_HEAD_ROWS, hidden) narrow
    float *logits;                    // (FORWARD_HEAD_ROWS, vocab)
    float *part_logits; // (FORWARD_HEAD_ROWS, a rank's most vocab); NULL where that is all
    float *all_parts;   // (ranks, FORWARD_HEAD_ROWS, a rank's most vocab) for NCCL; or NULL
    struct head_found *parts, *found; // (.., HEAD_PARTS), (max_rows)
    struct head_found *all_found;     // (ranks, n_sampled), or NULL
    struct sample_job *jobs;          // (max_rows)
    int32_t *banned;                  // (max_rows * FORWARD_BANNED)
    float *job_weights;               // (FORWARD_HEAD_ROWS, vocab)
    struct sample_found *job_found;   // (max_rows)
    struct tables_entry *entries;     // (max_entries)
    uint32_t *tables;                 // (n_slots, slot_blocks)
    float *cosines, *sines;           // (positions, rope_dim / 2)
    char *arrived;     // (ranks, each_bytes) shard_hidden's parts; NULL where a stage is one rank
    uint16_t *carried; // (max_tokens, hidden) hidden states as they travel; NULL: as they are
    char *kv;          // (n_layers, n_blocks, layout.block_bytes)
};

/* Pinned memory of the host that copies go through. */
struct forward_staged {
    uint32_t *sampled;              // (max_rows)
    struct head_found *found;       // (ranks, n_sampled)
    struct sample_job *jobs;        // (max_rows)
    int32_t *banned;                // (max_rows * FORWARD_BANNED)
    struct sample_found *job_found; // (max_rows)
    struct tables_entry *entries;   // (max_entries)
    int32_t *drawn;                 // as on the device
    void *hidden;                   // (max_tokens, hidden) of arch_carried: in or out
    float *logits; // (FORWARD_HEAD_ROWS, vocab), from the first time somebody wants them
};

struct forward {
    struct forward_config cfg;
    struct gpu *gpu;
    struct shard shard;
    struct arch own_arch;    // with this rank's heads alone
    const struct arch *arch; // that
    struct group *group;     // what several ranks of a stage share; NULL: it is one, or
    struct nccl_comm *sums;  // over NCCL, once ranks have met
    struct gpu_ipc_handle group_handle;
    bool has_joined;
    struct gemm *gemm;
    struct cache_layout layout;
    struct attention_shape shape;
    int n_windows, windows[FORWARD_WINDOWS];
    uint32_t positions, max_entries, n_blocks;
    struct forward_room room;
    struct forward_staged staged;
    struct forward_slate mixed, single; // single: of rows with one token
    struct attention_row *rows;         // (max_rows)
    struct gpu_graph *graphs[FORWARD_GRAPHS];
    int64_t busy_ns;
    bool is_warm; // every kind of batch has run: first uses cannot fall into a recording

    // of the batch at hand
    const struct forward_io *io;
    struct forward_slate *slate;
    int n, n_sampled; // tokens that are computed, those that fill a graph up included
    uint32_t n_jobs;
    struct err *e; // the first failure of an operation
    bool failed;
};

/* --- buffers ------------------------------------------------------------------------------------ */

int forward_room_take(struct forward *f, struct err *e) ERR_CHECKED;
int forward_room_take_logits(struct forward *f, struct err *e) ERR_CHECKED; // staged.logits, once

/* --- what the host says ------------------------------------------------------------------------- */

int forward_slate_take(struct forward *f, struct forward_slate *s, uint32_t max_tokens,
                       struct err *e) ERR_CHECKED;
/* The batch's tokens to f->slate, and n - n_tokens more that do nothing. */
void forward_slate_fill(struct forward *f);
/* Nothing but such: what graphs are recorded with. */
void forward_slate_pad(struct forward *f);
int forward_slate_queue(struct forward *f, struct err *e) ERR_CHECKED;
/* New entries of the block tables; experts that are drawn. */
int forward_slate_queue_entries(struct forward *f, struct err *e) ERR_CHECKED;
int forward_slate_queue_drawn(struct forward *f, struct err *e) ERR_CHECKED;

static inline const int32_t *forward_slate_ids(const struct forward_slate *s)
{
    return (const int32_t *)(const void *)s->device;
}

static inline const uint32_t *forward_slate_part(const struct forward_slate *s, size_t at)
{
    return (const uint32_t *)(const void *)(s->device + at);
}

/* --- operations --------------------------------------------------------------------------------- */

extern const struct layers_ops forward_ops; // of a struct forward; the head is apart

static inline bool forward_is_wide(const struct device_matrix *m)
{
    return m->dtype == ARCH_F32;
}

/* y = x . w^T (+ bias), or y += that: x (m, ldx) bfloat16, or float32 where w is. */
void forward_ops_product(struct forward *f, const struct device_matrix *w, int m, const void *x,
                         float *y, bool add, const float *bias);
/* A failure is kept for whoever runs the batch; operations after it are left out. */
void forward_ops_check(struct forward *f, const char *what);

/* --- logits and ids ----------------------------------------------------------------------------- */

int forward_head_queue(struct forward *f, struct err *e) ERR_CHECKED;
void forward_head_finish(struct forward *f); // when all has happened: ids and jobs

/* --- the ranks of a stage ------------------------------------------------------------------------ */

static inline bool forward_is_shared(const struct forward *f)
{
    return f->shard.size > 1;
}

/* What they meet in, where there are several; they meet with the first batch after the profile. */
int forward_group_take(struct forward *f, struct err *e) ERR_CHECKED;
int forward_group_join(struct forward *f, struct err *e) ERR_CHECKED;
/* As gpu_wait, and all ranks came. */
int forward_group_wait(struct forward *f, int64_t deadline_ns, struct err *e) ERR_CHECKED;
void forward_group_end(struct forward *f);
bool forward_group_records(const struct forward *f); // sums: those over NCCL once ranks have met
/* x (n, hidden) becomes the sum of all ranks'; nothing where there is one. */
void forward_group_sum(struct forward *f, float *x);
/* Of several ranks: whole rows of logits (n) from their parts, and what each found. */
void forward_group_logits(struct forward *f, int n);
void forward_group_found(struct forward *f);
/* Hidden states on their way: all ranks' parts, each_bytes long, from this one's. */
void forward_group_hidden(struct forward *f, const void *mine, size_t each_bytes);

/* --- graphs ------------------------------------------------------------------------------------- */

/* Rows that a graph for n has; 0: there is none for so many. */
uint32_t forward_graphs_rows(const struct forward *f, uint32_t n);
int forward_graphs_record(struct forward *f, struct err *e) ERR_CHECKED;
void forward_graphs_free(struct forward *f);
int forward_graphs_queue(struct forward *f, struct err *e) ERR_CHECKED; // the one of f->n rows
