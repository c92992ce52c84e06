#include "cli/machine.h"

#include <unistd.h>

#include "core/cores.h"
#include "core/pool.h"
#include "workers/cpu/cpu_ceilings.h"

int machine_cores(void)
{
    return cores_self(true).n_cpus;
}

/* Where no unit multiplies bf16, float32 does. */
static double bf16_flops(const struct ceilings *c)
{
    const double bf16 = ceilings_rate(c, "bfloat16");
    return bf16 > 0 ? bf16 : ceilings_rate(c, "float32");
}

int machine_measure(struct hardware *out, struct err *e)
{
    struct cpu_ceilings *meter;
    struct pool *pool = pool_create(machine_cores(), NULL, false);
    if (cpu_ceilings_open(&meter, pool, e)) {
        pool_destroy(pool);
        return -1;
    }
    cpu_ceilings_look(meter);
    const struct ceilings *c = cpu_ceilings_best(meter);
    *out = (struct hardware){
        .name = "this machine",
        .memory_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE),
        .read_bytes_per_s = ceilings_rate(c, "read"),
        .bf16_flops = bf16_flops(c),
        .link_bytes_per_s = ceilings_rate(c, "read") / 2, // through memory: written, and read
    };
    cpu_ceilings_close(meter);
    pool_destroy(pool);
    return 0;
}
