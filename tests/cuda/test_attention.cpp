/* Attention over the paged cache on the device against plain C in float64. */
#include "tests/cuda/paged.h"
#include "workers/cuda/attention.h"

struct chunk {
    uint32_t n_tokens, pos;
};

struct how {
    arch_dtype dtype;
    int n_heads, n_kv_heads, key_dim, value_dim;
    bool shared;
    int window;
    float softcap;
    bool sinks, wide;
    std::vector<chunk> rows;
    int n_sms = 4;
    uint32_t distinct = 0; // blocks of the cache, fewer than the contexts have
};

struct problem {
    how h;
    attention_shape shape;
    paged cache;
    size_t n_tokens, n_heads, key_dim, value_dim;
    std::vector<attention_row> rows;
    float scale;
    device_array<float> q32, sinks, out32;
    device_array<uint16_t> q16, out16;

    static attention_shape shape_of(const how &h)
    {
        attention_shape s = {};
        cache_layout_init(&s.layout, h.dtype, h.key_dim, h.value_dim, h.n_kv_heads, h.shared);
        s.n_heads = h.n_heads, s.n_sms = h.n_sms;
        return s;
    }

    static uint32_t max_blocks(const how &h)
    {
        uint32_t n = 0;
        for (const chunk &c : h.rows) {
            n = std::max(n, (c.pos + c.n_tokens + 15) / 16);
        }
        return n;
    }

    static size_t tokens_of(const how &h)
    {
        size_t n = 0;
        for (const chunk &c : h.rows) {
            n += c.n_tokens;
        }
        return n;
    }

    explicit problem(const how &told)
        : h(told), shape(shape_of(h)), cache(shape.layout, (uint32_t)h.rows.size(), max_blocks(h), h.distinct),
          n_tokens(tokens_of(h)), n_heads((size_t)h.n_heads), key_dim((size_t)h.key_dim),
          value_dim((size_t)h.value_dim), scale(3 / sqrtf((float)h.key_dim)),
          q32(n_tokens * n_heads * key_dim), sinks(n_heads), out32(n_tokens * n_heads * value_dim, NAN),
          q16(q32.host.size()), out16(out32.host.size(), 0xffff)
    {
        uint32_t token = 0;
        for (uint32_t i = 0; i < h.rows.size(); i++) {
            rows.push_back({token, h.rows[i].n_tokens, h.rows[i].pos, i});
            token += h.rows[i].n_tokens;
            for (uint32_t pos = 0; pos < h.rows[i].pos + h.rows[i].n_tokens; pos++) {
                if (h.distinct == 0) {
                    cache.draw(i, pos);
                }
            }
        }
        for (uint32_t b = 0; b < h.distinct; b++) { // every block, wherever the first table has it
            const auto &t = cache.tables.host;
            const auto at = std::find(t.begin(), t.end(), b) - t.begin();
            for (uint32_t pos = 0; pos < 16; pos++) {
                cache.draw((uint32_t)at / cache.max_blocks, (uint32_t)at % cache.max_blocks * 16 + pos);
            }
        }
        q32.draw(-1, 1), sinks.draw(-1, 3);
        for (size_t i = 0; i < q32.host.size(); i++) {
            q16.host[i] = bits_of_float(q32.host[i]);
            q32.host[i] = h.dtype == ARCH_F32 ? q32.host[i] : float_of_bits(q16.host[i]);
        }
    }

    void run(bool pad)
    {
        const uint32_t n_rows = (uint32_t)rows.size();
        attention_limits limits;
        attention_work_limits(&limits, &shape, n_rows, (uint32_t)n_tokens);
        device_array<unsigned char> memory(limits.bytes, 0xff);
        device_array<float> partials(limits.partials_bytes / sizeof(float) + 1, NAN);
        attention_layer a = {};
        attention_work_fill(&a.work, memory.host.data(), &limits, &shape, h.window, rows.data(), n_rows);
        if (pad) {
            attention_work_pad(&a.work, limits.max_small, limits.max_large, limits.max_merges);
        }
        a.work.small = (attention_item *)memory.device();
        a.work.large = (attention_item *)(memory.device() + limits.large_at);
        a.work.merges = (attention_merge *)(memory.device() + limits.merges_at);
        a.shape = shape, a.scale = scale, a.softcap = h.softcap, a.window = h.window;
        a.sinks = h.sinks ? sinks.device() : nullptr;
        a.kv = cache.bytes.device(), a.tables = cache.tables.device(), a.max_blocks = cache.max_blocks;
        a.q = h.dtype == ARCH_F32 ? (void *)q32.device() : (void *)q16.device();
        a.out = h.wide ? (void *)out32.device() : (void *)out16.device();
        a.wide = h.wide, a.partials = partials.device();
        attention_queue(&a, nullptr);
        device_finish();
        out32.fetch(), out16.fetch();
    }

    double got(size_t i) const
    {
        return h.wide ? out32.host[i] : float_of_bits(out16.host[i]);
    }
};

/* Keys and values of a row's KV head as float64, read once. */
struct context {
    std::vector<double> keys, values;

    context(const problem &p, uint32_t row, int head, uint32_t from, uint32_t to)
        : keys((to - from) * p.key_dim), values((to - from) * p.value_dim)
    {
        for (uint32_t pos = from; pos < to; pos++) {
            for (size_t d = 0; d < p.key_dim; d++) {
                keys[(pos - from) * p.key_dim + d] = p.cache.number(row, pos, head, false, (int)d);
            }
            for (size_t d = 0; d < p.value_dim; d++) {
                values[(pos - from) * p.value_dim + d] = p.cache.number(row, pos, head, true, (int)d);
            }
        }
    }
};

/* One token and head by the formula; returns the largest number among the values. */
static double reference(const problem &p, const context &c, uint32_t from, uint32_t first, uint32_t pos,
                        size_t token, size_t head, std::vector<double> &out)
{
    std::vector<double> s;
    const float *q = &p.q32.host[(token * p.n_heads + head) * p.key_dim];
    double most = p.h.sinks ? p.sinks.host[head] : -INFINITY, largest = 0;
    for (uint32_t j = first; j <= pos; j++) {
        double dot = 0;
        for (size_t d = 0; d < p.key_dim; d++) {
            dot += q[d] * c.keys[(j - from) * p.key_dim + d];
        }
        dot *= p.scale;
        s.push_back(p.h.softcap > 0 ? p.h.softcap * tanh(dot / p.h.softcap) : dot);
        most = fmax(most, s.back());
    }
    double sum = p.h.sinks ? exp(p.sinks.host[head] - most) : 0;
    out.assign(p.value_dim, 0);
    for (uint32_t j = first; j <= pos; j++) {
        const double w = exp(s[j - first] - most);
        sum += w;
        for (size_t d = 0; d < p.value_dim; d++) {
            const double v = c.values[(j - from) * p.value_dim + d];
            out[d] += w * v;
            largest = fmax(largest, fabs(v));
        }
    }
    for (double &v : out) {
        v /= sum;
    }
    return largest;
}

/*
 * float32: sums of some thousand terms. Otherwise weights of the softmax are bfloat16, each off by at most 2^-8
 * of itself, and so is what they sum; a bfloat16 result by 2^-8 of itself again.
 */
static void expect_result(const problem &p)
{
    for (const attention_row &r : p.rows) {
        const uint32_t window = (uint32_t)p.h.window, end = r.pos + r.n_tokens;
        const uint32_t from = window > 0 && r.pos + 1 > window ? r.pos + 1 - window : 0;
        for (int kv_head = 0; kv_head < p.h.n_kv_heads; kv_head++) {
            const context c(p, r.row, kv_head, from, end);
            const size_t group = p.n_heads / (size_t)p.h.n_kv_heads;
            for (uint32_t t = 0; t < r.n_tokens; t++) {
                const uint32_t pos = r.pos + t;
                const uint32_t first = window > 0 && pos + 1 > window ? pos + 1 - window : 0;
                for (size_t h = (size_t)kv_head * group; h < (size_t)(kv_head + 1) * group; h++) {
                    std::vector<double> want;
                    const double largest = reference(p, c, from, first, pos, r.token + t, h, want);
                    for (size_t d = 0; d < p.value_dim; d++) {
                        const size_t i = ((r.token + t) * p.n_heads + h) * p.value_dim + d;
                        const double bound = p.h.dtype == ARCH_F32 ? 2e-5 : largest / 250 + 1e-5;
                        expect_near(p.got(i), want[d], bound + (p.h.wide ? 0 : fabs(want[d]) / 256));
                    }
                }
            }
        }
    }
}

static int n_too_large;

/* What latents of 576 take; of the shapes here, three: none else is left out on any device. */
#define LATENT_BYTES 166400

static uint32_t most_shared()
{
    int most = 0;
    assert_int_equal(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), cudaSuccess);
    return (uint32_t)most;
}

static bool is_taken(const attention_shape &shape)
{
    return attention_large_shared_bytes(&shape) <= most_shared();
}

static void check(const how &h)
{
    problem p(h);
    if (!is_taken(p.shape)) {
        n_too_large++;
        return;
    }
    p.run(false);
    expect_result(p);
    // Threads run in another order, the grid has idle blocks: the same bits.
    const std::vector<float> before32 = p.out32.host;
    const std::vector<uint16_t> before16 = p.out16.host;
    std::fill(p.out32.host.begin(), p.out32.host.end(), NAN);
    p.run(true);
    assert_memory_equal(before32.data(), p.out32.host.data(), before32.size() * sizeof(float));
    assert_memory_equal(before16.data(), p.out16.host.data(), before16.size() * sizeof(uint16_t));
}

static const arch_dtype dtypes[] = {ARCH_F32, ARCH_BF16, ARCH_FP8, ARCH_INT8};

/* --- decoding --------------------------------------------------------------------------------------------- */

static void contexts_of_all_lengths(void **state)
{
    (void)state;
    for (arch_dtype dtype : dtypes) {
        check({dtype, 8, 2, 64, 64, false, 0, 0, false, true, {{1, 0}, {1, 1}, {1, 15}, {1, 16}, {1, 31}, {1, 200}}});
        check({dtype, 4, 1, 128, 128, false, 0, 0, false, false, {{1, 700}, {1, 63}}});
    }
}

static void dims_and_groups(void **state)
{
    (void)state;
    const int dims[] = {8, 24, 40, 72, 96, 128, 136, 192, 256};
    int turn = 0;
    for (int dim : dims) {
        for (int i = 0; i < 2; i++, turn++) {
            const int group = 1 + turn * 7 % 16;
            const int value_dim = turn % 3 == 0 ? 256 - dim + 8 : dim;
            check({dtypes[turn % 4], 2 * group, 2, dim, value_dim, false, 0, 0, turn % 2 > 0, turn % 5 > 0,
                   {{1, 77}, {2, 5}}});
        }
    }
    check({ARCH_BF16, 16, 1, 64, 64, false, 0, 0, false, true, {{1, 50}}});
    check({ARCH_BF16, 35, 1, 64, 64, false, 0, 0, false, true, {{1, 50}, {3, 20}}}); // more heads than rows
}

static void windows_caps_and_sinks(void **state)
{
    (void)state;
    for (arch_dtype dtype : dtypes) {
        check({dtype, 4, 2, 64, 64, false, 20, 0, true, true, {{1, 300}, {1, 7}, {1, 19}, {1, 20}}});
        check({dtype, 4, 2, 64, 64, false, 0, 5, false, true, {{1, 300}, {1, 7}}});
        check({dtype, 6, 2, 32, 32, false, 1000, 2, true, true, {{1, 300}, {40, 7}}});
        check({dtype, 6, 2, 32, 32, false, 1, 0, false, true, {{1, 33}, {20, 7}}}); // a token alone
        check({dtype, 2, 2, 128, 128, false, 128, 50, true, false, {{1, 600}}});
    }
}

/* --- chunks of prompts ------------------------------------------------------------------------------------- */

static void chunks(void **state)
{
    (void)state;
    for (arch_dtype dtype : dtypes) {
        check({dtype, 4, 1, 64, 64, false, 0, 0, false, true, {{70, 0}, {1, 30}, {33, 100}}});
        check({dtype, 3, 1, 128, 128, false, 0, 0, true, false, {{130, 3}}});
        check({dtype, 2, 1, 256, 256, false, 48, 30, true, true, {{50, 90}}});
    }
    check({ARCH_BF16, 12, 1, 40, 104, false, 0, 0, false, true, {{25, 17}}});
    check({ARCH_FP8, 5, 1, 56, 40, false, 33, 0, false, true, {{41, 60}}});
    check({ARCH_INT8, 4, 2, 136, 24, false, 0, 0, false, true, {{41, 0}}});
    check({ARCH_BF16, 48, 2, 24, 24, false, 0, 0, false, true, {{9, 11}, {1, 3}}});
}

/* A prompt in chunks gives what it gives at once. */
static void chunked_is_whole(void **state)
{
    (void)state;
    problem whole({ARCH_BF16, 8, 2, 64, 64, false, 0, 0, false, true, {{90, 0}}});
    whole.run(false);
    const uint32_t cuts[] = {0, 1, 17, 64, 90};
    for (size_t i = 0; i + 1 < 5; i++) {
        problem part({ARCH_BF16, 8, 2, 64, 64, false, 0, 0, false, true, {{cuts[i + 1] - cuts[i], cuts[i]}}});
        part.cache.bytes.host.resize(whole.cache.bytes.host.size());
        const size_t of_token = part.n_heads * part.key_dim, from = cuts[i] * of_token;
        std::copy(whole.cache.bytes.host.begin(), whole.cache.bytes.host.end(), part.cache.bytes.host.begin());
        part.cache.tables.host = whole.cache.tables.host;
        std::copy_n(whole.q16.host.begin() + (long)from, part.q16.host.size(), part.q16.host.begin());
        part.run(false);
        for (size_t j = 0; j < part.out32.host.size(); j++) {
            // both have weights rounded to bfloat16, relative to other maxima
            expect_near(part.out32.host[j], whole.out32.host[cuts[i] * part.n_heads * part.value_dim + j], 8e-3);
        }
    }
}

static void far_offsets(void **state)
{
    (void)state;
    const uint32_t far = 131072 - 3;
    check({ARCH_BF16, 4, 1, 16, 16, false, 0, 0, false, true, {{1, far}}, 4, 8});
    check({ARCH_FP8, 4, 1, 64, 64, false, 100, 0, true, true, {{3, far - 1}}, 4, 8});
    check({ARCH_BF16, 4, 1, 64, 64, false, 4096, 0, true, true, {{3, far - 1}, {20, far - 64}}, 4, 8});
    check({ARCH_F32, 2, 1, 8, 8, false, 0, 0, false, true, {{1, far}}, 4, 8});
}

/* --- latent attention -------------------------------------------------------------------------------------- */

static void latent(void **state)
{
    (void)state;
    check({ARCH_BF16, 128, 1, 576, 512, true, 0, 0, false, true, {{1, 70}}});
    check({ARCH_F32, 20, 1, 576, 512, true, 0, 0, false, true, {{1, 70}}});
    check({ARCH_FP8, 64, 1, 576, 512, true, 0, 0, false, false, {{1, 40}}});
    check({ARCH_BF16, 16, 1, 576, 512, true, 0, 0, false, true, {{1, 530}, {6, 10}}});
    for (arch_dtype dtype : dtypes) {
        check({dtype, 4, 1, 40, 32, true, 0, 0, false, true, {{1, 300}, {1, 0}, {37, 12}}});
        check({dtype, 20, 1, 152, 136, true, 0, 0, false, false, {{1, 30}, {2, 41}}});
    }
}

/* Many multiprocessors to fill: contexts in many parts, in both kernels. */
static void many_parts(void **state)
{
    (void)state;
    for (arch_dtype dtype : dtypes) {
        check({dtype, 4, 2, 32, 32, false, 0, 0, true, true, {{1, 2000}, {1, 100}, {2, 999}, {40, 700}}, 64});
    }
    check({ARCH_INT8, 32, 1, 48, 40, true, 0, 0, false, true, {{1, 900}, {3, 400}}, 64});
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(contexts_of_all_lengths),
        cmocka_unit_test(dims_and_groups),
        cmocka_unit_test(windows_caps_and_sinks),
        cmocka_unit_test(chunks),
        cmocka_unit_test(chunked_is_whole),
        cmocka_unit_test(far_offsets),
        cmocka_unit_test(latent),
        cmocka_unit_test(many_parts),
    };
    const int n_failed = device_test_run(tests, nullptr, nullptr);
    printf("%d shapes left out: a block of this device has too little memory\n", n_too_large);
    return n_failed > 0 || n_too_large > (most_shared() < LATENT_BYTES ? 3 : 0);
}
