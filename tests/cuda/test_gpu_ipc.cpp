/* Device memory that processes share: contents, who may open what, and what happens when a call fails. */
#include "tests/cuda/several_memory.h"

#include "workers/cuda/device.cuh"

extern "C" {
#include "workers/cuda/gpu_ipc.h"
}

static void *take(const several &s, size_t n, struct gpu_ipc_handle *h)
{
    struct err e = {};
    void *p = nullptr;
    expect_ok(s, gpu_ipc_take(s.gpu, n, "a test", &p, h, &e), e);
    expect(s, h->n_bytes == (int64_t)n && h->rank == 10 + s.index);
    return p;
}

static void *open_of(const several &s, int whose)
{
    struct err e = {};
    void *p = nullptr;
    const auto h = several_told<struct gpu_ipc_handle>(s, whose);
    expect_ok(s, gpu_ipc_open(s.gpu, &h, "a test", &p, &e), e);
    return p;
}

static bool says(const struct err &e, const char *what)
{
    const bool yes = strstr(e.msg, what) != nullptr && strchr(e.msg, '\n') == nullptr && e.code == ERR_ENV;
    if (!yes) {
        fprintf(stderr, "said: %s\n", e.msg);
    }
    return yes;
}

/* What one puts there the others read; what one of those writes all read. */
static void contents(void **state)
{
    (void)state;
    for (size_t n : {(size_t)1, (size_t)4097, (size_t)2 << 20, ((size_t)5 << 20) + 3}) {
        several_must(3, [n](several &s) {
            struct gpu_ipc_handle h = {};
            std::vector<unsigned char> got(n, 0xee);
            const auto first = several_bytes(s, n, 1), second = several_bytes(s, n, 2);
            void *p = s.index == 0 ? take(s, n, &h) : nullptr;
            if (s.index == 0) {
                several_put(s, p, first.data(), n);
                several_tell(s, h);
            }
            several_meet(s);
            p = s.index == 0 ? p : open_of(s, 0);
            several_get(s, got.data(), p, n);
            expect(s, got == first);
            several_meet(s);
            if (s.index == 1) {
                several_put(s, p, second.data(), n);
            }
            several_meet(s);
            several_get(s, got.data(), p, n);
            expect(s, got == second);
            if (s.index != 0) {
                gpu_ipc_close(s.gpu, p);
            }
            several_meet(s);
            if (s.index == 0) {
                gpu_give(s.gpu, p);
            }
        });
    }
}

/* What is behind a piece of 2 MB is nobody's but the taker's: pieces do not overlap. */
static void many_pieces(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        enum { N = 6 };
        struct all {
            struct gpu_ipc_handle h[N];
        } mine = {};
        void *own[N], *theirs[N];
        const size_t n = 100;
        for (int i = 0; i < N; i++) {
            own[i] = take(s, n, &mine.h[i]);
            several_put(s, own[i], several_bytes(s, n, (uint64_t)(s.index * N + i)).data(), n);
        }
        several_tell(s, mine);
        several_meet(s);
        const all others = several_told<all>(s, 1 - s.index);
        struct err e = {};
        for (int i = N - 1; i >= 0; i--) {
            std::vector<unsigned char> got(n);
            expect_ok(s, gpu_ipc_open(s.gpu, &others.h[i], "a test", &theirs[i], &e), e);
            several_get(s, got.data(), theirs[i], n);
            expect(s, got == several_bytes(s, n, (uint64_t)((1 - s.index) * N + i)));
        }
        for (int i = 0; i < N; i++) {
            gpu_ipc_close(s.gpu, theirs[i]);
        }
        gpu_ipc_close(s.gpu, nullptr);
        several_meet(s);
    });
}

/* --- kernels that wait for another process ---------------------------------------------------------- */

enum { ROUNDS = 50 };

struct table_tennis {
    uint32_t *own, *other; // words: [0] how far the other one is, [1..] what it says
    uint32_t *heard;       // (ROUNDS)
    uint32_t begins;
    uint64_t limit_ns;
};

/* Each says a number and waits for the other's, which stands beside the flag that says it is there. */
__global__ static void play(table_tennis t)
{
    const uint64_t begin_ns = device_now_ns();
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        if (threadIdx.x == 0) {
            t.other[i] = t.begins + i * i;
            store_release_system(t.other, i);
        }
        if (threadIdx.x == 32) {
            while (load_acquire_system(t.own) < i && device_now_ns() - begin_ns < t.limit_ns) {
                device_pause();
            }
            t.heard[i - 1] = t.own[i];
        }
        __syncthreads();
    }
}

static void kernels_wait_for_each_other(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        struct gpu_ipc_handle h = {};
        struct err e = {};
        table_tennis t = {};
        void *heard;
        t.own = (uint32_t *)take(s, 4096, &h);
        expect_ok(s, gpu_take(s.gpu, ROUNDS * sizeof(uint32_t), "a test", &heard, &e), e);
        expect_ok(s, gpu_clear(s.gpu, t.own, 4096, &e), e);
        several_wait(s);
        several_tell(s, h);
        several_meet(s);
        t.other = (uint32_t *)open_of(s, 1 - s.index);
        t.heard = (uint32_t *)heard;
        t.begins = 1000 * (uint32_t)s.index;
        t.limit_ns = 20 * (uint64_t)NS_PER_S;
        expect(s, launch(play, dim3(1), dim3(64), 0, gpu_stream(s.gpu), t) == cudaSuccess);
        several_wait(s);
        uint32_t got[ROUNDS];
        several_get(s, got, heard, sizeof got);
        for (uint32_t i = 1; i <= ROUNDS; i++) {
            expect(s, got[i - 1] == 1000 * (1 - (uint32_t)s.index) + i * i);
        }
        gpu_ipc_close(s.gpu, t.other);
        several_meet(s);
    });
}

/* --- refusals ------------------------------------------------------------------------------------- */

static void not_by_the_one_that_took_it(void **state)
{
    (void)state;
    several_must(1, [](several &s) {
        struct gpu_ipc_handle h = {};
        struct err e = {};
        void *p = nullptr;
        take(s, 300, &h);
        expect(s, gpu_ipc_open(s.gpu, &h, "hidden states", &p, &e) == -1 && p == nullptr);
        expect(s, says(e, "rank 10, GPU 0 ("));
        expect(s, says(e, "): cudaIpcOpenMemHandle of 300 bytes for hidden states, which rank 10 has on its GPU 0: "));
        expect(s, cudaGetLastError() == cudaSuccess);
    });
}

#ifdef GPU_ON_CPU // a GPU counts those, or does not look
static void once_and_while_it_is_there(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        struct gpu_ipc_handle h = {};
        struct err e = {};
        void *own = take(s, 64, &h), *p = nullptr;
        several_tell(s, h);
        several_meet(s);
        void *theirs = open_of(s, 1 - s.index);
        h = several_told<struct gpu_ipc_handle>(s, 1 - s.index);
        expect(s, gpu_ipc_open(s.gpu, &h, "a test", &p, &e) == -1 && says(e, "memory is open already"));
        gpu_ipc_close(s.gpu, theirs);
        several_meet(s);
        gpu_ipc_close(s.gpu, theirs); // is not open: nothing happens
        theirs = open_of(s, 1 - s.index);
        gpu_ipc_close(s.gpu, theirs);
        several_meet(s);
        gpu_give(s.gpu, own);
        several_meet(s);
        expect(s, gpu_ipc_open(s.gpu, &h, "a test", &p, &e) == -1 && says(e, "invalid resource handle"));
        expect(s, p == nullptr && cudaGetLastError() == cudaSuccess);
        several_meet(s);
    });
}

static void a_process_that_has_ended(void **state)
{
    (void)state;
    several_must(
        2,
        [](several &s) {
            struct gpu_ipc_handle h = {};
            struct err e = {};
            if (s.index == 0) {
                take(s, 64, &h);
                several_tell(s, h);
                several_meet(s);
                kill(getpid(), SIGKILL);
            }
            several_meet(s);
            void *p = nullptr;
            h = several_told<struct gpu_ipc_handle>(s, 0);
            const int64_t begin_ns = clock_local_ns();
            while (gpu_ipc_open(s.gpu, &h, "a test", &p, &e) == 0) {
                gpu_ipc_close(s.gpu, p);
                expect(s, clock_local_ns() - begin_ns < SEVERAL_LONGEST_NS);
                usleep(1000);
            }
            expect(s, says(e, "rank 11, GPU 0 (GPU on CPU): cudaIpcOpenMemHandle of 64 bytes for a test, which rank 10"));
        },
        true);
}

static void memory_that_is_given_back_too_early(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        struct gpu_ipc_handle h = {};
        void *own = take(s, 64, &h);
        several_tell(s, h);
        several_meet(s);
        void *theirs = open_of(s, 1 - s.index);
        several_meet(s);
        if (s.index == 0) {
            gpu_give(s.gpu, own);
            expect(s, gpu_on_cpu_freed_open() == 1); // the stand-in sees it
        }
        several_meet(s);
        gpu_ipc_close(s.gpu, theirs);
        several_meet(s);
        if (s.index == 0) {
            fflush(nullptr);
            _exit(0); // before anyone looks whether that happened
        }
    });
}

static void calls_that_fail(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        struct gpu_ipc_handle h = {};
        struct err e = {};
        void *own = nullptr, *p = nullptr;
        gpu_on_cpu_fail("cudaMalloc", 0, cudaErrorMemoryAllocation);
        expect(s, gpu_ipc_take(s.gpu, 64, "flags", &own, &h, &e) == -1);
        expect(s, says(e, "cudaMalloc of 2097152 bytes for flags: out of memory"));
        gpu_on_cpu_fail("cudaIpcGetMemHandle", 0, cudaErrorInvalidValue);
        expect(s, gpu_ipc_take(s.gpu, 64, "flags", &own, &h, &e) == -1 && own == nullptr);
        expect(s, says(e, "(GPU on CPU): cudaIpcGetMemHandle of 64 bytes for flags: some error"));
        expect(s, gpu_on_cpu_allocated() == 0);
        own = take(s, 64, &h);
        several_tell(s, h);
        several_meet(s);
        h = several_told<struct gpu_ipc_handle>(s, 1 - s.index);
        struct gpu_ipc_handle elsewhere = h;
        elsewhere.host[0] ^= 1;
        expect(s, gpu_ipc_open(s.gpu, &elsewhere, "flags", &p, &e) == -1 && says(e, "flags: rank 1"));
        expect(s, says(e, " is on another host") && gpu_on_cpu_opened() == 0);
        gpu_on_cpu_fail("cudaIpcOpenMemHandle", 0, cudaErrorInvalidValue);
        expect(s, gpu_ipc_open(s.gpu, &h, "flags", &p, &e) == -1 && p == nullptr);
        expect(s, says(e, "cudaIpcOpenMemHandle of 64 bytes for flags, which rank "));
        gpu_on_cpu_fail("cudaSetDevice", 0, cudaErrorInvalidDevice);
        expect(s, gpu_ipc_open(s.gpu, &h, "flags", &p, &e) == -1 && says(e, "cudaSetDevice"));
        expect_ok(s, gpu_ipc_open(s.gpu, &h, "flags", &p, &e), e);
        gpu_on_cpu_fail("cudaIpcCloseMemHandle", 0, cudaErrorInvalidValue);
        gpu_ipc_close(s.gpu, p); // closed all the same
        several_meet(s);
        gpu_give(s.gpu, own);
    });
}

/* Work that is queued on memory before others may open it is done by then. */
static void late_work(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        struct gpu_ipc_handle h = {};
        struct err e = {};
        gpu_on_cpu_defer(1);
        void *own = take(s, 64, &h);
        expect_ok(s, gpu_clear(s.gpu, own, 64, &e), e);
        several_wait(s);
        several_tell(s, h);
        several_meet(s);
        void *p = open_of(s, 1 - s.index);
        unsigned char got[64];
        several_get(s, got, p, 64);
        for (unsigned char c : got) {
            expect(s, c == 0);
        }
        expect_ok(s, gpu_clear(s.gpu, p, 64, &e), e);
        gpu_ipc_close(s.gpu, p); // what is queued comes first
        several_meet(s);
        gpu_on_cpu_defer(0);
    });
}
#endif

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(contents),
        cmocka_unit_test(many_pieces),
        cmocka_unit_test(kernels_wait_for_each_other),
        cmocka_unit_test(not_by_the_one_that_took_it),
#ifdef GPU_ON_CPU
        cmocka_unit_test(once_and_while_it_is_there),
        cmocka_unit_test(a_process_that_has_ended),
        cmocka_unit_test(memory_that_is_given_back_too_early),
        cmocka_unit_test(calls_that_fail),
        cmocka_unit_test(late_work),
#endif
    };
    return several_test_run(tests);
}
