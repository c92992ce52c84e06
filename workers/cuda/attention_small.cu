/* Up to 16 rows against a long context: decoding. Bound by the bytes of the cache. */
#include "workers/cuda/attention_impl.cuh"

#define WARPS   4
#define THREADS (32 * WARPS)
#define ROWS    16

/* A warp's share of the tile. With g = lane / 4, t = lane % 4 its lane holds rows g, g + 8. */
template <int NT> struct sums {
    float most[2], sum[2], acc[NT][4]; // numbers 8 i + 2t, 8 i + 2t + 1 of row g, of row g + 8
};

/* Scores of 16 positions: (j, i) is row g + i / 2 * 8, position 8 j + 2t + i % 2. */
struct scores {
    float s[2][4];
};

/*
 * q . k for a block of positions. Of each 4 units' numbers lane t has those of unit t, of keys and of queries
 * alike: which of the product's 16 numbers they are to the tensor core makes no difference.
 */
template <int KT, class C>
__device__ __forceinline__ scores products(const unsigned char *queries, uint32_t row_bytes,
                                           const uint4 (&keys)[KT][2], int n_units)
{
    const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    scores out = {};
    UNROLLED
    for (int k = 0; k < KT; k++) {
        if (4 * k >= n_units) {
            break;
        }
        uint32_t low[C::UNIT / 2], high[C::UNIT / 2];
        const unsigned char *at = queries + g * row_bytes + (unsigned)(4 * k + (int)t) * C::UNIT * 2;
        UNROLLED
        for (int i = 0; i < C::UNIT / 8; i++) {
            const uint4 a = ((const uint4 *)at)[i], b = ((const uint4 *)(at + 8 * row_bytes))[i];
            low[4 * i] = a.x, low[4 * i + 1] = a.y, low[4 * i + 2] = a.z, low[4 * i + 3] = a.w;
            high[4 * i] = b.x, high[4 * i + 1] = b.y, high[4 * i + 2] = b.z, high[4 * i + 3] = b.w;
        }
        UNROLLED
        for (int j = 0; j < 2; j++) {
            uint32_t pairs[C::UNIT / 2];
            C::widen(pairs, keys[k][j]);
            UNROLLED
            for (int s = 0; s < C::UNIT / 4; s++) {
                const uint32_t a[4] = {low[2 * s], high[2 * s], low[2 * s + 1], high[2 * s + 1]};
                mma_bf16(out.s[j], a, pairs + 2 * s);
            }
        }
    }
    return out;
}

/* Factors of positions 8 j + 2t + e; 1 where there are none. */
template <class C> __device__ __forceinline__ void load_factors(float out[2][2], const char *part, uint32_t at)
{
    UNROLLED
    for (int j = 0; j < 2; j++) {
        float2 f = make_float2(1, 1);
        if (C::HAS_FACTORS) {
            f = *(const float2 *)(part + at + (unsigned)(8 * j + (int)(threadIdx.x % 4) * 2) * sizeof(float));
        }
        out[j][0] = f.x, out[j][1] = f.y;
    }
}

/* Scores to weights of the softmax, of a block that begins at `first`; sums so far shrink with a new maximum. */
template <int NT>
__device__ __forceinline__ void soften(sums<NT> &r, scores &x, const attention_layer &a, const attention_item &item,
                                       const int pos[2], int first, const float factors[2][2])
{
    const int t = (int)(threadIdx.x % 4);
    float shrink[2];
    UNROLLED
    for (int h = 0; h < 2; h++) {
        float most = -INFINITY;
        UNROLLED
        for (int i = 0; i < 4; i++) {
            float &s = x.s[i / 2][2 * h + i % 2];
            const bool sees = attention_sees(a, item, pos[h], first + 8 * (i / 2) + 2 * t + i % 2);
            s = sees ? attention_score<false>(a, s, factors[i / 2][i % 2]) : -INFINITY;
            most = fmaxf(most, s);
        }
        most = fmaxf(r.most[h], attention_quad_max(most));
        const float base = attention_base(most);
        shrink[h] = exp2f(r.most[h] - base);
        r.most[h] = most;
        r.sum[h] *= shrink[h];
        UNROLLED
        for (int i = 0; i < 4; i++) {
            float &s = x.s[i / 2][2 * h + i % 2];
            s = exp2f(s - base);
            r.sum[h] += s; // of this lane's positions
        }
    }
    if (__any_sync(FULL_WARP, shrink[0] != 1 || shrink[1] != 1)) {
        UNROLLED
        for (int n = 0; n < NT; n++) {
            r.acc[n][0] *= shrink[0], r.acc[n][1] *= shrink[0];
            r.acc[n][2] *= shrink[1], r.acc[n][3] *= shrink[1];
        }
    }
}

/* A weight times its value's factor; what is not seen may have any factor. */
__device__ __forceinline__ float weigh(float weight, float factor)
{
    return weight == 0 ? 0 : weight * factor;
}

template <int NT, class C>
__device__ __forceinline__ void block_of_positions(sums<NT> &r, const attention_layer &a, const attention_task &k,
                                                   const unsigned char *queries, const int pos[2], int block)
{
    constexpr int KT = NT * 8 / (4 * C::UNIT), W = C::UNIT / 4, VT = NT / W;
    constexpr bool ahead = NT <= 16; // values' loads are under way while scores are computed
    const cache_layout &c = a.shape.layout;
    const int lane = (int)(threadIdx.x % 32), g = lane / 4, t = lane % 4, first = block * CACHE_BLOCK;
    const char *part = cache_part(c, a.kv, a.tables[(size_t)k.item.row * a.max_blocks + (size_t)block], k.kv_head);
    const int n_units = (c.key_dim + C::UNIT - 1) / C::UNIT;
    uint4 keys[KT][2], values[VT];
    UNROLLED
    for (int i = 0; i < KT; i++) {
        UNROLLED
        for (int j = 0; j < 2; j++) {
            const int unit = 4 * i + t;
            keys[i][j] = unit < n_units ? __ldg((const uint4 *)part + unit * CACHE_BLOCK + 8 * j + g)
                                        : make_uint4(0, 0, 0, 0);
        }
    }
    const uint4 *at = (const uint4 *)(part + c.values_at) + lane;
    UNROLLED
    for (int i = 0; ahead && i < VT; i++) {
        values[i] = i * 8 * W < c.value_dim ? __ldg(at + i * 32) : make_uint4(0, 0, 0, 0);
    }
    float key_factors[2][2], value_factors[2][2];
    load_factors<C>(key_factors, part, c.factors_at);
    load_factors<C>(value_factors, part, c.factors_at + CACHE_BLOCK * sizeof(float));
    scores x = products<KT, C>(queries, attention_query_bytes(c.key_dim), keys, n_units);
    soften(r, x, a, k.item, pos, first, key_factors);
    uint32_t p[4];
    UNROLLED
    for (int i = 0; i < 4; i++) { // row g, g + 8 of the first 8 positions, then of the others
        const int j = i / 2, h = i % 2;
        p[i] = bf16_pair(weigh(x.s[j][2 * h], value_factors[j][0]), weigh(x.s[j][2 * h + 1], value_factors[j][1]));
    }
    const uint32_t mask[2] = {attention_pair_mask(first + 2 * t, (int)k.item.to),
                              attention_pair_mask(first + 8 + 2 * t, (int)k.item.to)};
    UNROLLED
    for (int i = 0; i < VT; i++) {
        if (i * 8 * W >= c.value_dim) {
            break;
        }
        uint32_t pairs[2 * W];
        C::widen(pairs, ahead ? values[i] : __ldg(at + i * 32));
        UNROLLED
        for (int n = 0; n < W; n++) {
            const uint32_t b[2] = {pairs[2 * n] & mask[0], pairs[2 * n + 1] & mask[1]};
            mma_bf16(r.acc[i * W + n], p, b);
        }
    }
}

/* Shared memory: queries, then the warps' maxima and denominators, then (ROWS, NT * 8 + 8) sums. */
struct shared_sums {
    float most[WARPS][ROWS], sum[WARPS][ROWS];
};

/* All warps' sums, in order, into `acc`. */
template <int NT> __device__ __forceinline__ void join(sums<NT> &r, shared_sums *all, float *acc, int value_dim)
{
    const int warp = (int)(threadIdx.x / 32), lane = (int)(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    UNROLLED
    for (int h = 0; h < 2; h++) {
        const float sum = attention_quad_sum(r.sum[h]);
        if (t == 0) {
            all->most[warp][g + 8 * h] = r.most[h];
            all->sum[warp][g + 8 * h] = sum;
        }
    }
    __syncthreads();
    float scale[2];
    UNROLLED
    for (int h = 0; h < 2; h++) {
        float most = -INFINITY;
        for (int w = 0; w < WARPS; w++) {
            most = fmaxf(most, all->most[w][g + 8 * h]);
        }
        scale[h] = exp2f(r.most[h] - attention_base(most));
    }
    for (int w = 0; w < WARPS; w++) {
        UNROLLED
        for (int n = 0; n < NT; n++) {
            if (w != warp || n * 8 >= value_dim) {
                break;
            }
            UNROLLED
            for (int i = 0; i < 4; i++) {
                float *to = acc + (g + i / 2 * 8) * (NT * 8 + 8) + n * 8 + 2 * t + i % 2;
                *to = (w > 0 ? *to : 0) + r.acc[n][i] * scale[i / 2];
            }
        }
        __syncthreads();
    }
}

__device__ static void finish(const attention_layer &a, const attention_task &k, const shared_sums *all,
                              const float *acc, int acc_step)
{
    const int warp = (int)(threadIdx.x / 32), lane = (int)(threadIdx.x % 32);
    for (int row = warp; row < ROWS; row += WARPS) {
        const attention_query q = attention_query_of(k, row);
        if (q.pos < 0) {
            continue;
        }
        float most = -INFINITY, sum = 0;
        for (int w = 0; w < WARPS; w++) {
            most = fmaxf(most, all->most[w][row]);
        }
        for (int w = 0; w < WARPS; w++) {
            sum += all->sum[w][row] * exp2f(all->most[w][row] - attention_base(most));
        }
        const attention_out o = attention_out_of(a, k, q, most, sum, lane == 0);
        for (int d = 2 * lane; d < a.shape.layout.value_dim; d += 64) {
            attention_put(a, o, d, acc[row * acc_step + d], acc[row * acc_step + d + 1]);
        }
    }
}

template <int NT, class C>
__global__ static void __launch_bounds__(THREADS) small_kernel(attention_layer a, attention_tile tile)
{
    SHARED_BYTES(bytes);
    const attention_task k = attention_task_of(a, tile, a.work.small);
    if (k.item.n_tokens == 0) {
        return;
    }
    const uint32_t row_bytes = attention_query_bytes(a.shape.layout.key_dim);
    shared_sums *all = (shared_sums *)(bytes + ROWS * row_bytes);
    float *acc = (float *)(all + 1);
    attention_load_queries(bytes, a, k, ROWS);
    __syncthreads();
    sums<NT> r;
    int pos[2];
    UNROLLED
    for (int h = 0; h < 2; h++) {
        pos[h] = attention_query_of(k, (int)(threadIdx.x % 32 / 4) + 8 * h).pos;
        r.most[h] = -INFINITY, r.sum[h] = 0;
    }
    UNROLLED
    for (int n = 0; n < NT; n++) {
        UNROLLED
        for (int i = 0; i < 4; i++) {
            r.acc[n][i] = 0;
        }
    }
    const int end = ((int)k.item.to + CACHE_BLOCK - 1) / CACHE_BLOCK;
    for (int b = (int)(k.item.from / CACHE_BLOCK + threadIdx.x / 32); b < end; b += WARPS) {
        block_of_positions<NT, C>(r, a, k, bytes, pos, b);
    }
    join(r, all, acc, a.shape.layout.value_dim);
    finish(a, k, all, acc, NT * 8 + 8);
}

template <int NT, class C> static void queue_one(const struct attention_layer *a, struct CUstream_st *stream)
{
    const cache_layout *c = &a->shape.layout;
    const attention_tile tile = attention_work_small(&a->shape);
    const size_t shared = ROWS * attention_query_bytes(c->key_dim) + sizeof(shared_sums) +
                          ROWS * (NT * 8 + 8) * sizeof(float);
    launch(small_kernel<NT, C>, dim3(a->work.n_small, (unsigned)(c->n_kv_heads * tile.slices)), dim3(THREADS),
           shared, stream, *a, tile);
}

template <class C> static void queue_codes(const struct attention_layer *a, struct CUstream_st *stream)
{
    const cache_layout *c = &a->shape.layout;
    const int dim = c->key_dim > c->value_dim ? c->key_dim : c->value_dim;
    (dim <= 64 ? queue_one<8, C> : dim <= 128 ? queue_one<16, C> : queue_one<32, C>)(a, stream);
}

void attention_small_queue(const struct attention_layer *a, struct CUstream_st *stream)
{
    const enum arch_dtype dtype = a->shape.layout.dtype;
    (dtype == ARCH_BF16  ? queue_codes<cache_bf16>
     : dtype == ARCH_FP8 ? queue_codes<cache_fp8>
                         : queue_codes<cache_int8>)(a, stream);
}
