/*
 * Attention of decoding over the paged cache: bytes per second where the blocks of the requests' caches are
 * scattered over the pool, where each request's lie one after the other, and of merely reading as many, all on
 * one device in one process. A list of cases in JSON, on standard output.
 *
 * As in a model, each of many layers has a cache of its own, so that none finds its own in the device's caches;
 * and all of them are queued as one graph, so that the host's time for launching does not count. Bytes are those
 * of the cache alone, factors and pads included. "In order" is the same kernel: what paging itself costs, a table's
 * entry in front of each block of 16 positions, is in both.
 *
 * Built for a GPU (target gpu_perf_attention; exit 77 without one), and for the stand-in, where it runs with a few
 * small cases as unit.cuda_perf_attention: its times mean nothing there.
 */
#include "workers/cuda/attention.h"
#include "workers/cuda/sweep.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef GPU_ON_CPU
static const size_t LEAST_BYTES = 1 << 16; // of all layers together
static const int REPEATS = 2;
#else
static const size_t LEAST_BYTES = (size_t)1 << 30;
static const int REPEATS = 10;
#endif
static const int MAX_LAYERS = 128;

static void must(cudaError_t e, const char *call)
{
    if (e != cudaSuccess) {
        fprintf(stderr, "attention_gpu: %s: %s\n", call, cudaGetErrorString(e));
        exit(1);
    }
}

/* Device memory, freed at the end of its scope. */
class memory {
  public:
    void *p = nullptr;
    explicit memory(size_t n_bytes)
    {
        must(cudaMalloc(&p, n_bytes), "cudaMalloc");
    }
    memory(const memory &) = delete;
    ~memory()
    {
        cudaFree(p);
    }
    char *bytes() const
    {
        return (char *)p;
    }
};

struct device {
    int n_processors = 0;
    cudaStream_t stream = nullptr;
    cudaEvent_t from = nullptr, to = nullptr;

    device()
    {
        struct cudaDeviceProp p;
        must(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
        n_processors = p.multiProcessorCount;
        must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
        must(cudaEventCreateWithFlags(&from, 0), "cudaEventCreate");
        must(cudaEventCreateWithFlags(&to, 0), "cudaEventCreate");
    }

    device(const device &) = delete;
    ~device()
    {
        cudaEventDestroy(to);
        cudaEventDestroy(from);
        cudaStreamDestroy(stream);
    }

    /* The least seconds that what `queue` queues takes, after once that does not count. */
    template <class F> double best_s(F queue) const
    {
        float least_ms = INFINITY;
        queue();
        for (int i = 0; i < REPEATS; i++) {
            float ms = 0;
            must(cudaEventRecord(from, stream), "cudaEventRecord");
            queue();
            must(cudaEventRecord(to, stream), "cudaEventRecord");
            must(cudaGetLastError(), "launch");
            must(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
            must(cudaEventElapsedTime(&ms, from, to), "cudaEventElapsedTime");
            least_ms = fminf(least_ms, ms);
        }
        return (double)least_ms / 1e3;
    }
};

/* --- cases ---------------------------------------------------------------------------------------- */

struct model {
    const char *name, *kv;
    arch_dtype dtype;
    int n_heads, n_kv_heads, key_dim, value_dim;
    bool shared;
};

#ifdef GPU_ON_CPU
static const model models[] = {
    {"llama-3.1-8b", "bf16", ARCH_BF16, 4, 1, 32, 32, false},
    {"llama-3.1-8b", "fp8", ARCH_FP8, 4, 1, 32, 32, false},
    {"deepseek-r1", "bf16", ARCH_BF16, 4, 1, 40, 32, true},
};
static const uint32_t sizes[][2] = {{1, 40}, {3, 200}}; // batch, context
#else
static const model models[] = {
    {"llama-3.1-8b", "bf16", ARCH_BF16, 32, 8, 128, 128, false},
    {"llama-3.1-8b", "fp8", ARCH_FP8, 32, 8, 128, 128, false},
    {"llama-1b", "bf16", ARCH_BF16, 32, 8, 64, 64, false},
    {"deepseek-r1", "bf16", ARCH_BF16, 128, 1, 576, 512, true},
};
static const uint32_t sizes[][2] = {{1, 2048}, {1, 32768}, {8, 2048}, {64, 2048}, {64, 8192}};
#endif

/* A batch in which each request has one token behind context - 1 others. */
class decoding {
  public:
    const model &m;
    const uint32_t batch, context, blocks_each;
    attention_shape shape;
    int n_layers;
    size_t layer_bytes;

    decoding(const model &of, uint32_t n, uint32_t positions, const device &d)
        : m(of), batch(n), context(positions), blocks_each((positions + CACHE_BLOCK - 1) / CACHE_BLOCK), shape()
    {
        cache_layout_init(&shape.layout, m.dtype, m.key_dim, m.value_dim, m.n_kv_heads, m.shared);
        shape.n_heads = m.n_heads;
        shape.n_sms = d.n_processors;
        layer_bytes = (size_t)batch * blocks_each * shape.layout.block_bytes;
        const size_t wanted = (LEAST_BYTES + layer_bytes - 1) / layer_bytes;
        n_layers = (int)std::min(wanted, (size_t)MAX_LAYERS);
    }

    size_t read_bytes() const
    {
        const size_t of_position = shape.layout.block_bytes / CACHE_BLOCK;
        return (size_t)n_layers * batch * context * of_position;
    }

    size_t out_bytes() const
    {
        return (size_t)batch * (size_t)m.n_heads * (size_t)m.value_dim * sizeof(uint16_t);
    }
};

/* --- one case ------------------------------------------------------------------------------------- */

/* What the kernels take beside the cache, on the device. */
struct room {
    attention_limits limits;
    memory work, partials, q, out, tables;

    static attention_limits limits_of(const decoding &c)
    {
        attention_limits l;
        attention_work_limits(&l, &c.shape, c.batch, c.batch);
        return l;
    }

    explicit room(const decoding &c)
        : limits(limits_of(c)), work(limits.bytes), partials(limits.partials_bytes + 16),
          q((size_t)c.batch * (size_t)c.m.n_heads * (size_t)c.m.key_dim * sizeof(uint16_t)), out(c.out_bytes()),
          tables((size_t)c.batch * c.blocks_each * sizeof(uint32_t))
    {
    }
};

static void send(const device &d, void *to, const void *from, size_t n_bytes)
{
    must(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyHostToDevice, d.stream), "cudaMemcpyAsync");
    must(cudaStreamSynchronize(d.stream), "cudaStreamSynchronize");
}

static attention_layer prepare(const device &d, const decoding &c, const room &r)
{
    std::vector<unsigned char> host(r.limits.bytes);
    std::vector<attention_row> rows;
    for (uint32_t i = 0; i < c.batch; i++) {
        rows.push_back({i, 1, c.context - 1, i});
    }
    attention_layer a = {};
    a.shape = c.shape;
    a.scale = 1 / sqrtf((float)c.m.key_dim);
    attention_work_fill(&a.work, host.data(), &r.limits, &c.shape, 0, rows.data(), c.batch);
    send(d, r.work.p, host.data(), host.size());
    a.work.small = (attention_item *)r.work.p;
    a.work.large = (attention_item *)(void *)(r.work.bytes() + r.limits.large_at);
    a.work.merges = (attention_merge *)(void *)(r.work.bytes() + r.limits.merges_at);
    a.tables = (const uint32_t *)r.tables.p;
    a.max_blocks = c.blocks_each;
    a.q = r.q.p;
    a.out = r.out.p;
    a.partials = (float *)r.partials.p;
    return a;
}

/* All layers, one after the other, as one graph. */
static double attention_s(const device &d, const decoding &c, attention_layer a, const memory &cache)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t run = nullptr;
    must(cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    for (int i = 0; i < c.n_layers; i++) {
        a.kv = cache.bytes() + (size_t)i * c.layer_bytes;
        attention_queue(&a, d.stream);
    }
    must(cudaStreamEndCapture(d.stream, &graph), "cudaStreamEndCapture");
    must(cudaGraphInstantiate(&run, graph, 0), "cudaGraphInstantiate");
    const double s = d.best_s([&] { must(cudaGraphLaunch(run, d.stream), "cudaGraphLaunch"); });
    must(cudaGraphExecDestroy(run), "cudaGraphExecDestroy");
    must(cudaGraphDestroy(graph), "cudaGraphDestroy");
    return s;
}

/* Numbers between -2 and 2, in any order of blocks: so is every mean of them. */
static void check_results(const device &d, const decoding &c, const room &r)
{
    std::vector<uint16_t> out(c.out_bytes() / sizeof(uint16_t));
    must(cudaMemcpyAsync(out.data(), r.out.p, c.out_bytes(), cudaMemcpyDeviceToHost, d.stream), "cudaMemcpyAsync");
    must(cudaStreamSynchronize(d.stream), "cudaStreamSynchronize");
    size_t others = 0;
    for (uint16_t bits : out) {
        const uint32_t wide = (uint32_t)bits << 16;
        float v;
        memcpy(&v, &wide, sizeof v);
        others += v != 0;
        // FP8 numbers are times a factor that is below 2, too.
        if (!(fabsf(v) <= (c.m.dtype == ARCH_BF16 ? 2 : 4))) {
            fprintf(stderr, "attention_gpu: %s in %s, %u x %u: a result of %g\n", c.m.name, c.m.kv, c.batch,
                    c.context, (double)v);
            exit(1);
        }
    }
    if (others < out.size() / 2) {
        fprintf(stderr, "attention_gpu: %s in %s, %u x %u: zeros\n", c.m.name, c.m.kv, c.batch, c.context);
        exit(1);
    }
}

static double reading_s(const device &d, const memory &from, size_t n_bytes)
{
    const memory sums(sweep_max_sums(d.n_processors) * sizeof(uint32_t));
    double least = INFINITY;
    for (int shape = 0; shape < SWEEP_SHAPES; shape++) {
        least = fmin(least, d.best_s([&] {
            sweep_read_queue(shape, d.n_processors, from.p, n_bytes, (uint32_t *)sums.p, d.stream);
        }));
    }
    return least;
}

static void measure(const device &d, const model &m, uint32_t batch, uint32_t context, bool follows)
{
    const decoding c(m, batch, context, d);
    const size_t all = (size_t)c.n_layers * c.layer_bytes;
    const memory cache(all);
    const room r(c);
    const bool wide = m.dtype == ARCH_BF16; // else codes, and factors as float32
    sweep_fill_queue(cache.p, all, 1, wide ? 0x81ff81ffu : 0xbfbfbfbfu, wide ? 0x3e003e00u : 0, d.stream);
    sweep_fill_queue(r.q.p, (size_t)batch * (size_t)m.n_heads * (size_t)m.key_dim * 2, 2, 0x81ff81ffu, 0x3e003e00u,
                     d.stream);
    const attention_layer a = prepare(d, c, r);
    std::vector<uint32_t> table((size_t)batch * c.blocks_each);
    std::iota(table.begin(), table.end(), 0u);
    send(d, r.tables.p, table.data(), table.size() * sizeof(uint32_t));
    const double ordered_s = attention_s(d, c, a, cache);
    check_results(d, c, r);
    std::shuffle(table.begin(), table.end(), std::mt19937_64(1));
    send(d, r.tables.p, table.data(), table.size() * sizeof(uint32_t));
    const double paged_s = attention_s(d, c, a, cache);
    check_results(d, c, r);
    const double read_s = reading_s(d, cache, all), bytes = (double)c.read_bytes();
    printf("%s{\"model\": \"%s\", \"kv\": \"%s\", \"batch\": %u, \"context\": %u, \"layers\": %d, \"bytes\": %.0f,\n"
           "  \"paged_s\": %.9g, \"in_order_s\": %.9g, \"paged_bytes_per_s\": %.9g, \"in_order_bytes_per_s\": %.9g,\n"
           "  \"read_bytes_per_s\": %.9g, \"read_share\": %.4f, \"paged_over_in_order\": %.4f}",
           follows ? ",\n " : "[", m.name, m.kv, batch, context, c.n_layers, bytes, paged_s, ordered_s,
           bytes / paged_s, bytes / ordered_s, (double)all / read_s, bytes / paged_s / ((double)all / read_s),
           paged_s / ordered_s);
    fflush(stdout);
}

int main()
{
    int n_devices = 0;
    if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices == 0) {
        fprintf(stderr, "skipped: no GPU\n");
        return 77;
    }
    const device d;
    bool follows = false;
    for (const model &m : models) {
        for (const auto &size : sizes) {
            measure(d, m, size[0], size[1], follows);
            follows = true;
        }
    }
    printf("]\n");
    return 0;
}
