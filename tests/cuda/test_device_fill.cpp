/* Rows to the device in more pieces than one, with factors of blocks, while copies are late. */
extern "C" {
#include "core/clock.h"
#include "model/arch.h"
#include "workers/cuda/device_fill.h"
}

#include "tests/cuda/device_rows.h"

static void must(int rc, const struct err *e)
{
    if (rc != 0) {
        fail_msg("%s", e->msg);
    }
}

/* A device with room for a matrix, and a fill that is open. */
struct rig {
    struct gpu *g = nullptr;
    struct pool *pool = pool_create(3, nullptr, false);
    struct arch a = {};
    struct device_fill *f = nullptr;
    struct device_matrix m = {};
    size_t data_bytes, factor_bytes;
    struct err e = {};

    rig(enum arch_dtype dtype, int n_rows, int n_cols, int factor_rows)
    {
        void *data, *factors;
        m.dtype = dtype, m.n_rows = n_rows, m.n_cols = n_cols, m.factor_rows = dtype == ARCH_FP8 ? factor_rows : 0;
        data_bytes = (size_t)n_rows * device_matrix_row_bytes(dtype, n_cols);
        factor_bytes = (size_t)((n_rows + factor_rows - 1) / factor_rows) * device_matrix_factor_bytes(dtype, n_cols);
        must(gpu_open(&g, 0, 0, &e), &e);
        must(gpu_take(g, data_bytes, "a test", &data, &e) || gpu_take(g, factor_bytes, "a test", &factors, &e), &e);
        must(gpu_clear(g, data, data_bytes, &e) || gpu_clear(g, factors, factor_bytes, &e), &e);
        m.data = data, m.factors = factor_bytes ? factors : nullptr;
        must(device_fill_open(&f, g, pool, "model", &a, &e), &e);
    }
    ~rig()
    {
        device_fill_close(f);
        gpu_close(g);
        pool_destroy(pool);
    }

    std::vector<uint8_t> read(const void *from, size_t n)
    {
        void *host;
        must(gpu_take_host(g, n, "a test", &host, &e) || gpu_copy_out(g, host, from, n, &e) ||
                 gpu_wait(g, INT64_MAX, &e),
             &e);
        const std::vector<uint8_t> out((uint8_t *)host, (uint8_t *)host + n);
        gpu_give_host(g, host);
        return out;
    }
};

static struct device_fill_source source_of(enum arch_dtype stored, int64_t n_rows, int64_t n_cols, const void *data)
{
    struct device_fill_source s = {};
    snprintf(s.t.name, sizeof s.t.name, "a.weight");
    s.t.n_rows = n_rows, s.t.n_cols = n_cols, s.t.stored = s.t.dtype = stored;
    s.t.row_step = n_cols, s.t.col_step = 1, s.t.data = data;
    s.n = (int)n_rows;
    return s;
}

/* 100 MB: three halves of the buffer and more, each filled while the one before is not copied yet. */
static void many_pieces(void **state)
{
    (void)state;
    const int n_rows = 25000, n_cols = 1000;
    std::vector<float> values((size_t)n_rows * (size_t)n_cols);
    for (size_t i = 0; i < values.size(); i++) {
        values[i] = (float)(i * 2654435761u % 16777216u);
    }
    rig r(ARCH_F32, n_rows + 3, n_cols, 1);
    struct device_fill_source s = source_of(ARCH_F32, n_rows, n_cols, values.data());
    s.at = 3;
    must(device_fill_rows(r.f, &r.m, &s, &r.e), &r.e);
    must(device_fill_finish(r.f, &r.e), &r.e);
    const std::vector<uint8_t> got = r.read(r.m.data, r.data_bytes);
    assert_memory_equal(&got[3 * 4000], values.data(), values.size() * sizeof(float));
    assert_true(got[0] == 0 && got[3 * 4000 - 1] == 0);
}

/* 70 MB of codes; a block of 128 rows has one factor, and the last one's rows are fewer. */
static void factors_of_blocks(void **state)
{
    (void)state;
    const int n_rows = 70000, n_cols = 1000, first = 256, at = 384, n = n_rows - first;
    std::vector<uint8_t> codes((size_t)n_rows * (size_t)n_cols);
    std::vector<float> scales((size_t)((n_rows + 127) / 128) * 8);
    for (size_t i = 0; i < codes.size(); i++) {
        codes[i] = (uint8_t)(i * 2654435761u >> 9 & 0x77);
    }
    for (size_t i = 0; i < scales.size(); i++) {
        scales[i] = (float)(i + 1);
    }
    rig r(ARCH_FP8, at + n, n_cols, 128);
    struct device_fill_source s = source_of(ARCH_FP8, n_rows, n_cols, codes.data());
    s.t.scales = scales.data();
    s.at = at, s.first = first, s.n = n;
    must(device_fill_rows(r.f, &r.m, &s, &r.e), &r.e);
    must(device_fill_finish(r.f, &r.e), &r.e);
    const std::vector<uint8_t> got = r.read(r.m.data, r.data_bytes), factors = r.read(r.m.factors, r.factor_bytes);
    const size_t row_bytes = device_matrix_row_bytes(ARCH_FP8, n_cols);
    for (int i = 0; i < n; i++) {
        assert_memory_equal(&got[(size_t)(at + i) * row_bytes], &codes[(size_t)(first + i) * (size_t)n_cols],
                            (size_t)n_cols);
    }
    assert_memory_equal(&factors[(size_t)at / 128 * 32], &scales[(size_t)first / 128 * 8], ((size_t)n + 127) / 128 * 32);
}

static void bytes(void **state)
{
    (void)state;
    std::vector<uint8_t> all((size_t)70 << 20);
    for (size_t i = 0; i < all.size(); i++) {
        all[i] = (uint8_t)(i * 2654435761u >> 11);
    }
    rig r(ARCH_F32, 1, 70 << 18, 1);
    must(device_fill_bytes(r.f, (void *)(uintptr_t)r.m.data, all.data(), all.size(), &r.e), &r.e);
    must(device_fill_finish(r.f, &r.e), &r.e);
    assert_true(r.read(r.m.data, all.size()) == all);
}

static void rows_that_cannot_be(void **state)
{
    (void)state;
    std::vector<uint8_t> data((size_t)40 << 20);
    rig wide(ARCH_F32, 1, 10 << 20, 1), coded(ARCH_MXFP4, 1, 64, 1);
    struct device_fill_source s = source_of(ARCH_F32, 1, 10 << 20, data.data());
    assert_int_equal(device_fill_rows(wide.f, &wide.m, &s, &wide.e), -1);
    assert_int_equal(wide.e.code, ERR_INPUT);
    assert_string_equal(wide.e.msg, "model: tensor a.weight: rows of 41943040 bytes are too wide for the GPU");
    s = source_of(ARCH_INT8, 1, 64, data.data());
    assert_int_equal(device_fill_rows(coded.f, &coded.m, &s, &coded.e), -1);
    assert_int_equal(coded.e.code, ERR_INPUT);
    assert_string_equal(coded.e.msg, "model: tensor a.weight is stored as int8, others of its kind as mxfp4; the GPU "
                                     "backend wants one format");
}

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(many_pieces),
        cmocka_unit_test(factors_of_blocks),
        cmocka_unit_test(bytes),
        cmocka_unit_test(rows_that_cannot_be),
    };
#ifdef GPU_ON_CPU
    gpu_on_cpu_defer(1);
#endif
    return device_test_run(tests, nullptr, nullptr);
}
