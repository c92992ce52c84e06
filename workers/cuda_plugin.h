/*
 * The backend on GPUs is a shared object, `tidemark-cuda.so`, so that the program itself needs nothing of CUDA.
 * It lies beside the program, or in ../lib/tidemark from there, or where TIDEMARK_CUDA_PLUGIN says; it is opened at
 * the first question about it and uses the program's own functions, so both must be of one build.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

struct backend_ops;

#define CUDA_PLUGIN_VERSION TIDEMARK_VERSION " " TIDEMARK_GIT_SHA // of generated/version.h

/* What the shared object exports, as `tidemark_cuda_plugin`. */
struct cuda_plugin {
    const char *version; // of the build
    const struct backend_ops *ops;
    bool (*is_there)(char *why, size_t cap);       // a GPU that can be used, or a few words why not
    int (*n_devices)(void);                        // that this process sees
    bool (*has_nccl)(char *why, size_t cap);       // a library of it can be used, or why not
    int (*device_of)(int index, int n_neighbours); // that a worker takes, of its host's workers
    void (*address)(int device, char *pci, size_t cap);
    bool (*reaches)(int device, const char *pci);
};

/* ERR_INPUT: there is none, or it does not fit this program. */
int cuda_plugin_open(const struct cuda_plugin **out, struct err *e) ERR_CHECKED;
