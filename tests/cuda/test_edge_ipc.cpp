/* Hidden states from a process's GPU memory into another's: every byte, in every slot, in any order of work. */
#include "tests/cuda/several_memory.h"

extern "C" {
#include "workers/cuda/edge_ipc.h"
}

enum {
    DEPTH = 3,
    MOST = 300001,
    MESSAGES = 60
};

/* What the message plane says: how many were sent, how many slots are free again. */
static void tell_done(const several &s, int64_t n)
{
    std::atomic_thread_fence(std::memory_order_seq_cst);
    ((std::atomic<int64_t> *)s.page->told[s.index])->store(n);
}

static void await_done(const several &s, int of, int64_t n)
{
    const int64_t begin_ns = clock_local_ns();
    while (((std::atomic<int64_t> *)s.page->told[of])->load() < n) {
        expect(s, clock_local_ns() - begin_ns < SEVERAL_LONGEST_NS);
        usleep(50);
    }
}

static size_t length_of(const several &s, int i)
{
    return i == 0 ? (size_t)MOST : i == 1 ? 1 : 1 + std::mt19937_64(s.seed + (uint64_t)i)() % MOST;
}

/* A buffer per slot: it is written again when its copy is done. */
static void send_all(several &s, const struct edge_ipc_room &room)
{
    struct err e = {};
    struct edge_ipc *edge = nullptr;
    void *hidden[DEPTH], *host[DEPTH];
    int n_told = 0;
    expect_ok(s, edge_ipc_open(&edge, s.gpu, &room, &e), e);
    for (int i = 0; i < DEPTH; i++) {
        expect_ok(s, gpu_take(s.gpu, MOST, "a test", &hidden[i], &e), e);
        expect_ok(s, gpu_take_host(s.gpu, MOST, "a test", &host[i], &e), e);
    }
    for (int i = 0; i < MESSAGES; i++) {
        const size_t n = length_of(s, i);
        while (n_told <= i - DEPTH) { // what was in the slot has arrived, and its source is free
            const int done = edge_ipc_poll(edge, n_told % DEPTH, &e);
            expect_ok(s, done < 0, e);
            n_told += done;
            tell_done(s, n_told);
        }
        await_done(s, 1, i - DEPTH + 1); // it has been read
        const auto bytes = several_bytes(s, n, (uint64_t)i);
        memcpy(host[i % DEPTH], bytes.data(), n);
        expect_ok(s, gpu_copy_in(s.gpu, hidden[i % DEPTH], host[i % DEPTH], n, &e), e);
        several_wait(s);
        expect_ok(s, edge_ipc_copy(edge, i % DEPTH, hidden[i % DEPTH], n, &e), e);
        for (int done = 1; done == 1 && n_told <= i;) {
            done = edge_ipc_poll(edge, n_told % DEPTH, &e);
            expect_ok(s, done < 0, e);
            n_told += done;
            tell_done(s, n_told);
        }
    }
    several_wait(s);
    expect(s, edge_ipc_poll(edge, (MESSAGES - 1) % DEPTH, &e) == 1);
    tell_done(s, MESSAGES);
    await_done(s, 1, MESSAGES);
    edge_ipc_close(edge);
}

static void receive_all(several &s, const struct edge_ipc_room &room, char *slots)
{
    struct err e = {};
    void *host;
    expect_ok(s, gpu_take_host(s.gpu, MOST, "a test", &host, &e), e);
    for (int i = 0; i < MESSAGES; i++) {
        const size_t n = length_of(s, i);
        await_done(s, 0, i + 1);
        expect_ok(
            s, gpu_copy_out(s.gpu, host, slots + (int64_t)(i % DEPTH) * room.slot_bytes, n, &e), e);
        several_wait(s);
        expect(s, memcmp(host, several_bytes(s, n, (uint64_t)i).data(), n) == 0);
        tell_done(s, i + 1);
    }
}

static void messages(several &s)
{
    struct err e = {};
    struct edge_ipc_room room = {};
    void *slots = nullptr;
    if (s.index == 1) {
        expect_ok(s, edge_ipc_take(s.gpu, DEPTH, MOST, &slots, &room, &e), e);
        expect(s, room.depth == DEPTH && room.slot_bytes >= MOST && room.slot_bytes % 256 == 0);
        several_tell(s, room);
    }
    several_meet(s);
    room = several_told<struct edge_ipc_room>(s, 1);
    several_meet(s);
    tell_done(s, 0);
    several_meet(s);
    if (s.index == 0) {
        send_all(s, room);
    } else {
        receive_all(s, room, (char *)slots);
    }
    several_meet(s); // it is closed
    if (slots) {
        gpu_give(s.gpu, slots);
    }
}

static void every_byte(void **state)
{
    (void)state;
    several_must(2, messages);
}

#ifdef GPU_ON_CPU
/* A copy that has not been made is not there. */
static void late_work(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        gpu_on_cpu_defer(1);
        messages(s);
        gpu_on_cpu_defer(0);
    });
}

static void gpus_of_their_own(void **state)
{
    (void)state;
    setenv("GPU_ON_CPU_DEVICES", "2", 1);
    several_must(2, messages);
    unsetenv("GPU_ON_CPU_DEVICES");
}

static bool says(const struct err &e, const char *what)
{
    const bool yes =
        strstr(e.msg, what) != nullptr && strchr(e.msg, '\n') == nullptr && e.code == ERR_ENV;
    if (!yes) {
        fprintf(stderr, "said: %s\n", e.msg);
    }
    return yes;
}

/* Each by itself; rank, GPU, size and peer are said, and nothing is left open. */
static void calls_that_fail(void **state)
{
    (void)state;
    several_must(2, [](several &s) {
        struct edge_ipc_room room = {};
        struct edge_ipc *edge = nullptr;
        struct err e = {};
        void *slots = nullptr, *hidden;
        if (s.index == 1) {
            gpu_on_cpu_fail("cudaMalloc", 0, cudaErrorMemoryAllocation);
            expect(s, edge_ipc_take(s.gpu, DEPTH, MOST, &slots, &room, &e) == -1 &&
                          says(e, "for hidden states"));
            expect_ok(s, edge_ipc_take(s.gpu, DEPTH, MOST, &slots, &room, &e), e);
            several_tell(s, room);
            several_meet(s);
            several_meet(s);
            return;
        }
        several_meet(s);
        room = several_told<struct edge_ipc_room>(s, 1);
        expect_ok(s, gpu_take(s.gpu, 64, "a test", &hidden, &e), e);
        for (int skip : {0, 1}) {
            gpu_on_cpu_fail(skip ? "cudaEventCreateWithFlags" : "cudaIpcOpenMemHandle", skip,
                            cudaErrorInvalidValue);
            expect(s, edge_ipc_open(&edge, s.gpu, &room, &e) == -1 && edge == nullptr);
            expect(s, says(e, "rank 10, GPU 0 (GPU on CPU): cuda") && says(e, "rank 11") &&
                          gpu_on_cpu_opened() == 0);
        }
        expect_ok(s, edge_ipc_open(&edge, s.gpu, &room, &e), e);
        gpu_on_cpu_fail("cudaMemcpyAsync", 0, cudaErrorInvalidValue);
        expect(s, edge_ipc_copy(edge, 0, hidden, 64, &e) == -1);
        expect(
            s,
            says(
                e,
                "rank 10, GPU 0 (GPU on CPU): cudaMemcpyAsync of 64 bytes for hidden states to rank 11, on "
                "its GPU 0: some error"));
        gpu_on_cpu_fail("cudaEventRecord", 0, cudaErrorInvalidValue);
        expect(s, edge_ipc_copy(edge, 0, hidden, 64, &e) == -1 &&
                      says(e, "cudaEventRecord of 64 bytes"));
        expect_ok(s, edge_ipc_copy(edge, 0, hidden, 64, &e), e);
        gpu_on_cpu_fail("cudaEventQuery", 0, cudaErrorLaunchFailure);
        expect(s, edge_ipc_poll(edge, 0, &e) == -1 && says(e, "waiting for a copy of "));
        gpu_on_cpu_fail("cudaEventQuery", 0, cudaErrorNotReady);
        expect(s, edge_ipc_poll(edge, 0, &e) == 0 && cudaGetLastError() == cudaSuccess);
        expect(s, edge_ipc_poll(edge, 0, &e) == 1);
        edge_ipc_close(edge);
        edge_ipc_close(nullptr);
        several_meet(s);
    });
}
#endif

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(every_byte),
#ifdef GPU_ON_CPU
        cmocka_unit_test(late_work),
        cmocka_unit_test(gpus_of_their_own),
        cmocka_unit_test(calls_that_fail),
#endif
    };
    return several_test_run(tests);
}
