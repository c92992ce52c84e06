#include "workers/cuda/gpu.h"

#include <cuda_runtime.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"

struct block {
    void *p;
    size_t n_bytes;
    bool is_host;
    struct block *next;
};

struct gpu {
    struct gpu_info info;
    int rank;
    cudaStream_t stream;
    cudaEvent_t begun, ended;
    struct block *blocks;
    int64_t taken_bytes;
};

/* A step's end is looked for without a pause; what takes longer is not in such a hurry. */
#define WAIT_SPIN_NS (50 * NS_PER_MS)
#define WAIT_NAP_NS  (20 * NS_PER_US)

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

int gpu_count(void)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess) {
        cudaGetLastError();
        return 0;
    }
    return n;
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
    if (code == cudaSuccess) {
        call = "cudaEventCreate";
        code = cudaEventCreateWithFlags(&g->begun, cudaEventDefault);
    }
    if (code == cudaSuccess) {
        code = cudaEventCreateWithFlags(&g->ended, cudaEventDefault);
    }
    if (code != cudaSuccess) {
        failed(g, call, code, e);
        gpu_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

static void free_block(struct block *b)
{
    if (b->is_host) {
        cudaFreeHost(b->p);
    } else {
        cudaFree(b->p);
    }
    free(b);
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
        free_block(b);
    }
    if (g->begun) {
        cudaEventDestroy(g->begun);
    }
    if (g->ended) {
        cudaEventDestroy(g->ended);
    }
    if (g->stream) {
        cudaStreamDestroy(g->stream);
    }
    free(g);
}

int gpu_enter(struct gpu *g, struct err *e)
{
    const cudaError_t code = cudaSetDevice(g->info.device);
    return code == cudaSuccess ? 0 : failed(g, "cudaSetDevice", code, e);
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

static void keep(struct gpu *g, void *p, size_t n_bytes, bool is_host)
{
    struct block *b = xcalloc(1, sizeof *b);
    *b = (struct block){p, n_bytes, is_host, g->blocks};
    g->blocks = b;
}

int gpu_take(struct gpu *g, size_t n_bytes, const char *what, void **out, struct err *e)
{
    const cudaError_t code = cudaMalloc(out, n_bytes ? n_bytes : 1);
    if (code != cudaSuccess) {
        cudaGetLastError();
        return failed_bytes(g, "cudaMalloc", what, n_bytes, code, e);
    }
    keep(g, *out, n_bytes, false);
    g->taken_bytes += (int64_t)n_bytes;
    return 0;
}

int64_t gpu_taken_bytes(const struct gpu *g)
{
    return g->taken_bytes;
}

void gpu_give(struct gpu *g, void *p)
{
    for (struct block **at = &g->blocks; *at; at = &(*at)->next) {
        struct block *b = *at;
        if (b->p == p) {
            *at = b->next;
            g->taken_bytes -= b->is_host ? 0 : (int64_t)b->n_bytes;
            free_block(b);
            return;
        }
    }
    CHECK(!p);
}

int gpu_take_host(struct gpu *g, size_t n_bytes, const char *what, void **out, struct err *e)
{
    const cudaError_t code = cudaHostAlloc(out, n_bytes ? n_bytes : 1, cudaHostAllocDefault);
    if (code != cudaSuccess) {
        cudaGetLastError();
        return failed_bytes(g, "cudaHostAlloc", what, n_bytes, code, e);
    }
    keep(g, *out, n_bytes, true);
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
    const int64_t begin_ns = clock_local_ns();
    while ((done = gpu_poll(g, e)) == 0) {
        const int64_t now_ns = clock_local_ns();
        if (now_ns - begin_ns < WAIT_SPIN_NS) {
            sched_yield();
            continue;
        }
        if (now_ns > deadline_ns) {
            return err_set(e, ERR_ENV, "rank %d, GPU %d (%s): still busy at the deadline", g->rank,
                           g->info.device, g->info.name);
        }
        clock_sleep_until_ns(now_ns + WAIT_NAP_NS);
    }
    return done < 0 ? -1 : 0;
}

/* --- times -------------------------------------------------------------------------------------- */

static int mark(struct gpu *g, cudaEvent_t event, struct err *e)
{
    const cudaError_t code = cudaEventRecord(event, g->stream);
    return code == cudaSuccess ? 0 : failed(g, "cudaEventRecord", code, e);
}

int gpu_begin(struct gpu *g, struct err *e)
{
    return mark(g, g->begun, e);
}

int gpu_end(struct gpu *g, struct err *e)
{
    return mark(g, g->ended, e);
}

int gpu_busy_ns(struct gpu *g, int64_t *ns, struct err *e)
{
    float ms = 0;
    const cudaError_t code = cudaEventElapsedTime(&ms, g->begun, g->ended);
    *ns = (int64_t)((double)ms * 1e6);
    return code == cudaSuccess ? 0 : failed(g, "cudaEventElapsedTime", code, e);
}

/* --- graphs ------------------------------------------------------------------------------------- */

struct gpu_graph {
    cudaGraphExec_t exec;
};

int gpu_graph_record(struct gpu *g, struct err *e)
{
    const cudaError_t code = cudaStreamBeginCapture(g->stream, cudaStreamCaptureModeThreadLocal);
    return code == cudaSuccess ? 0 : failed(g, "cudaStreamBeginCapture", code, e);
}

int gpu_graph_recorded(struct gpu *g, const char *what, struct gpu_graph **out, struct err *e)
{
    cudaGraph_t graph = NULL;
    struct gpu_graph *r = xcalloc(1, sizeof *r);
    cudaError_t code = cudaStreamEndCapture(g->stream, &graph);
    if (code == cudaSuccess) {
        code = cudaGraphInstantiate(&r->exec, graph, 0);
        cudaGraphDestroy(graph);
    }
    if (code != cudaSuccess) {
        free(r);
        return failed(g, what, code, e);
    }
    *out = r;
    return 0;
}

void gpu_graph_abandon(struct gpu *g)
{
    cudaGraph_t graph = NULL;
    if (cudaStreamEndCapture(g->stream, &graph) == cudaSuccess) {
        cudaGraphDestroy(graph);
    }
    cudaGetLastError();
}

int gpu_graph_queue(struct gpu *g, const struct gpu_graph *graph, struct err *e)
{
    const cudaError_t code = cudaGraphLaunch(graph->exec, g->stream);
    return code == cudaSuccess ? 0 : failed(g, "cudaGraphLaunch", code, e);
}

void gpu_graph_free(struct gpu_graph *graph)
{
    if (graph) {
        cudaGraphExecDestroy(graph->exec);
        free(graph);
    }
}
