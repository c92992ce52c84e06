/*
 * Functions that device code calls and C++ has not: atomics, loads of a kind, fast arithmetic, bits. Included by
 * device_side.h.
 */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

template <class T> static inline T gpu_on_cpu_swap(T *p, T v)
{
    T old = *p;
    *p = v;
    return old;
}
template <class T> static inline T atomicAdd(T *p, T v)
{
    return gpu_on_cpu_swap(p, (T)(*p + v));
}
template <class T> static inline T atomicMax(T *p, T v)
{
    return gpu_on_cpu_swap(p, *p < v ? v : *p);
}
template <class T> static inline T atomicMin(T *p, T v)
{
    return gpu_on_cpu_swap(p, v < *p ? v : *p);
}
template <class T> static inline T atomicExch(T *p, T v)
{
    return gpu_on_cpu_swap(p, v);
}
template <class T> static inline T atomicOr(T *p, T v)
{
    return gpu_on_cpu_swap(p, (T)(*p | v));
}
template <class T> static inline T atomicCAS(T *p, T old, T v)
{
    return gpu_on_cpu_swap(p, *p == old ? v : *p);
}

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}
template <class T> static inline T __ldcs(const T *p)
{
    return *p;
}
#define __expf(x) expf(x) // glibc has declarations of these names
#define __logf(x) logf(x)
static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
} // these four: rounded, never fused
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __frcp_rn(float x)
{
    return 1 / x;
}
static inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}
static inline float __int_as_float(int v)
{
    float f;
    memcpy(&f, &v, 4);
    return f;
}
static inline int __float_as_int(float f)
{
    int v;
    memcpy(&v, &f, 4);
    return v;
}
static inline float __uint_as_float(unsigned v)
{
    float f;
    memcpy(&f, &v, 4);
    return f;
}
static inline unsigned __float_as_uint(float f)
{
    unsigned v;
    memcpy(&v, &f, 4);
    return v;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    unsigned out = 0;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned at = selector >> 4 * i & 7u;
        out |= ((at < 4 ? a : b) >> 8 * (at % 4) & 0xffu) << 8 * i;
    }
    return out;
}
static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}
static inline int __clz(int v)
{
    return v ? __builtin_clz((unsigned)v) : 32;
}
static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}
template <class T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}
