#include "workers/cuda/head.h"

#include "workers/cuda/device.cuh"

extern "C" {
#include "workers/batch.h"
}

#include <float.h>

#define THREADS 256
#define EACH    4 // logits at a time

/* A larger value, or an equal one with a lower id, takes its place. */
__device__ static void take(head_found *best, float value, int32_t id)
{
    if (value > best->value || (value == best->value && id < best->id)) {
        best->value = value;
        best->id = id;
    }
}

/* The same over a warp, for all its lanes. */
__device__ static void take_lanes(head_found *best)
{
    for (int bits = 16; bits > 0; bits /= 2) {
        const float value = __shfl_xor_sync(FULL_WARP, best->value, bits);
        take(best, value, __shfl_xor_sync(FULL_WARP, best->id, bits));
    }
}

__device__ static bool is_finite(float v)
{
    return (__float_as_uint(v) & 0x7f800000u) != 0x7f800000u;
}

/* One logit; ids of a thread ascend. */
__device__ static float look(const head_rows &h, float v, int i, head_found *best, bool *all_finite)
{
    v = h.softcap > 0 ? h.softcap * tanhf(v / h.softcap) : v;
    *all_finite = *all_finite && is_finite(v);
    if (v > best->value) {
        best->value = v;
        best->id = h.first + i;
    }
    return v;
}

__device__ static void look_at_part(const head_rows &h, head_found *best, bool *all_finite)
{
    const size_t row = blockIdx.y * (size_t)h.vocab;
    const float *in = h.logits + row;
    float *out = h.capped ? h.capped + row : nullptr;
    const int me = (int)(blockIdx.x * THREADS + threadIdx.x), step = HEAD_PARTS * THREADS;
    if (h.vocab % EACH != 0) { // rows do not begin at 16 bytes
        for (int i = me; i < h.vocab; i += step) {
            const float v = look(h, in[i], i, best, all_finite);
            if (out) {
                out[i] = v;
            }
        }
        return;
    }
    for (int i = me * EACH; i < h.vocab; i += step * EACH) {
        float4 v = *(const float4 *)(in + i);
        v.x = look(h, v.x, i, best, all_finite);
        v.y = look(h, v.y, i + 1, best, all_finite);
        v.z = look(h, v.z, i + 2, best, all_finite);
        v.w = look(h, v.w, i + 3, best, all_finite);
        if (out) {
            *(float4 *)(out + i) = v;
        }
    }
}

/* Block (x, y): the largest of part x of row y. */
__global__ static void parts_kernel(head_rows h)
{
    __shared__ head_found warps[THREADS / 32];
    head_found best = {-FLT_MAX, INT32_MAX};
    bool all_finite = true;
    look_at_part(h, &best, &all_finite);
    if (!__all_sync(FULL_WARP, all_finite)) {
        best = {INFINITY, BATCH_NOT_FINITE};
    }
    take_lanes(&best);
    if (threadIdx.x % 32 == 0) {
        warps[threadIdx.x / 32] = best;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int i = 1; i < THREADS / 32; i++) {
            take(&best, warps[i].value, warps[i].id);
        }
        h.parts[blockIdx.y * HEAD_PARTS + blockIdx.x] = best;
    }
}

/* A warp merges a row's parts. */
__global__ static void merge_kernel(head_rows h)
{
    head_found best = h.parts[blockIdx.x * HEAD_PARTS + threadIdx.x];
    take_lanes(&best);
    if (threadIdx.x == 0) {
        best.id = best.id == INT32_MAX ? h.first : best.id; // all at the least that floats have
        h.found[blockIdx.x] = best;
    }
}

static_assert(HEAD_PARTS == 32, "a warp merges them");

void head_queue(const struct head_rows *h, struct CUstream_st *stream)
{
    if (h->n > 0) {
        launch(parts_kernel, dim3(HEAD_PARTS, (unsigned)h->n), dim3(THREADS), 0, stream, *h);
        launch(merge_kernel, dim3((unsigned)h->n), dim3(32), 0, stream, *h);
    }
}
