/* What tests of several processes put into a GPU's memory, and read from it. */
#pragma once

#include "tests/cuda/several.h"

/* What was queued has happened. */
static inline void several_wait(const several &s)
{
    struct err e = {};
    expect_ok(s, gpu_wait(s.gpu, clock_local_ns() + SEVERAL_LONGEST_NS, &e), e);
}

/* A block of this GPU's memory with what is in `host`, and back. */
static inline void several_put(const several &s, void *device, const void *host, size_t n)
{
    expect(s, cudaMemcpyAsync(device, host, n, cudaMemcpyHostToDevice, gpu_stream(s.gpu)) ==
                  cudaSuccess);
    several_wait(s);
}
static inline void several_get(const several &s, void *host, const void *device, size_t n)
{
    expect(s, cudaMemcpyAsync(host, device, n, cudaMemcpyDeviceToHost, gpu_stream(s.gpu)) ==
                  cudaSuccess);
    several_wait(s);
}

/* Random bytes, the same wherever they are asked for. */
static inline std::vector<unsigned char> several_bytes(const several &s, size_t n, uint64_t of)
{
    std::mt19937_64 r(s.seed + of);
    std::vector<unsigned char> out(n);
    for (auto &b : out) {
        b = (unsigned char)r();
    }
    return out;
}
