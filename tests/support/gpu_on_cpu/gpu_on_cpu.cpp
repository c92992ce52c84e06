#include "cuda_runtime.h"
#include "ipc.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <stdio.h>
#include <stdlib.h>
#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

[[noreturn]] void fail(const char *what)
{
    fprintf(stderr, "gpu_on_cpu: %s (block %u,%u,%u thread %u,%u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z,
            threadIdx.x, threadIdx.y);
    abort();
}

/* --- fibers ------------------------------------------------------------------------------------- */

enum state { READY, AT_WARP, AT_BLOCK, DONE };

struct copy {
    void *to;
    const void *from;
};

struct fiber {
    void *sp;     // saved stack pointer
    char *stack;  // (STACK_BYTES)
    state at;
    unsigned turn; // of the warp's exchanges: which of the two boards is next
    dim3 index;
    std::vector<std::vector<copy>> copies; // groups under way, the last one still open
};

struct warp {
    gpu_on_cpu_lanes boards[2];
};

constexpr size_t STACK_BYTES = 256 << 10;
constexpr unsigned MAX_THREADS = 1024;

struct machine {
    std::vector<fiber> fibers;
    std::vector<warp> warps;
    std::vector<unsigned char> shared;
    const std::function<void()> *body = nullptr;
    fiber *now = nullptr;
    struct { // the warp that runs: its lanes take turns in the order from, from + step, ... modulo n
        fiber *lanes;
        unsigned n, next, step, left, at_warp; // left: lanes whose turn is still to come
    } turn = {};
    unsigned paused = 0;       // threads of the block that wait for another process, since the last look
    unsigned turns_paused = 0; // how often in a row some did
    int said = 0, said_last = 0; // __syncthreads_or: until the barrier, and of the last one
    void *home = nullptr; // the scheduler's stack pointer
    uint64_t draws = 0x9e3779b97f4a7c15u;
#if defined(__SANITIZE_ADDRESS__)
    const void *home_bottom = nullptr;
    size_t home_size = 0;
    void *home_fake = nullptr;
#endif
};

/* Of this thread; a pointer, since a thread_local object is asked at each use whether it has been made. */
__thread machine *machine_here;
#define m (*machine_here)


extern "C" void gpu_on_cpu_switch(void **from, void *to);
asm(R"(
.text
.globl gpu_on_cpu_switch
.type gpu_on_cpu_switch, @function
gpu_on_cpu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
.size gpu_on_cpu_switch, .-gpu_on_cpu_switch
.section .note.GNU-stack,"",@progbits
.text
)");

unsigned draw(unsigned n)
{
    m.draws ^= m.draws << 13;
    m.draws ^= m.draws >> 7;
    m.draws ^= m.draws << 17;
    return static_cast<unsigned>(m.draws % n);
}

/* Turns for all lanes once more, in another order. */
void begin_turns()
{
    m.turn.next = draw(m.turn.n);
    m.turn.step = draw(2) ? 1 : m.turn.n - 1;
    m.turn.left = m.turn.n;
    m.turn.at_warp = 0;
}

/* The next lane that can go on, or null: all have had their turn. */
fiber *next_lane()
{
    while (m.turn.left > 0) {
        fiber *f = m.turn.lanes + m.turn.next;
        m.turn.next += m.turn.step;
        m.turn.next -= m.turn.next >= m.turn.n ? m.turn.n : 0;
        m.turn.left--;
        if (f->at == READY) {
            m.now = f;
            threadIdx = f->index;
            return f;
        }
    }
    return nullptr;
}

/* All lanes wait at the same operation of the warp: it is done. */
bool pass_warp()
{
    if (m.turn.left > 0 || m.turn.at_warp != m.turn.n) {
        return false;
    }
    for (unsigned i = 0; i < m.turn.n; i++) {
        m.turn.lanes[i].at = READY;
    }
    begin_turns();
    return true;
}

/* This thread has had its turn: the next lane's, or the scheduler's where no lane can go on. From lane to lane
   saves half of the switches, and returns where the processor foresees it: lanes mostly wait at the same place. */
void give_turn(state why)
{
    fiber *me = m.now;
    me->at = why;
    m.turn.at_warp += why == AT_WARP;
#if defined(__SANITIZE_ADDRESS__)
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(why == DONE ? nullptr : &fake, m.home_bottom, m.home_size);
    gpu_on_cpu_switch(&me->sp, m.home);
    __sanitizer_finish_switch_fiber(fake, &m.home_bottom, &m.home_size);
#else
    fiber *next = next_lane();
    if (next == nullptr && pass_warp()) {
        next = next_lane();
    }
    if (next != me) {
        gpu_on_cpu_switch(&me->sp, next ? next->sp : m.home);
    }
#endif
}

void fiber_main()
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &m.home_bottom, &m.home_size);
#endif
    (*m.body)();
    for (const auto &group : m.now->copies) {
        if (!group.empty()) {
            fail("copies that were not waited for");
        }
    }
    give_turn(DONE);
    abort();
}

void fiber_start(fiber *f)
{
    if (f->stack == nullptr) {
        f->stack = static_cast<char *>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (f->stack == MAP_FAILED) {
            fail("no memory for a thread's stack");
        }
    }
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(f->stack, STACK_BYTES); // what the thread before left behind
#endif
    // Tops are apart by more than whole pages: else all of them meet in the same few lines of the caches.
    const size_t apart = static_cast<size_t>(f - m.fibers.data()) % 64 * 1088;
    void **top = reinterpret_cast<void **>(f->stack + STACK_BYTES - apart) - 2;
    *top = reinterpret_cast<void *>(fiber_main); // returned to, with the stack off by 8 as after a call
    f->sp = top - 6;
    memset(f->sp, 0, 6 * sizeof(void *));
    f->at = READY;
    f->turn = 0;
    if (f->copies.size() != 1 || !f->copies[0].empty()) {
        f->copies.assign(1, {});
    }
}

void fiber_run(fiber *f)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&m.home_fake, f->stack, STACK_BYTES);
#endif
    gpu_on_cpu_switch(&m.home, f->sp);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(m.home_fake, nullptr, nullptr);
#endif
}

/* Another process is waited for: let it run, the longer the more. */
void let_others_run()
{
    m.paused = 0;
    if (m.turns_paused++ < 64) {
        sched_yield();
        return;
    }
    const timespec nap = {0, 20000};
    nanosleep(&nap, nullptr);
}

/* Lanes of a warp until each waits for the block or has ended, or one has paused. */
void run_warp(unsigned first, unsigned n)
{
    const unsigned paused = m.paused;
    m.turn.lanes = &m.fibers[first];
    m.turn.n = n;
    begin_turns();
    for (unsigned i = 0; i < n; i++) { // since the warp was left for one that paused
        m.turn.at_warp += m.turn.lanes[i].at == AT_WARP;
    }
    do {
        for (fiber *f = next_lane(); f != nullptr; f = next_lane()) {
            fiber_run(f);
        }
    } while (pass_warp());
    if (m.turn.at_warp > 0 && m.paused == paused) {
        fail("a warp's operation that not all its lanes reach");
    }
}

/* All threads of the block wait for it: on with them. */
void pass_barrier(unsigned n_threads)
{
    m.said_last = m.said;
    m.said = 0;
    for (unsigned i = 0; i < n_threads; i++) {
        m.fibers[i].at = READY;
    }
}

void run_block(unsigned n_threads)
{
    for (unsigned i = 0; i < n_threads; i++) {
        fiber_start(&m.fibers[i]);
    }
    m.said = 0;
    const unsigned n_warps = (n_threads + 31) / 32;
    for (;;) {
        const unsigned begin = draw(n_warps);
        for (unsigned i = 0; i < n_warps; i++) {
            const unsigned first = (begin + i) % n_warps * 32;
            run_warp(first, n_threads - first < 32 ? n_threads - first : 32);
        }
        if (m.paused > 0) {
            let_others_run();
            continue;
        }
        m.turns_paused = 0;
        unsigned at_block = 0;
        for (unsigned i = 0; i < n_threads; i++) {
            at_block += m.fibers[i].at == AT_BLOCK;
        }
        if (at_block == 0) {
            return;
        }
        if (at_block != n_threads) {
            fail("a barrier that not all threads of a block reach");
        }
        pass_barrier(n_threads);
    }
}

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body)
{
    const unsigned n = block.x * block.y * block.z;
    if (n == 0 || n > MAX_THREADS || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
        grid.z > 65535) {
        fail("a grid that no GPU takes");
    }
    if (machine_here == nullptr) {
        static thread_local machine made;
        machine_here = &made;
    }
    if (m.fibers.size() < n) {
        m.fibers.resize(MAX_THREADS);
        m.warps.resize(MAX_THREADS / 32);
    }
    m.shared.resize(shared_bytes + 16);
    m.body = &body;
    gridDim = grid;
    blockDim = block;
    for (unsigned i = 0; i < n; i++) {
        m.fibers[i].index = dim3(i % block.x, i / block.x % block.y, i / (block.x * block.y));
    }
    for (unsigned i = 0; i < grid.x * grid.y * grid.z; i++) {
        blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y));
        std::fill(m.shared.begin(), m.shared.end(), 0xff);
        run_block(n);
    }
}

} // namespace

__thread dim3 threadIdx, blockIdx, blockDim, gridDim;

void __syncthreads()
{
    give_turn(AT_BLOCK);
}

int __syncthreads_or(int predicate)
{
    m.said |= predicate != 0;
    give_turn(AT_BLOCK);
    return m.said_last;
}

void gpu_on_cpu_pause()
{
    m.paused++;
    give_turn(READY);
}

unsigned long long gpu_on_cpu_timer_ns()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<unsigned long long>(t.tv_sec) * 1000000000u + static_cast<unsigned long long>(t.tv_nsec);
}

void __syncwarp(unsigned mask)
{
    gpu_on_cpu_exchange(mask, "", 1);
}

unsigned gpu_on_cpu_lane()
{
    return static_cast<unsigned>(m.now - m.fibers.data()) & 31u;
}

const gpu_on_cpu_lanes *gpu_on_cpu_exchange(unsigned mask, const void *mine, size_t n)
{
    const size_t i = static_cast<size_t>(m.now - m.fibers.data());
    if (mask != 0xffffffffu || n > sizeof m.warps[0].boards[0].bytes[0]) {
        fail("a warp's operation without all its lanes, or on more than 32 bytes of each");
    }
    if (blockDim.x * blockDim.y * blockDim.z % 32 != 0) {
        fail("a warp's operation in a block that is not whole warps");
    }
    gpu_on_cpu_lanes *board = &m.warps[i / 32].boards[m.fibers[i].turn++ % 2];
    memcpy(board->bytes[i % 32], mine, n);
    give_turn(AT_WARP);
    return board;
}

void gpu_on_cpu_copy_later(void *to, const void *from)
{
    if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16 != 0) {
        fail("a copy of 16 bytes that are not aligned");
    }
    memset(to, 0xff, 16);
    m.now->copies.back().push_back({to, from});
}

void gpu_on_cpu_copies_commit()
{
    m.now->copies.emplace_back();
}

void gpu_on_cpu_copies_wait(size_t n)
{
    auto &groups = m.now->copies;
    while (groups.size() > n + 1) {
        for (const copy &c : groups.front()) {
            memcpy(c.to, c.from, 16);
        }
        groups.erase(groups.begin());
    }
}

unsigned char *gpu_on_cpu_shared()
{
    return reinterpret_cast<unsigned char *>((reinterpret_cast<uintptr_t>(m.shared.data()) + 15) & ~uintptr_t{15});
}

/* --- the runtime ---------------------------------------------------------------------------------- */

using work_until = std::function<bool()>; // whether it is done; if not it is asked again

static void queue_from_outside(cudaStream_t s, int (*is_done)(void *arg), void *arg);

struct CUgraph_st {
    std::vector<work_until> work;
};
struct CUgraphExec_st {
    std::vector<work_until> work;
};
struct CUstream_st {
    gpu_on_cpu_stream head = {queue_from_outside}; // first
    CUgraph_st *capture = nullptr;
    std::deque<work_until> late;
};
struct moment {
    bool has_come = true;
    std::chrono::steady_clock::time_point at;
    cudaStream_t stream = nullptr;
};
struct CUevent_st {
    std::shared_ptr<moment> last = std::make_shared<moment>();
};

namespace {

std::string failing;
int failing_skip;
cudaError_t failing_with = cudaSuccess, last_error = cudaSuccess, lost = cudaSuccess;
struct block {
    size_t n;
    int fd; // of the file that other processes open, or -1
};
std::unordered_map<void *, block> allocated;
std::unordered_map<void *, size_t> pinned; // whether it is registered
size_t freed_open; // blocks that other processes still had open
size_t allocated_bytes;
bool deferring;
std::vector<cudaStream_t> streams;
long long tick_ns = -1, ticked;

/* GPU_ON_CPU_FAIL=CALL:SKIP:CODE, for programs of their own: as gpu_on_cpu_fail. */
void take_told()
{
    static bool taken;
    const char *told = taken ? nullptr : getenv("GPU_ON_CPU_FAIL");
    taken = true;
    char call[64];
    int skip, code;
    if (told != nullptr && sscanf(told, "%63[^:]:%d:%d", call, &skip, &code) == 3) {
        failing = call;
        failing_skip = skip;
        failing_with = static_cast<cudaError_t>(code);
    }
}

/* What a call of this name returns before it does anything. */
cudaError_t fate(const char *call)
{
    take_told();
    if (failing == call && failing_skip-- == 0) {
        failing.clear();
        last_error = failing_with;
        lost = failing_with == cudaErrorLaunchFailure ? failing_with : lost;
        return failing_with;
    }
    return lost;
}

/* GPU_ON_CPU_DEVICES, all alike. */
int n_devices()
{
    const char *told = getenv("GPU_ON_CPU_DEVICES");
    return told ? atoi(told) : 1;
}

thread_local int current_device;

/* GPU_ON_CPU_APART names pairs of devices that do not reach each other's memory: "0-1 0-2". */
bool reach(int a, int b)
{
    const char *told = getenv("GPU_ON_CPU_APART");
    for (const char *at = told; at != nullptr && *at != '\0'; at = strchr(at, ' ')) {
        int x = -1, y = -1;
        at += *at == ' ';
        if (sscanf(at, "%d-%d", &x, &y) == 2 && ((x == a && y == b) || (x == b && y == a))) {
            return false;
        }
    }
    return true;
}

size_t device_bytes()
{
    const char *told = getenv("GPU_ON_CPU_BYTES");
    return told ? strtoull(told, nullptr, 10) : size_t{4} << 30;
}

/* As an H200's; GPU_ON_CPU_SHARED_BYTES for another's. */
size_t shared_bytes_of_block()
{
    const char *told = getenv("GPU_ON_CPU_SHARED_BYTES");
    return told ? strtoull(told, nullptr, 10) : size_t{227} << 10;
}

void queue_until(cudaStream_t s, work_until work)
{
    if (s != nullptr && s->capture != nullptr) {
        s->capture->work.push_back(std::move(work));
    } else if (s != nullptr && (deferring || !s->late.empty() || !work())) {
        s->late.push_back(std::move(work));
    } else if (s == nullptr) {
        while (!work()) {
            std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
    }
}

cudaError_t queue(cudaStream_t s, std::function<void()> work)
{
    queue_until(s, [work = std::move(work)] {
        work();
        return true;
    });
    return cudaSuccess;
}

/* So many of the things that a stream was to do; of one alone what is not done yet is left. */
void catch_up(cudaStream_t s, size_t most)
{
    if (s != nullptr && lost != cudaSuccess) {
        s->late.clear(); // it will never be done
    }
    while (s != nullptr && most > 0 && !s->late.empty()) {
        if (s->late.front()()) {
            s->late.pop_front();
            most--;
        } else if (most == 1) {
            return;
        } else {
            std::this_thread::sleep_for(std::chrono::microseconds(20));
        }
    }
}

void catch_up_all()
{
    for (cudaStream_t s : streams) {
        catch_up(s, SIZE_MAX);
    }
}

bool is_capturing(cudaStream_t s)
{
    return s != nullptr && s->capture != nullptr;
}

} // namespace

static void queue_from_outside(cudaStream_t s, int (*is_done)(void *arg), void *arg)
{
    queue_until(s, [=] { return is_done(arg) != 0; });
}

#define MAY_FAIL()                                                                                 \
    do {                                                                                           \
        const cudaError_t said = fate(__func__);                                                   \
        if (said != cudaSuccess) {                                                                 \
            return said;                                                                           \
        }                                                                                          \
    } while (0)

cudaError_t gpu_on_cpu_launch(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t s,
                              std::function<void()> body)
{
    const cudaError_t said = shared_bytes > shared_bytes_of_block() ? cudaErrorInvalidValue : fate("launch");
    if (said != cudaSuccess) {
        return said;
    }
    return queue(s, [=] { run_grid(grid, block, shared_bytes, body); });
}

extern "C" {

void gpu_on_cpu_fail(const char *call, int skip, cudaError_t e)
{
    failing = call ? call : "";
    failing_skip = skip;
    failing_with = e;
    lost = last_error = cudaSuccess;
}

size_t gpu_on_cpu_pinned(void)
{
    return pinned.size();
}

void gpu_on_cpu_defer(int yes)
{
    deferring = yes != 0;
    catch_up_all();
}

void gpu_on_cpu_tick(long long ns)
{
    tick_ns = ns;
}

size_t gpu_on_cpu_allocated(void)
{
    return allocated_bytes;
}

size_t gpu_on_cpu_opened(void)
{
    return ipc_opened();
}

size_t gpu_on_cpu_freed_open(void)
{
    return freed_open;
}

const char *cudaGetErrorName(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
           : e == cudaErrorLaunchFailure  ? "cudaErrorLaunchFailure"
           : e == cudaErrorNoDevice       ? "cudaErrorNoDevice"
                                          : "cudaError";
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess                 ? "no error"
           : e == cudaErrorMemoryAllocation ? "out of memory"
           : e == cudaErrorLaunchFailure    ? "unspecified launch failure"
           : e == cudaErrorNoDevice         ? "no CUDA-capable device is detected"
           : e == cudaErrorInvalidContext   ? "invalid device context"
           : e == cudaErrorAlreadyMapped    ? "memory is open already"
           : e == cudaErrorInvalidResourceHandle ? "invalid resource handle"
                                            : "some error";
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

cudaError_t cudaDriverGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 0;
    MAY_FAIL();
    *n = n_devices();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    MAY_FAIL();
    if (device < 0 || device >= n_devices()) {
        return cudaErrorInvalidDevice;
    }
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    MAY_FAIL();
    const int n = n_devices();
    *can = device != peer && reach(device, peer);
    return device >= 0 && device < n && peer >= 0 && peer < n ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    MAY_FAIL();
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "GPU on CPU");
    p->totalGlobalMem = device_bytes();
    p->sharedMemPerBlockOptin = shared_bytes_of_block();
    p->major = 9;
    p->multiProcessorCount = 4;
    p->l2CacheSize = 1 << 20;
    p->pciBusID = device;
    return device >= 0 && device < n_devices() ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr a, int device)
{
    struct cudaDeviceProp p;
    const cudaError_t e = cudaGetDeviceProperties(&p, device);
    *value = a == cudaDevAttrMultiProcessorCount               ? p.multiProcessorCount
             : a == cudaDevAttrMaxSharedMemoryPerBlockOptin    ? (int)p.sharedMemPerBlockOptin
             : a == cudaDevAttrComputeCapabilityMajor          ? p.major
             : a == cudaDevAttrL2CacheSize                     ? p.l2CacheSize
             : a == cudaDevAttrClockRate                       ? 1500000
             : a == cudaDevAttrMemoryClockRate                 ? 0 // it does not tell
                                                               : p.minor;
    return e;
}

cudaError_t cudaDeviceSynchronize(void)
{
    MAY_FAIL();
    catch_up_all();
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    MAY_FAIL();
    *total = device_bytes();
    *free_bytes = *total > allocated_bytes ? *total - allocated_bytes : 0;
    return cudaSuccess;
}

/* Whole pages, so that they can be shared later; the rest of the last one is nobody's. */
cudaError_t cudaMalloc(void **p, size_t n)
{
    const size_t pages = ipc_whole_pages(n ? n : 1);
    *p = nullptr;
    MAY_FAIL();
    if (n > device_bytes() - allocated_bytes || posix_memalign(p, IPC_PAGE, pages) != 0) {
        *p = nullptr;
        last_error = cudaErrorMemoryAllocation;
        return cudaErrorMemoryAllocation;
    }
    memset(*p, 0xff, n < (64u << 20) ? n : 64u << 20); // NaN in every float format
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(static_cast<char *>(*p) + n, pages - n);
#endif
    allocated[*p] = {n, -1};
    allocated_bytes += n;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    catch_up_all();
    if (p != nullptr) {
        const auto it = allocated.find(p);
        if (it == allocated.end()) {
            return cudaErrorInvalidValue;
        }
        if (it->second.fd >= 0) {
            freed_open += ipc_unshare(p, ipc_whole_pages(it->second.n), it->second.fd) > 0;
        }
        allocated_bytes -= it->second.n;
        allocated.erase(it);
        free(p);
    }
    return fate(__func__);
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *h, void *p)
{
    MAY_FAIL();
    const auto it = allocated.find(p);
    if (it == allocated.end() || it->second.n == 0) {
        return cudaErrorInvalidValue; // not the beginning of a block
    }
    const size_t pages = ipc_whole_pages(it->second.n);
    catch_up_all(); // its pages are about to change
    if (it->second.fd < 0) {
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(p, pages);
#endif
        it->second.fd = ipc_share(p, pages);
    }
    if (it->second.fd < 0) {
        return cudaErrorMemoryAllocation;
    }
    *h = ipc_handle(it->second.fd, pages, current_device);
    return cudaSuccess;
}

cudaError_t cudaIpcOpenMemHandle(void **p, cudaIpcMemHandle_t handle, unsigned)
{
    *p = nullptr;
    MAY_FAIL();
    const cudaError_t e = reach(current_device, ipc_device(handle)) ? ipc_open(handle, p)
                                                                    : cudaErrorPeerAccessUnsupported;
    last_error = e != cudaSuccess ? e : last_error;
    return e;
}

cudaError_t cudaIpcCloseMemHandle(void *p)
{
    catch_up_all();
    const cudaError_t e = ipc_close(p);
    return e != cudaSuccess ? e : fate(__func__);
}

cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
    *p = nullptr;
    MAY_FAIL();
    if (posix_memalign(p, 4096, n ? n : 1) != 0) {
        return cudaErrorMemoryAllocation;
    }
    memset(*p, 0xff, n < (1u << 20) ? n : 1u << 20);
    pinned[*p] = 0;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    if (pinned.count(p) == 0 || pinned[p] != 0) {
        return cudaErrorInvalidValue;
    }
    pinned.erase(p);
    free(p);
    return fate(__func__);
}

cudaError_t cudaHostRegister(void *p, size_t n, unsigned)
{
    MAY_FAIL();
    if (p == nullptr || n == 0 || pinned.count(p) != 0) {
        return cudaErrorInvalidValue;
    }
    pinned[p] = 1;
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *p)
{
    if (pinned.count(p) == 0 || pinned[p] != 1) {
        return cudaErrorInvalidValue;
    }
    pinned.erase(p);
    return fate(__func__);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind, cudaStream_t s)
{
    MAY_FAIL();
    return queue(s, [=] { memcpy(to, from, n); });
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t n, cudaStream_t s)
{
    MAY_FAIL();
    return queue(s, [=] { memset(p, value, n); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    MAY_FAIL();
    *s = new CUstream_st;
    streams.push_back(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    catch_up(s, SIZE_MAX);
    streams.erase(std::find(streams.begin(), streams.end(), s));
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    MAY_FAIL();
    catch_up(s, 1);
    last_error = s == nullptr || s->late.empty() ? last_error : cudaErrorNotReady;
    return s == nullptr || s->late.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    MAY_FAIL();
    catch_up(s, SIZE_MAX);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t e, unsigned)
{
    if (!e->last->has_come) { // earlier than it need be
        catch_up(e->last->stream, SIZE_MAX);
    }
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    MAY_FAIL();
    *e = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    MAY_FAIL();
    if (!is_capturing(s)) {
        ticked += tick_ns > 0 ? tick_ns : 0;
        const auto now = std::make_shared<moment>();
        const auto set = std::chrono::steady_clock::time_point(std::chrono::nanoseconds(ticked));
        now->has_come = false;
        now->stream = s;
        e->last = now;
        queue(s, [now, set] {
            now->at = tick_ns < 0 ? std::chrono::steady_clock::now() : set;
            now->has_come = true;
        });
    }
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    MAY_FAIL();
    if (!e->last->has_come) {
        catch_up(e->last->stream, 1);
    }
    return e->last->has_come ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    MAY_FAIL();
    if (!e->last->has_come) {
        catch_up(e->last->stream, SIZE_MAX);
    }
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    MAY_FAIL();
    *ms = std::chrono::duration<float, std::milli>(to->last->at - from->last->at).count();
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode)
{
    MAY_FAIL();
    s->capture = new CUgraph_st;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    MAY_FAIL();
    *g = s->capture;
    s->capture = nullptr;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long)
{
    MAY_FAIL();
    *x = new CUgraphExec_st{g->work};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    MAY_FAIL();
    for (const auto &work : x->work) {
        queue_until(s, work);
    }
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x)
{
    delete x;
    return cudaSuccess;
}

} // extern "C"
