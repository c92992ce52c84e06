/*
 * The settings of what is loaded: `target.*`. Transparent; owned by the run's config. Rows that only
 * stages understand and rows that only endpoints understand stand side by side; the kind decides
 * which are used (target_check).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/opt.h"
#include "model/arch.h"
#include "workers/sched.h"

enum target_kind {
    TARGET_STAGES, // this job's worker ranks, over MPI
    TARGET_OPENAI, // an OpenAI-compatible endpoint over HTTP (loadgen/endpoint.h has its settings)
    TARGET_NULL,   // answers at once, in one chunk: measures tidemark itself
};

enum target_backend {
    TARGET_BACKEND_AUTO, // CUDA where every worker has a GPU, else the CPU
    TARGET_BACKEND_CPU,
    TARGET_BACKEND_CUDA,
    TARGET_BACKEND_SIM, // takes the time that costs say (workers/sim/costs.h)
};

enum target_transport {
    TARGET_TRANSPORT_AUTO, // what the ranks at both ends have
    TARGET_TRANSPORT_MPI,
    TARGET_TRANSPORT_IPC,
    TARGET_TRANSPORT_NCCL,
};

enum target_telemetry {
    TARGET_TELEMETRY_AUTO, // GPUs that are known to be the target's
    TARGET_TELEMETRY_ON,   // those that this job sees
    TARGET_TELEMETRY_OFF,
};

struct costs;

enum target_weights {
    TARGET_WEIGHTS_STORED,
    TARGET_WEIGHTS_INT8, // the layers' matrices, made at load, 32 values of a row to a factor
    TARGET_WEIGHTS_INT4, // likewise
};

enum target_kv_cache {
    TARGET_KV_AUTO, // F32 with float32 weights, else BF16
    TARGET_KV_F32,
    TARGET_KV_BF16,
    TARGET_KV_FP8,
    TARGET_KV_INT8,
};

struct target_config {
    int kind;    // enum target_kind
    char *model; // folder or preset:NAME
    int backend; // enum target_backend
    int64_t replicas, pipeline, tensor;
    int64_t lanes;                  // micro-batches in flight per replica; 0: pipeline
    struct opt_numbers layer_split; // layers per stage; empty: by cost
    int64_t threads;     // compute threads per worker; 0: cores of this host / workers on it, >= 1
    int64_t max_running; // requests with KV blocks, per replica
    int64_t max_waiting; // admission bound: more are rejected
    int64_t max_batch_tokens; // per micro-batch: chunked prefill fills up to this
    int64_t
        kv_tokens; // size of the KV pool; 0: max_running * 1/4 of the context, at least 2 contexts;
                   // with CUDA what memory_fraction leaves room for, up to a context each
    double memory_fraction; // of a GPU's memory that a worker takes
    bool prefix_cache;      // full KV blocks are shared between prompts that begin alike
    int routing;            // enum routing_kind of model/routing.h
    int weights;            // enum target_weights
    int kv_cache;           // enum target_kv_cache
    bool pin;               // compute threads to CPUs of their own, where there are enough
    int kernels;            // index of target_kernels' names; 0: auto
    int moe_routing;        // enum router_kind of workers/router.h
    double moe_zipf;        // exponent of ROUTER_ZIPF
    bool idle_class;        // compute threads run SCHED_IDLE where cores are shared
    int telemetry;          // enum target_telemetry
    int transport;          // enum target_transport
    struct {
        char *hardware; // name in workers/sim/hardware.h
        char *costs;    // file of costs instead, or NULL
        double read_share, compute_share;
        int64_t layer_ns;
        int64_t tensor; // devices that each simulated rank stands for
        double scale;   // of all times
    } sim;
    struct { // no settings: what was found out before the first step; zeros: nothing, as asked
        int backend;
        int64_t kv_tokens;
    } chosen;
};

/* Which backend: the one chosen where "auto" was asked. */
static inline enum target_backend target_backend(const struct target_config *t)
{
    return (enum target_backend)(t->chosen.backend ? t->chosen.backend : t->backend);
}

extern const struct opt_table target_options;

/*
 * Checks across keys: layer_split sums to the model's layers, pipeline <= layers, tensor = 1 on cpu, ...
 * `a` may be NULL for other kinds than TARGET_STAGES.
 */
int target_check(const struct target_config *t, const struct arch *a, struct err *e) ERR_CHECKED;

struct sched_config target_sched(const struct target_config *t, const struct arch *a);

/* "cpu", "cuda", "sim"; "auto", "avx2": as kernels_select takes it. */
const char *target_backend_name(const struct target_config *t);
const char *target_kernels(const struct target_config *t);

/* What the sim backend's parts take, by target.sim. */
int target_costs(const struct target_config *t, const struct arch *a, struct costs *c,
                 struct err *e) ERR_CHECKED;

/*
 * First layers of each stage: by layer_split, or by cost of a lane full of decoding requests, in bytes
 * read or as target.sim says: first (pipeline + 1).
 */
int target_split(const struct target_config *t, const struct arch *a, int *first,
                 struct err *e) ERR_CHECKED;

/* Lanes per replica, and KV blocks (BATCH_KV_BLOCK tokens each) in a replica's pool, defaults resolved. */
int target_lanes(const struct target_config *t);
int64_t target_kv_blocks(const struct target_config *t, const struct arch *a);

/*
 * On a GPU: the tokens of a pool that has room for n_blocks. ERR_ENV: kv_tokens asks for more, or it does not
 * even hold one context.
 */
int target_kv_fit(const struct target_config *t, const struct arch *a, int64_t n_blocks,
                  int64_t *n_tokens, struct err *e) ERR_CHECKED;

/* How the KV cache is stored; 0, 8 or 4 bits that weights are made at load. */
enum arch_dtype target_kv_dtype(const struct target_config *t, const struct arch *a);
int target_weight_bits(const struct target_config *t);
