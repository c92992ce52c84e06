/* One GPU as this process uses it; on the CPU stand-in also what happens when its calls fail. */
#include "tests/cuda/device_test.h"

extern "C" {
#include "core/clock.h"
#include "workers/cuda/gpu.h"
}

enum { MANY = 1 << 20 };

static struct gpu *open_gpu()
{
    struct gpu *g = nullptr;
    struct err e = {};
    if (gpu_open(&g, 0, 3, &e) != 0) {
        fail_msg("%s", e.msg);
    }
    return g;
}

static void must(int rc, const struct err *e)
{
    if (rc != 0) {
        fail_msg("%s", e->msg);
    }
}

static void expect_says(const struct err *e, enum err_code code, const char *what)
{
    if (strstr(e->msg, what) == nullptr || strchr(e->msg, '\n') != nullptr) {
        fail_msg("said: %s", e->msg);
    }
    assert_int_equal(e->code, code);
}

static void it_says_what_it_is(void **state)
{
    (void)state;
    char why[128] = "";
    assert_true(gpu_is_there(why, sizeof why));
    assert_string_equal(why, "");
    struct gpu *g = open_gpu();
    const struct gpu_info *info = gpu_info(g);
    assert_true(info->name[0] != '\0' && info->device == 0 && info->n_processors > 0);
    assert_true(info->capability >= 50 && info->bytes > 0 && info->driver > 0 && info->runtime > 0);
    int64_t n = -1;
    struct err e = {};
    must(gpu_free_bytes(g, &n, &e), &e);
    assert_true(n > 0 && n <= info->bytes);
    gpu_close(g);
    gpu_close(nullptr);
}

static void there_is_no_such_device(void **state)
{
    (void)state;
    struct gpu *g = nullptr;
    struct err e = {};
    assert_int_equal(gpu_open(&g, 99, 3, &e), -1);
    expect_says(&e, ERR_INPUT, "backend cuda: rank 3 wants GPU 99; there are 0 to");
    assert_int_equal(gpu_open(&g, -1, 3, &e), -1);
    assert_null(g);
}

/* In order: what is copied in, cleared in the middle, and copied out. */
static void copies(void **state)
{
    (void)state;
    struct gpu *g = open_gpu();
    struct err e = {};
    void *device, *host;
    char *own = (char *)malloc(MANY);
    must(gpu_take(g, MANY, "a test", &device, &e), &e);
    must(gpu_take_host(g, MANY, "a test", &host, &e), &e);
    must(gpu_register_host(g, own, MANY, "a test", &e), &e);
    assert_int_equal((uintptr_t)device % 256, 0);
    assert_int_equal(gpu_taken_bytes(g), MANY);
    for (size_t i = 0; i < MANY; i++) {
        ((char *)host)[i] = (char)(i * 7 + i / 256);
    }
    must(gpu_copy_in(g, device, host, MANY, &e), &e);
    must(gpu_clear(g, (char *)device + 1000, 500, &e), &e);
    must(gpu_copy_out(g, own, device, MANY, &e), &e);
    must(gpu_copy_out(g, own, device, 0, &e), &e);
    must(gpu_clear(g, device, 0, &e), &e);
    must(gpu_launched(g, "nothing", &e), &e);
    must(gpu_wait(g, clock_local_ns() + 10 * NS_PER_S, &e), &e);
    assert_int_equal(gpu_poll(g, &e), 1);
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(own[i], i >= 1000 && i < 1500 ? 0 : (char)(i * 7 + i / 256));
    }
    gpu_give_host(g, host);
    gpu_close(g);
    free(own);
}

static void too_much_memory(void **state)
{
    (void)state;
    struct gpu *g = open_gpu();
    struct err e = {};
    void *p = nullptr;
    assert_int_equal(gpu_take(g, (size_t)1 << 50, "the KV cache", &p, &e), -1);
    expect_says(&e, ERR_ENV, "rank 3, GPU 0 (");
    expect_says(&e, ERR_ENV, "): cudaMalloc of 1125899906842624 bytes for the KV cache: out of memory (");
    expect_says(&e, ERR_ENV, " bytes are free)");
    assert_null(p);
    must(gpu_take(g, 4096, "less", &p, &e), &e); // it goes on
    must(gpu_clear(g, p, 4096, &e), &e);
    must(gpu_launched(g, "nothing", &e), &e); // nor is the error anyone else's
    must(gpu_wait(g, clock_local_ns() + 10 * NS_PER_S, &e), &e);
    gpu_close(g);
}

#ifdef GPU_ON_CPU
static void expect_nothing_left()
{
    gpu_on_cpu_fail(nullptr, 0, cudaSuccess);
    assert_int_equal(gpu_on_cpu_allocated(), 0);
    assert_int_equal(gpu_on_cpu_pinned(), 0);
}

static void no_driver(void **state)
{
    (void)state;
    char why[128] = "";
    struct gpu *g = nullptr;
    struct err e = {};
    gpu_on_cpu_fail("cudaGetDeviceCount", 0, cudaErrorNoDevice);
    assert_false(gpu_is_there(why, sizeof why));
    assert_string_equal(why, "no CUDA-capable device is detected");
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    for (int skip = 0; skip < 2; skip++) {
        gpu_on_cpu_fail("cudaGetDeviceCount", skip, cudaErrorNoDevice);
        assert_int_equal(gpu_open(&g, 0, 3, &e), -1);
        expect_says(&e, ERR_INPUT, "backend cuda: rank 3 has no GPU to use (no ");
    }
    for (const char *call : {"cudaSetDevice", "cudaGetDeviceProperties", "cudaStreamCreateWithFlags"}) {
        gpu_on_cpu_fail(call, 0, cudaErrorInvalidValue);
        assert_int_equal(gpu_open(&g, 0, 3, &e), -1);
        expect_says(&e, ERR_ENV, "rank 3, GPU 0 (");
    }
    assert_null(g);
    expect_nothing_left();
}

/* Each call that may fail, alone: it says itself, and the next one succeeds. */
static void calls_that_fail(void **state)
{
    (void)state;
    static const struct {
        const char *call, *says;
    } cases[] = {
        {"cudaMalloc", "cudaMalloc of 64 bytes for a test: some error"},
        {"cudaHostAlloc", "cudaHostAlloc of 64 bytes for a test: some error"},
        {"cudaHostRegister", "cudaHostRegister of 64 bytes for a test: some error"},
        {"cudaMemcpyAsync", "cudaMemcpyAsync of 64 bytes for a copy to the GPU: some error"},
        {"cudaMemsetAsync", "cudaMemsetAsync of 64 bytes for zeros: some error"},
        {"cudaStreamQuery", "waiting for cudaMemsetAsync of 64 bytes for zeros: some error"},
    };
    char own[64] = {0};
    for (const auto &c : cases) {
        struct gpu *g = open_gpu();
        struct err e = {};
        void *device = nullptr, *host = nullptr;
        int n_failed = 0;
        gpu_on_cpu_fail(c.call, 0, cudaErrorInvalidValue);
        for (int round = 0; round < 2; round++) {
            n_failed += gpu_take(g, 64, "a test", &device, &e) != 0;
            n_failed += gpu_take_host(g, 64, "a test", &host, &e) != 0;
            n_failed += round == 0 && gpu_register_host(g, own, 64, "a test", &e) != 0;
            n_failed += device && host && gpu_copy_in(g, device, host, 64, &e) != 0;
            n_failed += device && gpu_clear(g, device, 64, &e) != 0;
            n_failed += gpu_wait(g, clock_local_ns() + NS_PER_S, &e) != 0;
        }
        assert_int_equal(n_failed, 1);
        expect_says(&e, ERR_ENV, c.says);
        assert_null(strstr(e.msg, "lost"));
        gpu_close(g);
        expect_nothing_left();
    }
}

/* After a kernel's fault all calls fail; each says so, and closing ends. */
static void a_lost_device(void **state)
{
    (void)state;
    struct gpu *g = open_gpu();
    struct err e = {};
    void *device, *host;
    must(gpu_take(g, 64, "a test", &device, &e), &e);
    must(gpu_take_host(g, 64, "a test", &host, &e), &e);
    must(gpu_launched(g, "attention", &e), &e);
    gpu_on_cpu_fail("cudaStreamQuery", 0, cudaErrorLaunchFailure);
    assert_int_equal(gpu_wait(g, clock_local_ns() + NS_PER_S, &e), -1);
    expect_says(&e, ERR_ENV,
                "rank 3, GPU 0 (GPU on CPU): waiting for attention: unspecified launch failure; "
                "the GPU is lost to this process");
    assert_int_equal(gpu_copy_in(g, device, host, 64, &e), -1);
    expect_says(&e, ERR_ENV,
                "rank 3, GPU 0 (GPU on CPU): cudaMemcpyAsync of 64 bytes for a copy to the GPU: "
                "unspecified launch failure; the GPU is lost to this process");
    assert_int_equal(gpu_take(g, 64, "a test", &device, &e), -1);
    expect_says(&e, ERR_ENV, "cudaMalloc of 64 bytes for a test: unspecified launch failure; the GPU is lost");
    gpu_close(g);
    expect_nothing_left();
}

static void a_launch_that_fails(void **state)
{
    (void)state;
    struct gpu *g = open_gpu();
    struct err e = {};
    gpu_on_cpu_fail("cudaStreamQuery", 0, cudaErrorNotReady);
    assert_int_equal(gpu_poll(g, &e), 0);
    must(gpu_launched(g, "a kernel", &e), &e); // that it is not ready is no one's error
    gpu_on_cpu_fail("cudaStreamQuery", 0, cudaErrorInvalidConfiguration);
    cudaStreamQuery(nullptr); // leaves an error behind, as a launch does
    assert_int_equal(gpu_launched(g, "a kernel", &e), -1);
    expect_says(&e, ERR_ENV, "rank 3, GPU 0 (GPU on CPU): a kernel: some error");
    must(gpu_launched(g, "a kernel", &e), &e);
    gpu_close(g);
    expect_nothing_left();
}

/* What is queued happens later, in order; closing waits for it. */
static void late_work(void **state)
{
    (void)state;
    struct gpu *g = open_gpu();
    struct err e = {};
    void *device, *host;
    must(gpu_take(g, 64, "a test", &device, &e), &e);
    must(gpu_take_host(g, 64, "a test", &host, &e), &e);
    gpu_on_cpu_defer(1);
    memset(host, 1, 64);
    must(gpu_clear(g, device, 64, &e), &e);
    must(gpu_copy_in(g, (char *)device + 8, host, 8, &e), &e);
    must(gpu_copy_out(g, host, device, 64, &e), &e);
    assert_int_equal(gpu_poll(g, &e), 0);
    must(gpu_launched(g, "nothing", &e), &e);
    assert_int_equal(((char *)host)[0], 1);
    must(gpu_wait(g, clock_local_ns() + NS_PER_S, &e), &e);
    assert_true(((char *)host)[0] == 0 && ((char *)host)[8] == 1);
    must(gpu_copy_out(g, host, device, 64, &e), &e);
    gpu_close(g);
    gpu_on_cpu_defer(0);
    expect_nothing_left();
}

static void a_deadline(void **state)
{
    (void)state;
    struct gpu *g = open_gpu();
    struct err e = {};
    void *device;
    must(gpu_take(g, 64, "a test", &device, &e), &e);
    must(gpu_clear(g, device, 64, &e), &e);
    gpu_on_cpu_fail("cudaStreamQuery", 0, cudaErrorNotReady);
    must(gpu_wait(g, clock_local_ns() + NS_PER_S, &e), &e); // looks again
    gpu_on_cpu_fail("cudaStreamQuery", 0, cudaErrorNotReady);
    assert_int_equal(gpu_wait(g, clock_local_ns() - 1, &e), -1);
    expect_says(&e, ERR_ENV, "still busy at the deadline; queued last: cudaMemsetAsync of 64 bytes for zeros");
    gpu_close(g);
    expect_nothing_left();
}
#endif

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_it_is),
        cmocka_unit_test(there_is_no_such_device),
        cmocka_unit_test(copies),
        cmocka_unit_test(too_much_memory),
#ifdef GPU_ON_CPU
        cmocka_unit_test(no_driver),
        cmocka_unit_test(calls_that_fail),
        cmocka_unit_test(a_lost_device),
        cmocka_unit_test(a_launch_that_fails),
        cmocka_unit_test(late_work),
        cmocka_unit_test(a_deadline),
#endif
    };
    return device_test_run(tests, nullptr, nullptr);
}
