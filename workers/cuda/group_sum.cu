#include "workers/cuda/group_sum.h"

#include "workers/cuda/device.cuh"

#define THREADS 256

/*
 * Waiting and buffers. Block b of a rank waits for block b of each other rank, and no block for another
 * one of its own kernel, which may not run yet. Call c (from 1) meets at 2c - 1, and in two steps at 2c
 * again; `arrived` only grows, so a rank that is ahead is never missed, nor are calls that have fewer blocks.
 *
 * Why two buffers are enough, and no wait at the end: call c uses buffer c % 2. It is written again in call
 * c + 2, when this rank's call c + 1 has ended, so at least its block 0 has passed the first wait there: every
 * other rank had begun call c + 1. Kernels of a stream do not overlap, so all blocks of its call c had ended,
 * and with them their reading. It holds whatever part of a buffer a block has in either call.
 */
struct rank_view {
    struct group_sum_room *own;
    uint32_t call;
    size_t buffer_at; // of this call, behind a room's flags
};

static __device__ rank_view view_of(const group_sum_ranks &r)
{
    rank_view v;
    v.own = r.own;
    v.call = v.own->n_calls + 1;
    v.buffer_at = v.call % 2 * r.max_bytes;
    return v;
}

template <class unit> static __device__ unit *buffer_of(const rank_view &v, int rank)
{
    return (unit *)((unsigned char *)(v.own->rooms[rank] + 1) + v.buffer_at);
}

/* Whether another rank came this far before the limit; some wait that was given up ends the others, too. */
static __device__ bool comes(const group_sum_ranks &r, const rank_view &v, int from, uint32_t number)
{
    const uint32_t *arrived = &v.own->arrived[blockIdx.x][from];
    const uint64_t begin_ns = device_now_ns();
    while ((int32_t)(load_acquire_system(arrived) - number) < 0) {
        if (load_acquire_system(&v.own->is_late) != 0) {
            return false;
        }
        if (device_now_ns() - begin_ns > r.limit_ns) {
            store_release_system(&v.own->is_late, 1);
            store_release_system(r.late, 1 + (uint32_t)from);
            return false;
        }
        device_pause();
    }
    return true;
}

/*
 * All threads: what the block has written is there for the others, and what theirs have for this one. The
 * first lanes of a warp speak for one rank each; all have spoken before any waits.
 */
static __device__ bool meet(const group_sum_ranks &r, const rank_view &v, uint32_t number)
{
    const int other = (int)threadIdx.x;
    const bool speaks = other < r.size && other != r.index;
    bool missed = false;
    __syncthreads();
    if (speaks) {
        store_release_system(&v.own->rooms[other]->arrived[blockIdx.x][r.index], number);
    }
    if (threadIdx.x < 32) {
        __syncwarp();
    }
    if (speaks) {
        missed = !comes(r, v, other, number);
    }
    return !__syncthreads_or(missed);
}

/* Whether a wait was given up before, or the others are not known yet: the same answer for all threads. */
static __device__ bool is_over(const rank_view &v)
{
    const bool is = threadIdx.x == 0 && (!v.own->rooms[0] || load_acquire_system(&v.own->is_late) != 0);
    return __syncthreads_or(is);
}

/* The block has ended its call; the last one that does counts it, when all have read its number. */
static __device__ void count(const rank_view &v)
{
    if (threadIdx.x == 0 && atomicAdd(&v.own->n_ended, 1u) == gridDim.x - 1) {
        v.own->n_ended = 0;
        v.own->n_calls = v.call;
    }
}

/* --- sums --------------------------------------------------------------------------------------- */

/* Values are moved by fours: the last of them, where n is no multiple, are not there. */
static __device__ float4 load_four(const float *x, int64_t n, int64_t i)
{
    if (4 * i + 4 <= n) {
        return ((const float4 *)x)[i];
    }
    const float *end = x + 4 * i;
    const int64_t left = n - 4 * i;
    return make_float4(end[0], left > 1 ? end[1] : 0, left > 2 ? end[2] : 0, 0);
}

static __device__ void store_four(float *x, int64_t n, int64_t i, float4 v)
{
    if (4 * i + 4 <= n) {
        ((float4 *)x)[i] = v;
        return;
    }
    float *end = x + 4 * i;
    end[0] = v.x;
    if (n - 4 * i > 1) {
        end[1] = v.y;
    }
    if (n - 4 * i > 2) {
        end[2] = v.z;
    }
}

/* All ranks' values are under way before the first is added; in the order of the ranks. */
static __device__ float4 add_up(const group_sum_ranks &ranks, const rank_view &v, int64_t i)
{
    float4 each[GROUP_SUM_MOST];
    UNROLLED
    for (int r = 0; r < GROUP_SUM_MOST; r++) {
        if (r < ranks.size) {
            each[r] = buffer_of<const float4>(v, r)[i];
        }
    }
    float4 sum = each[0];
    UNROLLED
    for (int r = 1; r < GROUP_SUM_MOST; r++) {
        if (r < ranks.size) {
            sum = make_float4(__fadd_rn(sum.x, each[r].x), __fadd_rn(sum.y, each[r].y),
                              __fadd_rn(sum.z, each[r].z), __fadd_rn(sum.w, each[r].w));
        }
    }
    return sum;
}

/* What a block has of n fours, or of those of one slice. */
struct part {
    int64_t begin, end;
};

static __device__ part part_of(int64_t begin, int64_t end)
{
    const int64_t n = end - begin, b = blockIdx.x, of = gridDim.x;
    return {begin + n * b / of, begin + n * (b + 1) / of};
}

static __device__ part part_of_slice(int64_t n_fours, int slice, int size)
{
    return part_of(n_fours * slice / size, n_fours * (slice + 1) / size);
}

static __device__ void bring(const group_sum_ranks &r, const rank_view &v, const float *x, int64_t n,
                             part p)
{
    float4 *to = buffer_of<float4>(v, r.index);
    for (int64_t i = p.begin + threadIdx.x; i < p.end; i += THREADS) {
        to[i] = load_four(x, n, i);
    }
}

struct sum_call {
    group_sum_ranks ranks;
    float *x; // (n)
    int64_t n;
};

/* Every rank reads all that the others bring. */
__global__ static void __launch_bounds__(THREADS) sum_kernel(const __grid_constant__ sum_call c)
{
    const rank_view v = view_of(c.ranks);
    const part p = part_of(0, (c.n + 3) / 4);
    if (is_over(v)) {
        return;
    }
    bring(c.ranks, v, c.x, c.n, p);
    if (!meet(c.ranks, v, 2 * v.call - 1)) {
        return;
    }
    for (int64_t i = p.begin + threadIdx.x; i < p.end; i += THREADS) {
        store_four(c.x, c.n, i, add_up(c.ranks, v, i));
    }
    count(v);
}

/*
 * Each rank adds up its slice, puts the sum where its own values of that slice were (nobody else reads
 * those), and reads the other slices' sums. Block b has part b of every slice.
 */
__global__ static void __launch_bounds__(THREADS) sum_in_two_steps_kernel(const __grid_constant__ sum_call c)
{
    const group_sum_ranks &r = c.ranks;
    const rank_view v = view_of(r);
    const int64_t n_fours = (c.n + 3) / 4;
    if (is_over(v)) {
        return;
    }
    for (int s = 0; s < r.size; s++) {
        bring(r, v, c.x, c.n, part_of_slice(n_fours, s, r.size));
    }
    if (!meet(r, v, 2 * v.call - 1)) {
        return;
    }
    const part own = part_of_slice(n_fours, r.index, r.size);
    for (int64_t i = own.begin + threadIdx.x; i < own.end; i += THREADS) {
        const float4 sum = add_up(r, v, i);
        buffer_of<float4>(v, r.index)[i] = sum;
        store_four(c.x, c.n, i, sum);
    }
    if (!meet(r, v, 2 * v.call)) {
        return;
    }
    for (int s = 0; s < r.size; s++) {
        const part p = part_of_slice(n_fours, s, r.size);
        for (int64_t i = p.begin + threadIdx.x; s != r.index && i < p.end; i += THREADS) {
            store_four(c.x, c.n, i, buffer_of<const float4>(v, s)[i]);
        }
    }
    count(v);
}

/* For so many units, the same number on all ranks. */
static dim3 blocks_for(int64_t n)
{
    const int64_t blocks = (n + THREADS - 1) / THREADS, most = GROUP_SUM_BLOCKS;
    return dim3((unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most));
}

void group_sum_queue(const struct group_sum_ranks *ranks, float *x, int64_t n, bool in_two_steps,
                     struct CUstream_st *stream)
{
    launch(in_two_steps ? sum_in_two_steps_kernel : sum_kernel, blocks_for((n + 3) / 4), dim3(THREADS), 0,
           stream, sum_call{*ranks, x, n});
}

/* --- gathers ------------------------------------------------------------------------------------ */

template <class unit> struct gather_call {
    group_sum_ranks ranks;
    const unit *mine; // (n)
    unit *all;        // (size, n)
    int64_t n;
};

template <class unit>
__global__ static void __launch_bounds__(THREADS) gather_kernel(const __grid_constant__ gather_call<unit> c)
{
    const rank_view v = view_of(c.ranks);
    const part p = part_of(0, c.n);
    if (is_over(v)) {
        return;
    }
    for (int64_t i = p.begin + threadIdx.x; i < p.end; i += THREADS) {
        buffer_of<unit>(v, c.ranks.index)[i] = c.mine[i];
    }
    if (!meet(c.ranks, v, 2 * v.call - 1)) {
        return;
    }
    for (int s = 0; s < c.ranks.size; s++) {
        for (int64_t i = p.begin + threadIdx.x; i < p.end; i += THREADS) {
            c.all[s * c.n + i] = buffer_of<const unit>(v, s)[i];
        }
    }
    count(v);
}

template <class unit>
static void gather(const group_sum_ranks *ranks, const void *mine, size_t n_bytes, void *all,
                   struct CUstream_st *stream)
{
    const int64_t n = (int64_t)(n_bytes / sizeof(unit));
    launch(gather_kernel<unit>, blocks_for(n), dim3(THREADS), 0, stream,
           gather_call<unit>{*ranks, (const unit *)mine, (unit *)all, n});
}

void group_sum_gather_queue(const struct group_sum_ranks *ranks, const void *mine, size_t n_bytes,
                            void *all, struct CUstream_st *stream)
{
    if (n_bytes % sizeof(uint4) == 0) {
        gather<uint4>(ranks, mine, n_bytes, all, stream);
    } else if (n_bytes % sizeof(uint32_t) == 0) {
        gather<uint32_t>(ranks, mine, n_bytes, all, stream);
    } else {
        gather<unsigned char>(ranks, mine, n_bytes, all, stream);
    }
}

/* --- columns ------------------------------------------------------------------------------------ */

struct columns_call {
    group_sum_ranks ranks;
    group_sum_columns columns;
};

/* A rank's values lie in its buffer as in `mine`; block b of every rank has part b of them. */
__global__ static void __launch_bounds__(THREADS) columns_kernel(const __grid_constant__ columns_call c)
{
    const rank_view v = view_of(c.ranks);
    const group_sum_columns &k = c.columns;
    if (is_over(v)) {
        return;
    }
    const part own = part_of(0, (int64_t)k.n_rows * k.n[c.ranks.index]);
    float *to = buffer_of<float>(v, c.ranks.index);
    for (int64_t i = own.begin + threadIdx.x; i < own.end; i += THREADS) {
        to[i] = k.mine[i];
    }
    if (!meet(c.ranks, v, 2 * v.call - 1)) {
        return;
    }
    for (int s = 0; s < c.ranks.size; s++) {
        const part p = part_of(0, (int64_t)k.n_rows * k.n[s]);
        const float *from = buffer_of<const float>(v, s);
        for (int64_t i = p.begin + threadIdx.x; i < p.end; i += THREADS) {
            const int64_t row = i / k.n[s];
            k.all[row * k.ld + k.first[s] + (i - row * k.n[s])] = from[i];
        }
    }
    count(v);
}

void group_sum_columns_queue(const struct group_sum_ranks *ranks,
                             const struct group_sum_columns *columns, struct CUstream_st *stream)
{
    int64_t most = 0;
    for (int r = 0; r < ranks->size; r++) {
        const int64_t n = (int64_t)columns->n_rows * columns->n[r];
        most = n > most ? n : most;
    }
    launch(columns_kernel, blocks_for(most), dim3(THREADS), 0, stream, columns_call{*ranks, *columns});
}

struct place_call {
    group_sum_columns columns;
    const float *parts;
    int64_t each;
};

__global__ static void __launch_bounds__(THREADS) place_kernel(const __grid_constant__ place_call c)
{
    const group_sum_columns &k = c.columns;
    const int rank = blockIdx.y;
    const int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (at < (int64_t)k.n_rows * k.n[rank]) {
        const int64_t row = at / k.n[rank];
        k.all[row * k.ld + k.first[rank] + (at - row * k.n[rank])] = c.parts[rank * c.each + at];
    }
}

void group_sum_place_queue(const struct group_sum_columns *columns, int size, const float *parts, int64_t each,
                           struct CUstream_st *stream)
{
    int64_t most = 0;
    for (int r = 0; r < size; r++) {
        const int64_t n = (int64_t)columns->n_rows * columns->n[r];
        most = n > most ? n : most;
    }
    const dim3 blocks((unsigned)((most + THREADS - 1) / THREADS), (unsigned)size);
    launch(place_kernel, blocks, dim3(THREADS), 0, stream, place_call{*columns, parts, each});
}
