#include "workers/cuda/norm.h"

#include "workers/cuda/device.cuh"

#define THREADS 256

/* The sum over the block, for all its threads. `parts` (THREADS / 32) may be written again after it. */
__device__ static float block_sum(float v, float *parts)
{
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        parts[threadIdx.x / 32] = v;
    }
    __syncthreads();
    float sum = 0;
    for (int i = 0; i < THREADS / 32; i++) {
        sum += parts[i];
    }
    return sum;
}

__device__ static float scale_of(const float *row, const norm_rows &r, float *parts)
{
    float squares = 0;
    for (int k = (int)threadIdx.x; k < r.hidden; k += THREADS) {
        squares += row[k] * row[k];
    }
    return rsqrtf(block_sum(squares, parts) / (float)r.hidden + r.eps);
}

__device__ static float rounded(float v)
{
    return float_of(bf16_of(v));
}

__global__ static void norm_kernel(norm_rows r)
{
    __shared__ float parts[THREADS / 32];
    const size_t row = r.rows ? r.rows[blockIdx.x] : blockIdx.x, hidden = (size_t)r.hidden;
    float *x = r.x + row * hidden;
    if (r.branch) {
        const float *branch = r.branch + row * hidden;
        const float scale = r.branch_norm ? scale_of(branch, r, parts) : 1;
        for (int k = (int)threadIdx.x; k < r.hidden; k += THREADS) {
            const float unit = branch[k] * scale;
            x[k] +=
                r.branch_norm ? (r.rounds ? rounded(unit) : unit) * r.branch_norm[k] : branch[k];
        }
    }
    for (int k = (int)threadIdx.x; r.rounds_x && k < r.hidden; k += THREADS) {
        x[k] = rounded(x[k]);
    }
    if (!r.norm) {
        return;
    }
    const float scale = scale_of(x, r, parts); // of what this thread itself has written
    for (int k = (int)threadIdx.x; k < r.hidden; k += THREADS) {
        const float unit = x[k] * scale, v = (r.rounds ? rounded(unit) : unit) * r.norm[k];
        const size_t at = blockIdx.x * hidden + (size_t)k;
        if (r.wide) {
            ((float *)r.out)[at] = v;
        } else {
            ((bf16 *)r.out)[at] = bf16_of(v);
        }
    }
}

void norm_queue(const struct norm_rows *r, struct CUstream_st *stream)
{
    const int n = r->rows ? r->n_out : r->n;
    if (n > 0) {
        launch(norm_kernel, dim3((unsigned)n), dim3(THREADS), 0, stream, *r);
    }
}
