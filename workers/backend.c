#include "workers/backend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "workers/cpu/backend.h"
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
    return err_set(e, ERR_INPUT, "backend %s: this build has cpu and sim", name);
}

void backend_submit(struct backend *b, const struct batch *batch, const struct kv_tables *tables,
                    const float *in, float *out, int32_t *ids, const struct sampler_jobs *jobs)
{
    b->ops->submit(b, batch, tables, in, out, ids, jobs);
}

bool backend_poll(struct backend *b)
{
    return b->ops->poll(b);
}

void backend_times(const struct backend *b, int64_t *t_begin_ns, int64_t *t_end_ns)
{
    b->ops->times(b, t_begin_ns, t_end_ns);
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
