#include "workers/cuda/backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/pool.h"
#include "workers/backend.h"
#include "workers/cuda/forward.h"
#include "workers/cuda/gpu_ceilings.h"
#include "workers/cuda/hop_ipc.h"
#include "workers/cuda/hop_nccl.h"
#include "workers/cuda/nccl_library.h"
#include "workers/rank_memory.h"

#define BATCH_LIMIT_NS (100 * NS_PER_S)

/* What a process has of the device beside what it takes by gpu_take. */
#define CONTEXT_BYTES (RANK_MEMORY_CONTEXT_BYTES + RANK_MEMORY_PRODUCT_BYTES)

struct cuda {
    struct backend base;
    struct arch arch;
    struct gpu *gpu;
    struct device_weights weights;
    struct forward *forward;    // NULL: hops_only
    struct pool *pool;          // one thread
    struct gpu_ceilings *meter; // NULL until somebody looks
    struct layers_part part;
    enum arch_dtype kv_dtype;
    struct moe_routing routing;
    uint32_t n_blocks;
    double memory_fraction;
    bool in_on_device, out_on_device; // hidden states, once hops are there
    struct nccl_library nccl;         // version 0: not opened
    float *logits;                    // (rows, vocab) or NULL; the caller's
    // of the batch at hand; written by the thread, read after pool_poll
    struct forward_io io;
    int64_t t_begin_ns, t_end_ns;
    struct err error; // the first one
};

static struct cuda *cuda_of(struct backend *b)
{
    return (struct cuda *)(void *)b;
}

static const struct cuda *cuda_of_const(const struct backend *b)
{
    return (const struct cuda *)(const void *)b;
}

/* --- life ----------------------------------------------------------------------------------------- */

static int load(struct cuda *b, const struct backend_config *cfg, struct err *e)
{
    struct device_weights_config weights = {
        .model = cfg->model,
        .arch = &b->arch,
        .part = b->part,
        .weight_bits = cfg->weight_bits,
    };
    if (shard_init(&weights.shard, &b->arch, cfg->group.rank, cfg->group.size, e)) {
        return -1;
    }
    weights.pool = pool_create(cfg->n_threads, cfg->cpus, cfg->idle_class);
    const int rc = device_weights_load(&b->weights, b->gpu, &weights, e);
    pool_destroy(weights.pool);
    return rc;
}

/* Once; it stays for the process. */
static int open_nccl(struct cuda *b, struct err *e)
{
    return b->nccl.version > 0 ? 0 : nccl_library_open(&b->nccl, e);
}

static int create_forward(struct cuda *b, const struct backend_config *cfg, struct err *e)
{
    const bool by_nccl = cfg->sums && strcmp(cfg->sums, "nccl") == 0 && cfg->group.size > 1;
    if (by_nccl && open_nccl(b, e)) {
        return -1;
    }
    const struct forward_config forward = {
        .gpu = b->gpu,
        .weights = &b->weights,
        .arch = &b->arch,
        .part = b->part,
        .max_tokens = cfg->max_tokens,
        .max_rows = cfg->max_rows,
        .n_slots = cfg->n_slots,
        .slot_blocks = cfg->slot_blocks,
        .kv_dtype = cfg->kv_dtype,
        .routing = cfg->routing,
        .group = cfg->group,
        .nccl = by_nccl ? &b->nccl : NULL,
    };
    return forward_create(&b->forward, &forward, e) || forward_profile(b->forward, e) ? -1 : 0;
}

static void destroy(struct backend *base)
{
    struct cuda *b = cuda_of(base);
    if (b->pool) {
        pool_destroy(b->pool);
    }
    gpu_ceilings_close(b->meter);
    forward_destroy(b->forward);
    device_weights_free(&b->weights);
    gpu_close(b->gpu);
    free(b);
}

static int take_cache(struct backend *base, uint32_t n_blocks, struct err *e)
{
    struct cuda *b = cuda_of(base);
    CHECK(b->forward);
    b->n_blocks = n_blocks;
    return gpu_use(b->gpu, e) || forward_take_cache(b->forward, n_blocks, e) ? -1 : 0;
}

static int make_hop(struct backend *base, const char *kind, const struct hop_config *cfg,
                    struct hop **out, struct err *e)
{
    struct cuda *b = cuda_of(base);
    const bool is_nccl = strcmp(kind, "nccl") == 0;
    CHECK(is_nccl || strcmp(kind, "ipc") == 0);
    if (gpu_use(b->gpu, e) || (is_nccl && open_nccl(b, e)) ||
        (is_nccl ? hop_nccl_create(out, b->gpu, &b->nccl, cfg, e)
                 : hop_ipc_create(out, b->gpu, cfg, e))) {
        return -1;
    }
    *(cfg->sends ? &b->out_on_device : &b->in_on_device) = true;
    return 0;
}

int backend_cuda_device(int index, int n_neighbours)
{
    const int n = gpu_count();
    return n >= n_neighbours ? index : index * n / n_neighbours;
}

/* What computes, on the device that is open. */
static int create_stage(struct cuda *b, const struct backend_config *cfg, struct err *e)
{
    CHECK(cfg->max_tokens >= 1 && cfg->max_rows >= 1 && cfg->n_slots >= 1);
    b->arch = *cfg->arch;
    b->kv_dtype = cfg->kv_dtype;
    b->routing = cfg->routing;
    b->memory_fraction = cfg->memory_fraction;
    b->part = (struct layers_part){
        .first_layer = cfg->first_layer,
        .n_layers = cfg->n_layers,
        .has_embed = cfg->has_embed,
        .has_head = cfg->has_head,
    };
    if (load(b, cfg, e) || create_forward(b, cfg, e) ||
        (cfg->n_blocks > 0 && take_cache(&b->base, cfg->n_blocks, e))) {
        return -1;
    }
    b->pool = pool_create(1, NULL, false);
    return 0;
}

static int create(struct backend **out, const struct backend_config *cfg, struct err *e)
{
    struct cuda *b = xcalloc(1, sizeof *b);
    const int device = backend_cuda_device(cfg->index, cfg->n_neighbours);
    b->base.ops = &backend_cuda;
    if (gpu_open(&b->gpu, device, cfg->rank, e) || (!cfg->hops_only && create_stage(b, cfg, e))) {
        destroy(&b->base);
        return -1;
    }
    *out = &b->base;
    return 0;
}

/* --- a batch -------------------------------------------------------------------------------------- */

static void run(void *arg, int member, int n_members)
{
    (void)member;
    (void)n_members;
    struct cuda *b = arg;
    b->t_begin_ns = clock_now_ns();
    if (b->error.code == ERR_NONE && gpu_use(b->gpu, &b->error) == 0) {
        const int rc = forward_run(b->forward, &b->io, BATCH_LIMIT_NS, &b->error);
        CHECK((rc == 0) == (b->error.code == ERR_NONE));
    }
    b->t_end_ns = clock_now_ns();
}

static void submit(struct backend *base, const struct batch *batch, const struct kv_tables *tables,
                   const void *in, void *out, int32_t *ids, const struct sampler_jobs *jobs)
{
    struct cuda *b = cuda_of(base);
    CHECK(b->forward);
    b->io = (struct forward_io){
        .batch = batch,
        .tables = tables,
        .in = in,
        .out = out,
        .in_on_device = b->in_on_device,
        .out_on_device = b->out_on_device,
        .ids = ids,
        .jobs = jobs,
        .logits = b->logits,
    };
    pool_submit(b->pool, run, b);
}

static bool poll(struct backend *b)
{
    return pool_poll(cuda_of(b)->pool);
}

static int error(const struct backend *base, struct err *e)
{
    const struct cuda *b = cuda_of_const(base);
    if (b->error.code == ERR_NONE) {
        return 0;
    }
    *e = b->error;
    return -1;
}

static void times(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns)
{
    *t_begin_ns = cuda_of_const(b)->t_begin_ns;
    *t_end_ns = cuda_of_const(b)->t_end_ns;
}

/* --- about ---------------------------------------------------------------------------------------- */

static const char *kernels(const struct backend *b)
{
    (void)b;
    return "cuda";
}

static bool idle_class(const struct backend *b)
{
    (void)b;
    return false;
}

/*
 * Blocks that the share of the device's memory leaves room for. It is of the whole memory, so that several
 * processes on one device can each have theirs whatever the others have taken by now.
 */
static int64_t room(const struct backend *base)
{
    const struct cuda *b = cuda_of_const(base);
    CHECK(b->forward);
    const double share = b->memory_fraction * (double)gpu_info(b->gpu)->bytes;
    const int64_t left = (int64_t)share - CONTEXT_BYTES - gpu_taken_bytes(b->gpu);
    return left > 0 ? left / forward_block_bytes(b->forward) : 0;
}

static void about(const struct backend *base, struct engine *out)
{
    const struct cuda *b = cuda_of_const(base);
    const struct device_weights *w = &b->weights;
    snprintf(out->device, sizeof out->device, "%.80s", gpu_info(b->gpu)->name);
    snprintf(out->pci, sizeof out->pci, "%s", gpu_info(b->gpu)->pci);
    if (!b->forward) {
        return;
    }
    tally_text(&w->kept, out->weights, sizeof out->weights);
    tally_text(&w->stored, out->weights_stored, sizeof out->weights_stored);
    out->weight_bytes = w->n_bytes;
    out->n_weights = w->n_weights;
    out->n_threads = 1;
    out->kv_bytes_per_token = (double)forward_block_bytes(b->forward) / BATCH_KV_BLOCK;
    backend_about_model(out, &b->arch, b->kv_dtype, b->n_blocks, &b->routing);
}

static void logits(struct backend *b, float *to)
{
    cuda_of(b)->logits = to;
}

static int64_t busy_ns(const struct backend *b)
{
    const struct cuda *c = cuda_of_const(b);
    CHECK(c->forward);
    return forward_busy_ns(c->forward);
}

/* --- what measurements ask ------------------------------------------------------------------------ */

static int ceilings(struct backend *base, struct ceilings *best, struct err *e)
{
    struct cuda *b = cuda_of(base);
    if (gpu_use(b->gpu, e) ||
        (!b->meter && gpu_ceilings_open(&b->meter, b->gpu, &gpu_ceilings_usual, e)) ||
        gpu_ceilings_look(b->meter, e)) {
        return -1;
    }
    *best = *gpu_ceilings_best(b->meter);
    return 0;
}

/* The best of a few, from one half of a buffer to the other. */
static int copy_ns(struct backend *base, size_t n_bytes, int n, double *best_ns, struct err *e)
{
    struct gpu *g = cuda_of(base)->gpu;
    void *p;
    int rc = 0;
    *best_ns = HUGE_VAL;
    if (gpu_use(g, e) || gpu_take(g, 2 * n_bytes, "copies", &p, e)) {
        return -1;
    }
    for (int i = 0; i < n && rc == 0; i++) {
        const int64_t begin_ns = clock_local_ns();
        rc = gpu_copy_on(g, (char *)p + n_bytes, p, n_bytes, e) ||
                     gpu_wait(g, begin_ns + BATCH_LIMIT_NS, e)
                 ? -1
                 : 0;
        *best_ns = fmin(*best_ns, (double)(clock_local_ns() - begin_ns));
    }
    gpu_give(g, p);
    return rc;
}

/* Weights of every format but float32 are multiplied as bfloat16. */
static const char *peak(const struct backend *b, enum arch_dtype kept)
{
    (void)b;
    return kept == ARCH_F32 ? "float32" : "bfloat16";
}

static enum arch_dtype keeps(enum arch_dtype stored)
{
    return stored == ARCH_F16 ? ARCH_F32 : stored;
}

const struct backend_ops backend_cuda = {
    .name = "cuda",
    .create = create,
    .submit = submit,
    .poll = poll,
    .error = error,
    .times = times,
    .busy_ns = busy_ns,
    .kernels = kernels,
    .about = about,
    .idle_class = idle_class,
    .logits = logits,
    .room = room,
    .take_cache = take_cache,
    .hop = make_hop,
    .ceilings = ceilings,
    .copy_ns = copy_ns,
    .peak = peak,
    .keeps = keeps,
    .destroy = destroy,
};
