/*
 * NVIDIA's library for messages between GPUs, found at run time: nothing of it is needed to build, and a host
 * with CUDA alone has none. The file is libnccl.so.2, or what TIDEMARK_NCCL names. NCCL 2.14 is the oldest that
 * has communicators that do not block, which are all that is used (workers/cuda/nccl_comm.h).
 *
 * Types and numbers are the library's; where its header is there at build, tests/cuda/nccl_header.c holds
 * them against it.
 */
#pragma once

#include <stddef.h>

#include "core/err.h"

struct CUstream_st;       // as of workers/cuda/gpu.h
struct nccl_library_comm; // a communicator, the library's own

enum nccl_library_result {
    NCCL_LIBRARY_DONE = 0,
    NCCL_LIBRARY_SYSTEM_ERROR = 2,
    NCCL_LIBRARY_INVALID_ARGUMENT = 4,
    NCCL_LIBRARY_INVALID_USAGE = 5,
    NCCL_LIBRARY_REMOTE_ERROR = 6,
    NCCL_LIBRARY_IN_PROGRESS = 7,
};

enum nccl_library_type {
    NCCL_LIBRARY_BYTES = 1, // unsigned ones
    NCCL_LIBRARY_FLOAT32 = 7,
    NCCL_LIBRARY_BFLOAT16 = 9,
};

#define NCCL_LIBRARY_MARK 0xcafebeefu // that settings have been set

enum {
    NCCL_LIBRARY_SUM = 0,
    NCCL_LIBRARY_ID_BYTES = 128,
    NCCL_LIBRARY_SETTINGS =
        21400, // the version whose settings these are; later ones take them, too
};

/* What the ranks of a communicator find each other by: one of them makes it, and tells the others. */
struct nccl_library_id {
    char bytes[NCCL_LIBRARY_ID_BYTES];
};

struct nccl_library_settings {
    size_t n_bytes;
    unsigned mark, version;
    int blocking;
};

struct nccl_library {
    char path[256];
    int version;      // as NCCL numbers them: 22809
    char numbers[16]; // "2.28.9"
    int (*get_version)(int *version);
    const char *(*error_string)(int result);
    const char *(*last_error)(struct nccl_library_comm *); // NULL: it has no such call
    int (*make_id)(struct nccl_library_id *);
    int (*init)(struct nccl_library_comm **, int size, struct nccl_library_id, int index,
                struct nccl_library_settings *);
    int (*async_error)(struct nccl_library_comm *, int *result);
    int (*finalize)(struct nccl_library_comm *);
    int (*destroy)(struct nccl_library_comm *);
    int (*abort)(struct nccl_library_comm *);
    int (*group_start)(void);
    int (*group_end)(void);
    int (*send)(const void *, size_t n, int type, int peer, struct nccl_library_comm *,
                struct CUstream_st *);
    int (*recv)(void *, size_t n, int type, int peer, struct nccl_library_comm *,
                struct CUstream_st *);
    int (*all_reduce)(const void *in, void *out, size_t n, int type, int op,
                      struct nccl_library_comm *, struct CUstream_st *);
    int (*all_gather)(const void *mine, void *all, size_t n, int type, struct nccl_library_comm *,
                      struct CUstream_st *);
};

/* ERR_INPUT: it cannot be used, and why. Once open it stays: threads may be in it. */
int nccl_library_open(struct nccl_library *out, struct err *e) ERR_CHECKED;
