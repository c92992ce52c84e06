#include "workers/cpu/backend.h"

#include "core/clock.h"
#include "core/cores.h"
#include "core/mem.h"
#include "core/pool.h"
#include "workers/backend.h"
#include "workers/cpu/cpu_ceilings.h"
#include "workers/cpu/phases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cpu {
    struct backend base;
    struct arch arch;
    const struct kernels *kernels;
    struct packed weights;
    struct phases *phases;
    struct pool *pool;
    struct cpu_ceilings *meter; // NULL until somebody looks
    int *cpus;                  // (threads) that they are pinned to, or NULL
    enum arch_dtype kv_dtype;
    struct moe_routing routing;
    uint32_t n_blocks;
    float *logits;                // (rows, vocab) or NULL; the caller's
    int64_t t_begin_ns, t_end_ns; // written by member 0, read after pool_poll
};

static struct cpu *cpu_of(struct backend *b)
{
    return (struct cpu *)(void *)b;
}

static const struct cpu *cpu_of_const(const struct backend *b)
{
    return (const struct cpu *)(const void *)b;
}

/* Where the threads are, if each has its place. */
static void keep_cpus(struct cpu *b, const struct backend_config *cfg)
{
    if (!pool_is_pinned(b->pool)) {
        return;
    }
    b->cpus = xcalloc((size_t)cfg->n_threads, sizeof *b->cpus);
    for (int i = 0; i < cfg->n_threads; i++) {
        b->cpus[i] = cfg->cpus[i];
    }
}

static int create(struct backend **out, const struct backend_config *cfg, struct err *e)
{
    CHECK(cfg->n_threads >= 1 && cfg->max_tokens >= 1 && cfg->max_rows >= 1 && cfg->n_blocks >= 1);
    struct cpu *b = xcalloc(1, sizeof *b);
    b->base.ops = &backend_cpu;
    b->arch = *cfg->arch;
    b->kv_dtype = cfg->kv_dtype;
    b->routing = cfg->routing;
    b->n_blocks = cfg->n_blocks;
    const struct layers_part part = {
        .first_layer = cfg->first_layer,
        .n_layers = cfg->n_layers,
        .has_embed = cfg->has_embed,
        .has_head = cfg->has_head,
    };
    if (kernels_select(&b->kernels, cfg->kernels ? cfg->kernels : "auto", e)) {
        goto free_backend;
    }
    struct shard shard;
    if (shard_init(&shard, &b->arch, cfg->group.rank, cfg->group.size, e)) {
        goto free_backend;
    }
    b->pool = pool_create(cfg->n_threads, cfg->cpus, cfg->idle_class);
    keep_cpus(b, cfg);
    if (packed_load(&b->weights, cfg->model, &b->arch, &part, &shard, cfg->weight_bits, b->pool,
                    e)) {
        goto free_pool;
    }
    const struct phases_config phases = {
        .kernels = b->kernels,
        .weights = &b->weights,
        .arch = &b->arch,
        .part = part,
        .max_tokens = cfg->max_tokens,
        .max_rows = cfg->max_rows,
        .n_blocks = cfg->n_blocks,
        .kv_dtype = cfg->kv_dtype,
        .routing = cfg->routing,
        .group = cfg->group,
        .n_members = cfg->n_threads,
    };
    if (phases_create(&b->phases, &phases, e)) {
        goto free_weights;
    }
    *out = &b->base;
    return 0;

free_weights:
    packed_free(&b->weights);
free_pool:
    pool_destroy(b->pool);
    free(b->cpus);
free_backend:
    free(b);
    return -1;
}

static void run_member(void *arg, int member, int n_members)
{
    (void)n_members;
    struct cpu *b = arg;
    if (member == 0) {
        b->t_begin_ns = clock_now_ns();
    }
    phases_run(b->phases, b->pool, member);
    if (member == 0) {
        b->t_end_ns = clock_now_ns(); // the last operation ended with a barrier
    }
}

static void submit(struct backend *base, const struct batch *batch, const struct kv_tables *tables,
                   const void *in, void *out, int32_t *ids, const struct sampler_jobs *jobs)
{
    struct cpu *b = cpu_of(base);
    const struct phases_io io = {
        .batch = batch,
        .tables = tables,
        .in = in,
        .out = out,
        .ids = ids,
        .jobs = jobs,
        .logits = b->logits,
    };
    phases_begin(b->phases, &io);
    pool_submit(b->pool, run_member, b);
}

static bool poll(struct backend *b)
{
    return pool_poll(cpu_of(b)->pool);
}

static void times(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns)
{
    *t_begin_ns = cpu_of_const(b)->t_begin_ns;
    *t_end_ns = cpu_of_const(b)->t_end_ns;
}

static const char *kernels(const struct backend *b)
{
    return cpu_of_const(b)->kernels->name;
}

static bool idle_class(const struct backend *b)
{
    return pool_is_idle_class(cpu_of_const(b)->pool);
}

static void about(const struct backend *base, struct engine *out)
{
    const struct cpu *b = cpu_of_const(base);
    const struct packed *w = &b->weights;
    tally_text(&w->kept, out->weights, sizeof out->weights);
    tally_text(&w->stored, out->weights_stored, sizeof out->weights_stored);
    out->weight_bytes = tally_bytes(&w->kept) + w->vector_bytes;
    out->n_weights = w->n_weights;
    out->n_threads = pool_size(b->pool);
    if (b->cpus) {
        cores_text(b->cpus, out->n_threads, out->cores, sizeof out->cores);
    }
    out->kv_bytes_per_token = phases_kv_bytes_per_token(b->phases);
    backend_about_model(out, &b->arch, b->kv_dtype, b->n_blocks, &b->routing);
}

static void logits(struct backend *b, float *to)
{
    cpu_of(b)->logits = to;
}

/* --- what measurements ask -------------------------------------------------------------------- */

static int ceilings(struct backend *base, struct ceilings *best, struct err *e)
{
    struct cpu *b = cpu_of(base);
    if (!b->meter && cpu_ceilings_open(&b->meter, b->pool, e)) {
        return -1;
    }
    cpu_ceilings_look(b->meter);
    *best = *cpu_ceilings_best(b->meter);
    return 0;
}

/* By the instruction that the kernel set multiplies with. */
static const char *peak(const struct backend *base, enum arch_dtype kept)
{
    const struct cpu *b = cpu_of_const(base);
    const char *set = b->kernels->name;
    const bool floats = kept == ARCH_F32 || kept == ARCH_F16;
    if (matrix_is_grouped(kept) && ceilings_rate(cpu_ceilings_best(b->meter), "int8") > 0) {
        return "int8";
    }
    return !floats && strcmp(set, "amx") == 0           ? "bfloat16_tiles"
           : !floats && strcmp(set, "avx512_bf16") == 0 ? "bfloat16"
                                                        : "float32";
}

/* Formats that no kernel reads are made bfloat16. */
static enum arch_dtype keeps(enum arch_dtype stored)
{
    return stored == ARCH_FP8 || stored == ARCH_MXFP4 ? ARCH_BF16 : stored;
}

static void destroy(struct backend *base)
{
    struct cpu *b = cpu_of(base);
    cpu_ceilings_close(b->meter);
    pool_destroy(b->pool);
    phases_destroy(b->phases);
    packed_free(&b->weights);
    free(b->cpus);
    free(b);
}

const struct backend_ops backend_cpu = {
    .name = "cpu",
    .create = create,
    .submit = submit,
    .poll = poll,
    .times = times,
    .kernels = kernels,
    .about = about,
    .idle_class = idle_class,
    .destroy = destroy,
    .logits = logits,
    .ceilings = ceilings,
    .peak = peak,
    .keeps = keeps,
};
