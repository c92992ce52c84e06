/* Embeddings on the device against plain C. */
#include "tests/cuda/device_weights.h"
#include "workers/cuda/embed.h"

static const int widths[] = {1, 6, 28, 32, 60, 100, 512, 513, 1536};
static const enum arch_dtype formats[] = {ARCH_F32, ARCH_BF16, ARCH_FP8, ARCH_INT8, ARCH_INT4, ARCH_MXFP4};

/* Tokens before, in and behind the rank's part of the vocabulary. */
static void check(int hidden, enum arch_dtype dtype, float scale)
{
    const int n = 9, n_vocab = 11, first = 5;
    device_weights table(dtype, n_vocab, hidden, 4);
    device_array<int32_t> ids((size_t)n);
    device_array<float> x((size_t)(n + 1) * (size_t)hidden, NAN);
    ids.draw(0, 22);
    ids.host[0] = 4, ids.host[1] = 5, ids.host[2] = 15, ids.host[3] = 16; // the rank's first and last
    embed_rows e = {};
    e.n = n, e.ids = ids.device(), e.table = table.matrix();
    e.first = first, e.scale = scale, e.x = x.device();
    embed_queue(&e, nullptr);
    device_finish();
    x.fetch();
    for (int i = 0; i < n; i++) {
        const int row = ids.host[(size_t)i] - first;
        for (int k = 0; k < hidden; k++) { // two products, each rounded once
            const float want = row >= 0 && row < n_vocab ? (float)table.at(row, k) * scale : 0;
            expect_near(x.host[(size_t)(i * hidden + k)], want, 0);
        }
    }
    for (int k = 0; k < hidden; k++) { // nothing behind them
        assert_true(isnan(x.host[(size_t)(n * hidden + k)]));
    }
}

static void rows_of_every_format(void **state)
{
    (void)state;
    for (int hidden : widths) {
        for (enum arch_dtype dtype : formats) {
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
        cmocka_unit_test(rows_of_every_format),
        cmocka_unit_test(no_tokens),
    };
    return device_test_run(tests, nullptr, nullptr);
}
