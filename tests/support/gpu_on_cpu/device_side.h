/*
 * What device code sees of CUDA: where a thread is, its warp's and its block's operations, and functions. Included by
 * this folder's cuda_runtime.h.
 */
#pragma once

#include <functional>

#include <math.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__                                                                            \
    inline // more would put the tensor cores' stand-in into every kernel, many times
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__   static
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

extern __thread dim3 threadIdx, blockIdx, blockDim, gridDim;
enum {
    warpSize = 32
};

void __syncthreads();
int __syncthreads_or(int predicate);
void __syncwarp(unsigned mask = 0xffffffffu);
static inline void __threadfence()
{
}

/* What each lane of the warp brings (up to 32 bytes), for all to read until its next operation. */
struct gpu_on_cpu_lanes {
    unsigned char bytes[32][32];
};
const gpu_on_cpu_lanes *gpu_on_cpu_exchange(unsigned mask, const void *mine, size_t n);
unsigned gpu_on_cpu_lane();

template <class T> static inline T gpu_on_cpu_from(unsigned mask, T v, unsigned lane)
{
    T out;
    memcpy(&out, gpu_on_cpu_exchange(mask, &v, sizeof v)->bytes[lane & 31u], sizeof out);
    return out;
}

template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32)
{
    const unsigned me = gpu_on_cpu_lane(), w = (unsigned)width;
    return gpu_on_cpu_from(mask, v, (me & ~(w - 1)) | ((unsigned)lane & (w - 1)));
}

template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32)
{
    (void)width; // of powers of two above `bits`
    return gpu_on_cpu_from(mask, v, gpu_on_cpu_lane() ^ (unsigned)bits);
}

template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned n, int width = 32)
{
    const unsigned me = gpu_on_cpu_lane(), w = (unsigned)width;
    return gpu_on_cpu_from(mask, v, (me & (w - 1)) + n < w ? me + n : me);
}

template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned n, int width = 32)
{
    const unsigned me = gpu_on_cpu_lane(), w = (unsigned)width;
    return gpu_on_cpu_from(mask, v, (me & (w - 1)) >= n ? me - n : me);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    unsigned char mine = predicate != 0;
    const gpu_on_cpu_lanes *all = gpu_on_cpu_exchange(mask, &mine, 1);
    unsigned out = 0;
    for (unsigned i = 0; i < 32; i++) {
        out |= (unsigned)all->bytes[i][0] << i;
    }
    return out;
}

static inline int __any_sync(unsigned mask, int p)
{
    return __ballot_sync(mask, p) != 0;
}
static inline int __all_sync(unsigned mask, int p)
{
    return __ballot_sync(mask, p) == 0xffffffffu;
}

/* Of unsigned numbers: what sm_80 and later do in one instruction. */
static inline unsigned gpu_on_cpu_reduce(unsigned mask, unsigned v,
                                         unsigned (*take)(unsigned, unsigned))
{
    const gpu_on_cpu_lanes *all = gpu_on_cpu_exchange(mask, &v, sizeof v);
    unsigned out;
    memcpy(&out, all->bytes[0], sizeof out);
    for (unsigned i = 1; i < 32; i++) {
        unsigned other;
        memcpy(&other, all->bytes[i], sizeof other);
        out = take(out, other);
    }
    return out;
}

static inline unsigned __reduce_add_sync(unsigned mask, unsigned v)
{
    return gpu_on_cpu_reduce(mask, v, [](unsigned a, unsigned b) { return a + b; });
}

static inline unsigned __reduce_max_sync(unsigned mask, unsigned v)
{
    return gpu_on_cpu_reduce(mask, v, [](unsigned a, unsigned b) { return a < b ? b : a; });
}

static inline unsigned __reduce_min_sync(unsigned mask, unsigned v)
{
    return gpu_on_cpu_reduce(mask, v, [](unsigned a, unsigned b) { return b < a ? b : a; });
}

#include "tests/support/gpu_on_cpu/device_functions.h"

/* This thread waits for another process: the other threads go on, and so does that process. */
void gpu_on_cpu_pause();
unsigned long long gpu_on_cpu_timer_ns();

/* The block's dynamic shared memory. */
unsigned char *gpu_on_cpu_shared();

/* Copies of 16 bytes that arrive when they are waited for: all but the last n groups. */
void gpu_on_cpu_copy_later(void *to, const void *from);
void gpu_on_cpu_copies_commit();
void gpu_on_cpu_copies_wait(size_t n);

cudaError_t gpu_on_cpu_launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t s,
                              std::function<void()> body);

template <class F> static inline cudaError_t cudaFuncSetAttribute(F *, cudaFuncAttribute, int)
{
    return cudaSuccess;
}
