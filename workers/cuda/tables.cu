#include "workers/cuda/tables.h"

#include "workers/cuda/device.cuh"

#define THREADS 256

__global__ static void tables_kernel(tables_entries e)
{
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i < e.n) {
        e.tables[e.v[i].at] = e.v[i].block;
    }
}

void tables_queue(const struct tables_entries *e, struct CUstream_st *stream)
{
    if (e->n > 0) {
        launch(tables_kernel, dim3((e->n + THREADS - 1) / THREADS), dim3(THREADS), 0, stream, *e);
    }
}
