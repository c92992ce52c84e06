#include "workers/cpu/backend.h"

#include "core/clock.h"
#include "core/mem.h"
#include "core/pool.h"
#include "workers/backend.h"
#include "workers/cpu/phases.h"

#include <stdlib.h>

struct backend {
    struct arch arch;
    const struct kernels *kernels;
    struct packed weights;
    struct phases *phases;
    struct pool *pool;
    float *logits;                // (rows, vocab) or NULL; the caller's
    int64_t t_begin_ns, t_end_ns; // written by member 0, read after pool_poll
};

int backend_create(struct backend **out, const struct backend_config *cfg, struct err *e)
{
    CHECK(cfg->n_threads >= 1 && cfg->max_tokens >= 1 && cfg->max_rows >= 1 && cfg->n_blocks >= 1);
    struct backend *b = xcalloc(1, sizeof *b);
    b->arch = *cfg->arch;
    const struct layers_part part = {
        .first_layer = cfg->first_layer,
        .n_layers = cfg->n_layers,
        .has_embed = cfg->has_embed,
        .has_head = cfg->has_head,
    };
    if (kernels_select(&b->kernels, cfg->kernels ? cfg->kernels : "auto", e)) {
        goto free_backend;
    }
    b->pool = pool_create(cfg->n_threads, cfg->cpus, cfg->idle_class);
    if (packed_load(&b->weights, cfg->model, &b->arch, &part, b->pool, e)) {
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
        .n_members = cfg->n_threads,
    };
    if (phases_create(&b->phases, &phases, e)) {
        goto free_weights;
    }
    *out = b;
    return 0;

free_weights:
    packed_free(&b->weights);
free_pool:
    pool_destroy(b->pool);
free_backend:
    free(b);
    return -1;
}

static void run_member(void *arg, int member, int n_members)
{
    (void)n_members;
    struct backend *b = arg;
    if (member == 0) {
        b->t_begin_ns = clock_now_ns();
    }
    phases_run(b->phases, b->pool, member);
    if (member == 0) {
        b->t_end_ns = clock_now_ns(); // the last operation ended with a barrier
    }
}

void backend_submit(struct backend *b, const struct batch *batch, const struct kv_tables *tables,
                    const float *in, float *out, int32_t *ids)
{
    const struct phases_io io = {
        .batch = batch,
        .tables = tables,
        .in = in,
        .out = out,
        .ids = ids,
        .logits = b->logits,
    };
    phases_begin(b->phases, &io);
    pool_submit(b->pool, run_member, b);
}

bool backend_poll(struct backend *b)
{
    return pool_poll(b->pool);
}

void backend_times(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns)
{
    *t_begin_ns = b->t_begin_ns;
    *t_end_ns = b->t_end_ns;
}

const char *backend_name(const struct backend *b)
{
    (void)b;
    return "cpu";
}

const char *backend_kernels(const struct backend *b)
{
    return b->kernels->name;
}

bool backend_idle_class(const struct backend *b)
{
    return pool_is_idle_class(b->pool);
}

int64_t backend_weight_bytes(const struct backend *b)
{
    return b->weights.n_bytes;
}

void backend_cpu_logits(struct backend *b, float *logits)
{
    b->logits = logits;
}

void backend_destroy(struct backend *b)
{
    if (!b) {
        return;
    }
    pool_destroy(b->pool);
    phases_destroy(b->phases);
    packed_free(&b->weights);
    free(b);
}
