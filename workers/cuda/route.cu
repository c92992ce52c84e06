#include "workers/cuda/route.h"

#include "workers/cuda/device.cuh"

#include <float.h>

#define THREADS      128 // of the choice: a warp for each token
#define WARPS        (THREADS / 32)
#define MAX_EXPERTS  1024
#define MAX_TOP      64
#define SORT_THREADS 512

/* What a warp keeps of its token. */
struct token_memory {
    float choices[MAX_EXPERTS]; // ARCH_ROUTER_GROUPS: of the experts
    float weights[MAX_TOP];
    uint32_t kept[MAX_EXPERTS / 32]; // which groups may be chosen from
};

/* Correctly rounded, or nearly: the CPU's exp is, and near equals should be judged alike. */
__device__ static float exp_of(float x)
{
    return (float)exp((double)x);
}

__device__ static float sigmoid(float x)
{
    return 1 / (1 + exp_of(-x));
}

/* --- the largest of what a warp holds ------------------------------------------------------------- */

/* Floats as whole numbers of the same order: -0 is 0, NaN is below all. */
__device__ static uint32_t key_of(float v)
{
    if (isnan(v)) {
        return 1;
    }
    const uint32_t bits = __float_as_uint(v + 0.0f);
    return bits >> 31 ? ~bits : bits | 1u << 31;
}

/*
 * Of the values whose keys a lane has (i: value i * 32 + lane; 0: no value) the k largest, the first of
 * equals: bit i of the answer is value i * 32 + lane. Keys of the chosen become 0.
 */
template <int each> __device__ static uint32_t choose_largest(uint32_t keys[each], int k)
{
    const unsigned lane = threadIdx.x % 32;
    uint32_t chosen = 0;
    for (int round = 0; round < k; round++) {
        uint32_t mine = keys[0];
        int where = 0;
        UNROLLED
        for (int i = 1; i < each; i++) {
            where = keys[i] > mine ? i : where;
            mine = keys[i] > mine ? keys[i] : mine;
        }
        const unsigned largest = __reduce_max_sync(FULL_WARP, mine), at = (unsigned)where * 32 + lane;
        const unsigned first = __reduce_min_sync(FULL_WARP, mine == largest ? at : UINT32_MAX);
        UNROLLED
        for (int i = 0; i < each; i++) {
            keys[i] = first == at && i == where ? 0 : keys[i];
        }
        chosen |= first == at ? 1u << where : 0;
    }
    return chosen;
}

/* The chosen by `bits`, in ascending order, to experts (top_k), and their logits to `weights`. */
template <int each>
__device__ static void list(uint32_t bits, const float *logits, int32_t *experts, float *weights)
{
    const int lane = (int)threadIdx.x % 32;
    int before = 0;
    for (int i = 0; i < each; i++) {
        const bool is_chosen = bits >> i & 1;
        const unsigned all = __ballot_sync(FULL_WARP, is_chosen);
        if (is_chosen) {
            const int at = before + __popc(all & ((1u << lane) - 1));
            experts[at] = i * 32 + lane;
            weights[at] = logits[i * 32 + lane];
        }
        before += __popc(all);
    }
}

/* --- groups ------------------------------------------------------------------------------------- */

/* The sum of a group's two best choices. */
__device__ static float group_score(const float *choices, int n)
{
    float best = -FLT_MAX, second = -FLT_MAX;
    for (int i = 0; i < n; i++) {
        if (choices[i] > best) {
            second = best;
            best = choices[i];
        } else if (choices[i] > second) {
            second = choices[i];
        }
    }
    return n > 1 ? best + second : best;
}

/* Choices of all experts, and which groups are kept. */
template <int each>
__device__ static void judge_groups(const route_tokens &r, const float *logits, token_memory *m)
{
    const int lane = (int)threadIdx.x % 32, in_group = r.n_experts / r.n_groups;
    for (int i = lane; i < r.n_experts; i += 32) {
        m->choices[i] = sigmoid(logits[i]) + r.correction[i];
    }
    __syncwarp();
    uint32_t keys[each];
    UNROLLED
    for (int i = 0; i < each; i++) {
        const int group = i * 32 + lane;
        keys[i] = group < r.n_groups ? key_of(group_score(m->choices + group * in_group, in_group)) : 0;
    }
    const uint32_t kept = choose_largest<each>(keys, r.top_groups);
    for (int i = 0; i < each; i++) {
        const uint32_t word = __ballot_sync(FULL_WARP, kept >> i & 1);
        if (lane == 0) {
            m->kept[i] = word;
        }
    }
    __syncwarp();
}

/* --- a token -------------------------------------------------------------------------------------- */

template <int each>
__device__ static void choose(const route_tokens &r, const float *logits, int32_t *experts, token_memory *m)
{
    const int lane = (int)threadIdx.x % 32;
    const bool in_groups = r.router == ARCH_ROUTER_GROUPS;
    if (in_groups) {
        judge_groups<each>(r, logits, m);
    }
    uint32_t keys[each];
    UNROLLED
    for (int i = 0; i < each; i++) {
        const int expert = i * 32 + lane;
        keys[i] = 0;
        if (expert < r.n_experts && in_groups) {
            const int group = expert / (r.n_experts / r.n_groups);
            // 0, not minus infinity: as the reference implementation has it.
            keys[i] = key_of(m->kept[group / 32] >> group % 32 & 1 ? m->choices[expert] : 0);
        } else if (expert < r.n_experts) {
            keys[i] = key_of(logits[expert]);
        }
    }
    list<each>(choose_largest<each>(keys, r.top_k), logits, experts, m->weights);
}

/* m->weights hold logits; every lane has every sum, in the order of experts. */
__device__ static void weigh(const route_tokens &r, token_memory *m, float *out)
{
    const int lane = (int)threadIdx.x % 32;
    const bool in_groups = r.router == ARCH_ROUTER_GROUPS;
    float largest = m->weights[0], sum = in_groups ? 1e-20f : 0;
    for (int i = 1; i < r.top_k; i++) {
        largest = fmaxf(largest, m->weights[i]);
    }
    __syncwarp();
    for (int i = lane; i < r.top_k; i += 32) {
        const float x = m->weights[i];
        m->weights[i] = in_groups ? sigmoid(x) : exp_of(x - largest);
    }
    __syncwarp();
    for (int i = 0; i < r.top_k; i++) {
        sum += m->weights[i];
    }
    for (int i = lane; i < r.top_k; i += 32) {
        const float w = !in_groups || r.normalise ? m->weights[i] / sum : m->weights[i];
        out[i] = in_groups ? w * r.scale : w;
    }
}

template <int each> __global__ static void route_kernel(route_tokens r)
{
    __shared__ token_memory memory[WARPS];
    token_memory *m = &memory[threadIdx.x / 32];
    const size_t token = blockIdx.x * WARPS + threadIdx.x / 32;
    if (token >= (size_t)r.n) {
        return;
    }
    const float *logits = r.logits + token * (size_t)r.n_experts;
    int32_t *experts = r.experts + token * (size_t)r.top_k;
    if (r.drawn) {
        const int32_t *drawn = r.drawn + token * (size_t)r.top_k;
        for (int i = (int)threadIdx.x % 32; i < r.top_k; i += 32) {
            experts[i] = drawn[i];
            m->weights[i] = logits[drawn[i]];
        }
    } else {
        choose<each>(r, logits, experts, m);
    }
    __syncwarp();
    weigh(r, m, r.weights + token * (size_t)r.top_k);
}

void route_queue(const struct route_tokens *r, struct CUstream_st *stream)
{
    if (r->n <= 0) {
        return;
    }
    const dim3 grid((unsigned)(r->n + WARPS - 1) / WARPS);
    const int each = (r->n_experts + 31) / 32;
    void (*kernel)(route_tokens) = each <= 1   ? route_kernel<1>
                                   : each <= 4 ? route_kernel<4>
                                   : each <= 8 ? route_kernel<8>
                                               : route_kernel<32>;
    launch(kernel, grid, dim3(THREADS), 0, stream, *r);
}

/* --- slots by expert ------------------------------------------------------------------------------ */

/*
 * A block for each expert. It reads the experts of all slots twice: how many are of lower experts, and of this
 * one in each warp's run of slots; then every warp knows where its own go.
 */
__global__ static void sort_kernel(route_slots s)
{
    __shared__ int lower[SORT_THREADS / 32], equal[SORT_THREADS / 32];
    const int expert = (int)blockIdx.x, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int run = (s.n + SORT_THREADS - 1) / SORT_THREADS * 32;
    const int begin = warp * run, end = min(begin + run, s.n);
    int n_lower = 0, n_equal = 0;
    UNROLLED_BY(4)
    for (int i = begin + lane; i < end; i += 32) {
        const int x = s.experts[i];
        n_lower += x < expert;
        n_equal += x == expert;
    }
    n_lower = (int)__reduce_add_sync(FULL_WARP, (unsigned)n_lower);
    n_equal = (int)__reduce_add_sync(FULL_WARP, (unsigned)n_equal);
    if (lane == 0) {
        lower[warp] = n_lower;
        equal[warp] = n_equal;
    }
    __syncthreads();
    int first = 0, at = 0, all = 0;
    for (int i = 0; i < SORT_THREADS / 32; i++) {
        first += lower[i];
        at += i < warp ? equal[i] : 0;
        all += equal[i];
    }
    if (threadIdx.x == 0) {
        s.first[expert] = first;
        if (expert == s.n_experts - 1) {
            s.first[s.n_experts] = first + all;
        }
    }
    at += first;
    for (int i = begin; i < end && n_equal > 0; i += 32) {
        const bool is_mine = i + lane < end && s.experts[i + lane] == expert;
        const unsigned mine = __ballot_sync(FULL_WARP, is_mine);
        if (is_mine) {
            const int to = at + __popc(mine & ((1u << lane) - 1));
            s.sorted[to] = i + lane;
            if (s.of_sorted) {
                s.of_sorted[to] = expert;
            }
            if (s.place) {
                s.place[i + lane] = to;
            }
        }
        at += __popc(mine);
    }
}

void route_sort_queue(const struct route_slots *s, struct CUstream_st *stream)
{
    launch(sort_kernel, dim3((unsigned)s->n_experts), dim3(SORT_THREADS), 0, stream, *s);
}
