#include "workers/cuda/edge_ipc.h"

#include <cuda_runtime.h>

#include <stdlib.h>

#include "core/mem.h"

#define SLOT_ALIGNED 256
#define WHAT         "hidden states"

struct edge_ipc {
    struct gpu *gpu;
    struct edge_ipc_room room;
    char *slots;
    cudaStream_t stream; // beside what computes
    cudaEvent_t *copied; // (depth)
};

int edge_ipc_take(struct gpu *g, int depth, size_t max_bytes, void **slots,
                  struct edge_ipc_room *room, struct err *e)
{
    CHECK(depth > 0);
    const size_t each = (max_bytes + SLOT_ALIGNED - 1) / SLOT_ALIGNED * SLOT_ALIGNED;
    struct gpu_ipc_handle memory;
    if (gpu_ipc_take(g, (size_t)depth * each, WHAT, slots, &memory, e) != 0) {
        return -1;
    }
    *room = (struct edge_ipc_room){memory, (int64_t)each, depth};
    return 0;
}

/* A call about so many bytes on their way to the receiver. */
static int failed(const struct edge_ipc *edge, const char *call, size_t n_bytes, cudaError_t code,
                  struct err *e)
{
    cudaGetLastError();
    err_set(e, ERR_ENV, "%s of %zu bytes for " WHAT " to rank %d, on its GPU %d: %s", call, n_bytes,
            edge->room.memory.rank, edge->room.memory.device, cudaGetErrorString(code));
    return gpu_blame(edge->gpu, e);
}

int edge_ipc_open(struct edge_ipc **out, struct gpu *g, const struct edge_ipc_room *room,
                  struct err *e)
{
    void *slots;
    struct edge_ipc *edge = xcalloc(1, sizeof *edge);
    edge->gpu = g;
    edge->room = *room;
    edge->copied = xcalloc((size_t)room->depth, sizeof(cudaEvent_t));
    if (gpu_ipc_open(g, &room->memory, WHAT, &slots, e) != 0) {
        edge_ipc_close(edge);
        return -1;
    }
    edge->slots = slots;
    const cudaError_t made = cudaStreamCreateWithFlags(&edge->stream, cudaStreamNonBlocking);
    if (made != cudaSuccess) {
        failed(edge, "cudaStreamCreate for copies", (size_t)room->slot_bytes, made, e);
        edge_ipc_close(edge);
        return -1;
    }
    for (int i = 0; i < room->depth; i++) {
        const cudaError_t code = cudaEventCreateWithFlags(&edge->copied[i], cudaEventDisableTiming);
        if (code != cudaSuccess) {
            failed(edge, "cudaEventCreate for copies", (size_t)room->slot_bytes, code, e);
            edge_ipc_close(edge);
            return -1;
        }
    }
    *out = edge;
    return 0;
}

void edge_ipc_close(struct edge_ipc *edge)
{
    if (!edge) {
        return;
    }
    gpu_ipc_close(edge->gpu, edge->slots);
    for (int i = 0; i < edge->room.depth && edge->copied[i]; i++) {
        cudaEventDestroy(edge->copied[i]);
    }
    if (edge->stream) {
        cudaStreamDestroy(edge->stream);
    }
    free(edge->copied);
    free(edge);
}

int edge_ipc_copy(struct edge_ipc *edge, int slot, const void *device, size_t n_bytes,
                  struct err *e)
{
    CHECK(slot >= 0 && slot < edge->room.depth && (int64_t)n_bytes <= edge->room.slot_bytes);
    char *to = edge->slots + slot * edge->room.slot_bytes;
    if (gpu_use(edge->gpu, e) != 0) {
        return -1;
    }
    cudaError_t code = cudaMemcpyAsync(to, device, n_bytes, cudaMemcpyDefault, edge->stream);
    if (code != cudaSuccess) {
        return failed(edge, "cudaMemcpyAsync", n_bytes, code, e);
    }
    code = cudaEventRecord(edge->copied[slot], edge->stream);
    return code == cudaSuccess ? 0 : failed(edge, "cudaEventRecord", n_bytes, code, e);
}

int edge_ipc_poll(struct edge_ipc *edge, int slot, struct err *e)
{
    CHECK(slot >= 0 && slot < edge->room.depth);
    const cudaError_t code = cudaEventQuery(edge->copied[slot]);
    if (code == cudaErrorNotReady) {
        cudaGetLastError(); // or it would be the next launch's
        return 0;
    }
    return code == cudaSuccess
               ? 1
               : failed(edge, "waiting for a copy", (size_t)edge->room.slot_bytes, code, e);
}
