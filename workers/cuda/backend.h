/*
 * Computes a stage on a GPU: one thread of its own queues a batch's work and waits for its end, so that the
 * rank's main thread does neither. Weights, activations and cache are in the device's memory; hidden states
 * and ids go through pinned host memory. This is what `tidemark-cuda.so` exports (workers/cuda_plugin.h).
 */
#pragma once

struct backend_ops;

extern const struct backend_ops backend_cuda;

/* A GPU for each worker of a host, or neighbours together where there are fewer. */
int backend_cuda_device(int index, int n_neighbours);
