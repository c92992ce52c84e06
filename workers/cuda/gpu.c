#include "workers/cuda/gpu.h"

#include <cuda_runtime.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"

struct block {
    void *p;
    bool is_host;
    struct block *next;
};

struct gpu {
    struct gpu_info info;
    int rank;
    cudaStream_t stream;
    struct block *blocks;
    int64_t taken_bytes;
};

#define WAIT_NAP_NS (20 * NS_PER_US)

static int failed(const struct gpu *g, const char *call, cudaError_t code, struct err *e)
{
    return err_set(e, ERR_ENV, "rank %d, GPU %d (%s): %s: %s", g->rank, g->info.device,
                   g->info.name, call, cudaGetErrorString(code));
}

/* Likewise, of a call about so many bytes. */
static int failed_bytes(const struct gpu *g, const char *call, const char *what, size_t n,
                        cudaError_t code, struct err *e)
{
    return err_set(e, ERR_ENV, "rank %d, GPU %d (%s): %s of %zu bytes for %s: %s", g->rank,
                   g->info.device, g->info.name, call, n, what, cudaGetErrorString(code));
}

/* --- opening ------------------------------------------------------------------------------------ */

bool gpu_is_there(char *why, size_t cap)
{
    int n = 0;
    const cudaError_t code = cudaGetDeviceCount(&n);
    if (code == cudaSuccess && n > 0) {
        return true;
    }
    snprintf(why, cap, "%s", code == cudaSuccess ? "no GPU" : cudaGetErrorString(code));
    cudaGetLastError(); // it would come back at the next look
    return false;
}

static cudaError_t look(struct gpu *g)
{
    struct cudaDeviceProp p;
    struct gpu_info *i = &g->info;
    cudaError_t code = cudaGetDeviceProperties(&p, i->device);
    if (code != cudaSuccess) {
        return code;
    }
    snprintf(i->name, sizeof i->name, "%s", p.name);
    snprintf(i->pci, sizeof i->pci, "%04x:%02x:%02x", (unsigned)p.pciDomainID & 0xffff,
             (unsigned)p.pciBusID & 0xff, (unsigned)p.pciDeviceID & 0xff);
    i->n_processors = p.multiProcessorCount;
    i->capability = 10 * p.major + p.minor;
    i->bytes = (int64_t)p.totalGlobalMem;
    code = cudaDriverGetVersion(&i->driver);
    return code != cudaSuccess ? code : cudaRuntimeGetVersion(&i->runtime);
}

int gpu_open(struct gpu **out, int device, int rank, struct err *e)
{
    char why[128];
    int n = 0;
    if (!gpu_is_there(why, sizeof why)) {
        return err_set(e, ERR_INPUT, "backend cuda: rank %d has no GPU to use (%s)", rank, why);
    }
    if (cudaGetDeviceCount(&n) != cudaSuccess || device < 0 || device >= n) {
        return err_set(e, ERR_INPUT, "backend cuda: rank %d wants GPU %d; there are 0 to %d", rank,
                       device, n - 1);
    }
    struct gpu *g = xcalloc(1, sizeof *g);
    g->rank = rank;
    g->info.device = device;
    const char *call = "cudaSetDevice";
    cudaError_t code = cudaSetDevice(device);
    if (code == cudaSuccess) {
        call = "cudaGetDeviceProperties";
        code = look(g);
    }
    if (code == cudaSuccess) {
        call = "cudaStreamCreate";
        code = cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking);
    }
    if (code != cudaSuccess) {
        failed(g, call, code, e);
        gpu_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

void gpu_close(struct gpu *g)
{
    if (!g) {
        return;
    }
    if (g->stream) {
        cudaStreamSynchronize(g->stream); // what is queued may still use the memory
    }
    for (struct block *b = g->blocks, *next; b; b = next) {
        next = b->next;
        if (b->is_host) {
            cudaFreeHost(b->p);
        } else {
            cudaFree(b->p);
        }
        free(b);
    }
    if (g->stream) {
        cudaStreamDestroy(g->stream);
    }
    free(g);
}

const struct gpu_info *gpu_info(const struct gpu *g)
{
    return &g->info;
}

struct CUstream_st *gpu_stream(const struct gpu *g)
{
    return g->stream;
}

/* --- memory ------------------------------------------------------------------------------------- */

int gpu_free_bytes(const struct gpu *g, int64_t *n, struct err *e)
{
    size_t left = 0, all = 0;
    const cudaError_t code = cudaMemGetInfo(&left, &all);
    *n = (int64_t)left;
    return code == cudaSuccess ? 0 : failed(g, "cudaMemGetInfo", code, e);
}

static void keep(struct gpu *g, void *p, bool is_host)
{
    struct block *b = xcalloc(1, sizeof *b);
    *b = (struct block){p, is_host, g->blocks};
    g->blocks = b;
}

int gpu_take(struct gpu *g, size_t n_bytes, const char *what, void **out, struct err *e)
{
    const cudaError_t code = cudaMalloc(out, n_bytes ? n_bytes : 1);
    if (code != cudaSuccess) {
        cudaGetLastError();
        return failed_bytes(g, "cudaMalloc", what, n_bytes, code, e);
    }
    keep(g, *out, false);
    g->taken_bytes += (int64_t)n_bytes;
    return 0;
}

int64_t gpu_taken_bytes(const struct gpu *g)
{
    return g->taken_bytes;
}

int gpu_take_host(struct gpu *g, size_t n_bytes, const char *what, void **out, struct err *e)
{
    const cudaError_t code = cudaHostAlloc(out, n_bytes ? n_bytes : 1, cudaHostAllocDefault);
    if (code != cudaSuccess) {
        cudaGetLastError();
        return failed_bytes(g, "cudaHostAlloc", what, n_bytes, code, e);
    }
    keep(g, *out, true);
    return 0;
}

/* --- work --------------------------------------------------------------------------------------- */

static int copy(struct gpu *g, void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                struct err *e)
{
    if (n == 0) {
        return 0;
    }
    const cudaError_t code = cudaMemcpyAsync(to, from, n, kind, g->stream);
    const char *what = kind == cudaMemcpyHostToDevice ? "a copy to the GPU" : "a copy from the GPU";
    return code == cudaSuccess ? 0 : failed_bytes(g, "cudaMemcpyAsync", what, n, code, e);
}

int gpu_copy_in(struct gpu *g, void *device, const void *host, size_t n_bytes, struct err *e)
{
    return copy(g, device, host, n_bytes, cudaMemcpyHostToDevice, e);
}

int gpu_copy_out(struct gpu *g, void *host, const void *device, size_t n_bytes, struct err *e)
{
    return copy(g, host, device, n_bytes, cudaMemcpyDeviceToHost, e);
}

int gpu_clear(struct gpu *g, void *device, size_t n_bytes, struct err *e)
{
    const cudaError_t code = cudaMemsetAsync(device, 0, n_bytes, g->stream);
    return code == cudaSuccess ? 0 : failed_bytes(g, "cudaMemsetAsync", "zeros", n_bytes, code, e);
}

int gpu_launched(struct gpu *g, const char *what, struct err *e)
{
    const cudaError_t code = cudaGetLastError();
    return code == cudaSuccess ? 0 : failed(g, what, code, e);
}

int gpu_poll(struct gpu *g, struct err *e)
{
    const cudaError_t code = cudaStreamQuery(g->stream);
    if (code == cudaErrorNotReady) {
        return 0;
    }
    return code == cudaSuccess ? 1 : failed(g, "cudaStreamQuery", code, e);
}

int gpu_wait(struct gpu *g, int64_t deadline_ns, struct err *e)
{
    int done;
    while ((done = gpu_poll(g, e)) == 0) {
        const int64_t now_ns = clock_local_ns();
        if (now_ns > deadline_ns) {
            return err_set(e, ERR_ENV, "rank %d, GPU %d (%s): still busy at the deadline", g->rank,
                           g->info.device, g->info.name);
        }
        clock_sleep_until_ns(now_ns + WAIT_NAP_NS);
    }
    return done < 0 ? -1 : 0;
}
