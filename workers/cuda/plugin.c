/* What tidemark-cuda.so exports. */
#include "workers/cuda_plugin.h"

#include <stdio.h>

#include "version.h"
#include "workers/cuda/backend.h"
#include "workers/cuda/gpu.h"
#include "workers/cuda/nccl_library.h"

static bool has_nccl(char *why, size_t cap)
{
    struct nccl_library library = {0};
    struct err e;
    const bool has = nccl_library_open(&library, &e) == 0;
    if (!has) {
        snprintf(why, cap, "%s", e.msg);
    }
    return has;
}

extern const struct cuda_plugin tidemark_cuda_plugin;

const struct cuda_plugin tidemark_cuda_plugin = {
    .version = CUDA_PLUGIN_VERSION,
    .ops = &backend_cuda,
    .is_there = gpu_is_there,
    .n_devices = gpu_count,
    .has_nccl = has_nccl,
    .device_of = backend_cuda_device,
    .address = gpu_address,
    .reaches = gpu_reaches,
};
