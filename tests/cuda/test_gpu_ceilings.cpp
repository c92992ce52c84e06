/* What a device can do at most: that what is timed is what is counted, and what fails says so. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/gpu_ceilings.h"
#include "workers/cuda/sweep.h"

extern "C" {
#include "workers/cuda/gpu.h"
}

#ifdef GPU_ON_CPU
#include "tests/support/gpu_on_cpu/cublasLt.h"
#endif

/* --- sweeps --------------------------------------------------------------------------------------- */

static const size_t sizes[] = {16, 48, 512, 7 * 16, 65536, 65536 + 16 * 33, 1 << 20};

/* The sum of all words says that each was read once, since they are random. */
static void every_byte_is_read_once(void **state)
{
    (void)state;
    for (int shape = 0; shape < SWEEP_SHAPES; shape++) {
        for (int n_processors : {1, 3}) {
            for (size_t n_bytes : sizes) {
                device_array<uint32_t> words(n_bytes / 4), sums(sweep_max_sums(n_processors), 0x12345678u);
                uint32_t want = 0, got = 0;
                for (uint32_t &w : words.host) {
                    w = (uint32_t)device_random()();
                    want += w;
                }
                const size_t n = sweep_read_queue(shape, n_processors, words.device(), n_bytes, sums.device(), nullptr);
                device_finish();
                sums.fetch();
                assert_true(n <= sums.host.size());
                for (size_t i = 0; i < n; i++) {
                    got += sums.host[i];
                }
                assert_int_equal(got, want);
            }
        }
    }
}

static void every_byte_is_copied(void **state)
{
    (void)state;
    for (int shape = 0; shape < SWEEP_SHAPES; shape++) {
        for (size_t n_bytes : sizes) {
            device_array<uint32_t> from(n_bytes / 4), to(n_bytes / 4 + 4, 7);
            for (uint32_t &w : from.host) {
                w = (uint32_t)device_random()();
            }
            sweep_copy_queue(shape, 2, to.device(), from.device(), n_bytes, nullptr);
            device_finish();
            to.fetch();
            assert_memory_equal(to.host.data(), from.host.data(), n_bytes);
            assert_int_equal(to.host[n_bytes / 4], 7); // nothing behind it
        }
    }
}

static void filled_words_are_random_where_asked(void **state)
{
    (void)state;
    const uint32_t random = 0x81ff81ffu, fixed = 0x3e003e00u; // bfloat16 between -2 and 2
    const size_t n = 1 << 16;
    device_array<uint32_t> a(n + 4, 7), b(n);
    sweep_fill_queue(a.device(), n * 4, 1, random, fixed, nullptr);
    sweep_fill_queue(b.device(), n * 4, 2, random, fixed, nullptr);
    device_finish();
    a.fetch(), b.fetch();
    std::vector<size_t> ones(32);
    size_t equal = 0;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a.host[i] & ~random, fixed);
        assert_true(fabsf(float_of_bits((uint16_t)a.host[i])) < 2);
        equal += a.host[i] == b.host[i];
        for (size_t bit = 0; bit < 32; bit++) {
            ones[bit] += a.host[i] >> bit & 1;
        }
    }
    for (size_t bit = 0; bit < 32; bit++) {
        if (random >> bit & 1) {
            expect_near((double)ones[bit], n / 2.0, 5 * sqrt(n / 4.0)); // five standard deviations
        }
    }
    assert_true(equal < 16); // of 20 random bits: 1 in 2^20
    assert_int_equal(a.host[n], 7);
}

/* --- ceilings ------------------------------------------------------------------------------------- */

#ifdef GPU_ON_CPU
static const gpu_ceilings_plan small = {1 << 20, 1 << 16, 32, 16, 2, 3, 0};
#else
static const gpu_ceilings_plan small = {(size_t)256 << 20, 16 << 20, 1024, 512, 2, 3, 100000000};
#endif

static gpu *open_gpu()
{
    gpu *g = nullptr;
    struct err e = {};
    if (gpu_open(&g, 0, 0, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return g;
}

static void all_rates_there_are(void **state)
{
    (void)state;
    gpu *g = open_gpu();
    gpu_ceilings *c = nullptr;
    struct err e = {};
    if (gpu_ceilings_open(&c, g, &small, &e) != 0 || gpu_ceilings_look(c, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    const ceilings first = *gpu_ceilings_best(c);
    for (const char *name : {"read", "copy", "host_to_device", "device_to_host"}) {
        const ceiling *one = ceilings_find(&first, name);
        assert_non_null(one);
        assert_true(one->unit == CEILINGS_BYTES && one->per_s > 0 && strlen(one->how) > 0);
    }
    for (const char *name : {"float32", "bfloat16", "fp8", "int8"}) {
        const ceiling *one = ceilings_find(&first, name);
        assert_non_null(one);
        assert_true(one->unit == CEILINGS_OPERATIONS);
#ifdef GPU_ON_CPU
        assert_true(one->per_s > 0 && strncmp(one->how, "cuBLASLt", 8) == 0);
#endif
    }
    assert_true(ceilings_rate(&first, "float32") > 0 && ceilings_rate(&first, "bfloat16") > 0);
    assert_true(ceilings_rate(&first, "none such") == 0);
    assert_non_null(strstr(first.of, gpu_info(g)->name));
    assert_non_null(strstr(first.of, "CUDA"));
#ifdef GPU_ON_CPU
    assert_string_equal(first.of, "GPU on CPU, 4 multiprocessors, processors up to 1500 MHz, CUDA 13.0, driver's 13.0");
#endif
    assert_int_equal(gpu_ceilings_look(c, &e), 0);
    const ceilings *second = gpu_ceilings_best(c);
    assert_int_equal(second->n, first.n);
    for (int i = 0; i < first.n; i++) { // a look can only better them
        assert_string_equal(second->v[i].name, first.v[i].name);
        assert_true(second->v[i].per_s >= first.v[i].per_s);
    }
    gpu_ceilings_close(c);
    gpu_close(g);
}

#ifdef GPU_ON_CPU

static void a_rate_is_an_amount_over_time(void **state)
{
    (void)state;
    gpu *g = open_gpu();
    gpu_ceilings *c = nullptr;
    struct err e = {};
    // The stand-in's clock stands still: what takes no time has no rate, rather than an infinite one.
    gpu_on_cpu_tick(0);
    assert_int_equal(gpu_ceilings_open(&c, g, &small, &e), 0);
    assert_int_equal(gpu_ceilings_look(c, &e), 0);
    for (int i = 0; i < gpu_ceilings_best(c)->n; i++) {
        assert_true(gpu_ceilings_best(c)->v[i].per_s == 0);
    }
    gpu_on_cpu_tick(1000 * 1000); // from event to event a millisecond, whatever happens between
    assert_int_equal(gpu_ceilings_look(c, &e), 0);
    const ceilings *best = gpu_ceilings_best(c);
    const double product = 2.0 * 32 * 32 * 32, wide = 2.0 * 16 * 16 * 16;
    expect_near(ceilings_rate(best, "read"), (1 << 20) * 1e3, 1);
    expect_near(ceilings_rate(best, "copy"), (1 << 20) * 1e3, 1); // half of it read, and written
    expect_near(ceilings_rate(best, "host_to_device"), (1 << 16) * 1e3, 1);
    expect_near(ceilings_rate(best, "device_to_host"), (1 << 16) * 1e3, 1);
    for (const char *name : {"bfloat16", "fp8", "int8"}) {
        expect_near(ceilings_rate(best, name), 3 * product * 1e3, 1); // three in a row
    }
    expect_near(ceilings_rate(best, "float32"), wide * 1e3, 1); // a quarter of that, at least one
    gpu_on_cpu_tick(-1);
    gpu_ceilings_close(c);
    gpu_close(g);
}

static void half_of_what_is_free_is_enough(void **state)
{
    (void)state;
    gpu *g = open_gpu();
    gpu_ceilings *c = nullptr;
    struct err e = {};
    const gpu_ceilings_plan large = {(size_t)64 << 30, 1 << 16, 32, 16, 1, 1, 0};
    setenv("GPU_ON_CPU_BYTES", "100000000", 1);
    if (gpu_ceilings_open(&c, g, &large, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    assert_true(gpu_taken_bytes(g) > 50000000 && gpu_taken_bytes(g) < 90000000);
    gpu_ceilings_close(c);
    gpu_close(g);
    setenv("GPU_ON_CPU_BYTES", "40000", 1);
    g = open_gpu();
    assert_int_equal(gpu_ceilings_open(&c, g, &large, &e), -1);
    assert_non_null(strstr(e.msg, "cudaMalloc of 131072 bytes for the memory that bandwidth is measured on"));
    gpu_close(g);
    unsetenv("GPU_ON_CPU_BYTES");
}

/* What a device has not is missing from the list of what it can; what breaks is an error. */
static void what_fails_says_so(void **state)
{
    (void)state;
    struct err e = {};
    gpu *g = open_gpu();
    gpu_ceilings *c = nullptr;
    cublaslt_on_cpu_fail("cublasLtCreate", CUBLAS_STATUS_NOT_INITIALIZED);
    assert_int_equal(gpu_ceilings_open(&c, g, &small, &e), -1);
    assert_non_null(strstr(e.msg, "GPU 0 (GPU on CPU): cublasLtCreate"));
    cublaslt_on_cpu_fail("cublasLtMatmul", CUBLAS_STATUS_EXECUTION_FAILED);
    assert_int_equal(gpu_ceilings_open(&c, g, &small, &e), -1);
    assert_non_null(strstr(e.msg, "cuBLASLt: float32 product of 16 x 16 x 16"));
    cublaslt_on_cpu_fail(nullptr, CUBLAS_STATUS_SUCCESS);
    for (const char *call : {"cudaEventCreateWithFlags", "cudaEventRecord", "cudaEventElapsedTime", "cudaMalloc",
                             "cudaHostAlloc", "cudaMemGetInfo", "cudaStreamQuery", "launch"}) {
        gpu_on_cpu_fail(call, 0, cudaErrorLaunchFailure);
        if (gpu_ceilings_open(&c, g, &small, &e) == 0) {
            fail_msg("%s failed unnoticed", call);
        }
        assert_int_equal(e.code, ERR_ENV);
        assert_non_null(strstr(e.msg, "GPU 0 (GPU on CPU)"));
        gpu_on_cpu_fail(nullptr, 0, cudaSuccess);
    }
    assert_int_equal(gpu_ceilings_open(&c, g, &small, &e), 0);
    for (const char *call : {"cudaMemcpyAsync", "cudaEventRecord", "launch"}) {
        gpu_on_cpu_fail(call, 1, cudaErrorLaunchFailure);
        assert_int_equal(gpu_ceilings_look(c, &e), -1);
        assert_non_null(strstr(e.msg, "unspecified launch failure"));
        gpu_on_cpu_fail(nullptr, 0, cudaSuccess);
    }
    gpu_ceilings_close(c);
    cublaslt_on_cpu_fail("cublasLtMatmulAlgoGetHeuristic", CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(gpu_ceilings_open(&c, g, &small, &e), 0);
    assert_int_equal(gpu_ceilings_look(c, &e), 0);
    assert_true(ceilings_rate(gpu_ceilings_best(c), "fp8") == 0 && ceilings_rate(gpu_ceilings_best(c), "read") > 0);
    assert_non_null(ceilings_find(gpu_ceilings_best(c), "fp8"));
    cublaslt_on_cpu_fail(nullptr, CUBLAS_STATUS_SUCCESS);
    gpu_ceilings_close(c);
    gpu_close(g);
    assert_int_equal(cublaslt_on_cpu_alive(), 0);
    assert_true(gpu_on_cpu_allocated() == 0);
}

#endif

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_read_once),
        cmocka_unit_test(every_byte_is_copied),
        cmocka_unit_test(filled_words_are_random_where_asked),
        cmocka_unit_test(all_rates_there_are),
#ifdef GPU_ON_CPU
        cmocka_unit_test(a_rate_is_an_amount_over_time),
        cmocka_unit_test(half_of_what_is_free_is_enough),
        cmocka_unit_test(what_fails_says_so),
#endif
    };
    return device_test_run(tests, nullptr, nullptr);
}
