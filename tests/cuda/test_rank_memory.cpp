/*
 * What workers/rank_memory.h says without a GPU against what the backend takes: weights of parts of the reference
 * shapes, by the size of the one piece of memory that it asks for and that is refused; cache by its layout; the
 * buffers of a batch by what a forward pass has taken.
 */
extern "C" {
#include "model/arch.h"
}

#include "tests/cuda/device_test.h"

extern "C" {
#include "workers/cuda/cache.h"
#include "workers/cuda/device_weights.h"
#include "workers/cuda/forward.h"
#include "workers/rank_memory.h"
}

#include <math.h>

static struct arch opened(const char *model)
{
    struct arch a;
    struct err e;
    if (arch_open(model, &a, &e)) {
        fail_msg("%s", e.msg);
    }
    return a;
}

static struct rank_memory_config whole(const struct arch *a)
{
    struct rank_memory_config c = {};
    struct err e;
    c.arch = a;
    c.part = {0, a->n_layers, true, true};
    c.kv_dtype = a->dtype == ARCH_F32 ? ARCH_F32 : ARCH_BF16;
    c.limits.max_rows = c.limits.n_slots = 4, c.limits.max_tokens = 64;
    assert_int_equal(shard_init(&c.shard, a, 0, 1, &e), 0);
    return c;
}

static struct rank_memory found(const struct rank_memory_config &c)
{
    struct rank_memory m;
    rank_memory_find(&c, &m);
    return m;
}

static void near(double is, double should, double within, const char *model, const char *what)
{
    if (!(fabs(is / should - 1) <= within)) {
        fail_msg("%s: %s of %.0f bytes, the backend has %.0f", model, what, is, should);
    }
}

#ifdef GPU_ON_CPU
/* What the loader asks for, from what it says when it is refused. */
static double wanted_bytes(const char *model, const struct rank_memory_config &c, struct pool *pool)
{
    struct gpu *g;
    struct err e = {};
    struct device_weights d = {};
    double n = 0;
    assert_int_equal(gpu_open(&g, 0, 0, &e), 0);
    const struct device_weights_config cfg = {model, c.arch, c.part, c.shard, c.weight_bits, pool};
    assert_int_equal(device_weights_load(&d, g, &cfg, &e), -1);
    const char *at = strstr(e.msg, "cudaMalloc of ");
    if (!at || sscanf(at, "cudaMalloc of %lf bytes for the weights", &n) != 1) {
        fail_msg("%s", e.msg);
    }
    gpu_close(g);
    return n;
}

static void weights_of_parts(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        int tensor, first, n; // n 0: all
    } cases[] = {
        {"preset:llama-1b", 1, 0, 0},        {"preset:llama-3.1-8b", 2, 0, 0},
        {"preset:llama-3.1-8b", 1, 17, 15},  {"preset:llama-3.1-70b", 8, 0, 0},
        {"preset:llama-3.1-405b", 8, 0, 63}, {"preset:llama-3.1-405b", 8, 63, 63},
        {"preset:gemma-2-9b", 1, 0, 0},      {"preset:gemma-2-27b", 2, 0, 24},
        {"preset:gemma-2-27b", 2, 24, 22},   {"preset:deepseek-r1-distill-qwen-7b", 4, 0, 28},
        {"preset:gpt-oss-20b", 1, 0, 0},     {"preset:gpt-oss-20b", 4, 0, 12},
        {"preset:deepseek-r1", 8, 0, 32},    {"preset:deepseek-r1", 8, 32, 29},
        {"preset:deepseek-r1", 4, 0, 8},
    };
    struct pool *pool = pool_create(1, nullptr, false);
    setenv("GPU_ON_CPU_BYTES", "1000000", 1);
    for (const auto &k : cases) {
        const struct arch a = opened(k.model);
        struct rank_memory_config c = whole(&a);
        c.part.first_layer = k.first;
        c.part.n_layers = k.n ? k.n : a.n_layers;
        c.part.has_embed = k.first == 0;
        c.part.has_head = c.part.first_layer + c.part.n_layers == a.n_layers;
        for (int bits : {0, 16, 8, 4}) {
            for (int rank : {0, k.tensor - 1}) {
                struct err e;
                c.weight_bits = bits;
                assert_int_equal(shard_init(&c.shard, &a, rank, k.tensor, &e), 0);
                near(found(c).weight_bytes, wanted_bytes(k.model, c, pool), 2e-3, k.model, "weights");
            }
        }
    }
    unsetenv("GPU_ON_CPU_BYTES");
    pool_destroy(pool);
}
#endif

static void the_cache(void **state)
{
    (void)state;
    for (const char *model : {"preset:llama-3.1-405b", "preset:gemma-2-9b", "preset:gpt-oss-20b", "preset:deepseek-r1",
                              "preset:tiny-gemma2", "preset:tiny-deepseek"}) {
        const struct arch a = opened(model);
        const bool is_latent = arch_is_latent(&a);
        const int keys = is_latent ? a.latent.kv_rank + a.rope_dim : a.head_dim;
        for (enum arch_dtype dtype : {ARCH_F32, ARCH_BF16, ARCH_FP8, ARCH_INT8}) {
            struct cache_layout layout;
            struct rank_memory_config c = whole(&a);
            c.kv_dtype = dtype;
            cache_layout_init(&layout, dtype, keys, is_latent ? a.latent.kv_rank : a.v_dim,
                              is_latent ? 1 : c.shard.kv_heads.n, is_latent);
            near(found(c).kv_token_bytes * CACHE_BLOCK, (double)layout.block_bytes * a.n_layers, 1e-12, model, "cache");
        }
    }
}

/* Alone, and the first of two ranks. */
static void the_largest_batch(void **state)
{
    (void)state;
    struct pool *pool = pool_create(1, nullptr, false);
    for (const char *model : {"preset:tiny", "preset:tiny-gemma2", "preset:tiny-gpt-oss", "preset:tiny-deepseek"}) {
        const struct arch a = opened(model);
        for (int tensor : {1, 2}) {
            struct gpu *g;
            struct err e = {};
            struct device_weights w = {};
            struct forward *f = nullptr;
            struct rank_memory_config c = whole(&a);
            c.limits.max_tokens = 2048, c.limits.max_rows = c.limits.n_slots = 256;
            assert_int_equal(shard_init(&c.shard, &a, 0, tensor, &e), 0);
            const struct device_weights_config cfg = {model, &a, c.part, c.shard, 0, pool};
            struct forward_config forward = {};
            forward.weights = &w, forward.arch = &a, forward.part = c.part, forward.kv_dtype = c.kv_dtype;
            forward.max_tokens = c.limits.max_tokens, forward.max_rows = c.limits.max_rows;
            forward.n_slots = c.limits.n_slots, forward.slot_blocks = (uint32_t)a.max_context / CACHE_BLOCK;
            forward.group.size = tensor;
            if (gpu_open(&g, 0, 0, &e) || device_weights_load(&w, g, &cfg, &e)) {
                fail_msg("%s", e.msg);
            }
            forward.gpu = g;
            if (forward_create(&f, &forward, &e)) {
                fail_msg("%s", e.msg);
            }
            near(found(c).batch_bytes, (double)(gpu_taken_bytes(g) - w.n_bytes), 0.2, model, "buffers");
            forward_destroy(f);
            device_weights_free(&w);
            gpu_close(g);
        }
    }
    pool_destroy(pool);
}

int main()
{
    const CMUnitTest tests[] = {
#ifdef GPU_ON_CPU
        cmocka_unit_test(weights_of_parts),
#endif
        cmocka_unit_test(the_cache),
        cmocka_unit_test(the_largest_batch),
    };
    return device_test_run(tests, nullptr, nullptr);
}
