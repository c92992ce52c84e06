/*
 * What this host's cores can do at most (workers/ceilings.h): rates of the whole team that computes, by looks of
 * a few milliseconds. Look again between measurements.
 *
 *   read            memory, front to back
 *   float32, bfloat16, bfloat16_tiles, int8    multiply-adds on registers alone, by the named instruction
 */
#pragma once

#include <stddef.h>

#include "core/err.h"
#include "core/pool.h"
#include "workers/ceilings.h"

struct cpu_ceilings;

/* A team's meter; the pool stays the caller's and must be idle in every call. ERR_ENV: no memory for
 * the buffer that is read, CPU_CEILINGS_BYTES at least and so much larger than any cache. */
#define CPU_CEILINGS_BYTES ((size_t)1 << 30)
int cpu_ceilings_open(struct cpu_ceilings **out, struct pool *pool, struct err *e) ERR_CHECKED;
void cpu_ceilings_close(struct cpu_ceilings *m); // may be NULL

/* Several looks at everything, about 0.5 s. */
void cpu_ceilings_look(struct cpu_ceilings *m);

/* The best so far. */
const struct ceilings *cpu_ceilings_best(const struct cpu_ceilings *m);
