#include "workers/backend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "workers/cpu/backend.h"
#include "workers/cuda_plugin.h"
#include "workers/sim/backend.h"

int backend_create(struct backend **out, const struct backend_config *cfg, struct err *e)
{
    const char *name = cfg->backend ? cfg->backend : "cpu";
    static const struct backend_ops *const all[] = {&backend_cpu, &backend_sim};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i]->create(out, cfg, e);
        }
    }
    if (strcmp(name, "cuda") != 0) {
        return err_set(e, ERR_INPUT, "backend %s: there are cpu, cuda and sim", name);
    }
    const struct cuda_plugin *cuda;
    return cuda_plugin_open(&cuda, e) ? -1 : cuda->ops->create(out, cfg, e);
}

const char *backend_auto(char *why, size_t cap)
{
    const struct cuda_plugin *cuda;
    struct err e = {0};
    if (cuda_plugin_open(&cuda, &e)) {
        snprintf(why, cap, "%s", e.msg);
        return "cpu";
    }
    return cuda->is_there(why, cap) ? "cuda" : "cpu";
}

bool backend_has_nccl(char *why, size_t cap)
{
    const struct cuda_plugin *cuda;
    struct err e = {0};
    if (cuda_plugin_open(&cuda, &e)) {
        snprintf(why, cap, "%s", e.msg);
        return false;
    }
    return cuda->has_nccl(why, cap);
}

void backend_gpu(int index, int n_neighbours, char *pci, size_t cap)
{
    const struct cuda_plugin *cuda;
    struct err e = {0};
    pci[0] = '\0';
    if (cuda_plugin_open(&cuda, &e) == 0) {
        cuda->address(cuda->device_of(index, n_neighbours), pci, cap);
    }
}

bool backend_gpu_reaches(int index, int n_neighbours, const char *pci)
{
    const struct cuda_plugin *cuda;
    struct err e = {0};
    return cuda_plugin_open(&cuda, &e) == 0 &&
           cuda->reaches(cuda->device_of(index, n_neighbours), pci);
}

void backend_submit(struct backend *b, const struct batch *batch, const struct kv_tables *tables,
                    const void *in, void *out, int32_t *ids, const struct sampler_jobs *jobs)
{
    b->ops->submit(b, batch, tables, in, out, ids, jobs);
}

bool backend_poll(struct backend *b)
{
    return b->ops->poll(b);
}

int backend_error(const struct backend *b, struct err *e)
{
    return b->ops->error ? b->ops->error(b, e) : 0;
}

void backend_times(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns)
{
    b->ops->times(b, t_begin_ns, t_end_ns);
}

bool backend_is_beside(const struct backend *b)
{
    return b->ops->busy_ns != NULL;
}

int64_t backend_busy_ns(const struct backend *b)
{
    if (b->ops->busy_ns) {
        return b->ops->busy_ns(b);
    }
    int64_t begin_ns, end_ns;
    b->ops->times(b, &begin_ns, &end_ns);
    return end_ns - begin_ns;
}

void backend_logits(struct backend *b, float *logits)
{
    CHECK(b->ops->logits);
    b->ops->logits(b, logits);
}

int64_t backend_room(const struct backend *b)
{
    return b->ops->room ? b->ops->room(b) : -1;
}

int backend_take_cache(struct backend *b, uint32_t n_blocks, struct err *e)
{
    CHECK(b->ops->take_cache);
    return b->ops->take_cache(b, n_blocks, e);
}

int backend_hop(struct backend *b, const char *kind, const struct hop_config *cfg, struct hop **out,
                struct err *e)
{
    if (!b->ops->hop) {
        return err_set(e, ERR_INPUT, "backend %s has no hops of the kind \"%s\"", b->ops->name,
                       kind);
    }
    return b->ops->hop(b, kind, cfg, out, e);
}

int backend_ceilings(struct backend *b, struct ceilings *best, struct err *e)
{
    return b->ops->ceilings(b, best, e);
}

int backend_copy_ns(struct backend *b, size_t n_bytes, int n, double *best_ns, struct err *e)
{
    return b->ops->copy_ns(b, n_bytes, n, best_ns, e);
}

const char *backend_peak(const struct backend *b, enum arch_dtype kept)
{
    return b->ops->peak(b, kept);
}

enum arch_dtype backend_keeps(const struct backend *b, enum arch_dtype stored)
{
    return b->ops->keeps(stored);
}

const char *backend_name(const struct backend *b)
{
    return b->ops->name;
}

const char *backend_kernels(const struct backend *b)
{
    return b->ops->kernels(b);
}

void backend_about(const struct backend *b, struct engine *out)
{
    *out = (struct engine){.moe_zipf = NAN};
    snprintf(out->backend, sizeof out->backend, "%s", b->ops->name);
    snprintf(out->kernels, sizeof out->kernels, "%s", b->ops->kernels(b));
    b->ops->about(b, out);
    out->bytes_per_weight =
        out->n_weights > 0 ? (double)out->weight_bytes / (double)out->n_weights : (double)NAN;
}

void backend_about_model(struct engine *out, const struct arch *a, enum arch_dtype kv_dtype,
                         uint32_t n_blocks, const struct moe_routing *routing)
{
    const bool is_moe = a->moe.n_experts > 0;
    snprintf(out->kv_cache, sizeof out->kv_cache, "%s", arch_dtype_name(kv_dtype));
    out->kv_blocks = n_blocks;
    snprintf(out->moe_routing, sizeof out->moe_routing, "%s",
             is_moe ? router_name(routing->kind) : "none");
    out->moe_zipf = is_moe && routing->kind == ROUTER_ZIPF ? routing->s : (double)NAN;
}

bool backend_idle_class(const struct backend *b)
{
    return b->ops->idle_class(b);
}

void backend_destroy(struct backend *b)
{
    if (b) {
        b->ops->destroy(b);
    }
}
