/*
 * What tests of device code share. They are built twice: for the CPU stand-in (tests/support/gpu_on_cpu), and,
 * with TIDEMARK_CUDA, by nvcc for a GPU; without one that program ends with 77: skipped.
 */
#pragma once

#include <cuda_runtime.h>

#include <random>
#include <vector>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

static inline void device_must(cudaError_t e, const char *what)
{
    if (e != cudaSuccess) {
        fail_msg("%s: %s", what, cudaGetErrorString(e));
    }
}

static inline void device_finish()
{
    device_must(cudaGetLastError(), "launch");
    device_must(cudaDeviceSynchronize(), "kernel");
}

/* Inputs are new in each run; its seed is printed, and TIDEMARK_SEED repeats it. */
static inline std::mt19937_64 &device_random()
{
    static std::mt19937_64 *r = nullptr;
    if (r == nullptr) {
        const char *told = getenv("TIDEMARK_SEED");
        const unsigned long long seed = told ? strtoull(told, nullptr, 10) : std::random_device{}();
        printf("TIDEMARK_SEED=%llu\n", seed);
        r = new std::mt19937_64(seed);
    }
    return *r;
}

/* An array here and on the device. What is in `host` at the first device() goes there. */
template <class T> class device_array {
  public:
    std::vector<T> host;

    explicit device_array(size_t n, T fill = T()) : host(n, fill)
    {
    }
    device_array(const device_array &) = delete;
    ~device_array()
    {
        cudaFree(p);
    }

    void draw(float lo, float hi)
    {
        std::uniform_real_distribution<float> d(lo, hi);
        for (T &v : host) {
            v = (T)d(device_random());
        }
    }

    T *device()
    {
        if (p == nullptr) {
            device_must(cudaMalloc((void **)&p, host.size() * sizeof(T)), "cudaMalloc");
            device_must(cudaMemcpyAsync(p, host.data(), host.size() * sizeof(T),
                                        cudaMemcpyHostToDevice, nullptr),
                        "copy in");
            device_must(cudaDeviceSynchronize(), "copy in");
        }
        return p;
    }

    void fetch()
    {
        if (p != nullptr) {
            device_must(cudaMemcpyAsync(host.data(), p, host.size() * sizeof(T),
                                        cudaMemcpyDeviceToHost, nullptr),
                        "copy out");
            device_must(cudaDeviceSynchronize(), "copy out");
        }
    }

  private:
    T *p = nullptr;
};

static inline float float_of_bits(uint16_t bf16)
{
    const uint32_t bits = (uint32_t)bf16 << 16;
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static inline uint16_t bits_of_float(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

#define expect_near(got, want, bound) expect_near_at(got, want, bound, __FILE__, __LINE__)

static inline void expect_near_at(double got, double want, double bound, const char *file, int line)
{
    if (!(fabs(got - want) <= bound)) {
        print_error("%.9g, wanted %.9g to within %.3g\n", got, want, bound);
        _fail(file, line);
    }
}

template <size_t n>
static inline int device_test_run(const CMUnitTest (&tests)[n], CMFixtureFunction up,
                                  CMFixtureFunction down)
{
    int n_devices = 0;
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices == 0) {
        printf("skipped: no GPU\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, up, down);
}
