/* What kernels are written with, and, on the CPU stand-in, that it is as strict as it says. */
#include "tests/cuda/device_test.h"
#include "workers/cuda/device.cuh"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- tensor cores: d = a . b + d of whole matrices, lane by lane ---------------------------------- */

__global__ static void mma_kernel(const bf16 *a, const bf16 *b, float *d)
{
    const unsigned lane = threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t ra[4], rb[2];
    float rd[4];
    for (unsigned i = 0; i < 4; i++) {
        const bf16 *at = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
        ra[i] = (uint32_t)at[0] | (uint32_t)at[1] << 16;
        rd[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    }
    for (unsigned i = 0; i < 2; i++) {
        const bf16 *at = b + (2 * t + i * 8) * 8 + g;
        rb[i] = (uint32_t)at[0] | (uint32_t)at[8] << 16;
    }
    mma_bf16(rd, ra, rb);
    for (unsigned i = 0; i < 4; i++) {
        d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = rd[i];
    }
}

static void a_product_of_16_by_16_by_8(void **state)
{
    (void)state;
    device_array<float> fa(256), fb(128), d(128);
    device_array<uint16_t> a(256), b(128);
    fa.draw(-1, 1), fb.draw(-1, 1), d.draw(-1, 1);
    for (size_t i = 0; i < 256; i++) {
        a.host[i] = bits_of_float(fa.host[i]);
        b.host[i % 128] = bits_of_float(fb.host[i % 128]);
    }
    std::vector<double> want(d.host.begin(), d.host.end());
    for (size_t i = 0; i < 16 * 8; i++) {
        for (size_t k = 0; k < 16; k++) {
            want[i] += (double)float_of_bits(a.host[i / 8 * 16 + k]) * float_of_bits(b.host[k * 8 + i % 8]);
        }
    }
    launch(mma_kernel, dim3(1), dim3(32), 0, nullptr, a.device(), b.device(), d.device());
    device_finish();
    d.fetch();
    for (size_t i = 0; i < 16 * 8; i++) {
        expect_near(d.host[i], want[i], 1e-5); // 16 float32 sums of numbers around 1
    }
}

/* --- matrices turned round, from shared memory that fills beside ------------------------------------- */

__global__ static void turn_kernel(const bf16 *in, uint32_t *out)
{
    SHARED_BYTES(bytes);
    bf16 *rows = (bf16 *)bytes; // 4 matrices of 8 rows
    copy_later(rows + threadIdx.x * 8, in + threadIdx.x * 8);
    copies_commit();
    copy_later(rows + (32 + threadIdx.x) * 8, in + threadIdx.x * 8);
    copies_commit();
    copies_wait<1>();
    __syncthreads();
    turned_matrices(out + threadIdx.x * 4, rows + threadIdx.x * 8);
    copies_wait<0>();
}

static void four_matrices_turned(void **state)
{
    (void)state;
    device_array<uint16_t> in(4 * 64);
    device_array<uint32_t> out(32 * 4);
    in.draw(0, 60000);
    launch(turn_kernel, dim3(1), dim3(32), 2 * 32 * 16, nullptr, in.device(), out.device());
    device_finish();
    out.fetch();
    for (size_t i = 0; i < 32 * 4; i++) {
        const size_t g = i / 4 / 4, t = i / 4 % 4, first = i % 4 * 64 + 2 * t * 8 + g;
        assert_int_equal(out.host[i], in.host[first] | (uint32_t)in.host[first + 8] << 16);
    }
}

/* --- warps and blocks ----------------------------------------------------------------------------- */

__global__ static void warp_kernel(float *out)
{
    const float lane = (float)(threadIdx.x % 32);
    const float sum = warp_sum(lane), most = warp_max(-lane);
    const float next = __shfl_down_sync(FULL_WARP, lane, 1), third = __shfl_sync(FULL_WARP, lane, 3);
    const unsigned odd = __ballot_sync(FULL_WARP, threadIdx.x % 2);
    out[threadIdx.x] = sum == 496 && most == 0 && third == 3 && odd == 0xaaaaaaaau
                           ? next
                           : -1;
}

static void operations_of_a_warp(void **state)
{
    (void)state;
    device_array<float> out(64, NAN);
    launch(warp_kernel, dim3(1), dim3(64), 0, nullptr, out.device());
    device_finish();
    out.fetch();
    for (size_t i = 0; i < 64; i++) {
        expect_near(out.host[i], i % 32 == 31 ? 31 : (double)(i % 32 + 1), 0);
    }
}

__global__ static void reverse_kernel(const int *in, int *out)
{
    SHARED_BYTES(bytes);
    int *line = (int *)bytes;
    line[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = line[blockDim.x - 1 - threadIdx.x];
}

static void a_block_shares_memory(void **state)
{
    (void)state;
    device_array<int> in(3 * 96), out(3 * 96, -1);
    in.draw(0, 1e6f);
    launch(reverse_kernel, dim3(3), dim3(96), 96 * sizeof(int), nullptr, in.device(), out.device());
    device_finish();
    out.fetch();
    for (size_t i = 0; i < 3 * 96; i++) {
        assert_int_equal(out.host[i], in.host[i / 96 * 96 + 95 - i % 96]);
    }
}

#ifdef GPU_ON_CPU

__global__ static void half_a_block_kernel()
{
    if (threadIdx.x < 32) {
        __syncthreads();
    }
}

__global__ static void half_a_warp_kernel(float *out)
{
    if (threadIdx.x < 16) {
        out[threadIdx.x] = warp_sum(1);
    }
}

__global__ static void forgetful_kernel(float *out)
{
    SHARED_BYTES(bytes);
    copy_later(bytes + threadIdx.x * 16, out);
    copies_commit();
}

template <class... A> static void expect_abort(void (*kernel)(A...), A... args)
{
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        fclose(stderr);
        signal(SIGABRT, SIG_DFL);
        launch(kernel, dim3(1), dim3(64), 64 * 16, nullptr, args...);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void what_hangs_a_gpu_aborts(void **state)
{
    (void)state;
    alignas(16) static float out[64];
    expect_abort(half_a_block_kernel);
    expect_abort<float *>(half_a_warp_kernel, out);
    expect_abort<float *>(forgetful_kernel, out);
}

#endif

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_product_of_16_by_16_by_8),
        cmocka_unit_test(four_matrices_turned),
        cmocka_unit_test(operations_of_a_warp),
        cmocka_unit_test(a_block_shares_memory),
#ifdef GPU_ON_CPU
        cmocka_unit_test(what_hangs_a_gpu_aborts),
#endif
    };
    return device_test_run(tests, nullptr, nullptr);
}
