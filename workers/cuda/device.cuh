/*
 * What kernels are written with: launching, sums over warps and blocks, bfloat16, the tensor cores' one
 * instruction that is used. Everything that nvcc and the CPU stand-in of the tests do differently
 * (GPU_ON_CPU) is in this file.
 */
#pragma once

#include <cuda_runtime.h>

#include <stdint.h>
#include <stdlib.h>

#ifndef GPU_ON_CPU
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

#define FULL_WARP 0xffffffffu

/* Before a loop over registers: its rounds are all written out (or so many of them at a time). */
#ifdef GPU_ON_CPU
#define UNROLLED
#define UNROLLED_BY(n)
#else
#define DEVICE_PRAGMA(text) _Pragma(#text)
#define UNROLLED            DEVICE_PRAGMA(unroll)
#define UNROLLED_BY(n)      DEVICE_PRAGMA(unroll(n))
#endif

/* --- launching ---------------------------------------------------------------------------------- */

/* Queue kernel<<<grid, block, shared_bytes, stream>>>(args...). */
template <class... P, class... A>
static inline cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                 cudaStream_t stream, A... args)
{
#ifdef GPU_ON_CPU
    return gpu_on_cpu_launch(grid, block, shared_bytes, stream,
                             [=] { kernel(static_cast<P>(args)...); });
#else
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared_bytes;
    c.stream = stream;
    return cudaLaunchKernelEx(&c, kernel, static_cast<P>(args)...);
#endif
}

/* The block's dynamic shared memory, aligned to 16 bytes. */
#ifdef GPU_ON_CPU
#define SHARED_BYTES(name) unsigned char *name = gpu_on_cpu_shared()
#else
#define SHARED_BYTES(name) extern __shared__ __align__(16) unsigned char name[]
#endif

/* --- sums and maxima ---------------------------------------------------------------------------- */

__device__ __forceinline__ float warp_sum(float v)
{
    for (int bits = 16; bits > 0; bits /= 2) {
        v += __shfl_xor_sync(FULL_WARP, v, bits);
    }
    return v;
}

__device__ __forceinline__ float warp_max(float v)
{
    for (int bits = 16; bits > 0; bits /= 2) {
        v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, bits));
    }
    return v;
}

/* --- bfloat16, as its 16 bits ------------------------------------------------------------------- */

typedef uint16_t bf16;

__device__ __forceinline__ float float_of(bf16 v)
{
    return __uint_as_float((uint32_t)v << 16);
}

/* To nearest, ties to even. */
__device__ __forceinline__ bf16 bf16_of(float v)
{
#ifdef GPU_ON_CPU
    const uint32_t bits = __float_as_uint(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (bf16)(bits >> 16 | 0x40);
    }
    return (bf16)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
#else
    return __bfloat16_as_ushort(__float2bfloat16_rn(v));
#endif
}

/* Two in a register, the first one in the low half. */
__device__ __forceinline__ uint32_t bf16_pair(float lo, float hi)
{
    return (uint32_t)bf16_of(lo) | (uint32_t)bf16_of(hi) << 16;
}

__device__ __forceinline__ float low_half(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

__device__ __forceinline__ float high_half(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

__device__ __forceinline__ uint32_t bf16_mul2(uint32_t a, uint32_t b)
{
#ifdef GPU_ON_CPU
    return bf16_pair(low_half(a) * low_half(b), high_half(a) * high_half(b));
#else
    uint32_t d; // -0 added; subnormal numbers are numbers here
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u));
    return d;
#endif
}

__device__ __forceinline__ uint32_t bf16_add2(uint32_t a, uint32_t b)
{
#ifdef GPU_ON_CPU
    return bf16_pair(low_half(a) + low_half(b), high_half(a) + high_half(b));
#else
    uint32_t d; // times 1
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(0x3f803f80u), "r"(b));
    return d;
#endif
}

/* Of float16's bits. */
__device__ __forceinline__ float float_of_half(uint16_t v)
{
#ifdef GPU_ON_CPU
    const uint32_t sign = (uint32_t)(v & 0x8000u) << 16, rest = v & 0x7fffu;
    const float size = rest < 0x400u ? (float)rest * 0x1p-24f
                                     : __uint_as_float((rest << 13) + ((rest < 0x7c00u ? 112u : 224u) << 23));
    return __uint_as_float(__float_as_uint(size) | sign);
#else
    return __half2float(__ushort_as_half(v));
#endif
}

/* --- memory ------------------------------------------------------------------------------------- */

/* 16 bytes at a multiple of 16 that are read once, and by this thread alone: past the first-level cache. */
__device__ __forceinline__ uint4 load_once(const void *p)
{
#ifdef GPU_ON_CPU
    if ((uintptr_t)p % sizeof(uint4) != 0) {
        abort();
    }
    return *(const uint4 *)p;
#else
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
#endif
}

/* --- words that other processes and the host write ------------------------------------------------ */

/* All that this thread has seen is seen by whoever acquires the word, on any GPU and on the host. */
__device__ __forceinline__ void store_release_system(uint32_t *p, uint32_t v)
{
#ifdef GPU_ON_CPU
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
#else
    asm volatile("st.release.sys.global.u32 [%0], %1;" : : "l"(p), "r"(v) : "memory");
#endif
}

__device__ __forceinline__ uint32_t load_acquire_system(const uint32_t *p)
{
#ifdef GPU_ON_CPU
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
#else
    uint32_t v;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
#endif
}

/* A clock of all of the GPU's processors. */
__device__ __forceinline__ uint64_t device_now_ns()
{
#ifdef GPU_ON_CPU
    return gpu_on_cpu_timer_ns();
#else
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
#endif
}

/* Before such a word is looked at again. */
__device__ __forceinline__ void device_pause()
{
#ifdef GPU_ON_CPU
    gpu_on_cpu_pause();
#else
    __nanosleep(20);
#endif
}

/* --- tensor cores ------------------------------------------------------------------------------- */

/*
 * d (16, 8) += a (16, 16) . b (16, 8) in float32, a and b bfloat16: mma.sync m16n8k16 (PTX ISA 9.7.14). With
 * g = lane / 4 and t = lane % 4 a lane holds
 *
 *   a  rows g, g + 8, g, g + 8 at columns 2t, 2t, 2t + 8, 2t + 8, each with the column after it
 *   b  rows 2t, 2t + 8, each with the row after it, of column g
 *   d  row g at columns 2t, 2t + 1, row g + 8 at the same
 */
__device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef GPU_ON_CPU
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const gpu_on_cpu_lanes *all = gpu_on_cpu_exchange(FULL_WARP, mine, sizeof mine);
    const unsigned lane = gpu_on_cpu_lane(), g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = g + i / 2 * 8, column = 2 * t + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            uint32_t x[6], w[6];
            memcpy(x, all->bytes[row % 8 * 4 + k % 8 / 2], sizeof x);
            memcpy(w, all->bytes[column * 4 + k % 8 / 2], sizeof w);
            const uint32_t xa = x[row / 8 + k / 8 * 2], wb = w[4 + k / 8];
            d[i] += (k % 2 ? high_half(xa) : low_half(xa)) * (k % 2 ? high_half(wb) : low_half(wb));
        }
    }
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
                 "{%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/*
 * Two pairs of 8 x 8 matrices of bfloat16 in shared memory, each turned round: ldmatrix.x4.trans (PTX ISA
 * 9.7.14). Lane l tells where row l % 8 of matrix l / 8 begins (16 bytes, aligned), and gets of each matrix the
 * values of rows 2t, 2t + 1 in column g.
 */
__device__ __forceinline__ void turned_matrices(uint32_t out[4], const void *row)
{
#ifdef GPU_ON_CPU
    const gpu_on_cpu_lanes *all = gpu_on_cpu_exchange(FULL_WARP, &row, sizeof row);
    const unsigned lane = gpu_on_cpu_lane(), g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; i++) {
        const bf16 *rows[2];
        memcpy(&rows[0], all->bytes[i * 8 + 2 * t], sizeof rows[0]);
        memcpy(&rows[1], all->bytes[i * 8 + 2 * t + 1], sizeof rows[1]);
        out[i] = (uint32_t)rows[0][g] | (uint32_t)rows[1][g] << 16;
    }
#else
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
#endif
}

/* --- copies into shared memory that go on beside what follows ------------------------------------ */

/* 16 bytes, aligned, from global memory. */
__device__ __forceinline__ void copy_later(void *to, const void *from)
{
#ifdef GPU_ON_CPU
    gpu_on_cpu_copy_later(to, from);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :
                 : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from)
                 : "memory");
#endif
}

/* This thread's copies since the last commit are a group. */
__device__ __forceinline__ void copies_commit()
{
#ifdef GPU_ON_CPU
    gpu_on_cpu_copies_commit();
#else
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

/* Until all of this thread's groups but the last n are there. */
template <int n> __device__ __forceinline__ void copies_wait()
{
#ifdef GPU_ON_CPU
    gpu_on_cpu_copies_wait(n);
#else
    asm volatile("cp.async.wait_group %0;" : : "n"(n) : "memory");
#endif
}
