/*
 * Device memory that processes of one host share: whoever takes it says where it is in plain data that can be
 * sent, and others open that, on the same GPU or on one that reaches it.
 *
 * Each is opened once by a process, never by the one that took it, and closed before it is given back: so all
 * close, then all say so to each other, then all give back. Memory of a process that has ended is nobody's
 * to read. A process that shares a GPU with another one still sees that memory through a mapping of its own: the
 * pointers differ.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "workers/cuda/gpu.h"

/* Where it is, and for messages whose it is. */
struct gpu_ipc_handle {
    unsigned char bytes[64]; // CUDA's
    char host[40];           // what only its host is called
    int64_t n_bytes;
    int32_t rank, device;
};

/* As gpu_take, of memory that others may open. */
int gpu_ipc_take(struct gpu *g, size_t n_bytes, const char *what, void **out,
                 struct gpu_ipc_handle *handle, struct err *e) ERR_CHECKED;

/* ERR_ENV where it is another host's, GPUs do not reach each other, it is gone or open already; says both ranks. */
int gpu_ipc_open(struct gpu *g, const struct gpu_ipc_handle *handle, const char *what, void **out,
                 struct err *e) ERR_CHECKED;
/* When nothing that is queued uses it; NULL is allowed. */
void gpu_ipc_close(struct gpu *g, void *p);
