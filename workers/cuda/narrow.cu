#include "workers/cuda/narrow.h"

#include "workers/cuda/device.cuh"

#define THREADS 256
#define EACH    4 // values of a thread

__global__ static void narrow_kernel(narrow_values v)
{
    const int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
    if (at < v.n) {
        const float4 x = *(const float4 *)(v.x + at);
        *(uint2 *)(v.out + at) = make_uint2(bf16_pair(x.x, x.y), bf16_pair(x.z, x.w));
    }
}

__global__ static void back_kernel(narrow_back v)
{
    const int64_t at = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * EACH;
    if (at < v.n) {
        const uint2 x = *(const uint2 *)(v.x + at);
        *(float4 *)(v.out + at) =
            make_float4(low_half(x.x), high_half(x.x), low_half(x.y), high_half(x.y));
    }
}

static dim3 blocks_of(int64_t n)
{
    const int64_t each = THREADS * EACH;
    return dim3((unsigned)((n + each - 1) / each));
}

void narrow_queue(const struct narrow_values *v, struct CUstream_st *stream)
{
    if (v->n > 0) {
        launch(narrow_kernel, blocks_of(v->n), dim3(THREADS), 0, stream, *v);
    }
}

void narrow_back_queue(const struct narrow_back *v, struct CUstream_st *stream)
{
    if (v->n > 0) {
        launch(back_kernel, blocks_of(v->n), dim3(THREADS), 0, stream, *v);
    }
}
