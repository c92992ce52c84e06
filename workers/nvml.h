/*
 * NVIDIA's management library, found at run time: nothing of it is needed to build, and a host without
 * it has none. The file is libnvidia-ml.so.1, or what TIDEMARK_NVML names. A call that a device or a
 * driver does not have leaves its value missing and is no error.
 *
 * Calls take up to some ms each: not for a main thread. One at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "results/gpus.h"

struct nvml;

/* NULL: it cannot be used; `why` (cap) says so in one line. */
struct nvml *nvml_open(char *why, size_t cap);
void nvml_close(struct nvml *n);

int nvml_count(const struct nvml *n);

/* The GPU of a bus address as CUDA writes it; -1: there is none. */
int nvml_find(const struct nvml *n, const char *pci);

/* Whether it is divided (MIG): several may use it, and what it tells is of all of them. */
bool nvml_is_divided(const struct nvml *n, int index);

/* What GPU `index` is; rank and host stay the caller's. */
void nvml_describe(const struct nvml *n, int index, struct gpus_device *d);

/* How it is now; t_ns is clock_now_ns in the middle of asking for its energy, which comes first. */
void nvml_sample(const struct nvml *n, int index, struct gpus_sample *s);
