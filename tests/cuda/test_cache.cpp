/* Queries, keys and values put in their places on the device against plain C in float64. */
#include "tests/cuda/paged.h"

#define N_POSITIONS 200

static const arch_dtype dtypes[] = {ARCH_F32, ARCH_BF16, ARCH_FP8, ARCH_INT8};

/* A batch's tokens, rows of them with gaps, and one of padding in the middle. */
struct tokens {
    device_array<uint32_t> row, pos;

    explicit tokens(size_t n) : row(n), pos(n)
    {
        const std::vector<uint32_t> at = {0, 1, 15, 16, 17, 63, 190};
        for (size_t i = 0; i < n; i++) {
            row.host[i] = i == n / 2 ? CACHE_NO_ROW : (uint32_t)(i % 3);
            pos.host[i] = at[i % at.size()];
        }
    }

    cache_tokens on_device(paged *cache)
    {
        cache_tokens t = {};
        t.n = (int)row.host.size(), t.row = row.device(), t.pos = pos.device();
        t.tables = cache ? cache->tables.device() : nullptr;
        t.max_blocks = cache ? cache->max_blocks : 0;
        return t;
    }
};

struct rope {
    device_array<float> cosines, sines;
    int dim;

    explicit rope(int rope_dim)
        : cosines((size_t)(N_POSITIONS * rope_dim / 2 + 1)), sines(cosines.host.size()),
          dim(rope_dim)
    {
        cosines.draw(-1, 1), sines.draw(-1, 1);
    }

    cache_rope on_device()
    {
        return {cosines.device(), sines.device(), dim};
    }

    /* A head by the formula. */
    std::vector<double> turn(std::vector<double> x, uint32_t pos) const
    {
        const size_t half = (size_t)dim / 2, fixed = x.size() - 2 * half;
        for (size_t j = 0; j < half; j++) {
            const double c = cosines.host[pos * half + j], s = sines.host[pos * half + j];
            const double a = x[fixed + j], b = x[fixed + j + half];
            x[fixed + j] = a * c - b * s;
            x[fixed + j + half] = b * c + a * s;
        }
        return x;
    }
};

/* float32 rounding, and half a step of the codes: of the number's last bit, or of the largest number's. */
static double bound_of(arch_dtype dtype, double v, double most)
{
    const double exact = 1e-5 * most + 1e-6;
    return exact + (dtype == ARCH_F32    ? 0
                    : dtype == ARCH_BF16 ? fabs(v) / 256
                    : dtype == ARCH_FP8  ? fmax(fabs(v) / 16, most / 448 / 512)
                                         : most / 127 / 2);
}

static void expect_stored(const paged &cache, uint32_t row, uint32_t pos, int head, bool value,
                          const std::vector<double> &want)
{
    double most = 0, stored = 0;
    for (double v : want) {
        most = fmax(most, fabs(v));
    }
    for (size_t d = 0; d < want.size(); d++) {
        const double got = cache.number(row, pos, head, value, (int)d);
        expect_near(got, want[d], bound_of(cache.c.dtype, want[d], most));
        stored = fmax(stored, fabs(got));
    }
    expect_near(stored, most, most / 256 + 1e-6); // the largest number has the largest code
}

static double query_number(const device_array<float> &wide, const device_array<uint16_t> &narrow,
                           bool is_wide, size_t i)
{
    return is_wide ? wide.host[i] : float_of_bits(narrow.host[i]);
}

static void check_place(arch_dtype dtype, int n_heads, int n_kv_heads, int dim, int rope_dim,
                        bool has_bias)
{
    cache_layout layout;
    cache_layout_init(&layout, dtype, dim, dim, n_kv_heads, false);
    paged cache(layout, 3, (N_POSITIONS + 15) / 16);
    const size_t n = 7, all = (size_t)(n_heads + 2 * n_kv_heads), size = (size_t)dim;
    tokens t(n);
    rope r(rope_dim);
    device_array<float> qkv(n * all * size), bias(all * size);
    device_array<float> q32(n * (size_t)n_heads * size, NAN);
    device_array<uint16_t> q16(q32.host.size(), 0xffff);
    qkv.draw(-3, 3), bias.draw(-1, 1);
    cache_place p = {};
    p.layout = layout, p.tokens = t.on_device(&cache), p.rope = r.on_device(),
    p.kv = cache.bytes.device();
    p.n_heads = n_heads, p.qkv = qkv.device(), p.bias = has_bias ? bias.device() : nullptr;
    p.q = dtype == ARCH_F32 ? (void *)q32.device() : (void *)q16.device();
    cache_place_queue(&p, nullptr);
    device_finish();
    cache.bytes.fetch(), q32.fetch(), q16.fetch();
    for (size_t i = 0; i < n; i++) {
        for (int h = 0; h < (int)all && t.row.host[i] != CACHE_NO_ROW; h++) {
            std::vector<double> x(size);
            for (size_t d = 0; d < size; d++) {
                const size_t j = (size_t)h * size + d;
                x[d] = (double)qkv.host[i * all * size + j] + (has_bias ? bias.host[j] : 0);
            }
            const int kv_head = h - n_heads;
            if (kv_head < n_kv_heads) {
                x = r.turn(x, t.pos.host[i]);
            }
            if (kv_head >= 0) {
                expect_stored(cache, t.row.host[i], t.pos.host[i], kv_head % n_kv_heads,
                              kv_head >= n_kv_heads, x);
            }
            for (size_t d = 0; kv_head < 0 && d < size; d++) {
                const size_t j = (i * (size_t)n_heads + (size_t)h) * size + d;
                expect_near(query_number(q32, q16, dtype == ARCH_F32, j), x[d],
                            dtype == ARCH_F32 ? 1e-5 : fabs(x[d]) / 256 + 1e-5);
            }
        }
    }
}

static void heads(void **state)
{
    (void)state;
    for (arch_dtype dtype : dtypes) {
        check_place(dtype, 4, 2, 128, 128, true);
        check_place(dtype, 3, 1, 8, 8, false);
        check_place(dtype, 7, 7, 72, 24, true); // a part of the head turns
        check_place(dtype, 5, 1, 256, 256, false);
        check_place(dtype, 2, 1, 40, 40, true);
    }
}

/* Only what the batch's tokens own is written. */
static void nothing_else_is_written(void **state)
{
    (void)state;
    cache_layout layout;
    cache_layout_init(&layout, ARCH_BF16, 64, 64, 2, false);
    paged cache(layout, 3, (N_POSITIONS + 15) / 16);
    tokens t(1); // padding alone
    rope r(64);
    device_array<float> qkv(6 * 64);
    device_array<uint16_t> q(2 * 64, 0xffff);
    cache_place p = {};
    p.layout = layout, p.tokens = t.on_device(&cache), p.rope = r.on_device(),
    p.kv = cache.bytes.device();
    p.n_heads = 2, p.qkv = qkv.device(), p.q = q.device();
    cache_place_queue(&p, nullptr);
    device_finish();
    cache.bytes.fetch();
    for (unsigned char b : cache.bytes.host) {
        assert_int_equal(b, 0xff);
    }
}

/* --- latent attention ----------------------------------------------------------------------------------- */

static std::vector<double> normed(const float *x, const float *w, size_t n, double eps, bool rounds)
{
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        squares += (double)x[i] * x[i];
    }
    std::vector<double> out(n);
    for (size_t i = 0; i < n; i++) {
        const double unit = x[i] / sqrt(squares / (double)n + eps);
        out[i] = (rounds ? float_of_bits(bits_of_float((float)unit)) : unit) * w[i];
    }
    return out;
}

/* Small beside an eps of 1, so that norms leave them nearly as they are, and none rounds one way here, another there. */
static void keep_off_ties(std::vector<float> &values)
{
    for (float &v : values) {
        v *= 0x1p-10f;
        uint32_t bits;
        memcpy(&bits, &v, sizeof bits);
        bits = (bits & 0xffff8000u) | (0x1000 + bits % 0x6000);
        memcpy(&v, &bits, sizeof v);
    }
}

static void check_latents(arch_dtype dtype, size_t q_rank, size_t rank, int rope_dim, bool rounds)
{
    cache_layout layout;
    cache_layout_init(&layout, dtype, (int)rank + rope_dim, (int)rank, 1, true);
    paged cache(layout, 3, (N_POSITIONS + 15) / 16);
    const size_t n = 7, size = rank + (size_t)rope_dim, ld = q_rank + size;
    tokens t(n);
    rope r(rope_dim);
    device_array<float> latents(n * ld), q_norm(q_rank + 1), kv_norm(rank),
        q32(n * q_rank + 1, NAN);
    device_array<uint16_t> q16(n * q_rank + 1, 0xffff);
    latents.draw(-3, 3), q_norm.draw(0.5f, 1.5f), kv_norm.draw(0.5f, 1.5f);
    if (rounds) {
        keep_off_ties(latents.host);
    }
    const bool wide = dtype == ARCH_F32;
    const float eps = rounds ? 1 : 1e-6f;
    cache_latents p = {};
    p.layout = layout, p.tokens = t.on_device(&cache), p.rope = r.on_device(),
    p.kv = cache.bytes.device();
    p.q_rank = (int)q_rank, p.eps = eps, p.latents = latents.device(), p.wide = wide,
    p.rounds = rounds;
    p.q_norm = q_norm.device(), p.kv_norm = kv_norm.device();
    p.q_latents = wide ? (void *)q32.device() : (void *)q16.device();
    cache_latents_queue(&p, nullptr);
    device_finish();
    cache.bytes.fetch(), q32.fetch(), q16.fetch();
    for (size_t i = 0; i < n; i++) {
        const float *x = &latents.host[i * ld];
        if (t.row.host[i] == CACHE_NO_ROW) {
            continue;
        }
        const std::vector<double> q = normed(x, q_norm.host.data(), q_rank, eps, rounds);
        for (size_t d = 0; d < q_rank; d++) {
            expect_near(query_number(q32, q16, wide, i * q_rank + d), q[d],
                        fabs(q[d]) * (wide ? 1e-5 : 4e-3) + 1e-6);
        }
        std::vector<double> key = normed(x + q_rank, kv_norm.host.data(), rank, eps, rounds);
        key.insert(key.end(), x + q_rank + rank, x + ld);
        expect_stored(cache, t.row.host[i], t.pos.host[i], 0, false, r.turn(key, t.pos.host[i]));
    }
}

static void latents(void **state)
{
    (void)state;
    for (arch_dtype dtype : dtypes) {
        for (bool rounds : {false, true}) {
            check_latents(dtype, 1536, 512, 64, rounds);
            check_latents(dtype, 24, 40, 8, rounds);
            check_latents(dtype, 0, 16, 8, rounds);
        }
    }
}

static void check_queries(int n_heads, size_t nope, size_t rank, int rope_dim, bool wide,
                          bool by_head)
{
    const size_t n = 7, dim = nope + (size_t)rope_dim, size = rank + (size_t)rope_dim,
                 h_n = (size_t)n_heads;
    tokens t(n);
    rope r(rope_dim);
    device_array<float> heads(n * h_n * dim), absorbed(n * h_n * rank), q32(n * h_n * size, NAN);
    device_array<uint16_t> q16(n * h_n * size, 0xffff);
    heads.draw(-2, 2), absorbed.draw(-2, 2);
    cache_queries p = {};
    p.tokens = t.on_device(nullptr), p.rope = r.on_device(), p.n_heads = n_heads;
    p.head_dim = (int)dim, p.rank = (int)rank, p.heads = heads.device(),
    p.absorbed = absorbed.device();
    p.absorbed_token = by_head ? rank : h_n * rank;
    p.absorbed_head = by_head ? n * rank : rank;
    p.wide = wide, p.q = wide ? (void *)q32.device() : (void *)q16.device();
    cache_queries_queue(&p, nullptr);
    device_finish();
    q32.fetch(), q16.fetch();
    for (size_t i = 0; i < n * h_n; i++) {
        const size_t token = i / h_n, h = i % h_n;
        if (t.row.host[token] == CACHE_NO_ROW) {
            continue;
        }
        const std::vector<double> turned =
            r.turn(std::vector<double>(heads.host.begin() + (long)(i * dim),
                                       heads.host.begin() + (long)((i + 1) * dim)),
                   t.pos.host[token]);
        for (size_t d = 0; d < size; d++) {
            const double want =
                d < rank ? absorbed.host[token * p.absorbed_token + h * p.absorbed_head + d]
                         : turned[nope + d - rank];
            expect_near(query_number(q32, q16, wide, i * size + d), want,
                        wide ? 1e-6 : fabs(want) / 256 + 1e-6);
        }
    }
}

static void latent_queries(void **state)
{
    (void)state;
    check_queries(5, 24, 40, 8, true, false);
    check_queries(128, 16, 512, 64, false, true);
    check_queries(3, 8, 32, 16, false, false);
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(heads),
        cmocka_unit_test(nothing_else_is_written),
        cmocka_unit_test(latents),
        cmocka_unit_test(latent_queries),
    };
    return device_test_run(tests, nullptr, nullptr);
}
