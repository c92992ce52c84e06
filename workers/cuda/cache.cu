#include "workers/cuda/cache.h"

#include "workers/cuda/cache.cuh"

#define WARPS      4   // of the kernels that give a warp one head
#define MAX_DIM    256 // of such a head
#define EACH       (MAX_DIM / 32)
#define THREADS    256 // of the kernel that gives a block one token
#define MAX_LATENT (4 * THREADS)

static uint32_t up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

void cache_layout_init(struct cache_layout *c, enum arch_dtype dtype, int key_dim, int value_dim,
                       int n_kv_heads, bool shared)
{
    const uint32_t bytes = cache_code_bytes(dtype) * CACHE_BLOCK;
    const uint32_t value_step = dtype == ARCH_F32 ? 1 : 32 / cache_code_bytes(dtype);
    *c = cache_layout();
    c->dtype = dtype, c->key_dim = key_dim, c->value_dim = value_dim;
    c->n_kv_heads = n_kv_heads, c->shared = shared;
    c->values_at = up((uint32_t)key_dim, cache_unit(dtype)) * bytes;
    c->factors_at = c->values_at + (shared ? 0 : up((uint32_t)value_dim, value_step) * bytes);
    const uint32_t factors = cache_has_factors(dtype) ? 2 * CACHE_BLOCK * sizeof(float) : 0;
    c->head_bytes = up(c->factors_at + factors, 128);
    c->block_bytes = (size_t)n_kv_heads * c->head_bytes;
}

/* --- storing ---------------------------------------------------------------------------------------- */

__device__ static void put(char *at, enum arch_dtype dtype, float v)
{
    if (dtype == ARCH_F32) {
        *(float *)at = v;
    } else if (dtype == ARCH_BF16) {
        *(bf16 *)at = bf16_of(v);
    } else if (dtype == ARCH_FP8) {
        *(uint8_t *)at = cache_e4m3_of(v);
    } else {
        *(int8_t *)at = (int8_t)rintf(fmaxf(-CACHE_INT8_TOP, fminf(v, CACHE_INT8_TOP)));
    }
}

__device__ static void put_wide(void *out, size_t i, bool wide, float v)
{
    if (wide) {
        ((float *)out)[i] = v;
    } else {
        ((bf16 *)out)[i] = bf16_of(v);
    }
}

/* What a key or value whose largest number is `most` is divided by. */
__device__ static float factor_of(enum arch_dtype dtype, float most)
{
    if (!cache_has_factors(dtype) || !(most > CACHE_LEAST)) {
        return 1;
    }
    return most / (dtype == ARCH_FP8 ? CACHE_FP8_TOP : CACHE_INT8_TOP);
}

/* Where in the cache a token's position is; false for padding. */
struct place {
    uint32_t block, at;
};

__device__ static bool find(place *p, const cache_tokens &t, uint32_t token)
{
    const uint32_t row = t.row[token], pos = t.pos[token];
    if (row == CACHE_NO_ROW) {
        return false;
    }
    p->block = t.tables ? t.tables[(size_t)row * t.max_blocks + pos / CACHE_BLOCK] : 0;
    p->at = pos % CACHE_BLOCK;
    return true;
}

/* Number i of a head's last rope.dim, turned; `x` is the first of them, `bias` theirs or NULL. */
__device__ static float turned(const cache_rope &r, uint32_t pos, const float *x, const float *bias,
                               int i)
{
    const int half = r.dim / 2, j = i < half ? i : i - half;
    const float c = r.cosines[(size_t)pos * (size_t)half + (size_t)j];
    const float s = r.sines[(size_t)pos * (size_t)half + (size_t)j];
    const float a = x[j] + (bias ? bias[j] : 0), b = x[j + half] + (bias ? bias[j + half] : 0);
    return i < half ? a * c - b * s : b * c + a * s;
}

/* --- queries, keys and values ----------------------------------------------------------------------- */

/* A warp's key or value, lane l having numbers l, l + 32, ..: to its place. */
__device__ static void store(const cache_layout &c, char *part, uint32_t at, bool is_value,
                             const float v[EACH])
{
    float most = 0;
    for (int i = 0; i < EACH; i++) {
        most = fmaxf(most, fabsf(v[i]));
    }
    const float factor = factor_of(c.dtype, warp_max(most)), inverse = 1 / factor;
    const int lane = (int)(threadIdx.x % 32), n = is_value ? c.value_dim : c.key_dim;
    const int unit = is_value ? 1 : (int)cache_unit(c.dtype), padded = (n + unit - 1) / unit * unit;
    for (int i = 0; i < EACH; i++) {
        const int d = lane + 32 * i;
        if (d < padded) { // numbers behind the head's are zeros
            const size_t to = is_value ? c.values_at + cache_value_at(c, at, (uint32_t)d)
                                       : cache_key_at(c.dtype, at, (uint32_t)d);
            put(part + to, c.dtype, v[i] * inverse);
        }
    }
    if (cache_has_factors(c.dtype) && lane == 0) {
        ((float *)(part + c.factors_at))[(is_value ? CACHE_BLOCK : 0) + at] = factor;
    }
}

__global__ static void place_kernel(cache_place p)
{
    const int n_kv = p.layout.n_kv_heads, dim = p.layout.key_dim, fixed = dim - p.rope.dim;
    const int head = (int)(blockIdx.y * WARPS + threadIdx.x / 32), lane = (int)(threadIdx.x % 32);
    const uint32_t token = blockIdx.x;
    place to;
    if (head >= p.n_heads + 2 * n_kv || !find(&to, p.tokens, token)) {
        return;
    }
    const float *x =
        p.qkv + ((size_t)token * (size_t)(p.n_heads + 2 * n_kv) + (size_t)head) * (size_t)dim;
    const float *bias = p.bias ? p.bias + (size_t)head * (size_t)dim : nullptr;
    const bool is_value = head >= p.n_heads + n_kv;
    float v[EACH];
    for (int i = 0; i < EACH; i++) {
        const int d = lane + 32 * i;
        v[i] = 0;
        if (d < dim && d >= fixed && !is_value) {
            v[i] = turned(p.rope, p.tokens.pos[token], x + fixed, bias ? bias + fixed : nullptr,
                          d - fixed);
        } else if (d < dim) {
            v[i] = x[d] + (bias ? bias[d] : 0);
        }
    }
    if (head >= p.n_heads) {
        const int kv_head = head - p.n_heads - (is_value ? n_kv : 0);
        store(p.layout, cache_part(p.layout, p.kv, to.block, kv_head), to.at, is_value, v);
        return;
    }
    for (int i = 0; i < EACH; i++) {
        const int d = lane + 32 * i;
        if (d < dim) {
            const size_t at =
                ((size_t)token * (size_t)p.n_heads + (size_t)head) * (size_t)dim + (size_t)d;
            put_wide(p.q, at, p.layout.dtype == ARCH_F32, v[i]);
        }
    }
}

void cache_place_queue(const struct cache_place *p, struct CUstream_st *stream)
{
    const int n_heads = p->n_heads + 2 * p->layout.n_kv_heads;
    if (p->tokens.n > 0) {
        launch(place_kernel, dim3((unsigned)p->tokens.n, (unsigned)((n_heads + WARPS - 1) / WARPS)),
               dim3(WARPS * 32), 0, stream, *p);
    }
}

/* --- latent attention --------------------------------------------------------------------------------- */

/* The largest or the sum over the block, for all its threads. `parts` (THREADS / 32). */
template <bool sums> __device__ static float of_block(float v, float *parts)
{
    v = sums ? warp_sum(v) : warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        parts[threadIdx.x / 32] = v;
    }
    __syncthreads();
    float all = 0;
    for (int i = 0; i < THREADS / 32; i++) {
        all = sums ? all + parts[i] : fmaxf(all, parts[i]);
    }
    return all;
}

__device__ static float normed(float unit, float weight, bool rounds)
{
    return (rounds ? float_of(bf16_of(unit)) : unit) * weight;
}

__device__ static float norm_scale(const float *x, int n, float eps, float *parts)
{
    float squares = 0;
    for (int i = (int)threadIdx.x; i < n; i += THREADS) {
        squares += x[i] * x[i];
    }
    return rsqrtf(of_block<true>(squares, parts) / (float)n + eps);
}

__global__ static void latents_kernel(cache_latents p)
{
    __shared__ float parts[THREADS / 32];
    const cache_layout &c = p.layout;
    const uint32_t token = blockIdx.x;
    place to;
    if (!find(&to, p.tokens, token)) {
        return;
    }
    const float *x = p.latents + (size_t)token * (size_t)(p.q_rank + c.key_dim);
    if (p.q_rank > 0) {
        const float scale = norm_scale(x, p.q_rank, p.eps, parts);
        for (int i = (int)threadIdx.x; i < p.q_rank; i += THREADS) {
            put_wide(p.q_latents, (size_t)token * (size_t)p.q_rank + (size_t)i, p.wide,
                     normed(x[i] * scale, p.q_norm[i], p.rounds));
        }
    }
    x += p.q_rank;
    const float scale = norm_scale(x, c.value_dim, p.eps, parts);
    float v[MAX_LATENT / THREADS], most = 0;
    for (int i = 0; i < MAX_LATENT / THREADS; i++) {
        const int d = (int)threadIdx.x + i * THREADS;
        v[i] = d < c.value_dim ? normed(x[d] * scale, p.kv_norm[d], p.rounds)
               : d < c.key_dim
                   ? turned(p.rope, p.tokens.pos[token], x + c.value_dim, nullptr, d - c.value_dim)
                   : 0;
        most = fmaxf(most, fabsf(v[i]));
    }
    const float factor = factor_of(c.dtype, of_block<false>(most, parts)), inverse = 1 / factor;
    const int unit = (int)cache_unit(c.dtype), padded = (c.key_dim + unit - 1) / unit * unit;
    char *part = cache_part(c, p.kv, to.block, 0);
    for (int i = 0; i < MAX_LATENT / THREADS; i++) {
        const int d = (int)threadIdx.x + i * THREADS;
        if (d < padded) {
            put(part + cache_key_at(c.dtype, to.at, (uint32_t)d), c.dtype, v[i] * inverse);
        }
    }
    if (cache_has_factors(c.dtype) && threadIdx.x == 0) {
        ((float *)(part + c.factors_at))[to.at] = factor;
    }
}

void cache_latents_queue(const struct cache_latents *p, struct CUstream_st *stream)
{
    if (p->tokens.n > 0) {
        launch(latents_kernel, dim3((unsigned)p->tokens.n), dim3(THREADS), 0, stream, *p);
    }
}

__global__ static void queries_kernel(cache_queries p)
{
    const int head = (int)(blockIdx.y * WARPS + threadIdx.x / 32), lane = (int)(threadIdx.x % 32);
    const size_t token = blockIdx.x, h = (size_t)head;
    place to;
    if (head >= p.n_heads || !find(&to, p.tokens, blockIdx.x)) {
        return;
    }
    const int fixed = p.head_dim - p.rope.dim;
    const float *x = p.heads + (token * (size_t)p.n_heads + h) * (size_t)p.head_dim + fixed;
    const float *absorbed = p.absorbed + token * p.absorbed_token + h * p.absorbed_head;
    const size_t out = (token * (size_t)p.n_heads + h) * (size_t)(p.rank + p.rope.dim);
    for (int d = lane; d < p.rank; d += 32) {
        put_wide(p.q, out + (size_t)d, p.wide, absorbed[d]);
    }
    for (int i = lane; i < p.rope.dim; i += 32) {
        put_wide(p.q, out + (size_t)(p.rank + i), p.wide,
                 turned(p.rope, p.tokens.pos[token], x, nullptr, i));
    }
}

void cache_queries_queue(const struct cache_queries *p, struct CUstream_st *stream)
{
    if (p->tokens.n > 0) {
        launch(queries_kernel,
               dim3((unsigned)p->tokens.n, (unsigned)((p->n_heads + WARPS - 1) / WARPS)),
               dim3(WARPS * 32), 0, stream, *p);
    }
}
