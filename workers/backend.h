/*
 * What computes one stage: weights of its layers, its part of the KV pool, and the forward pass of
 * a micro-batch. The rank's main thread submits and polls; it never computes. One interface, several
 * implementations, chosen by name: workers/cpu/backend.h, workers/sim/backend.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "results/record.h"
#include "workers/batch.h"
#include "workers/router.h"
#include "workers/shard.h"

struct kv_tables;
struct costs;
struct sampler_jobs;

struct backend_config {
    const char *backend; // "cpu" (also NULL), "sim"
    const char *model;   // folder or preset:NAME
    const struct arch *arch;
    int first_layer, n_layers;     // this stage's
    bool has_embed, has_head;      // first / last stage
    uint32_t max_tokens, max_rows; // of a batch
    uint32_t n_blocks;             // KV pool
    enum arch_dtype kv_dtype;      // of the cache: F32, BF16, FP8 or INT8
    struct moe_routing routing;    // of a mixture of experts
    int weight_bits; // 0: as stored; 16: bfloat16; 8, 4: the layers' as integers, made at load
    struct shard_group group; // the ranks that share the stage's layers; zeros: one
    int n_threads;
    const int *cpus; // (n_threads) that they are pinned to, or NULL; -1: none
    bool idle_class;
    const char *kernels;        // as kernels_select takes them; "sim" takes none
    const struct costs *timing; // "sim" only: borrowed, outlives the backend
};

/* Every implementation's struct begins with this one. */
struct backend {
    const struct backend_ops *ops;
};

/* As the functions of the same names below. */
struct backend_ops {
    const char *name;
    int (*create)(struct backend **out, const struct backend_config *cfg, struct err *e);
    void (*submit)(struct backend *b, const struct batch *batch, const struct kv_tables *tables,
                   const float *in, float *out, int32_t *ids, const struct sampler_jobs *jobs);
    bool (*poll)(struct backend *b);
    void (*times)(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns);
    const char *(*kernels)(const struct backend *b);
    void (*about)(const struct backend *b, struct engine *out);
    bool (*idle_class)(const struct backend *b);
    void (*destroy)(struct backend *b);
};

/* Load (or generate) the weights and allocate everything. Slow: call from a helper thread. */
int backend_create(struct backend **out, const struct backend_config *cfg,
                   struct err *e) ERR_CHECKED;

/*
 * Start one batch; one at a time. `in` (n_tokens, hidden) f32 unless has_embed; `out` (n_tokens,
 * hidden) f32 unless has_head; `ids` (n_rows) when has_head: the id of rows with BATCH_SAMPLE, others
 * -1. It is the greedy one but for rows that have a job (workers/sampler.h), whose results are filled in,
 * too; `jobs` may be NULL. BATCH_NOT_FINITE: there is no token, the row's logits are not numbers. Buffers, batch, tables and jobs stay untouched by the caller until
 * backend_poll says done.
 */
void backend_submit(struct backend *b, const struct batch *batch, const struct kv_tables *tables,
                    const float *in, float *out, int32_t *ids, const struct sampler_jobs *jobs);
bool backend_poll(struct backend *b);
/* Of the last finished batch, clock_now_ns. */
void backend_times(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns);

const char *backend_name(const struct backend *b);    // "cpu"
const char *backend_kernels(const struct backend *b); // the set in use; "sim"
/* What it uses, for the results; what is its owner's to say (rank, stage, transport) is zero. */
void backend_about(const struct backend *b, struct engine *out);
bool backend_idle_class(const struct backend *b); // SCHED_IDLE granted
void backend_destroy(struct backend *b);
