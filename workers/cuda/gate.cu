#include "workers/cuda/gate.h"

#include "workers/cuda/device.cuh"

#define THREADS 128
#define EACH    4 // values of a thread

/* As KERNELS_GELU_1 .. in workers/cpu/kernels.h. */
#define GELU_1       1.5957691216f
#define GELU_3       0.0713548162f
#define SWIGLU_ALPHA 1.702f
#define SWIGLU_LIMIT 7.0f

__device__ static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

__device__ static float at_most(float x, float limit) // fminf, but a NaN stays
{
    return x > limit ? limit : x;
}

template <arch_activation activation> __device__ static float gated(float gate, float up)
{
    if (activation == ARCH_GELU_TANH) {
        return gate * sigmoid(gate * (GELU_1 + GELU_3 * gate * gate)) * up;
    }
    if (activation == ARCH_SWIGLU_CLAMP) {
        gate = at_most(gate, SWIGLU_LIMIT);
        up = -at_most(-at_most(up, SWIGLU_LIMIT), SWIGLU_LIMIT);
        return gate * sigmoid(SWIGLU_ALPHA * gate) * (up + 1);
    }
    return gate * sigmoid(gate) * up;
}

__device__ static float4 sum(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* Four values of a row whose length is a multiple of four. */
template <arch_activation activation>
__device__ static void quad(const gate_rows &r, const float *row, const float *bias, size_t out, int k)
{
    float4 g = *(const float4 *)(row + k), u = *(const float4 *)(row + r.inner + k);
    if (bias) {
        g = sum(g, *(const float4 *)(bias + k));
        u = sum(u, *(const float4 *)(bias + r.inner + k));
    }
    const float4 v = make_float4(gated<activation>(g.x, u.x), gated<activation>(g.y, u.y),
                                 gated<activation>(g.z, u.z), gated<activation>(g.w, u.w));
    if (r.wide) {
        *(float4 *)((float *)r.out + out) = v;
    } else {
        *(uint2 *)((bf16 *)r.out + out) = make_uint2(bf16_pair(v.x, v.y), bf16_pair(v.z, v.w));
    }
}

/* Block (x, y): row x, its values from y THREADS EACH on. */
template <arch_activation activation> __global__ static void gate_kernel(gate_rows r)
{
    const size_t i = blockIdx.x, wide = 2 * (size_t)r.inner;
    const int first = (int)(blockIdx.y * THREADS + threadIdx.x) * EACH;
    const float *row = r.gate_up + i * wide;
    const float *bias = r.bias && r.experts ? r.bias + (size_t)r.experts[i] * wide : r.bias;
    const size_t out = i * (size_t)r.inner + (size_t)first;
    if (r.inner % EACH == 0) {
        if (first < r.inner) {
            quad<activation>(r, row, bias, out, first);
        }
        return;
    }
    for (int k = first; k < first + EACH && k < r.inner; k++) {
        const float gate = row[k] + (bias ? bias[k] : 0);
        const float up = row[r.inner + k] + (bias ? bias[r.inner + k] : 0);
        const float v = gated<activation>(gate, up);
        if (r.wide) {
            ((float *)r.out)[out + (size_t)(k - first)] = v;
        } else {
            ((bf16 *)r.out)[out + (size_t)(k - first)] = bf16_of(v);
        }
    }
}

void gate_queue(const struct gate_rows *r, struct CUstream_st *stream)
{
    if (r->n <= 0) {
        return;
    }
    const int each = THREADS * EACH;
    const dim3 grid((unsigned)r->n, (unsigned)((r->inner + each - 1) / each));
    switch (r->activation) {
    case ARCH_GELU_TANH:
        launch(gate_kernel<ARCH_GELU_TANH>, grid, dim3(THREADS), 0, stream, *r);
        break;
    case ARCH_SWIGLU_CLAMP:
        launch(gate_kernel<ARCH_SWIGLU_CLAMP>, grid, dim3(THREADS), 0, stream, *r);
        break;
    default:
        launch(gate_kernel<ARCH_SILU>, grid, dim3(THREADS), 0, stream, *r);
    }
}
