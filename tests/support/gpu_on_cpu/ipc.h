/*
 * Device memory that processes share, as the stand-in has it: a file without a name that only its handles lead to, so
 * that nothing is left behind however a process ends. Included by gpu_on_cpu.cpp; ipc.cpp has the code.
 */
#pragma once

#include <cuda_runtime.h>

enum {
    IPC_PAGE = 4096,
};

static inline size_t ipc_whole_pages(size_t n)
{
    return (n + IPC_PAGE - 1) / IPC_PAGE * IPC_PAGE;
}

/*
 * Let n bytes at p, whole pages that are this process's alone, be memory that others can open; what is in them
 * stays. The descriptor of the file, -1 where the machine has no more.
 */
int ipc_share(void *p, size_t n);
/* p is private memory again; how many processes that still live had it open. */
int ipc_unshare(void *p, size_t n, int fd);

/* A handle of what `fd` holds, on a device; which that is. */
cudaIpcMemHandle_t ipc_handle(int fd, size_t n, int device);
int ipc_device(const cudaIpcMemHandle_t &handle);
cudaError_t ipc_open(const cudaIpcMemHandle_t &handle, void **p);
cudaError_t ipc_close(void *p);
size_t ipc_opened(); // bytes
