/*
 * Tiles of many rows: chunks of prompts, and latent attention. A tile of NB blocks of positions is staged in
 * shared memory, as bfloat16, while the one before it is computed with. A row of warps has 16 MT rows of queries;
 * its WC warps compute the scores of a block of positions each, exchange weights through shared memory, and sum 8 NT of
 * the values' numbers each.
 */
#include "workers/cuda/attention_impl.cuh"

#define CHUNK_BYTES 288 // 16 positions of 8 numbers of keys, and 32 bytes: a phase's lanes meet different banks

/* Where things lie in shared memory; bytes. */
struct plan {
    uint32_t row_bytes, stage_at, values_at, factors_at, block_bytes, weights_at, most_at, sums_at, bytes;
};

__host__ __device__ static inline plan plan_of(const cache_layout &c, uint32_t n_rows, uint32_t n_blocks)
{
    plan p;
    p.row_bytes = attention_query_bytes(c.key_dim);
    p.stage_at = n_rows * p.row_bytes;
    p.values_at = (uint32_t)(c.key_dim + 31) / 32 * 4 * CHUNK_BYTES; // in a staged block
    p.factors_at = p.values_at + (c.shared ? 0 : (uint32_t)(c.value_dim + 31) / 32 * 32 * 32);
    p.block_bytes = p.factors_at + (cache_has_factors(c.dtype) ? 2 * CACHE_BLOCK * sizeof(float) : 0);
    p.weights_at = p.stage_at + 2 * n_blocks * p.block_bytes;
    p.most_at = p.weights_at + n_rows / 16 * n_blocks * 512;
    p.sums_at = p.most_at + n_rows * n_blocks * sizeof(float);
    p.bytes = p.sums_at + n_rows * n_blocks * sizeof(float);
    return p;
}

/* --- staging ---------------------------------------------------------------------------------------------- */

/* Unit i of a block's keys of 8 numbers each. */
__device__ __forceinline__ unsigned char *key_unit(unsigned char *block, int chunk, int at)
{
    return block + chunk * CHUNK_BYTES + at * 16;
}

__device__ static void stage_halves(unsigned char *to, const plan &p, const cache_layout &c, const char *part)
{
    const int n_keys = c.key_dim / 8 * CACHE_BLOCK, n_values = c.shared ? 0 : (c.value_dim + 15) / 16 * 32;
    for (int i = (int)threadIdx.x; i < n_keys; i += (int)blockDim.x) {
        copy_later(key_unit(to, i / CACHE_BLOCK, i % CACHE_BLOCK), (const uint4 *)part + i);
    }
    for (int i = (int)threadIdx.x; i < n_values; i += (int)blockDim.x) {
        copy_later((uint4 *)(to + p.values_at) + i, (const uint4 *)(part + c.values_at) + i);
    }
}

__device__ __forceinline__ void put_pairs(void *low, void *high, const uint32_t v[8])
{
    *(uint4 *)low = make_uint4(v[0], v[1], v[2], v[3]);
    *(uint4 *)high = make_uint4(v[4], v[5], v[6], v[7]);
}

template <class C>
__device__ static void stage_codes(unsigned char *to, const plan &p, const cache_layout &c, const char *part)
{
    const int n_keys = (c.key_dim + 15) / 16 * CACHE_BLOCK, n_values = c.shared ? 0 : (c.value_dim + 31) / 32 * 32;
    uint32_t pairs[8];
    for (int i = (int)threadIdx.x; i < n_keys; i += (int)blockDim.x) {
        const int chunk = i / CACHE_BLOCK * 2, at = i % CACHE_BLOCK;
        C::widen(pairs, __ldg((const uint4 *)part + i));
        put_pairs(key_unit(to, chunk, at), key_unit(to, chunk + 1, at), pairs);
    }
    for (int i = (int)threadIdx.x; i < n_values; i += (int)blockDim.x) {
        uint4 *low = (uint4 *)(to + p.values_at) + i / 32 * 64 + i % 32; // of 16 of the 32 dims
        C::widen(pairs, __ldg((const uint4 *)(part + c.values_at) + i));
        put_pairs(low, low + 32, pairs);
    }
    for (int i = (int)threadIdx.x; i < 2 * CACHE_BLOCK; i += (int)blockDim.x) {
        const int from = c.shared ? i % CACHE_BLOCK : i; // values' factors are the keys', too
        ((float *)(to + p.factors_at))[i] = ((const float *)(part + c.factors_at))[from];
    }
}

/* Blocks from `first` on; behind the context's last one that one again, of which nothing is used. */
__device__ static void stage(unsigned char *to, const plan &p, const attention_layer &a, const attention_task &k,
                             int first, int n)
{
    const cache_layout &c = a.shape.layout;
    const uint32_t *table = a.tables + (size_t)k.item.row * a.max_blocks;
    const int last = (int)(k.item.to - 1) / CACHE_BLOCK;
    for (int i = 0; i < n; i++, to += p.block_bytes) {
        const char *part = cache_part(c, a.kv, table[first + i < last ? first + i : last], k.kv_head);
        if (c.dtype == ARCH_BF16) {
            stage_halves(to, p, c, part);
        } else if (c.dtype == ARCH_FP8) {
            stage_codes<cache_fp8>(to, p, c, part);
        } else {
            stage_codes<cache_int8>(to, p, c, part);
        }
    }
    copies_commit();
}

/* --- computing -------------------------------------------------------------------------------------------- */

/* A warp's state. With g = lane / 4, t = lane % 4 a lane has rows g and g + 8 (h = 0, 1) of MT times 16. */
template <int MT, int NT> struct sums {
    int pos[MT][2];
    float most[MT][2], sum[MT][2], acc[MT][NT][4];
};

/* Scores of 16 positions: (m, j, i) is row g + i / 2 * 8, position 8 j + 2t + i % 2. */
template <int MT> struct scores {
    float s[MT][2][4];
};

/* Of each 32 numbers lane t has 8 t .. 8 t + 7, of keys and queries alike. */
template <int MT>
__device__ __forceinline__ void products(scores<MT> &x, const unsigned char *queries, uint32_t row_bytes,
                                         unsigned char *block, int key_dim)
{
    const int lane = (int)(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    x = scores<MT>();
#ifndef GPU_ON_CPU
#pragma unroll 2
#endif
    for (int k = 0; k < (key_dim + 31) / 32; k++) {
        uint4 low[MT], high[MT];
        UNROLLED
        for (int m = 0; m < MT; m++) {
            const unsigned char *at = queries + (unsigned)(16 * m + g) * row_bytes + (32 * k + 8 * t) * 2;
            low[m] = *(const uint4 *)at;
            high[m] = *(const uint4 *)(at + 8 * row_bytes);
        }
        UNROLLED
        for (int j = 0; j < 2; j++) {
            const uint4 key = *(const uint4 *)key_unit(block, 4 * k + t, 8 * j + g);
            const uint32_t b[4] = {key.x, key.y, key.z, key.w};
            UNROLLED
            for (int m = 0; m < MT; m++) {
                const uint32_t first[4] = {low[m].x, high[m].x, low[m].y, high[m].y};
                const uint32_t second[4] = {low[m].z, high[m].z, low[m].w, high[m].w};
                mma_bf16(x.s[m][j], first, b);
                mma_bf16(x.s[m][j], second, b + 2);
            }
        }
    }
}

/* The factor of position `at` of a staged block. */
__device__ __forceinline__ float factor_at(const plan &p, const cache_layout &c, const unsigned char *block, int at)
{
    return cache_has_factors(c.dtype) ? ((const float *)(block + p.factors_at))[at] : 1;
}

/* Masked and capped scores of the block that begins at `first`; their maxima to most[row * step]. */
template <int MT, int NT>
__device__ __forceinline__ void shape(scores<MT> &x, const sums<MT, NT> &r, const plan &p, const attention_layer &a,
                                      const attention_item &item, const unsigned char *block, int first,
                                      float *most, int step)
{
    const int lane = (int)(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    UNROLLED
    for (int m = 0; m < MT; m++) {
        UNROLLED
        for (int h = 0; h < 2; h++) {
            float largest = -INFINITY;
            UNROLLED
            for (int i = 0; i < 4; i++) {
                float &s = x.s[m][i / 2][2 * h + i % 2];
                const int at = 8 * (i / 2) + 2 * t + i % 2;
                s = attention_sees(a, item, r.pos[m][h], first + at)
                        ? attention_score<false>(a, s, factor_at(p, a.shape.layout, block, at))
                        : -INFINITY;
                largest = fmaxf(largest, s);
            }
            largest = attention_quad_max(largest);
            if (t == 0) {
                most[(16 * m + g + 8 * h) * step] = largest;
            }
        }
    }
}

/* Scores to weights as the product's left side wants them (`weights`: MT times 512 bytes, `weights_step`
 * apart), and their sums to sums[row * step]. */
template <int MT, int NT>
__device__ __forceinline__ void soften(scores<MT> &x, const sums<MT, NT> &r, const plan &p, const cache_layout &c,
                                       const unsigned char *block, unsigned char *weights, int weights_step,
                                       float *sum, int step)
{
    const int lane = (int)(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    UNROLLED
    for (int m = 0; m < MT; m++) {
        uint32_t pairs[4];
        UNROLLED
        for (int h = 0; h < 2; h++) {
            const float base = attention_base(r.most[m][h]);
            float all = 0;
            UNROLLED
            for (int j = 0; j < 2; j++) {
                float w[2];
                UNROLLED
                for (int e = 0; e < 2; e++) {
                    w[e] = exp2f(x.s[m][j][2 * h + e] - base);
                    all += w[e];
                    // What is not seen may have any factor.
                    w[e] = w[e] == 0 ? 0 : w[e] * factor_at(p, c, block, CACHE_BLOCK + 8 * j + 2 * t + e);
                }
                pairs[2 * j + h] = bf16_pair(w[0], w[1]);
            }
            all = attention_quad_sum(all);
            if (t == 0) {
                sum[(16 * m + g + 8 * h) * step] = all;
            }
        }
        *(uint4 *)(weights + m * weights_step + lane * 16) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

/* New maxima of all rows; what was summed shrinks. */
template <int NB, int MT, int NT>
__device__ __forceinline__ void rescale(sums<MT, NT> &r, const float *most)
{
    const int g = (int)(threadIdx.x % 32 / 4);
    UNROLLED
    for (int m = 0; m < MT; m++) {
        float shrink[2];
        UNROLLED
        for (int h = 0; h < 2; h++) {
            float largest = r.most[m][h];
            UNROLLED
            for (int b = 0; b < NB; b++) {
                largest = fmaxf(largest, most[(16 * m + g + 8 * h) * NB + b]);
            }
            shrink[h] = exp2f(r.most[m][h] - attention_base(largest));
            r.most[m][h] = largest;
            r.sum[m][h] *= shrink[h];
        }
        if (__any_sync(FULL_WARP, shrink[0] != 1 || shrink[1] != 1)) {
            UNROLLED
            for (int n = 0; n < NT; n++) {
                r.acc[m][n][0] *= shrink[0], r.acc[m][n][1] *= shrink[0];
                r.acc[m][n][2] *= shrink[1], r.acc[m][n][3] *= shrink[1];
            }
        }
    }
}

/* Two neighbouring 8 dims' values of a staged block, dims from 8 n on, as the product's right side wants them. */
template <bool LATENT> __device__ __forceinline__ uint4 value_pairs(const plan &p, unsigned char *block, int n)
{
    const int lane = (int)(threadIdx.x % 32);
    if (!LATENT) {
        return ((const uint4 *)(block + p.values_at))[n / 2 * 32 + lane];
    }
    uint32_t out[4]; // positions 0 .. 7 and 8 .. 15 of 8 dims, then of the next 8
    turned_matrices(out, key_unit(block, n + lane / 16, lane % 16));
    return make_uint4(out[0], out[1], out[2], out[3]);
}

/* Weighted values of a block whose positions from `n_seen` on do not count; dims from 8 `first` on. */
template <bool LATENT, int MT, int NT>
__device__ __forceinline__ void add_values(sums<MT, NT> &r, const plan &p, unsigned char *block,
                                           const unsigned char *weights, int weights_step, int n_seen, int first,
                                           int value_dim)
{
    const int lane = (int)(threadIdx.x % 32), t = lane % 4;
    const uint32_t mask[2] = {attention_pair_mask(2 * t, n_seen), attention_pair_mask(8 + 2 * t, n_seen)};
    uint32_t w[MT][4];
    UNROLLED
    for (int m = 0; m < MT; m++) {
        const uint4 v = *(const uint4 *)(weights + m * weights_step + lane * 16);
        // (first 8 positions: rows g, g + 8), (the others: rows g, g + 8)
        w[m][0] = v.x, w[m][1] = v.y, w[m][2] = v.z, w[m][3] = v.w;
    }
    UNROLLED
    for (int n = 0; n < NT; n += 2) {
        if ((first + n) * 8 >= value_dim) {
            break;
        }
        const uint4 v = value_pairs<LATENT>(p, block, first + n);
        const uint32_t low[2] = {v.x & mask[0], v.y & mask[1]}, high[2] = {v.z & mask[0], v.w & mask[1]};
        UNROLLED
        for (int m = 0; m < MT; m++) {
            mma_bf16(r.acc[m][n], w[m], low);
            mma_bf16(r.acc[m][n + 1], w[m], high);
        }
    }
}

/* Warps that share rows wait for each other. */
template <int WC> __device__ __forceinline__ void meet()
{
    if (WC == 1) {
        __syncwarp();
    } else {
        __syncthreads();
    }
}

template <int MT, int NT>
__device__ __forceinline__ void finish(const sums<MT, NT> &r, const attention_layer &a, const attention_task &k,
                                       int first_row, int first)
{
    const int lane = (int)(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    UNROLLED
    for (int m = 0; m < MT; m++) {
        UNROLLED
        for (int h = 0; h < 2; h++) {
            const attention_query q = attention_query_of(k, first_row + 16 * m + g + 8 * h);
            if (q.pos < 0) {
                continue;
            }
            const attention_out o =
                attention_out_of(a, k, q, r.most[m][h], r.sum[m][h], t == 0 && first == 0);
            UNROLLED
            for (int n = 0; n < NT; n++) {
                if ((first + n) * 8 < a.shape.layout.value_dim) {
                    attention_put(a, o, (first + n) * 8 + 2 * t, r.acc[m][n][2 * h], r.acc[m][n][2 * h + 1]);
                }
            }
        }
    }
}

template <int MT, int NT>
__device__ __forceinline__ void begin(sums<MT, NT> &r, const attention_task &k, int first_row)
{
    const int g = (int)(threadIdx.x % 32 / 4);
    UNROLLED
    for (int m = 0; m < MT; m++) {
        UNROLLED
        for (int h = 0; h < 2; h++) {
            r.pos[m][h] = attention_query_of(k, first_row + 16 * m + g + 8 * h).pos;
            r.most[m][h] = -INFINITY, r.sum[m][h] = 0;
        }
        UNROLLED
        for (int n = 0; n < NT; n++) {
            UNROLLED
            for (int i = 0; i < 4; i++) {
                r.acc[m][n][i] = 0;
            }
        }
    }
}

template <int MT, int WR, int WC, int NT, int NB, bool LATENT>
__global__ static void __launch_bounds__(32 * WR * WC)
    large_kernel(attention_layer a, attention_tile tile, const attention_item *items)
{
    constexpr int ROWS = 16 * MT * WR, EACH = (NB + WC - 1) / WC; // blocks whose scores a warp computes
    SHARED_BYTES(bytes);
    const attention_task k = attention_task_of(a, tile, items);
    if (k.item.n_tokens == 0) {
        return;
    }
    const cache_layout &c = a.shape.layout;
    const plan p = plan_of(c, ROWS, NB);
    const int warp = (int)(threadIdx.x / 32), column = warp % WC, row = warp / WC * 16 * MT;
    for (uint32_t i = p.stage_at + threadIdx.x * 16; i < p.weights_at; i += blockDim.x * 16) {
        *(uint4 *)(bytes + i) = make_uint4(0, 0, 0, 0); // what is behind key_dim stays so
    }
    attention_load_queries(bytes, a, k, ROWS);
    sums<MT, NT> r;
    begin(r, k, row);
    __syncthreads();
    const int first_block = (int)k.item.from / CACHE_BLOCK, end = (int)k.item.to;
    const int n_tiles = ((end + CACHE_BLOCK - 1) / CACHE_BLOCK - first_block + NB - 1) / NB;
    unsigned char *weights = bytes + p.weights_at + warp / WC * MT * NB * 512;
    float *most = (float *)(bytes + p.most_at) + row * NB, *sum = (float *)(bytes + p.sums_at) + row * NB;
    stage(bytes + p.stage_at, p, a, k, first_block, NB);
    for (int i = 0; i < n_tiles; i++) {
        unsigned char *at = bytes + p.stage_at + (unsigned)(i % 2 * NB) * p.block_bytes;
        const int first = (first_block + i * NB) * CACHE_BLOCK; // position
        if (i + 1 < n_tiles) {
            stage(bytes + p.stage_at + (unsigned)((i + 1) % 2 * NB) * p.block_bytes, p, a, k,
                  first_block + (i + 1) * NB, NB);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        scores<MT> x[EACH];
        UNROLLED
        for (int e = 0; e < EACH; e++) {
            const int b = column + e * WC;
            if (b < NB) {
                unsigned char *block = at + (unsigned)b * p.block_bytes;
                products(x[e], bytes + (unsigned)row * p.row_bytes, p.row_bytes, block, c.key_dim);
                shape(x[e], r, p, a, k.item, block, first + b * CACHE_BLOCK, most + b, NB);
            }
        }
        meet<WC>();
        rescale<NB>(r, most);
        UNROLLED
        for (int e = 0; e < EACH; e++) {
            const int b = column + e * WC;
            if (b < NB) {
                soften(x[e], r, p, c, at + (unsigned)b * p.block_bytes, weights + b * 512, NB * 512, sum + b, NB);
            }
        }
        meet<WC>();
        UNROLLED
        for (int m = 0; m < MT; m++) {
            UNROLLED
            for (int j = 0; j < 2 * NB; j++) {
                const int g = (int)(threadIdx.x % 32 / 4);
                r.sum[m][j / NB] += sum[(16 * m + g + 8 * (j / NB)) * NB + j % NB];
            }
        }
        UNROLLED
        for (int b = 0; b < NB; b++) {
            add_values<LATENT>(r, p, at + (unsigned)b * p.block_bytes, weights + b * 512, NB * 512,
                               end - first - b * CACHE_BLOCK, column * NT, c.value_dim);
        }
        __syncthreads();
    }
    finish(r, a, k, row, column * NT);
}

/* --- queueing ----------------------------------------------------------------------------------------------- */

template <int MT, int WR, int WC, int NT, int NB, bool LATENT>
static void queue_one(const struct attention_layer *a, const attention_tile &tile, const attention_item *items,
                      uint32_t n, struct CUstream_st *stream)
{
    const plan p = plan_of(a->shape.layout, 16 * MT * WR, NB);
    const auto kernel = large_kernel<MT, WR, WC, NT, NB, LATENT>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)p.bytes);
    launch(kernel, dim3(n, (unsigned)(a->shape.layout.n_kv_heads * tile.slices)), dim3(32 * WR * WC), p.bytes, stream,
           *a, tile, items);
}

/* Rows of a block of the kernels for long heads, and of the one for few rows. */
#define LONG_ROWS 64
#define FEW_ROWS  16

static bool is_long(const cache_layout &c)
{
    return c.value_dim > 128 || c.key_dim > 128;
}

/* Whether a block of this device may have so much: 227 KB from 9.0 on, 163 KB on 8.0, 99 KB on 8.6 and 8.9. */
static bool may_have(uint32_t n_bytes)
{
    int device = 0, most = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess &&
           n_bytes <= (uint32_t)most;
}

uint32_t attention_large_shared_bytes(const struct attention_shape *s)
{
    const cache_layout &c = s->layout;
    return c.dtype == ARCH_F32 ? 0
           : c.shared          ? plan_of(c, LONG_ROWS, 2).bytes
           : is_long(c)        ? plan_of(c, LONG_ROWS, 1).bytes
                               : plan_of(c, 2 * LONG_ROWS, 2).bytes;
}

/* Where a block may have the memory, more of the cache is on its way at a time. */
void attention_large_queue(const struct attention_layer *a, struct CUstream_st *stream)
{
    const cache_layout &c = a->shape.layout;
    const attention_tile tile = attention_work_large(&a->shape);
    const bool is_roomy = !is_long(c) || may_have(plan_of(c, LONG_ROWS, 2).bytes);
    (c.shared           ? queue_one<2, 2, 4, 16, 2, true>
     : !is_roomy        ? queue_one<2, 2, 2, 16, 1, false>
     : is_long(c)       ? queue_one<2, 2, 2, 16, 2, false>
     : c.value_dim > 64 ? queue_one<2, 4, 1, 16, 2, false>
                        : queue_one<2, 4, 1, 8, 2, false>)(a, tile, a->work.large, a->work.n_large, stream);
}

void attention_large_queue_few(const struct attention_layer *a, struct CUstream_st *stream)
{
    const bool is_roomy = may_have(plan_of(a->shape.layout, FEW_ROWS, 4).bytes);
    (is_roomy ? queue_one<1, 1, 4, 16, 4, true> : queue_one<1, 1, 4, 16, 2, true>)(
        a, attention_work_small(&a->shape), a->work.small, a->work.n_small, stream);
}
