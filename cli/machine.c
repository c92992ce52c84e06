#include "cli/machine.h"

#include <unistd.h>

#include "core/cores.h"
#include "core/pool.h"
#include "workers/cpu/ceilings.h"

int machine_cores(void)
{
    return cores_self(true).n_cpus;
}

/* Where no unit multiplies bf16, float32 does. */
static double bf16_flops(const struct ceilings *c)
{
    return c->bf16_per_s > 0 ? c->bf16_per_s : c->f32_per_s;
}

int machine_measure(struct hardware *out, struct err *e)
{
    struct ceilings_meter *meter;
    struct pool *pool = pool_create(machine_cores(), NULL, false);
    if (ceilings_open(&meter, pool, machine_cores(), e)) {
        pool_destroy(pool);
        return -1;
    }
    ceilings_look(meter);
    const struct ceilings *c = ceilings_best(meter);
    *out = (struct hardware){
        .name = "this machine",
        .memory_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE),
        .read_bytes_per_s = c->read_bytes_per_s,
        .bf16_flops = bf16_flops(c),
        .link_bytes_per_s = c->read_bytes_per_s / 2, // through memory: written, and read
    };
    ceilings_close(meter);
    pool_destroy(pool);
    return 0;
}
