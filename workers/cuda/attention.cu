#include "workers/cuda/attention.h"

#include "workers/cuda/attention_impl.cuh"

/* --- wide: float32 throughout --------------------------------------------------------------------------- */

#define WIDE_WARPS 8
#define MAX_VALUES 512 // of a row
#define EACH       (MAX_VALUES / 32)

/* A warp's row on its way: what lane l has of the sums is numbers l, l + 32, .. */
struct wide_row {
    attention_query q;
    float most, sum, acc[EACH];
};

__device__ static const char *part_of(const attention_layer &a, const attention_task &k, int pos)
{
    const uint32_t *table = a.tables + (size_t)k.item.row * a.max_blocks;
    return cache_part(a.shape.layout, a.kv, table[pos / CACHE_BLOCK], k.kv_head);
}

__device__ static float dot(const char *part, int pos, const float *q, int key_dim)
{
    const float4 *key = (const float4 *)part + pos % CACHE_BLOCK;
    float sum = 0;
    for (int d = 0; d < key_dim; d += 4, key += CACHE_BLOCK) {
        const float4 x = *key;
        sum += x.x * q[d] + x.y * q[d + 1] + x.z * q[d + 2] + x.w * q[d + 3];
    }
    return sum;
}

/* Add the value at `pos`, weighted. */
__device__ static void add_value(wide_row &r, const cache_layout &c, const char *part, int pos, float weight)
{
    const uint32_t at = (uint32_t)(pos % CACHE_BLOCK);
    UNROLLED
    for (int i = 0; i < EACH; i++) {
        const uint32_t d = threadIdx.x % 32 + 32 * (uint32_t)i;
        if ((int)d < c.value_dim) {
            const size_t from = c.shared ? cache_key_at(ARCH_F32, at, d) : c.values_at + cache_value_at(c, at, d);
            r.acc[i] += weight * *(const float *)(part + from);
        }
    }
}

/* 32 positions, one per lane. */
__device__ static void meet(wide_row &r, const attention_layer &a, const attention_task &k, const float *q,
                            int first)
{
    const cache_layout &c = a.shape.layout;
    const int pos = first + (int)(threadIdx.x % 32);
    const bool sees = attention_sees(a, k.item, r.q.pos, pos);
    const float s = sees ? attention_score<true>(a, dot(part_of(a, k, pos), pos, q, c.key_dim), 1) : -INFINITY;
    const float most = fmaxf(r.most, warp_max(s)), base = attention_base(most);
    const float shrink = exp2f(r.most - base), weight = sees ? exp2f(s - base) : 0;
    r.sum = r.sum * shrink + warp_sum(weight);
    r.most = most;
    UNROLLED
    for (int i = 0; i < EACH; i++) {
        r.acc[i] *= shrink;
    }
    for (int j = 0; j < 32; j++) {
        const float w = __shfl_sync(FULL_WARP, weight, j);
        if (w != 0) {
            add_value(r, c, part_of(a, k, first + j), first + j, w);
        }
    }
}

__global__ static void __launch_bounds__(32 * WIDE_WARPS) wide_kernel(attention_layer a, attention_tile tile)
{
    SHARED_BYTES(bytes);
    const attention_task k = attention_task_of(a, tile, a.work.small);
    const int warp = (int)(threadIdx.x / 32), lane = (int)(threadIdx.x % 32), dim = a.shape.layout.key_dim;
    wide_row r;
    r.q = attention_query_of(k, warp);
    if (r.q.pos < 0) {
        return;
    }
    float *q = (float *)bytes + warp * dim;
    const size_t query = (k.item.token + r.q.token) * (size_t)a.shape.n_heads + (size_t)r.q.head;
    for (int d = lane; d < dim; d += 32) {
        q[d] = ((const float *)a.q)[query * (size_t)dim + (size_t)d];
    }
    __syncwarp();
    r.most = -INFINITY, r.sum = 0;
    for (int i = 0; i < EACH; i++) {
        r.acc[i] = 0;
    }
    for (int first = (int)k.item.from; first < (int)k.item.to; first += 32) {
        meet(r, a, k, q, first);
    }
    const attention_out o = attention_out_of(a, k, r.q, r.most, r.sum, lane == 0);
    for (int i = 0; i < EACH; i++) {
        const float next = __shfl_down_sync(FULL_WARP, r.acc[i], 1);
        if (lane % 2 == 0 && lane + 32 * i < a.shape.layout.value_dim) {
            attention_put(a, o, lane + 32 * i, r.acc[i], next);
        }
    }
}

static void queue_wide(const struct attention_layer *a, struct CUstream_st *stream)
{
    const attention_tile tile = attention_work_small(&a->shape);
    const cache_layout *c = &a->shape.layout;
    launch(wide_kernel, dim3(a->work.n_small, (unsigned)(c->n_kv_heads * tile.slices)), dim3(32 * WIDE_WARPS),
           (size_t)(WIDE_WARPS * c->key_dim) * sizeof(float), stream, *a, tile);
}

/* --- joining parts ---------------------------------------------------------------------------------------- */

#define MERGE_THREADS 64

__global__ static void __launch_bounds__(MERGE_THREADS) merge_kernel(attention_layer a)
{
    const attention_merge merge = a.work.merges[blockIdx.x];
    if (merge.n == 0) {
        return;
    }
    const int head = (int)blockIdx.y, dim = a.shape.layout.value_dim;
    const size_t step = (size_t)a.shape.n_heads * (size_t)(dim + 2);
    const float *first = a.partials + merge.first * step + (size_t)head * (size_t)(dim + 2);
    float most = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < merge.n; i++) {
        most = fmaxf(most, first[i * step]);
    }
    for (uint32_t i = 0; i < merge.n; i++) {
        sum += first[i * step + 1] * exp2f(first[i * step] - most);
    }
    attention_out o;
    o.partial = nullptr;
    o.at = ((size_t)merge.token * (size_t)a.shape.n_heads + (size_t)head) * (size_t)dim;
    o.share = attention_share(a, head, most, sum);
    for (int d = 2 * (int)threadIdx.x; d < dim; d += 2 * MERGE_THREADS) {
        float x = 0, y = 0;
        for (uint32_t i = 0; i < merge.n; i++) {
            const float *part = first + i * step;
            const float weight = exp2f(part[0] - most);
            const float2 v = *(const float2 *)(part + 2 + d);
            x += weight * v.x, y += weight * v.y;
        }
        attention_put(a, o, d, x, y);
    }
}

void attention_queue(const struct attention_layer *a, struct CUstream_st *stream)
{
    if (a->shape.layout.dtype == ARCH_F32) {
        if (a->work.n_small > 0) {
            queue_wide(a, stream);
        }
    } else {
        if (a->work.n_small > 0) {
            (a->shape.layout.shared ? attention_large_queue_few : attention_small_queue)(a, stream);
        }
        if (a->work.n_large > 0) {
            attention_large_queue(a, stream);
        }
    }
    if (a->work.n_merges > 0) {
        launch(merge_kernel, dim3(a->work.n_merges, (unsigned)a->shape.n_heads), dim3(MERGE_THREADS), 0, stream,
               *a);
    }
}
