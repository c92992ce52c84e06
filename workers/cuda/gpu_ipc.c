#include "workers/cuda/gpu_ipc.h"

#include <cuda_runtime.h>

#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(cudaIpcMemHandle_t) == sizeof((struct gpu_ipc_handle *)0)->bytes,
               "a handle is kept as it is");

/*
 * CUDA puts small blocks together into pieces of 2 MB, and it is the piece that another process is let into:
 * memory that is shared has pieces of its own.
 */
#define PIECE_BYTES ((size_t)2 << 20)

/* The kernel's number of its boot; nothing where it does not say. */
static void name_host(char *name, size_t cap)
{
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    name[0] = '\0';
    if (f && !fgets(name, (int)cap, f)) {
        name[0] = '\0';
    }
    if (f) {
        fclose(f);
    }
}

int gpu_ipc_take(struct gpu *g, size_t n_bytes, const char *what, void **out,
                 struct gpu_ipc_handle *handle, struct err *e)
{
    void *p;
    cudaIpcMemHandle_t h;
    const size_t all = (n_bytes / PIECE_BYTES + (n_bytes % PIECE_BYTES > 0)) * PIECE_BYTES;
    if (gpu_take(g, all ? all : PIECE_BYTES, what, &p, e) != 0) {
        return -1;
    }
    const cudaError_t code = cudaIpcGetMemHandle(&h, p);
    if (code != cudaSuccess) {
        cudaGetLastError();
        gpu_give(g, p);
        err_set(e, ERR_ENV, "cudaIpcGetMemHandle of %zu bytes for %s: %s", n_bytes, what,
                cudaGetErrorString(code));
        return gpu_blame(g, e);
    }
    *handle = (struct gpu_ipc_handle){.n_bytes = (int64_t)n_bytes,
                                      .rank = (int32_t)gpu_rank(g),
                                      .device = (int32_t)gpu_info(g)->device};
    memcpy(handle->bytes, &h, sizeof h);
    name_host(handle->host, sizeof handle->host);
    *out = p;
    return 0;
}

int gpu_ipc_open(struct gpu *g, const struct gpu_ipc_handle *handle, const char *what, void **out,
                 struct err *e)
{
    void *p = NULL;
    char host[sizeof handle->host];
    cudaIpcMemHandle_t h;
    memcpy(&h, handle->bytes, sizeof h);
    name_host(host, sizeof host);
    if (memcmp(host, handle->host, strlen(host) + 1) != 0) {
        err_set(e, ERR_ENV, "%s: rank %d is on another host", what, handle->rank);
        return gpu_blame(g, e);
    }
    if (gpu_use(g, e) != 0) {
        return -1;
    }
    const cudaError_t code = cudaIpcOpenMemHandle(&p, h, cudaIpcMemLazyEnablePeerAccess);
    if (code != cudaSuccess) {
        cudaGetLastError();
        err_set(e, ERR_ENV,
                "cudaIpcOpenMemHandle of %lld bytes for %s, which rank %d has on its GPU %d: %s",
                (long long)handle->n_bytes, what, handle->rank, handle->device,
                cudaGetErrorString(code));
        return gpu_blame(g, e);
    }
    *out = p;
    return 0;
}

void gpu_ipc_close(struct gpu *g, void *p)
{
    struct err ignored = {0};
    if (p && gpu_use(g, &ignored) == 0) {
        cudaIpcCloseMemHandle(p);
        cudaGetLastError();
    }
}
