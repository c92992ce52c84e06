/* What tidemark-cuda.so exports. */
#include "version.h"
#include "workers/cuda/backend.h"
#include "workers/cuda/gpu.h"
#include "workers/cuda/nccl_library.h"
#include "workers/cuda_plugin.h"

static bool has_nccl(void)
{
    struct nccl_library library = {0};
    struct err e;
    return nccl_library_open(&library, &e) == 0;
}

extern const struct cuda_plugin tidemark_cuda_plugin;

const struct cuda_plugin tidemark_cuda_plugin = {
    .version = CUDA_PLUGIN_VERSION,
    .ops = &backend_cuda,
    .is_there = gpu_is_there,
    .n_devices = gpu_count,
    .has_nccl = has_nccl,
};
