/*
 * What computes one stage: weights of its layers, its part of the KV pool, and the forward pass of
 * a micro-batch. The rank's main thread submits and polls; it never computes. One interface, several
 * implementations, chosen by name: workers/cpu/backend.h, workers/sim/backend.h, and workers/cuda/backend.h,
 * which is loaded when it is asked for (workers/cuda_plugin.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"
#include "results/record.h"
#include "workers/batch.h"
#include "workers/router.h"
#include "workers/shard.h"

struct ceilings;
struct hop;
struct hop_config;
struct kv_tables;
struct costs;
struct sampler_jobs;

#define BACKEND_ROW_PAD 64 // values by which one may lengthen a row of hidden states in a sum

struct backend_config {
    const char *backend; // "cpu" (also NULL), "sim", "cuda"
    const char *model;   // folder or preset:NAME
    bool hops_only; // "cuda": hops and copies alone, which want only rank, index and n_neighbours
    const struct arch *arch;
    int first_layer, n_layers;     // this stage's
    bool has_embed, has_head;      // first / last stage
    uint32_t max_tokens, max_rows; // of a batch
    uint32_t n_slots, slot_blocks; // of the block tables: slots, and blocks of one; "cuda"
    uint32_t n_blocks;             // KV pool; "cuda": 0 waits for backend_take_cache
    enum arch_dtype kv_dtype;      // of the cache: F32, BF16, FP8 or INT8
    struct moe_routing routing;    // of a mixture of experts
    int weight_bits; // 0: as stored; 16: bfloat16; 8, 4: the layers' as integers, made at load
    struct shard_group group; // the ranks that share the stage's layers; zeros: one
    const char
        *sums; // "cuda": what those put results together by: "nccl", else memory that they share
    int n_threads;
    const int *cpus; // (n_threads) that they are pinned to, or NULL; -1: none
    bool idle_class;
    const char *kernels;        // as kernels_select takes them; "sim" takes none
    const struct costs *timing; // "sim" only: borrowed, outlives the backend
    int rank;                   // for messages
    int index, n_neighbours;    // "cuda": of workers that share the host's GPUs; zeros: one
    double memory_fraction;     // "cuda": of the device's memory, for backend_room
};

/* Every implementation's struct begins with this one. */
struct backend {
    const struct backend_ops *ops;
};

/* As the functions of the same names below; those behind destroy may be NULL. */
struct backend_ops {
    const char *name;
    int (*create)(struct backend **out, const struct backend_config *cfg, struct err *e);
    void (*submit)(struct backend *b, const struct batch *batch, const struct kv_tables *tables,
                   const void *in, void *out, int32_t *ids, const struct sampler_jobs *jobs);
    bool (*poll)(struct backend *b);
    void (*times)(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns);
    const char *(*kernels)(const struct backend *b);
    void (*about)(const struct backend *b, struct engine *out);
    bool (*idle_class)(const struct backend *b);
    void (*destroy)(struct backend *b);
    int (*error)(const struct backend *b, struct err *e);
    void (*logits)(struct backend *b, float *logits);
    int64_t (*room)(const struct backend *b);
    int (*take_cache)(struct backend *b, uint32_t n_blocks, struct err *e);
    int (*hop)(struct backend *b, const char *kind, const struct hop_config *cfg, struct hop **out,
               struct err *e);                   // NULL: it has none
    int64_t (*busy_ns)(const struct backend *b); // NULL: this host's cores compute
    // What measurements ask; NULL of a backend that computes nothing.
    int (*ceilings)(struct backend *b, struct ceilings *best, struct err *e);
    int (*copy_ns)(struct backend *b, size_t n_bytes, int n, double *best_ns, struct err *e);
    const char *(*peak)(const struct backend *b, enum arch_dtype kept);
    enum arch_dtype (*keeps)(enum arch_dtype stored);
};

/* Load (or generate) the weights and allocate everything. Slow: call from a helper thread. */
int backend_create(struct backend **out, const struct backend_config *cfg,
                   struct err *e) ERR_CHECKED;

/*
 * Start one batch; one at a time. `in` unless has_embed and `out` unless has_head are this rank's part of the hidden
 * states (shard_hidden), of arch_carried: ranks gather what comes in, so `in` can be read for each_bytes, also where its part
 * is shorter. `ids` (n_rows) when has_head: the id of rows with BATCH_SAMPLE, others
 * -1. It is the greedy one but for rows that have a job (workers/sampler.h), whose results are filled in,
 * too; `jobs` may be NULL. BATCH_NOT_FINITE: there is no token, the row's logits are not numbers. Buffers, batch, tables and jobs stay untouched by the caller until
 * backend_poll says done.
 */
void backend_submit(struct backend *b, const struct batch *batch, const struct kv_tables *tables,
                    const void *in, void *out, int32_t *ids, const struct sampler_jobs *jobs);
bool backend_poll(struct backend *b);
/* Whether the batches so far could be computed. ERR_ENV: what failed; nothing is computed any more. */
int backend_error(const struct backend *b, struct err *e) ERR_CHECKED;
/* Of the last finished batch, clock_now_ns; and how much of that the device, if there is one, was at it. */
void backend_times(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns);
int64_t backend_busy_ns(const struct backend *b);

/*
 * From the next batch on, also write the logits of rows with BATCH_SAMPLE, in order: (n, vocab). NULL stops
 * it. Between batches; not of "sim". For measurements and tests.
 */
void backend_logits(struct backend *b, float *logits);

/*
 * A backend that was created without a cache: blocks that there is memory for, by memory_fraction, when all
 * else has been taken and used once; and the cache. backend_room of others: -1.
 */
int64_t backend_room(const struct backend *b);
int backend_take_cache(struct backend *b, uint32_t n_blocks, struct err *e) ERR_CHECKED;

/*
 * One end of a hop between devices (workers/hop.h): "ipc", "nccl". From then on backend_submit's `in`, or `out` of one that
 * sends, is one of its buffers. Before the backend takes its cache. The caller destroys it before the backend.
 */
int backend_hop(struct backend *b, const char *kind, const struct hop_config *cfg, struct hop **out,
                struct err *e) ERR_CHECKED;

/* Whether it computes beside this host's cores, so that one of them may wait for it without sleeping. */
bool backend_is_beside(const struct backend *b);

/*
 * Look at what the device can do at most (workers/ceilings.h), between batches; `best` begins as zeros, and is
 * better for every look. Backends that compute only.
 */
int backend_ceilings(struct backend *b, struct ceilings *best, struct err *e) ERR_CHECKED;
/* What a copy of n_bytes within the device's memory takes, seen from the host: the best of n. "cuda" only. */
int backend_copy_ns(struct backend *b, size_t n_bytes, int n, double *best_ns,
                    struct err *e) ERR_CHECKED;
/* The rate that products with matrices kept so are held against, after a look; static. */
const char *backend_peak(const struct backend *b, enum arch_dtype kept);
/* As what a matrix stored so is kept where weight_bits asks for nothing. */
enum arch_dtype backend_keeps(const struct backend *b, enum arch_dtype stored);

const char *backend_name(const struct backend *b);    // "cpu"
const char *backend_kernels(const struct backend *b); // the set in use; "sim"
/* What it uses, for the results; what is its owner's to say (rank, stage, transport) is zero. */
void backend_about(const struct backend *b, struct engine *out);
bool backend_idle_class(const struct backend *b); // SCHED_IDLE granted
void backend_destroy(struct backend *b);

/* For a backend's `about`: the cache's format and room, and who chooses experts. */
void backend_about_model(struct engine *out, const struct arch *a, enum arch_dtype kv_dtype,
                         uint32_t n_blocks, const struct moe_routing *routing);

/* Of "cuda": whether there is NCCL here, for hops and sums, or a few words why not (cap). */
bool backend_has_nccl(char *why, size_t cap);
/*
 * The bus address (cap) of the GPU that a worker will take, by its index among its host's; empty: none. Whether that GPU sees
 * the memory of another one of its host.
 */
void backend_gpu(int index, int n_neighbours, char *pci, size_t cap);
bool backend_gpu_reaches(int index, int n_neighbours, const char *pci);

/* What "auto" is here: "cuda" where there is a GPU, else "cpu" and in a few words why (cap). */
const char *backend_auto(char *why, size_t cap);
