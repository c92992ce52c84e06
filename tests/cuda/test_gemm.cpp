/* Products of any number of tokens: which kernel, what cuBLASLt is told, and what comes out, against float64. */
#include "tests/cuda/device_weights.h"
#include "workers/cuda/gemm.h"

#ifdef GPU_ON_CPU
#include "tests/support/gpu_on_cpu/cublasLt.h"
#endif

#define SCRATCH_BYTES 6400 // few rows

static struct gemm *gemm;

static int up(void **state)
{
    (void)state;
    struct err e = {};
    return gemm_open(&gemm, SCRATCH_BYTES, &e);
}

static int down(void **state)
{
    (void)state;
    gemm_close(gemm);
    gemm = nullptr;
#ifdef GPU_ON_CPU
    return cublaslt_on_cpu_alive() == 0 && gpu_on_cpu_allocated() == 0 ? 0 : -1;
#else
    return 0;
#endif
}

struct shape {
    int n_rows, n_cols, m, n_batch;
    bool bias, add;
    int y_at; // where y begins in its memory: what it is aligned to
};

/* Of float32 sums; or of weights with their factors, rounded to bfloat16: half a unit of 8 bits. */
static double bound_of(enum arch_dtype dtype, int m)
{
    const bool is_rounded = (dtype == ARCH_FP8 || dtype == ARCH_INT8 || dtype == ARCH_INT4) && m > MATMUL_MOST;
    return is_rounded ? 4e-3 : 1e-5;
}

static void check(enum arch_dtype dtype, const shape &s)
{
    const int n_batch = s.n_batch, all = n_batch * s.n_rows;
    const int64_t x_step = (s.n_cols + 7) / 8 * 8, ldx = n_batch * x_step + 8, ldy = all + 5;
    device_weights w(dtype, all, s.n_cols, 1);
    device_inputs x(dtype, s.m, (int)ldx, ldx);
    device_array<float> bias((size_t)all), y((size_t)(s.m * ldy + s.y_at), NAN);
    bias.draw(-1, 1);
    if (s.add) {
        y.draw(-1, 1);
    }
    const std::vector<float> before = y.host;
    matmul p = {};
    p.w = w.matrix(n_batch), p.m = s.m, p.n_batch = n_batch, p.add = s.add;
    p.x = x.device(), p.y = y.device() + s.y_at, p.bias = s.bias ? bias.device() : nullptr;
    p.ldx = ldx, p.ldy = ldy, p.x_step = x_step, p.y_step = s.n_rows;
    struct err e = {};
    if (gemm_queue(gemm, &p, nullptr, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    device_finish();
    y.fetch();
    for (size_t i = 0; i < y.host.size(); i++) {
        const int64_t at = (int64_t)i - s.y_at;
        const int token = (int)(at / ldy), row = (int)(at % ldy);
        if (at < 0 || row >= all) {
            assert_memory_equal(&y.host[i], &before[i], sizeof(float)); // before and behind the outputs
            continue;
        }
        const product_sum want = product_of_row(w, row, x.row(token) + row / s.n_rows * x_step);
        const double b = s.bias ? bias.host[(size_t)row] : 0, y0 = s.add ? before[i] : 0;
        expect_near(y.host[i], want.sum + b + y0, bound_of(dtype, s.m) * (want.size + fabs(b) + fabs(y0)) + 1e-12);
    }
}

static void every_format(void **state)
{
    (void)state;
    for (enum arch_dtype dtype : {ARCH_F32, ARCH_BF16, ARCH_FP8, ARCH_INT8, ARCH_INT4, ARCH_MXFP4}) {
        check(dtype, {20, 72, 3, 1, true, false, 0});
        check(dtype, {33, 100, 17, 1, true, true, 0});
        check(dtype, {48, 129, 65, 1, false, true, 0});
        check(dtype, {7, 40, 70, 1, true, false, 1});
        check(dtype, {16, 36, 66, 3, false, false, 0});
    }
}

/* Rows go through the scratch in several tiles: of 24 and of 1. */
static void tiles_of_rows(void **state)
{
    (void)state;
    check(ARCH_INT4, {60, 128, 65, 1, true, true, 0});
    check(ARCH_FP8, {3, 3100, 65, 1, true, false, 0});
    check(ARCH_MXFP4, {30, 120, 66, 2, false, true, 0});
}

#ifdef GPU_ON_CPU

static void one_algorithm_per_bucket(void **state)
{
    (void)state;
    const int before = cublaslt_on_cpu_asked();
    for (int m : {65, 128, 70, 65}) {
        check(ARCH_BF16, {24, 64, m, 1, false, false, 0});
    }
    assert_int_equal(cublaslt_on_cpu_asked(), before + 1);
    check(ARCH_BF16, {24, 64, 129, 1, false, false, 0}); // the next bucket
    check(ARCH_BF16, {24, 64, 128, 1, false, true, 0});  // another kind
    assert_int_equal(cublaslt_on_cpu_asked(), before + 3);
    cublaslt_on_cpu_picky(1);
    check(ARCH_BF16, {24, 64, 70, 1, false, false, 0}); // found before to be taken, now refused
    cublaslt_on_cpu_picky(0);
}

static void picky_algorithms(void **state)
{
    (void)state;
    cublaslt_on_cpu_picky(1);
    const int before = cublaslt_on_cpu_asked();
    for (int m : {40, 41, 40, 64}) {
        check(ARCH_F32, {24, 68, m, 1, false, false, 0});
    }
    assert_int_equal(cublaslt_on_cpu_asked(), before + 3); // for 64, 40 and 41
    cublaslt_on_cpu_picky(0);
}

static void what_fails_says_so(void **state)
{
    (void)state;
    struct err e = {};
    struct gemm *g = nullptr;
    cublaslt_on_cpu_fail("cublasLtCreate", CUBLAS_STATUS_NOT_INITIALIZED);
    assert_int_equal(gemm_open(&g, GEMM_SCRATCH_BYTES, &e), -1);
    assert_non_null(strstr(e.msg, "cublasLtCreate"));
    cublaslt_on_cpu_fail(nullptr, CUBLAS_STATUS_SUCCESS);
    for (int skip = 0; skip < 2; skip++) {
        gpu_on_cpu_fail("cudaMalloc", skip, cudaErrorMemoryAllocation);
        assert_int_equal(gemm_open(&g, GEMM_SCRATCH_BYTES, &e), -1);
        assert_int_equal(e.code, ERR_ENV);
        assert_non_null(strstr(e.msg, "64 MiB"));
    }
    cudaGetLastError();
    device_weights w(ARCH_BF16, 8, 16);
    device_inputs x(ARCH_BF16, 33, 16, 16);
    device_array<float> y(33 * 8);
    matmul p = {};
    p.w = w.matrix(), p.m = 33, p.x = x.device(), p.y = y.device(), p.ldx = 16, p.ldy = 8;
    for (const char *call : {"cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute",
                             "cublasLtMatrixLayoutCreate", "cublasLtMatmulPreferenceCreate",
                             "cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulAlgoGetHeuristic",
                             "cublasLtMatmul"}) {
        cublaslt_on_cpu_fail(call, CUBLAS_STATUS_NOT_SUPPORTED);
        assert_int_equal(gemm_queue(gemm, &p, nullptr, &e), -1);
        assert_string_equal(e.msg, "cuBLASLt: product of 33 tokens and a matrix of 8 x 16: "
                                   "CUBLAS_STATUS_NOT_SUPPORTED");
    }
    cublaslt_on_cpu_fail(nullptr, CUBLAS_STATUS_SUCCESS);
    assert_int_equal(gemm_queue(gemm, &p, nullptr, &e), 0);
}

#endif

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(every_format),
        cmocka_unit_test(tiles_of_rows),
#ifdef GPU_ON_CPU
        cmocka_unit_test(one_algorithm_per_bucket),
        cmocka_unit_test(picky_algorithms),
        cmocka_unit_test(what_fails_says_so),
#endif
    };
    return device_test_run(tests, up, down);
}
