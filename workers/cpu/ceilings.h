/*
 * What this machine can do at most, measured in this process by the threads that compute: the rates
 * that a kernel's speed is a share of. Each is the best of many short looks of a few milliseconds, so
 * that other users of the machine count as little as possible; look again between measurements.
 */
#pragma once

#include <stddef.h>

#include "core/err.h"
#include "core/pool.h"

/* Rates of the whole team; 0 and "" where this CPU has no such instruction. Arithmetic counts two
 * operations per multiply-add. */
struct ceilings {
    double read_bytes_per_s; // of memory, front to back
    double f32_per_s, bf16_per_s, int8_per_s, tile_per_s;
    const char *f32_name, *bf16_name, *int8_name, *tile_name; // the instruction; tiles of bfloat16
};

struct ceilings_meter;

/* A team's meter; the pool stays the caller's and must be idle in every call. ERR_ENV: no memory for
 * the buffer that is read, CEILINGS_BUFFER_BYTES and so much larger than any cache. */
#define CEILINGS_BUFFER_BYTES ((size_t)1 << 30)
int ceilings_open(struct ceilings_meter **out, struct pool *pool, int n_members,
                  struct err *e) ERR_CHECKED;
void ceilings_close(struct ceilings_meter *m);

/* Several looks at everything, about 0.5 s. */
void ceilings_look(struct ceilings_meter *m);

/* The best so far. */
const struct ceilings *ceilings_best(const struct ceilings_meter *m);
