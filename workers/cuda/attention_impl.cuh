/* What the attention kernels share: rows of tiles, scores, results. */
#pragma once

#include "workers/cuda/attention.h"
#include "workers/cuda/cache.cuh"
#include "workers/cuda/device.cuh"

#define LOG2_E 1.4426950408889634f // scores are kept times this, for exp2f

void attention_small_queue(const struct attention_layer *a, struct CUstream_st *stream);
void attention_large_queue(const struct attention_layer *a, struct CUstream_st *stream);
/* Latent attention's tiles of up to 16 rows. */
void attention_large_queue_few(const struct attention_layer *a, struct CUstream_st *stream);

/* What a block of threads computes: an item for a slice of one KV head's query heads. */
struct attention_task {
    attention_item item;
    int kv_head, first_head; // of the KV heads, of all heads
    int n_heads;             // in the slice
};

__device__ __forceinline__ attention_task attention_task_of(const attention_layer &a, const attention_tile &t,
                                                            const attention_item *items)
{
    attention_task k;
    k.item = items[blockIdx.x];
    const int group = a.shape.n_heads / a.shape.layout.n_kv_heads;
    const int slice = (int)blockIdx.y % t.slices, left = group - slice * t.heads;
    k.kv_head = (int)blockIdx.y / t.slices;
    k.first_head = k.kv_head * group + slice * t.heads;
    k.n_heads = left < t.heads ? left : t.heads;
    return k;
}

/* A row of the tile: (token, head); pos = -1: there is none. */
struct attention_query {
    int pos;
    uint32_t token; // of the item
    int head;       // of all
};

__device__ __forceinline__ attention_query attention_query_of(const attention_task &k, int row)
{
    attention_query q;
    q.token = (uint32_t)(row / k.n_heads);
    q.head = k.first_head + row % k.n_heads;
    q.pos = q.token < k.item.n_tokens ? (int)(k.item.pos + q.token) : -1;
    return q;
}

__device__ __forceinline__ bool attention_sees(const attention_layer &a, const attention_item &item, int pos,
                                               int j)
{
    return j <= pos && j >= (int)item.from && j < (int)item.to && (a.window == 0 || j > pos - a.window);
}

/* tanh to 2^-22 of 1, by one exponential. */
__device__ __forceinline__ float attention_tanh(float x)
{
    return 1 - __fdividef(2, exp2f(2 * LOG2_E * x) + 1);
}

/* The score, times LOG2_E, that a product of query and key gives. */
template <bool exact>
__device__ __forceinline__ float attention_score(const attention_layer &a, float dot, float factor)
{
    float s = dot * (a.scale * factor);
    if (a.softcap > 0) {
        s = a.softcap * (exact ? tanhf(s / a.softcap) : attention_tanh(__fdividef(s, a.softcap)));
    }
    return s * LOG2_E;
}

__device__ __forceinline__ float attention_base(float most)
{
    return most == -INFINITY ? 0 : most; // exp2f(-inf - base) is 0
}

/* A head's result with this maximum and denominator is its sums times this. */
__device__ __forceinline__ float attention_share(const attention_layer &a, int head, float most, float sum)
{
    if (a.sinks == nullptr) {
        return 1 / sum;
    }
    const float sink = a.sinks[head] * LOG2_E, base = fmaxf(most, sink), mine = exp2f(most - base);
    return mine / (sum * mine + exp2f(sink - base));
}

/* Where a row's sums go. */
struct attention_out {
    float *partial; // NULL: the result itself is wanted, that is
    size_t at;      // from here in `out`,
    float share;    // times this
};

/* `writes`: this lane leaves the maximum and the denominator of a part. */
__device__ __forceinline__ attention_out attention_out_of(const attention_layer &a, const attention_task &k,
                                                          const attention_query &q, float most, float sum,
                                                          bool writes)
{
    attention_out o;
    const size_t n_heads = (size_t)a.shape.n_heads, dim = (size_t)a.shape.layout.value_dim;
    o.at = ((k.item.token + q.token) * n_heads + (size_t)q.head) * dim;
    if (k.item.partial == ATTENTION_WHOLE) {
        o.partial = nullptr;
        o.share = attention_share(a, q.head, most, sum);
        return o;
    }
    const size_t partial = k.item.partial + (size_t)q.token * k.item.partial_step;
    o.partial = a.partials + (partial * n_heads + (size_t)q.head) * (dim + 2);
    o.share = 1;
    if (writes) {
        o.partial[0] = most, o.partial[1] = sum;
    }
    return o;
}

/* Numbers d and d + 1. */
__device__ __forceinline__ void attention_put(const attention_layer &a, const attention_out &o, int d, float x,
                                              float y)
{
    x *= o.share, y *= o.share;
    if (o.partial) {
        *(float2 *)(o.partial + 2 + d) = make_float2(x, y);
    } else if (a.wide) {
        *(float2 *)((float *)a.out + o.at + (size_t)d) = make_float2(x, y);
    } else {
        *(uint32_t *)((bf16 *)a.out + o.at + (size_t)d) = bf16_pair(x, y);
    }
}

/* --- tiles of the tensor cores ------------------------------------------------------------------------ */

/* Bytes of a row of queries in shared memory: lanes of a phase meet different banks. */
__host__ __device__ __forceinline__ uint32_t attention_query_bytes(int key_dim)
{
    return ((uint32_t)key_dim * 2 + 127) / 128 * 128 + 64;
}

/* The tile's queries into shared memory, zeros behind key_dim and where there is no row. */
__device__ __forceinline__ void attention_load_queries(unsigned char *to, const attention_layer &a,
                                                       const attention_task &k, int n_rows)
{
    const int row_bytes = (int)attention_query_bytes(a.shape.layout.key_dim);
    const int units = row_bytes / 16, whole = a.shape.layout.key_dim / 8;
    for (int i = (int)threadIdx.x; i < n_rows * units; i += (int)blockDim.x) {
        const attention_query q = attention_query_of(k, i / units);
        uint4 v = make_uint4(0, 0, 0, 0);
        if (q.pos >= 0 && i % units < whole) {
            const size_t at = (k.item.token + q.token) * (size_t)a.shape.n_heads + (size_t)q.head;
            v = ((const uint4 *)a.q)[at * (size_t)whole + (size_t)(i % units)];
        }
        ((uint4 *)to)[i] = v;
    }
}

/* Bits of a value pair's positions `at`, `at` + 1 that are before `end`: others may hold anything. */
__device__ __forceinline__ uint32_t attention_pair_mask(int at, int end)
{
    return (at < end ? 0xffffu : 0) | (at + 1 < end ? 0xffff0000u : 0);
}

/* The largest and the sum of a row over the four lanes that hold it. */
__device__ __forceinline__ float attention_quad_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(FULL_WARP, v, 1));
    return fmaxf(v, __shfl_xor_sync(FULL_WARP, v, 2));
}

__device__ __forceinline__ float attention_quad_sum(float v)
{
    v += __shfl_xor_sync(FULL_WARP, v, 1);
    return v + __shfl_xor_sync(FULL_WARP, v, 2);
}
