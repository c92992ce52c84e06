/*
 * What one GPU can do at most (workers/ceilings.h), timed by the device's own events: the best of several
 * repeats, after its clocks have been brought up by work.
 *
 *   read, copy      its memory, by kernels of several shapes (sweep.h), copies also by the driver; bytes read, of
 *                   copies bytes read and written; over a buffer far larger than any cache
 *   host_to_device, device_to_host    copies of pinned memory
 *   float32, bfloat16, fp8, int8      products of square matrices by cuBLASLt, the best of the algorithms that it
 *                   proposes, several products in a row: sums in float32 (never TF32; FP8 with fast
 *                   accumulation), of int8 in int32. 0: this GPU or cuBLASLt has none
 *
 * Matrices hold random numbers: of zeros a GPU is faster, since it uses less power.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "workers/ceilings.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gpu;

/* How much is done. Sides are multiples of 16. */
struct gpu_ceilings_plan {
    size_t sweep_bytes;   // of the buffer, unless half of the memory that is free is less
    size_t host_bytes;    // of the pinned buffer
    int side, wide_side;  // of matrices; of float32's
    int n_repeats, train; // train: products of a repeat; of float32's a quarter
    int64_t warm_ns;
};

extern const struct gpu_ceilings_plan gpu_ceilings_usual;

struct gpu_ceilings;

/*
 * Takes memory of `g`, which gives it back when it is closed, and warms up. ERR_ENV: no memory, or the
 * driver's word.
 */
int gpu_ceilings_open(struct gpu_ceilings **out, struct gpu *g,
                      const struct gpu_ceilings_plan *plan, struct err *e) ERR_CHECKED;
void gpu_ceilings_close(struct gpu_ceilings *c); // may be NULL

/* One look at everything, about 0.3 s as usual; nothing else may be queued. */
int gpu_ceilings_look(struct gpu_ceilings *c, struct err *e) ERR_CHECKED;

/* The best so far. */
const struct ceilings *gpu_ceilings_best(const struct gpu_ceilings *c);

#ifdef __cplusplus
}
#endif
