#include "workers/cuda/matmul.h"

#include "workers/cuda/device.cuh"
#include "workers/cuda/weights.cuh"

#define WARPS        8
#define THREADS      (32 * WARPS)
#define MATMUL_WARPS 4096 // that share a product's columns until they are so many

/* What all kernels here compute: a product, or those of experts. */
struct product {
    device_matrix w;
    size_t row_bytes;
    int m, split; // warps of a block that share a tile of rows, each with its part of the columns
    bool add;
    int n_experts, slots_per_row; // 0: no experts
    const uint32_t *first, *sorted;
    const void *x;
    float *y;
    const float *bias;
    int64_t ldx, ldy, x_step, y_step;
};

/* --- what a block has to do --------------------------------------------------------------------- */

/* Tokens from .. from + n - 1 (experts: of the sorted slots) times a matrix of those in w. */
struct tile {
    int matrix, from, n;
};

/* The tile of this number if expert e's slots are cut into tiles of n_wide; all threads call it, with e each. */
__device__ static void find_tile(const product &p, int e, int n_wide, int number, int *before, int *sums, tile *out)
{
    const int from = e < p.n_experts ? (int)p.first[e] : 0;
    const int n = e < p.n_experts ? (int)p.first[e + 1] - from : 0;
    const int mine = (n + n_wide - 1) / n_wide, lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int sum = mine;
    for (int step = 1; step < 32; step *= 2) {
        const int lower = __shfl_up_sync(FULL_WARP, sum, (unsigned)step);
        sum += lane >= step ? lower : 0;
    }
    if (lane == 31) {
        sums[warp] = sum;
    }
    __syncthreads();
    int begin = *before + sum - mine;
    for (int i = 0; i < WARPS; i++) {
        begin += i < warp ? sums[i] : 0;
        *before += sums[i];
    }
    if (number >= begin && number < begin + mine) {
        const int skip = (number - begin) * n_wide;
        *out = {e, from + skip, min(n - skip, n_wide)};
    }
    __syncthreads();
}

/* False where this block has none. The same for all its threads. */
__device__ static bool tile_of(const product &p, int n_wide, tile *out)
{
    const int number = (int)blockIdx.y;
    if (p.n_experts == 0) {
        *out = {(int)blockIdx.z, number * n_wide, min(p.m - number * n_wide, n_wide)};
        return true;
    }
    __shared__ tile found;
    __shared__ int sums[WARPS];
    if (threadIdx.x == 0) {
        found = {0, 0, 0};
    }
    __syncthreads();
    int before = 0;
    for (int e = 0; e < p.n_experts && before <= number; e += THREADS) {
        find_tile(p, e + (int)threadIdx.x, n_wide, number, &before, sums, &found);
    }
    *out = found;
    return out->n > 0;
}

/* Rows of x and of y of a tile's token. */
__device__ __forceinline__ int64_t x_row(const product &p, const tile &t, int token)
{
    const int at = t.from + token;
    return p.n_experts ? (int64_t)(p.sorted[at] / (uint32_t)p.slots_per_row) : at;
}

__device__ __forceinline__ void give(const product &p, const tile &t, int row, int token, float v)
{
    if (row < p.w.n_rows && token < t.n) {
        const int at = t.from + token;
        float *y = p.y + (p.n_experts ? (int64_t)p.sorted[at] : at) * p.ldy;
        y += (p.n_experts ? 0 : t.matrix * p.y_step) + row;
        if (p.bias) {
            v += p.bias[(int64_t)t.matrix * p.w.n_rows + row];
        }
        *y = p.add ? *y + v : v;
    }
}

/* --- tensor cores: weights are a, 16 rows a tile; inputs are b, 8 tokens a column --------------------- */

/* 8 values of a row of n at a column that is a multiple of 8; those past the row's end are 0. */
__device__ __forceinline__ uint4 inputs_at(const bf16 *row, int column, int n)
{
    if (column >= n) {
        return make_uint4(0, 0, 0, 0);
    }
    uint4 v = __ldg((const uint4 *)(row + column));
    if (column + 8 > n) {
        const int left = n - column;
        v.x &= left > 1 ? ~0u : 0xffffu;
        v.y &= left > 3 ? ~0u : left > 2 ? 0xffffu : 0;
        v.z &= left > 5 ? ~0u : left > 4 ? 0xffffu : 0;
        v.w &= left > 6 ? 0xffffu : 0;
    }
    return v;
}

/* Of a lane: g = lane / 4, t = lane % 4. Rows g and g + 8 of each tile, tokens g of each 8. */
template <enum arch_dtype dtype, int N, int R> struct lane_work {
    typedef weights<dtype> format;
    static constexpr int AHEAD = R == 1 ? 4 : 1; // steps whose weights are read together

    const unsigned char *rows[R][2]; // at this lane's 16 bytes of the first step
    int64_t numbers[R][2];           // of these rows in the stacked matrix
    const bf16 *inputs[N];
    float sums[R][N][4]; // as mma_bf16's d
    int t, end;          // bytes of a row from rows[][]

    __device__ __forceinline__ void begin(const product &p, const tile &at, int row)
    {
        const int lane = (int)threadIdx.x % 32, g = lane / 4;
        t = lane % 4;
        end = (int)p.row_bytes - 16 * t;
        UNROLLED
        for (int i = 0; i < 2 * R; i++) {
            const int mine = min(row + i / 2 * 16 + i % 2 * 8 + g, p.w.n_rows - 1);
            numbers[i / 2][i % 2] = (int64_t)at.matrix * p.w.n_rows + mine;
            rows[i / 2][i % 2] = (const unsigned char *)p.w.data +
                                 (size_t)numbers[i / 2][i % 2] * p.row_bytes + 16 * t;
        }
        const bf16 *x = (const bf16 *)p.x + (p.n_experts ? 0 : at.matrix * p.x_step);
        UNROLLED
        for (int n = 0; n < N; n++) {
            inputs[n] = x + x_row(p, at, min(8 * n + g, at.n - 1)) * p.ldx;
            UNROLLED
            for (int i = 0; i < 4 * R; i++) {
                sums[i / 4][n][i % 4] = 0;
            }
        }
    }

    /* Weights of a piece: the operand of two instructions. */
    __device__ __forceinline__ static void operands(const uint4 w[2], int piece, uint32_t a[2][4])
    {
        uint32_t upper[4], lower[4];
        format::unpack(w[0], piece, upper);
        format::unpack(w[1], piece, lower);
        UNROLLED
        for (int i = 0; i < 2; i++) {
            a[i][0] = upper[2 * i], a[i][1] = lower[2 * i];
            a[i][2] = upper[2 * i + 1], a[i][3] = lower[2 * i + 1];
        }
    }

    __device__ __forceinline__ static void product_of(float d[4], const uint32_t a[2][4], const uint4 &x)
    {
        const uint32_t b[2][2] = {{x.x, x.y}, {x.z, x.w}};
        mma_bf16(d, a[0], b[0]);
        mma_bf16(d, a[1], b[1]);
    }

    /* Pieces first .. first + K - 1 of a step, which share factors (there are none: K is 1). */
    template <int K>
    __device__ __forceinline__ void pieces(const product &p, const uint4 w[R][2],
                                           const typename format::raw f[R][2], int step, int first)
    {
        uint32_t a[R][K][2][4];
        UNROLLED
        for (int r = 0; r < R; r++) {
            UNROLLED
            for (int k = 0; k < K; k++) {
                operands(w[r], first + k, a[r][k]);
            }
        }
        UNROLLED
        for (int n = 0; n < N; n++) {
            uint4 x[K];
            UNROLLED
            for (int k = 0; k < K; k++) {
                const int column = step * format::COLUMNS + format::column(t, first + k);
                x[k] = inputs_at(inputs[n], column, p.w.n_cols);
            }
            UNROLLED
            for (int r = 0; r < R; r++) {
                if constexpr (format::SUMMED == 0) {
                    product_of(sums[r][n], a[r][0], x[0]);
                    continue;
                }
                float part[4] = {0, 0, 0, 0};
                UNROLLED
                for (int k = 0; k < K; k++) {
                    product_of(part, a[r][k], x[k]);
                }
                UNROLLED
                for (int i = 0; i < 4; i++) {
                    sums[r][n][i] += format::factor(f[r][i / 2], first) * part[i];
                }
            }
        }
    }

    /* What is read of some steps before any of it is used. */
    struct ahead {
        uint4 w[AHEAD][R][2];
        typename format::raw f[AHEAD][R][2];
    };

    __device__ __forceinline__ void fetch(const product &p, int step, int stride, int n_steps, ahead *out)
    {
        UNROLLED
        for (int u = 0; u < AHEAD; u++) {
            const int at = step + u * stride;
            UNROLLED
            for (int i = 0; i < 2 * R; i++) {
                const bool is_there = at < n_steps && at * 64 < end;
                out->w[u][i / 2][i % 2] = is_there ? load_once(rows[i / 2][i % 2] + (size_t)at * 64)
                                                   : make_uint4(0, 0, 0, 0);
                out->f[u][i / 2][i % 2] = format::load(p.w, numbers[i / 2][i % 2], min(at, n_steps - 1));
            }
        }
    }

    __device__ __forceinline__ void use(const product &p, int step, int stride, const ahead &in)
    {
        constexpr int K = format::SUMMED > 0 ? format::SUMMED : 1;
        UNROLLED
        for (int u = 0; u < AHEAD; u++) {
            UNROLLED_BY(N < 4 ? format::PIECES : 1)
            for (int piece = 0; piece < format::PIECES; piece += K) {
                pieces<K>(p, in.w[u], in.f[u], step + u * stride, piece);
            }
        }
    }

    /* Steps first, first + stride, ... of n_steps. */
    __device__ __forceinline__ void run(const product &p, int first, int stride, int n_steps)
    {
        if (first >= n_steps) {
            return;
        }
        ahead now;
        fetch(p, first, stride, n_steps, &now);
        UNROLLED_BY(1)
        for (int step = first; step < n_steps; step += AHEAD * stride) {
            ahead next = now;
            if (R > 1) { // few warps that each have much to do: the next weights are on their way meanwhile
                fetch(p, step + AHEAD * stride, stride, n_steps, &next);
            }
            use(p, step, stride, now);
            if (R == 1 && step + AHEAD * stride < n_steps) {
                fetch(p, step + AHEAD * stride, stride, n_steps, &next);
            }
            now = next;
        }
    }
};

/*
 * A block has 8 / split tiles of 16 R rows, and split warps for each, which take its steps in turn and are
 * summed in their order. partial is (warps, r, n, 4, lanes): what each has, as the instructions leave it.
 */
template <enum arch_dtype dtype, int N, int R>
__global__ __launch_bounds__(THREADS, R == 1 ? 2 : 1) static void product_kernel(product p)
{
    constexpr int AT_ONCE = N < 4 ? N : 4, SIZE = R * AT_ONCE * 4 * 32; // of tokens' columns, for the memory's size
    __shared__ float partial[WARPS][SIZE];
    tile at;
    if (!tile_of(p, 8 * N, &at)) {
        return;
    }
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, tiles = WARPS / p.split;
    const int row = ((int)blockIdx.x * tiles + warp / p.split) * 16 * R;
    lane_work<dtype, N, R> work;
    work.begin(p, at, row);
    const int n_steps = (p.w.n_cols + weights<dtype>::COLUMNS - 1) / weights<dtype>::COLUMNS;
    work.run(p, warp % p.split, p.split, row < p.w.n_rows ? n_steps : 0);
    if (p.split == 1) {
        UNROLLED
        for (int i = 0; i < R * N * 4; i++) {
            const int r = i / 4 / N, n = i / 4 % N, j = i % 4;
            give(p, at, row + 16 * r + 8 * (j / 2) + lane / 4, 8 * n + 2 * (lane % 4) + j % 2,
                 work.sums[r][n][j]);
        }
        return;
    }
    UNROLLED
    for (int n0 = 0; n0 < N; n0 += AT_ONCE) {
        UNROLLED
        for (int i = 0; i < R * AT_ONCE * 4; i++) {
            partial[warp][i * 32 + lane] = work.sums[i / 4 / AT_ONCE][n0 + i / 4 % AT_ONCE][i % 4];
        }
        __syncthreads();
        for (int o = (int)threadIdx.x; o < tiles * SIZE; o += THREADS) {
            const int mine = o / SIZE, i = o % SIZE / 32, r = i / 4 / AT_ONCE, n = i / 4 % AT_ONCE;
            float sum = 0;
            for (int s = 0; s < p.split; s++) {
                sum += partial[mine * p.split + s][o % SIZE];
            }
            give(p, at, (((int)blockIdx.x * tiles + mine) * R + r) * 16 + 8 * (i % 4 / 2) + lane / 4,
                 8 * (n0 + n) + 2 * (lane % 4) + i % 2, sum);
        }
        __syncthreads();
    }
}

/* --- float32 ------------------------------------------------------------------------------------ */

#define F32_ROWS   4
#define F32_TOKENS 8

/* 4 values at a multiple of 4; those past the row's end are 0. */
__device__ __forceinline__ float4 floats_at(const float *row, int column, int n)
{
    if (column >= n) {
        return make_float4(0, 0, 0, 0);
    }
    float4 v = __ldg((const float4 *)(row + column));
    const int left = n - column;
    v.y = left > 1 ? v.y : 0;
    v.z = left > 2 ? v.z : 0;
    v.w = left > 3 ? v.w : 0;
    return v;
}

/* This lane's part of 4 rows times 8 tokens: steps of 128 columns. */
__device__ static void float_sums(const product &p, const tile &at, int row, int first,
                                  float sums[F32_ROWS][F32_TOKENS])
{
    const size_t ldw = p.row_bytes / sizeof(float);
    const float *rows[F32_ROWS], *inputs[F32_TOKENS];
    UNROLLED
    for (int i = 0; i < F32_ROWS; i++) {
        const int mine = min(row + i, p.w.n_rows - 1);
        rows[i] = (const float *)p.w.data + (size_t)((int64_t)at.matrix * p.w.n_rows + mine) * ldw;
    }
    UNROLLED
    for (int i = 0; i < F32_TOKENS; i++) {
        inputs[i] = (const float *)p.x + (p.n_experts ? 0 : at.matrix * p.x_step) +
                    x_row(p, at, min(i, at.n - 1)) * p.ldx;
    }
    for (int k = (first * 32 + (int)threadIdx.x % 32) * 4; k < p.w.n_cols; k += p.split * 128) {
        float4 w[F32_ROWS];
        UNROLLED
        for (int i = 0; i < F32_ROWS; i++) {
            w[i] = floats_at(rows[i], k, p.w.n_cols);
        }
        UNROLLED
        for (int j = 0; j < F32_TOKENS; j++) {
            const float4 x = floats_at(inputs[j], k, p.w.n_cols);
            UNROLLED
            for (int i = 0; i < F32_ROWS; i++) {
                sums[i][j] += w[i].x * x.x + w[i].y * x.y + w[i].z * x.z + w[i].w * x.w;
            }
        }
    }
}

__global__ __launch_bounds__(THREADS) static void float_kernel(product p)
{
    constexpr int SIZE = F32_ROWS * F32_TOKENS;
    __shared__ float partial[WARPS][SIZE];
    tile at;
    if (!tile_of(p, F32_TOKENS, &at)) {
        return;
    }
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, tiles = WARPS / p.split;
    float sums[F32_ROWS][F32_TOKENS] = {};
    float_sums(p, at, ((int)blockIdx.x * tiles + warp / p.split) * F32_ROWS, warp % p.split, sums);
    UNROLLED
    for (int i = 0; i < SIZE; i++) {
        const float sum = warp_sum(sums[i % F32_ROWS][i / F32_ROWS]);
        if (lane == 0) {
            partial[warp][i] = sum;
        }
    }
    __syncthreads();
    const int mine = (int)threadIdx.x / SIZE, i = (int)threadIdx.x % SIZE;
    if (mine < tiles) {
        float sum = 0;
        for (int s = 0; s < p.split; s++) {
            sum += partial[mine * p.split + s][i];
        }
        give(p, at, ((int)blockIdx.x * tiles + mine) * F32_ROWS + i % F32_ROWS, i / F32_ROWS, sum);
    }
}

/* --- which kernel ------------------------------------------------------------------------------- */

static unsigned ceil_div(int64_t a, int64_t b)
{
    return (unsigned)((a + b - 1) / b);
}

/* tile_rows x n_wide is what a warp computes; n_tiles (of tokens) and n_batch are the grid's others. */
static void launch_product(void (*kernel)(product), product p, int tile_rows, int step_columns, unsigned n_tiles,
                           unsigned n_batch, cudaStream_t stream)
{
    const unsigned row_tiles = ceil_div(p.w.n_rows, tile_rows), n_steps = ceil_div(p.w.n_cols, step_columns);
    const uint64_t all = (uint64_t)row_tiles * n_batch * (p.n_experts ? n_tiles : 1);
    p.row_bytes = device_matrix_row_bytes(p.w.dtype, p.w.n_cols);
    p.split = 1;
    while (p.split < WARPS && all * (unsigned)p.split < MATMUL_WARPS && 2 * (unsigned)p.split <= n_steps) {
        p.split *= 2;
    }
    launch(kernel, dim3(ceil_div(row_tiles, WARPS / p.split), n_tiles, n_batch), dim3(THREADS), 0, stream, p);
}

/* Tiles of tokens: as many as there can be, where experts share them in a way that only the device knows. */
static unsigned tiles_of(const product &p, int n_wide)
{
    if (p.n_experts == 0) {
        return ceil_div(p.m, n_wide);
    }
    const int n_busy = p.m < p.n_experts ? p.m : p.n_experts; // each has a tile that may not be full
    return (unsigned)(n_busy + (p.m - n_busy) / n_wide);
}

template <int N, int R> static void queue_wide(const product &p, unsigned n_batch, cudaStream_t stream)
{
    const unsigned n = tiles_of(p, 8 * N);
    switch (p.w.dtype) {
    case ARCH_BF16:
        return launch_product(product_kernel<ARCH_BF16, N, R>, p, 16 * R, 32, n, n_batch, stream);
    case ARCH_FP8:
        return launch_product(product_kernel<ARCH_FP8, N, R>, p, 16 * R, 64, n, n_batch, stream);
    case ARCH_INT8:
        return launch_product(product_kernel<ARCH_INT8, N, R>, p, 16 * R, 64, n, n_batch, stream);
    case ARCH_INT4:
        return launch_product(product_kernel<ARCH_INT4, N, R>, p, 16 * R, 128, n, n_batch, stream);
    default:
        return launch_product(product_kernel<ARCH_MXFP4, N, R>, p, 16 * R, 128, n, n_batch, stream);
    }
}

/* n_wide: tokens that most products have, at most. */
static void queue_product(const product &p, int n_wide, unsigned n_batch, cudaStream_t stream)
{
    if (p.m <= 0) {
        return;
    }
    if (p.w.dtype == ARCH_F32) {
        launch_product(float_kernel, p, F32_ROWS, 128, tiles_of(p, F32_TOKENS), n_batch, stream);
    } else if (n_wide <= 8) {
        queue_wide<1, 1>(p, n_batch, stream);
    } else if (n_wide <= 16) {
        queue_wide<2, 1>(p, n_batch, stream);
    } else if (n_wide <= 32) {
        queue_wide<4, 2>(p, n_batch, stream);
    } else {
        queue_wide<8, 2>(p, n_batch, stream);
    }
}

void matmul_queue(const struct matmul *m, struct CUstream_st *stream)
{
    product p = {};
    p.w = m->w, p.m = m->m, p.add = m->add;
    p.x = m->x, p.y = m->y, p.bias = m->bias;
    p.ldx = m->ldx, p.ldy = m->ldy, p.x_step = m->x_step, p.y_step = m->y_step;
    queue_product(p, m->m, m->n_batch > 1 ? (unsigned)m->n_batch : 1, stream);
}

void matmul_experts_queue(const struct matmul_experts *m, struct CUstream_st *stream)
{
    product p = {};
    p.w = m->w, p.m = m->n_tokens * m->top_k;
    p.n_experts = m->n_experts, p.slots_per_row = m->slots_per_row, p.first = m->first, p.sorted = m->sorted;
    p.x = m->x, p.y = m->y, p.bias = m->bias;
    p.ldx = m->ldx, p.ldy = m->ldy;
    // An expert has n_tokens slots at most; some have twice the mean.
    const int likely = (int)ceil_div(2 * (int64_t)p.m, m->n_experts);
    queue_product(p, likely < m->n_tokens ? likely : m->n_tokens, 1, stream);
}

/* --- sums over experts -------------------------------------------------------------------------- */

__global__ static void mix_kernel(matmul_mix p)
{
    __shared__ int slots[MATMUL_MIX_MOST]; // by rising expert
    const int64_t token = blockIdx.y, begin = token * p.top_k;
    const int i = (int)threadIdx.x, column = (int)blockIdx.x * THREADS + i;
    if (i < p.top_k) {
        int rank = 0;
        for (int j = 0; j < p.top_k; j++) {
            rank += p.chosen[begin + j] < p.chosen[begin + i];
        }
        slots[rank] = i;
    }
    __syncthreads();
    if (column < p.n_cols) {
        float *out = p.out + token * p.ldout + column;
        float sum = p.add ? *out : 0;
        for (int j = 0; j < p.top_k; j++) {
            sum += p.weights[begin + slots[j]] * p.y[(begin + slots[j]) * p.ldy + column];
        }
        *out = sum;
    }
}

void matmul_mix_queue(const struct matmul_mix *p, struct CUstream_st *stream)
{
    if (p->n_tokens > 0) {
        launch(mix_kernel, dim3(ceil_div(p->n_cols, THREADS), (unsigned)p->n_tokens), dim3(THREADS), 0, stream, *p);
    }
}

/* --- weights as bfloat16 ------------------------------------------------------------------------ */

/* A thread has 16 bytes of a row. */
template <enum arch_dtype dtype> __global__ static void widen_kernel(matmul_widen p, size_t row_bytes)
{
    typedef weights<dtype> format;
    const int unit = (int)(blockIdx.x * THREADS + threadIdx.x), step = unit / 4;
    if ((size_t)unit * 16 >= row_bytes) {
        return;
    }
    const int64_t row = p.first + (int64_t)blockIdx.y;
    const uint4 v = load_once((const unsigned char *)p.w.data + (size_t)row * row_bytes + (size_t)unit * 16);
    const typename format::raw f = format::load(p.w, row, step);
    bf16 *out = p.out + (int64_t)blockIdx.y * p.ld;
    for (int piece = 0; piece < format::PIECES; piece++) {
        const int column = step * format::COLUMNS + format::column(unit % 4, piece);
        const float factor = format::factor(f, piece);
        uint32_t pairs[4];
        format::unpack(v, piece, pairs);
        for (int i = 0; i < 4; i++) {
            const int left = p.w.n_cols - column - 2 * i;
            pairs[i] = bf16_pair(left > 0 ? low_half(pairs[i]) * factor : 0,
                                 left > 1 ? high_half(pairs[i]) * factor : 0);
        }
        if (column < p.w.n_cols) {
            *(uint4 *)(out + column) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        }
    }
}

void matmul_widen_queue(const struct matmul_widen *p, struct CUstream_st *stream)
{
    if (p->n <= 0) {
        return;
    }
    void (*kernel)(matmul_widen, size_t) = p->w.dtype == ARCH_BF16   ? widen_kernel<ARCH_BF16>
                                   : p->w.dtype == ARCH_FP8  ? widen_kernel<ARCH_FP8>
                                   : p->w.dtype == ARCH_INT8 ? widen_kernel<ARCH_INT8>
                                   : p->w.dtype == ARCH_INT4 ? widen_kernel<ARCH_INT4>
                                                             : widen_kernel<ARCH_MXFP4>;
    const size_t row_bytes = device_matrix_row_bytes(p->w.dtype, p->w.n_cols);
    launch(kernel, dim3(ceil_div((int64_t)row_bytes / 16, THREADS), (unsigned)p->n), dim3(THREADS), 0, stream, *p,
           row_bytes);
}
