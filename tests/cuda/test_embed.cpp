/* Embeddings on the device against plain C. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/embed.h"

extern "C" {
#include "workers/weights/f16.h"
}

static const int widths[] = {1, 6, 32, 60, 100, 512, 513, 1536};

struct table {
    device_array<float> f32;
    device_array<uint16_t> half, factors;
    device_array<int8_t> bytes;
    size_t hidden, groups;
    enum arch_dtype dtype;

    table(size_t n, size_t hidden_, enum arch_dtype dtype_)
        : f32(n * hidden_), half(n * hidden_), factors(n * ((hidden_ + 31) / 32)), bytes(n * hidden_),
          hidden(hidden_), groups((hidden_ + 31) / 32), dtype(dtype_)
    {
        f32.draw(-2, 2), bytes.draw(-127, 127);
        for (size_t i = 0; i < n * hidden; i++) {
            half.host[i] = dtype == ARCH_F16 ? f16_from_f32(f32.host[i]) : bits_of_float(f32.host[i]);
        }
        for (uint16_t &factor : factors.host) {
            factor = f16_from_f32(std::uniform_real_distribution<float>(1e-6f, 1)(device_random()));
        }
        half.host[0] = dtype == ARCH_F16 ? 3 : half.host[0]; // no normal float16
    }

    const void *device()
    {
        return dtype == ARCH_F32 ? f32.device() : dtype == ARCH_INT8 ? (void *)bytes.device() : half.device();
    }

    float at(size_t row, size_t k) const
    {
        const size_t i = row * hidden + k;
        return dtype == ARCH_F32    ? f32.host[i]
               : dtype == ARCH_BF16 ? float_of_bits(half.host[i])
               : dtype == ARCH_F16  ? f16_to_f32(half.host[i])
                                    : bytes.host[i] * f16_to_f32(factors.host[row * groups + k / 32]);
    }
};

static void check(int hidden, enum arch_dtype dtype, float scale)
{
    const int n = 9, n_vocab = 11, first = 5;
    table t((size_t)n_vocab, (size_t)hidden, dtype);
    device_array<int32_t> ids((size_t)n);
    device_array<float> x((size_t)n * (size_t)hidden, NAN);
    ids.draw(0, 22);
    ids.host[0] = 4, ids.host[1] = 5, ids.host[2] = 15, ids.host[3] = 16; // the rank's first and last
    embed_rows e = {};
    e.n = n, e.hidden = hidden, e.ids = ids.device(), e.dtype = dtype, e.table = t.device();
    e.factors = dtype == ARCH_INT8 ? t.factors.device() : nullptr;
    e.first = first, e.n_vocab = n_vocab, e.scale = scale, e.x = x.device();
    embed_queue(&e, nullptr);
    device_finish();
    x.fetch();
    for (size_t i = 0; i < (size_t)n; i++) {
        const int row = ids.host[i] - first;
        for (size_t k = 0; k < (size_t)hidden; k++) {
            const float want = row >= 0 && row < n_vocab ? t.at((size_t)row, k) * scale : 0;
            expect_near(x.host[i * (size_t)hidden + k], want, 0); // exact: one product, rounded alike
        }
    }
}

static void rows_of_every_dtype(void **state)
{
    (void)state;
    for (int hidden : widths) {
        for (enum arch_dtype dtype : {ARCH_F32, ARCH_BF16, ARCH_F16, ARCH_INT8}) {
            check(hidden, dtype, 1);
            check(hidden, dtype, 45.25f);
        }
    }
}

static void no_tokens(void **state)
{
    (void)state;
    embed_rows e = {};
    embed_queue(&e, nullptr);
    device_finish();
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_every_dtype),
        cmocka_unit_test(no_tokens),
    };
    return device_test_run(tests, nullptr, nullptr);
}
