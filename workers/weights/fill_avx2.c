#include "workers/weights/fill.h"
#include "workers/weights/fill_loops.h"

static void f32(uint64_t state, size_t n, float *out)
{
    fill_loop_f32(state, n, out);
}

static void bf16(uint64_t state, size_t n, uint16_t *out)
{
    fill_loop_bf16(state, n, out);
}

const struct fill_set fill_avx2 = {"avx2", f32, bf16};
