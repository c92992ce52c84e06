/*
 * As much of the CUDA runtime as workers/cuda uses, on the CPU: what a test without a GPU puts in place of
 * CUDA's header of this name, so that kernels and the code around them run as they are written, slowly, and
 * under sanitizers. It says nothing of speed, and of races only what an unlucky order shows.
 *
 * One block runs at a time; its threads are fibers that take turns at barriers and warp operations, in an
 * order that is drawn anew for each launch. It is stricter than a GPU: a barrier that not all threads of
 * a block (or lanes of a warp) reach, or a mask that is not whole, ends the test; memory comes
 * filled with NaN, dynamic shared memory too; streams do everything at once, unless they are captured,
 * gpu_on_cpu_defer makes them late, or what they are at waits for another process (gpu_on_cpu_stream).
 *
 * Processes share device memory as with CUDA (ipc.h); a thread that waits for another process says gpu_on_cpu_pause,
 * and the rest of its block goes on. One that waits for another block of its kernel waits for ever: blocks run in turn.
 *
 * GPU_ON_CPU_BYTES is the size of the device's memory (default 4 GB). gpu_on_cpu_fail makes a call fail.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define GPU_ON_CPU 1

#ifdef __cplusplus
extern "C" {
#endif

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidContext = 201,
    cudaErrorAlreadyMapped = 208,
    cudaErrorPeerAccessUnsupported = 217,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
} cudaError_t;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4,
};

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;

enum {
    cudaStreamNonBlocking = 1,
    cudaEventDefault = 0,
    cudaEventDisableTiming = 2,
    cudaHostAllocDefault = 0,
    cudaHostRegisterDefault = 0
};
enum {
    cudaIpcMemLazyEnablePeerAccess = 1
};
typedef struct cudaIpcMemHandle_st {
    char reserved[64];
} cudaIpcMemHandle_t;
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeThreadLocal = 1
};
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8
};
enum cudaDeviceAttr {
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrClockRate = 13,
    cudaDevAttrMemoryClockRate = 36,
};

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    size_t sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, l2CacheSize, pciBusID, pciDeviceID, pciDomainID;
};

const char *cudaGetErrorString(cudaError_t e);
const char *cudaGetErrorName(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
cudaError_t cudaDriverGetVersion(int *v);
cudaError_t cudaRuntimeGetVersion(int *v);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device);
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr a, int device);
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);

cudaError_t cudaMalloc(void **p, size_t n);
cudaError_t cudaFree(void *p);
/* Of whole blocks; other processes open each once, and close it before it is freed. */
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *h, void *p);
cudaError_t cudaIpcOpenMemHandle(void **p, cudaIpcMemHandle_t handle, unsigned flags);
cudaError_t cudaIpcCloseMemHandle(void *p);
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaHostRegister(void *p, size_t n, unsigned flags);
cudaError_t cudaHostUnregister(void *p);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t g);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x);

/*
 * The call of this name fails with `e` once, after `skip` that succeed; NULL: none does. After cudaErrorLaunchFailure
 * all calls fail so, as on a GPU, until the next gpu_on_cpu_fail; memory is given back all the same.
 */
void gpu_on_cpu_fail(const char *call, int skip, cudaError_t e);
/* Whether streams (but the null one) do nothing before they are asked: a query does one thing, a synchronization all. */
void gpu_on_cpu_defer(int yes);
size_t gpu_on_cpu_allocated(void);  // bytes of device memory in use
size_t gpu_on_cpu_pinned(void);     // blocks of host memory that are allocated or registered
size_t gpu_on_cpu_opened(void);     // bytes of other processes' device memory that are open here
size_t gpu_on_cpu_freed_open(void); // blocks that were freed while another process had them open

/* From one recorded event to the next so many nanoseconds pass, whatever happens; -1: as many as do. */
void gpu_on_cpu_tick(long long ns);

/*
 * What a stream begins with, for a library that knows a stream and nothing else of the stand-in: do this in its order. Until
 * `is_done` says so it is asked again, and what is queued after it waits.
 */
struct gpu_on_cpu_stream {
    void (*queue)(cudaStream_t s, int (*is_done)(void *arg), void *arg);
};

#ifdef __cplusplus
}

#include "tests/support/gpu_on_cpu/device_side.h"
#endif
