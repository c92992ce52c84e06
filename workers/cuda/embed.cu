#include "workers/cuda/embed.h"

#include "workers/cuda/device.cuh"

#define THREADS 128
#define EACH    4 // values of a thread
#define GROUP   32

__device__ static float value_at(const embed_rows &e, size_t row, int k)
{
    const size_t at = row * (size_t)e.hidden + (size_t)k;
    switch (e.dtype) {
    case ARCH_F32:
        return ((const float *)e.table)[at];
    case ARCH_BF16:
        return float_of(((const bf16 *)e.table)[at]);
    case ARCH_F16:
        return float_of_half(((const uint16_t *)e.table)[at]);
    default:
        const size_t groups = (size_t)(e.hidden + GROUP - 1) / GROUP;
        return (float)((const int8_t *)e.table)[at] * float_of_half(e.factors[row * groups + (size_t)k / GROUP]);
    }
}

/* Four values of a row whose length is a multiple of four, in one load. */
__device__ static float4 values_at(const embed_rows &e, size_t row, int k)
{
    const size_t at = (row * (size_t)e.hidden + (size_t)k) / EACH;
    if (e.dtype == ARCH_F32) {
        return ((const float4 *)e.table)[at];
    }
    if (e.dtype == ARCH_BF16) {
        const uint2 v = ((const uint2 *)e.table)[at];
        return make_float4(low_half(v.x), high_half(v.x), low_half(v.y), high_half(v.y));
    }
    if (e.dtype == ARCH_F16) {
        const uint2 v = ((const uint2 *)e.table)[at];
        return make_float4(float_of_half((uint16_t)v.x), float_of_half((uint16_t)(v.x >> 16)),
                           float_of_half((uint16_t)v.y), float_of_half((uint16_t)(v.y >> 16)));
    }
    const uint32_t v = ((const uint32_t *)e.table)[at];
    const size_t groups = (size_t)(e.hidden + GROUP - 1) / GROUP;
    const float factor = float_of_half(e.factors[row * groups + (size_t)k / GROUP]);
    return make_float4((float)(int8_t)v * factor, (float)(int8_t)(v >> 8) * factor,
                       (float)(int8_t)(v >> 16) * factor, (float)(int8_t)(v >> 24) * factor);
}

/* Block (x, y): token x, its values from y THREADS EACH on. */
__global__ static void embed_kernel(embed_rows e)
{
    const int id = e.ids[blockIdx.x] - e.first;
    const int first = (int)(blockIdx.y * THREADS + threadIdx.x) * EACH;
    const bool is_here = id >= 0 && id < e.n_vocab;
    float *x = e.x + blockIdx.x * (size_t)e.hidden;
    if (e.hidden % EACH == 0) {
        if (first < e.hidden) {
            float4 v = is_here ? values_at(e, (size_t)id, first) : make_float4(0, 0, 0, 0);
            v = make_float4(v.x * e.scale, v.y * e.scale, v.z * e.scale, v.w * e.scale);
            *(float4 *)(x + first) = v;
        }
        return;
    }
    for (int k = first; k < first + EACH && k < e.hidden; k++) {
        x[k] = is_here ? value_at(e, (size_t)id, k) * e.scale : 0;
    }
}

void embed_queue(const struct embed_rows *e, struct CUstream_st *stream)
{
    if (e->n > 0) {
        const int each = THREADS * EACH;
        const dim3 grid((unsigned)e->n, (unsigned)((e->hidden + each - 1) / each));
        launch(embed_kernel, grid, dim3(THREADS), 0, stream, *e);
    }
}
