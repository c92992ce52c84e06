#include "workers/cuda/gpu.h"

#include <cuda_runtime.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"

enum memory {
    DEVICE,
    HOST,
    REGISTERED, // the host's, and someone else's
};

struct block {
    void *p;
    size_t n_bytes;
    enum memory memory;
    struct block *next;
};

struct gpu {
    struct gpu_info info;
    int rank;
    cudaStream_t stream;
    cudaEvent_t begun, ended;
    struct block *blocks;
    int64_t taken_bytes;
    bool is_left; // gpu_leave_all
    // what was queued last: a wait that fails says it
    char last[96];
};

/* A step's end is looked for without a pause; what takes longer is not in such a hurry. */
#define WAIT_SPIN_NS (50 * NS_PER_MS)
#define WAIT_NAP_NS  (20 * NS_PER_US)
#define CLOSE_NS     (2 * NS_PER_S) // for what is still queued then
#define MESSAGE_CHAR 160

/* The calling thread's device; what then fails says why. */
static void here(const struct gpu *g)
{
    cudaSetDevice(g->info.device);
}

/* Whether every call fails from now on, as after a kernel's fault. An error of one call alone is forgotten. */
static bool is_lost(const struct gpu *g)
{
    cudaGetLastError();
    const cudaError_t code = g->stream ? cudaStreamQuery(g->stream) : cudaSuccess;
    if (code == cudaErrorNotReady) {
        cudaGetLastError();
    }
    return code != cudaSuccess && code != cudaErrorNotReady;
}

static int failed(const struct gpu *g, const char *call, cudaError_t code, struct err *e)
{
    return err_set(e, ERR_ENV, "rank %d, GPU %d (%s): %s: %s%s", g->rank, g->info.device,
                   g->info.name, call, cudaGetErrorString(code),
                   is_lost(g) ? "; the GPU is lost to this process" : "");
}

int gpu_blame(const struct gpu *g, struct err *e)
{
    return err_wrap(e, "rank %d, GPU %d (%s)", g->rank, g->info.device, g->info.name);
}

/* As failed, of a call about so many bytes. */
static int failed_bytes(const struct gpu *g, const char *call, const char *what, size_t n,
                        cudaError_t code, struct err *e)
{
    char text[MESSAGE_CHAR];
    snprintf(text, sizeof text, "%s of %zu bytes for %s", call, n, what);
    return failed(g, text, code, e);
}

/* Likewise, where memory was asked for: how much there is. */
static int failed_to_take(const struct gpu *g, const char *call, const char *what, size_t n,
                          cudaError_t code, struct err *e)
{
    size_t left, all;
    failed_bytes(g, call, what, n, code, e);
    if (code == cudaErrorMemoryAllocation && cudaMemGetInfo(&left, &all) == cudaSuccess) {
        char text[MESSAGE_CHAR];
        snprintf(text, sizeof text, " (%zu of the GPU's %zu bytes are free)", left, all);
        strncat(e->msg, text, sizeof e->msg - strlen(e->msg) - 1);
    }
    return -1;
}

/* --- opening ------------------------------------------------------------------------------------ */

bool gpu_is_there(char *why, size_t cap)
{
    int n = 0;
    const cudaError_t code = cudaGetDeviceCount(&n);
    if (code == cudaSuccess && n > 0) {
        return true;
    }
    snprintf(why, cap, "%s",
             code == cudaSuccess ? "no GPU"
             : code == cudaErrorInsufficientDriver
                 ? "no NVIDIA driver, or one too old for this CUDA"
                 : cudaGetErrorString(code));
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

static void put_address(const struct cudaDeviceProp *p, char *pci, size_t cap)
{
    snprintf(pci, cap, "%04x:%02x:%02x", (unsigned)p->pciDomainID & 0xffff,
             (unsigned)p->pciBusID & 0xff, (unsigned)p->pciDeviceID & 0xff);
}

void gpu_address(int device, char *pci, size_t cap)
{
    struct cudaDeviceProp p;
    pci[0] = '\0';
    if (device >= 0 && device < gpu_count() && cudaGetDeviceProperties(&p, device) == cudaSuccess) {
        put_address(&p, pci, cap);
    }
    cudaGetLastError();
}

bool gpu_reaches(int device, const char *pci)
{
    const int n = gpu_count();
    for (int i = 0; i < n; i++) {
        char address[GPU_PCI_CHARS];
        int can = 0;
        gpu_address(i, address, sizeof address);
        if (strcmp(address, pci) != 0) {
            continue;
        }
        const bool known = cudaDeviceCanAccessPeer(&can, device, i) == cudaSuccess;
        cudaGetLastError();
        return i == device || (known && can);
    }
    return true;
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
    put_address(&p, i->pci, sizeof i->pci);
    i->n_processors = p.multiProcessorCount;
    i->capability = 10 * p.major + p.minor;
    i->shared_bytes = (int)p.sharedMemPerBlockOptin;
    i->bytes = (int64_t)p.totalGlobalMem;
    code = cudaDriverGetVersion(&i->driver);
    return code != cudaSuccess ? code : cudaRuntimeGetVersion(&i->runtime);
}

int gpu_open(struct gpu **out, int device, int rank, struct err *e)
{
    char why[128] = "no GPU";
    int n = 0;
    if (!gpu_is_there(why, sizeof why) || cudaGetDeviceCount(&n) != cudaSuccess) {
        return err_set(e, ERR_INPUT, "backend cuda: rank %d has no GPU to use (%s)", rank, why);
    }
    if (device < 0 || device >= n) {
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

static void give(const struct gpu *g, struct block *b)
{
    if (g->is_left) {
        // as it is
    } else if (b->memory == DEVICE) {
        cudaFree(b->p);
    } else if (b->memory == HOST) {
        cudaFreeHost(b->p);
    } else {
        cudaHostUnregister(b->p);
    }
    free(b);
}

/* Of a device that hangs memory stays what it is: giving it back would wait for ever. */
static void end_work(struct gpu *g)
{
    struct err ignored = {0};
    const int64_t deadline_ns = clock_local_ns() + CLOSE_NS;
    int done;
    while ((done = gpu_poll(g, &ignored)) == 0 && clock_local_ns() < deadline_ns) {
        clock_sleep_until_ns(clock_local_ns() + WAIT_NAP_NS);
    }
    if (done < 0) {
        cudaStreamSynchronize(g->stream); // ends at once where the device is lost
    }
    g->is_left = done == 0;
}

void gpu_close(struct gpu *g)
{
    if (!g) {
        return;
    }
    if (g->stream && !g->is_left) {
        end_work(g);
    }
    for (struct block *b = g->blocks, *next; b; b = next) {
        next = b->next;
        give(g, b);
    }
    if (g->begun && !g->is_left) {
        cudaEventDestroy(g->begun);
    }
    if (g->ended && !g->is_left) {
        cudaEventDestroy(g->ended);
    }
    if (g->stream && !g->is_left) {
        cudaStreamDestroy(g->stream);
    }
    cudaGetLastError();
    free(g);
}

int gpu_use(const struct gpu *g, struct err *e)
{
    const cudaError_t code = cudaSetDevice(g->info.device);
    return code == cudaSuccess ? 0 : failed(g, "cudaSetDevice", code, e);
}

const struct gpu_info *gpu_info(const struct gpu *g)
{
    return &g->info;
}

int gpu_rank(const struct gpu *g)
{
    return g->rank;
}

struct CUstream_st *gpu_stream(const struct gpu *g)
{
    return g->stream;
}

/* --- memory ------------------------------------------------------------------------------------- */

int gpu_free_bytes(const struct gpu *g, int64_t *n, struct err *e)
{
    size_t left = 0, all = 0;
    here(g);
    const cudaError_t code = cudaMemGetInfo(&left, &all);
    if (code != cudaSuccess) {
        return failed(g, "cudaMemGetInfo", code, e);
    }
    *n = (int64_t)left;
    return 0;
}

static void keep(struct gpu *g, void *p, size_t n_bytes, enum memory memory)
{
    struct block *b = xcalloc(1, sizeof *b);
    *b = (struct block){p, n_bytes, memory, g->blocks};
    g->blocks = b;
}

int gpu_take(struct gpu *g, size_t n_bytes, const char *what, void **out, struct err *e)
{
    void *p;
    here(g);
    const cudaError_t code = cudaMalloc(&p, n_bytes ? n_bytes : 1);
    if (code != cudaSuccess) {
        return failed_to_take(g, "cudaMalloc", what, n_bytes, code, e);
    }
    keep(g, p, n_bytes, DEVICE);
    g->taken_bytes += (int64_t)n_bytes;
    *out = p;
    return 0;
}

int64_t gpu_taken_bytes(const struct gpu *g)
{
    return g->taken_bytes;
}

int gpu_take_host(struct gpu *g, size_t n_bytes, const char *what, void **out, struct err *e)
{
    void *p;
    here(g);
    const cudaError_t code = cudaHostAlloc(&p, n_bytes ? n_bytes : 1, cudaHostAllocDefault);
    if (code != cudaSuccess) {
        return failed_bytes(g, "cudaHostAlloc", what, n_bytes, code, e);
    }
    keep(g, p, n_bytes, HOST);
    *out = p;
    return 0;
}

static struct block *forget(struct gpu *g, const void *p, enum memory memory)
{
    struct block **b = &g->blocks;
    while (*b && (*b)->p != p) {
        b = &(*b)->next;
    }
    struct block *mine = *b;
    CHECK(mine && mine->memory == memory); // that was taken
    *b = mine->next;
    g->taken_bytes -= memory == DEVICE ? (int64_t)mine->n_bytes : 0;
    return mine;
}

void gpu_give_host(struct gpu *g, void *p)
{
    give(g, forget(g, p, HOST));
}

void gpu_give(struct gpu *g, void *p)
{
    if (p) {
        here(g);
        give(g, forget(g, p, DEVICE));
    }
}

void gpu_leave(struct gpu *g, void *p)
{
    free(forget(g, p, DEVICE));
}

void gpu_leave_all(struct gpu *g)
{
    g->is_left = true;
}

bool gpu_is_left(const struct gpu *g)
{
    return g->is_left;
}

int gpu_register_host(struct gpu *g, void *p, size_t n_bytes, const char *what, struct err *e)
{
    here(g);
    const cudaError_t code = cudaHostRegister(p, n_bytes, cudaHostRegisterDefault);
    if (code != cudaSuccess) {
        return failed_bytes(g, "cudaHostRegister", what, n_bytes, code, e);
    }
    keep(g, p, n_bytes, REGISTERED);
    return 0;
}

/* --- work --------------------------------------------------------------------------------------- */

/* A call that queues something on n bytes: whether it could be. */
static int queued(struct gpu *g, const char *call, const char *what, size_t n, cudaError_t code,
                  struct err *e)
{
    if (code != cudaSuccess) {
        return failed_bytes(g, call, what, n, code, e);
    }
    snprintf(g->last, sizeof g->last, "%s of %zu bytes for %s", call, n, what);
    return 0;
}

static int copy(struct gpu *g, void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                struct err *e)
{
    const char *what = kind == cudaMemcpyHostToDevice ? "a copy to the GPU" : "a copy from the GPU";
    if (n == 0) {
        return 0;
    }
    here(g);
    const cudaError_t code = cudaMemcpyAsync(to, from, n, kind, g->stream);
    return queued(g, "cudaMemcpyAsync", what, n, code, e);
}

int gpu_copy_in(struct gpu *g, void *device, const void *host, size_t n_bytes, struct err *e)
{
    return copy(g, device, host, n_bytes, cudaMemcpyHostToDevice, e);
}

int gpu_copy_out(struct gpu *g, void *host, const void *device, size_t n_bytes, struct err *e)
{
    return copy(g, host, device, n_bytes, cudaMemcpyDeviceToHost, e);
}

int gpu_copy_on(struct gpu *g, void *to, const void *from, size_t n_bytes, struct err *e)
{
    return copy(g, to, from, n_bytes, cudaMemcpyDeviceToDevice, e);
}

int gpu_clear(struct gpu *g, void *device, size_t n_bytes, struct err *e)
{
    if (n_bytes == 0) {
        return 0;
    }
    here(g);
    const cudaError_t code = cudaMemsetAsync(device, 0, n_bytes, g->stream);
    return queued(g, "cudaMemsetAsync", "zeros", n_bytes, code, e);
}

int gpu_launched(struct gpu *g, const char *what, struct err *e)
{
    const cudaError_t code = cudaGetLastError();
    if (code != cudaSuccess) {
        return failed(g, what, code, e);
    }
    snprintf(g->last, sizeof g->last, "%s", what);
    return 0;
}

int gpu_poll(struct gpu *g, struct err *e)
{
    here(g);
    const cudaError_t code = cudaStreamQuery(g->stream);
    if (code == cudaErrorNotReady) {
        cudaGetLastError(); // or it would be the next launch's
        return 0;
    }
    if (code == cudaSuccess) {
        return 1;
    }
    char text[MESSAGE_CHAR];
    snprintf(text, sizeof text, "waiting for %s", g->last[0] ? g->last : "nothing");
    return failed(g, text, code, e);
}

int gpu_wait(struct gpu *g, int64_t deadline_ns, struct err *e)
{
    int done;
    const int64_t begin_ns = clock_local_ns();
    while ((done = gpu_poll(g, e)) == 0) {
        const int64_t now_ns = clock_local_ns();
        if (now_ns - begin_ns < WAIT_SPIN_NS && now_ns <= deadline_ns) {
            sched_yield();
            continue;
        }
        if (now_ns > deadline_ns) {
            return err_set(e, ERR_ENV,
                           "rank %d, GPU %d (%s): still busy at the deadline; queued last: %s",
                           g->rank, g->info.device, g->info.name, g->last);
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
