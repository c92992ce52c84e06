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

void narrow_queue(const struct narrow_values *v, struct CUstream_st *stream)
{
    if (v->n > 0) {
        const int64_t each = THREADS * EACH;
        launch(narrow_kernel, dim3((unsigned)((v->n + each - 1) / each)), dim3(THREADS), 0, stream, *v);
    }
}
