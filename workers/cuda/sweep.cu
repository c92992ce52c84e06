#include "workers/cuda/device.cuh"
#include "workers/cuda/sweep.h"

#define FILL_THREADS   256
#define FILL_MAX_GRID  65536

struct shape {
    unsigned n_threads, per_processor;
    int n_loads;
    const char *name;
};

static const struct shape shapes[SWEEP_SHAPES] = {
    {256, 8, 4, "256 threads, 8 a processor, 4 loads"},
    {512, 4, 4, "512 threads, 4 a processor, 4 loads"},
    {1024, 2, 4, "1024 threads, 2 a processor, 4 loads"},
    {256, 4, 8, "256 threads, 4 a processor, 8 loads"},
    {512, 2, 8, "512 threads, 2 a processor, 8 loads"},
    {1024, 1, 8, "1024 threads, 1 a processor, 8 loads"},
    {512, 4, 2, "512 threads, 4 a processor, 2 loads"},
};

const char *sweep_shape_name(int shape)
{
    return shapes[shape].name;
}

static size_t warps(const struct shape *s, int n_processors)
{
    return (size_t)n_processors * s->per_processor * s->n_threads / 32;
}

size_t sweep_max_sums(int n_processors)
{
    size_t most = 0;
    for (int i = 0; i < SWEEP_SHAPES; i++) {
        const size_t n = warps(&shapes[i], n_processors);
        most = n > most ? n : most;
    }
    return most;
}

/* --- reading -------------------------------------------------------------------------------------- */

__device__ __forceinline__ uint32_t sum_of(uint4 v)
{
    return v.x + v.y + v.z + v.w;
}

template <int N_LOADS>
__global__ static void read_kernel(const uint4 *from, size_t n, uint32_t *sums)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    const size_t first = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t sum = 0;
    size_t i = first;
    for (; i + (N_LOADS - 1) * step < n; i += N_LOADS * step) {
        uint4 v[N_LOADS];
        UNROLLED
        for (int j = 0; j < N_LOADS; j++) {
            v[j] = load_once(from + i + (size_t)j * step);
        }
        UNROLLED
        for (int j = 0; j < N_LOADS; j++) {
            sum += sum_of(v[j]);
        }
    }
    for (; i < n; i += step) {
        sum += sum_of(load_once(from + i));
    }
    sum = __reduce_add_sync(FULL_WARP, sum);
    if (threadIdx.x % 32 == 0) {
        sums[first / 32] = sum;
    }
}

/* --- copying -------------------------------------------------------------------------------------- */

template <int N_LOADS> __global__ static void copy_kernel(uint4 *to, const uint4 *from, size_t n)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (; i + (N_LOADS - 1) * step < n; i += N_LOADS * step) {
        uint4 v[N_LOADS];
        UNROLLED
        for (int j = 0; j < N_LOADS; j++) {
            v[j] = load_once(from + i + (size_t)j * step);
        }
        UNROLLED
        for (int j = 0; j < N_LOADS; j++) {
            to[i + (size_t)j * step] = v[j];
        }
    }
    for (; i < n; i += step) {
        to[i] = load_once(from + i);
    }
}

/* --- filling -------------------------------------------------------------------------------------- */

/* Bits of a 32-bit word that look random (the finaliser of MurmurHash3). */
__device__ __forceinline__ uint32_t mixed(uint32_t h)
{
    h ^= h >> 16, h *= 0x85ebca6bu;
    h ^= h >> 13, h *= 0xc2b2ae35u;
    return h ^ h >> 16;
}

__global__ static void fill_kernel(uint4 *to, size_t n, uint32_t seed, uint32_t random, uint32_t fixed)
{
    const size_t step = (size_t)gridDim.x * blockDim.x;
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        const uint32_t at = (uint32_t)(4 * i) + seed * 0x9e3779b9u;
        to[i] = make_uint4((mixed(at) & random) | fixed, (mixed(at + 1) & random) | fixed,
                           (mixed(at + 2) & random) | fixed, (mixed(at + 3) & random) | fixed);
    }
}

/* --- queueing ------------------------------------------------------------------------------------- */

size_t sweep_read_queue(int shape, int n_processors, const void *from, size_t n_bytes,
                        uint32_t *sums, struct CUstream_st *stream)
{
    const struct shape *s = &shapes[shape];
    const dim3 grid((unsigned)n_processors * s->per_processor);
    const size_t n = n_bytes / sizeof(uint4);
    const auto kernel = s->n_loads == 8   ? read_kernel<8>
                        : s->n_loads == 4 ? read_kernel<4>
                                          : read_kernel<2>;
    launch(kernel, grid, dim3(s->n_threads), 0, stream, (const uint4 *)from, n, sums);
    return warps(s, n_processors);
}

void sweep_copy_queue(int shape, int n_processors, void *to, const void *from, size_t n_bytes,
                      struct CUstream_st *stream)
{
    const struct shape *s = &shapes[shape];
    const dim3 grid((unsigned)n_processors * s->per_processor);
    const size_t n = n_bytes / sizeof(uint4);
    const auto kernel = s->n_loads == 8   ? copy_kernel<8>
                        : s->n_loads == 4 ? copy_kernel<4>
                                          : copy_kernel<2>;
    launch(kernel, grid, dim3(s->n_threads), 0, stream, (uint4 *)to, (const uint4 *)from, n);
}

void sweep_fill_queue(void *to, size_t n_bytes, uint32_t seed, uint32_t random, uint32_t fixed,
                      struct CUstream_st *stream)
{
    const size_t n = n_bytes / sizeof(uint4), blocks = (n + FILL_THREADS - 1) / FILL_THREADS;
    if (n > 0) {
        launch(fill_kernel, dim3(blocks < FILL_MAX_GRID ? (unsigned)blocks : FILL_MAX_GRID),
               dim3(FILL_THREADS), 0, stream, (uint4 *)to, n, seed, random, fixed & ~random);
    }
}
