#include "workers/cuda/embed.h"

#include "workers/cuda/weights.cuh"

extern "C" {
#include "core/err.h"
}

#define THREADS 128
#define EIGHT   8 // values that lie together

/* Of one row: n values from column `first` on, of which there are `wide`. */
template <int n> __device__ static void put(float *x, int first, int wide, const float *values)
{
    if (wide % 4 == 0 && first + n <= wide) {
        UNROLLED
        for (int i = 0; i < n; i += 4) {
            *(float4 *)(x + first + i) = make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
        }
        return;
    }
    for (int i = 0; i < n && first + i < wide; i++) {
        x[first + i] = values[i];
    }
}

/* A thread's 16 bytes of a table's row: the values that they are, to their places in x. */
template <enum arch_dtype dtype> struct piece_of_row {
    __device__ static void move(const embed_rows &e, int64_t row, int at, const uint4 &v, float *x)
    {
        const int step = at / 4, lane = at % 4;
        const typename weights<dtype>::raw factors = weights<dtype>::load(e.table, row, step);
        UNROLLED
        for (int p = 0; p < weights<dtype>::PIECES; p++) {
            const float factor = weights<dtype>::factor(factors, p);
            uint32_t pairs[EIGHT / 2];
            float values[EIGHT];
            weights<dtype>::unpack(v, p, pairs);
            for (int i = 0; i < EIGHT; i++) {
                const float code = i % 2 ? high_half(pairs[i / 2]) : low_half(pairs[i / 2]);
                values[i] = code * factor * e.scale;
            }
            put<EIGHT>(x, step * weights<dtype>::COLUMNS + weights<dtype>::column(lane, p), e.table.n_cols, values);
        }
    }
};

template <> struct piece_of_row<ARCH_F32> {
    __device__ static void move(const embed_rows &e, int64_t, int at, const uint4 &v, float *x)
    {
        const float values[4] = {__uint_as_float(v.x) * e.scale, __uint_as_float(v.y) * e.scale,
                                 __uint_as_float(v.z) * e.scale, __uint_as_float(v.w) * e.scale};
        put<4>(x, at * 4, e.table.n_cols, values);
    }
};

/* Block (x, y): token x; each thread has 16 bytes of its row, from y THREADS on, or of another rank's row zeros. */
template <enum arch_dtype dtype> __global__ static void embed_kernel(embed_rows e, int n_pieces)
{
    const int64_t row = e.ids[blockIdx.x] - (int64_t)e.first;
    const int at = (int)(blockIdx.y * THREADS + threadIdx.x);
    float *x = e.x + blockIdx.x * (size_t)e.table.n_cols;
    if (row < 0 || row >= e.table.n_rows) {
        for (int k = at; k < e.table.n_cols; k += (int)gridDim.y * THREADS) {
            x[k] = 0;
        }
    } else if (at < n_pieces) {
        const uint4 v = __ldg((const uint4 *)e.table.data + row * n_pieces + at);
        piece_of_row<dtype>::move(e, row, at, v, x);
    }
}

template <enum arch_dtype dtype> static void queue(const embed_rows *e, struct CUstream_st *stream)
{
    const int n_pieces = (int)(device_matrix_row_bytes(dtype, e->table.n_cols) / sizeof(uint4));
    const dim3 grid((unsigned)e->n, (unsigned)((n_pieces + THREADS - 1) / THREADS));
    launch(embed_kernel<dtype>, grid, dim3(THREADS), 0, stream, *e, n_pieces);
}

void embed_queue(const struct embed_rows *e, struct CUstream_st *stream)
{
    if (e->n == 0) {
        return;
    }
    switch (e->table.dtype) {
    case ARCH_F32:
        return queue<ARCH_F32>(e, stream);
    case ARCH_BF16:
        return queue<ARCH_BF16>(e, stream);
    case ARCH_FP8:
        return queue<ARCH_FP8>(e, stream);
    case ARCH_INT8:
        return queue<ARCH_INT8>(e, stream);
    case ARCH_INT4:
        return queue<ARCH_INT4>(e, stream);
    case ARCH_MXFP4:
        return queue<ARCH_MXFP4>(e, stream);
    default:
        CHECK(!"a form that the device has");
    }
}
