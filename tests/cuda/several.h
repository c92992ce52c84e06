/*
 * Tests of several processes that share a GPU's memory. The program itself never touches CUDA, which does not
 * survive a fork: each test forks its processes, and they meet in a page that all of them see, where handles
 * travel as they would by MPI. A process that finds something says it and ends; the test fails then, as it does when
 * one is still there after a minute.
 */
#pragma once

#include "tests/cuda/device_test.h"

#include <atomic>
#include <functional>

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include "core/clock.h"
#include "workers/cuda/gpu.h"
}

enum {
    SEVERAL_MOST = 8,
    SEVERAL_WORDS = 4096, // bytes that each may tell the others
    SEVERAL_NO_GPU = 77,
};

#define SEVERAL_LONGEST_NS (60 * NS_PER_S)

struct several_page {
    std::atomic<int> n_there, n_meetings, n_over;
    alignas(64) unsigned char told[SEVERAL_MOST][SEVERAL_WORDS];
};

/* One of the processes. */
struct several {
    int index, size;
    several_page *page;
    uint64_t seed; // the same for all
    struct gpu *gpu;
};

[[noreturn]] static inline void several_fails(const several &s, const char *file, int line,
                                              const char *what)
{
    fprintf(stderr, "%s:%d: process %d of %d: %s\n", file, line, s.index, s.size, what);
    _exit(1);
}

#define expect(s, cond)                                                                            \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            several_fails(s, __FILE__, __LINE__, #cond);                                           \
        }                                                                                          \
    } while (0)
#define expect_ok(s, rc, e)                                                                        \
    do {                                                                                           \
        if ((rc) != 0) {                                                                           \
            several_fails(s, __FILE__, __LINE__, (e).msg);                                         \
        }                                                                                          \
    } while (0)

/* All n processes, or all that there are, are here. */
static inline void several_meet(const several &s, int n = 0)
{
    const int size = n ? n : s.size, meeting = s.page->n_meetings;
    if (++s.page->n_there == size) {
        s.page->n_there = 0;
        s.page->n_meetings++;
        return;
    }
    const int64_t begin_ns = clock_local_ns();
    while (s.page->n_meetings == meeting) {
        expect(s, clock_local_ns() - begin_ns < SEVERAL_LONGEST_NS);
        usleep(100);
    }
}

template <class T> static inline void several_tell(const several &s, const T &what)
{
    static_assert(sizeof what <= SEVERAL_WORDS, "it fits");
    memcpy(s.page->told[s.index], &what, sizeof what);
}

template <class T> static inline T several_told(const several &s, int by)
{
    T what;
    memcpy(&what, s.page->told[by], sizeof what);
    return what;
}

/* In a process of its own: body, and all of its memory is given back. */
static inline int several_one(several s, const std::function<void(several &)> &body)
{
    struct err e = {};
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        return SEVERAL_NO_GPU;
    }
    expect_ok(s, gpu_open(&s.gpu, s.index % n, 10 + s.index, &e), e);
    body(s);
    gpu_close(s.gpu);
#ifdef GPU_ON_CPU
    gpu_on_cpu_fail(nullptr, 0, cudaSuccess);
    expect(s, gpu_on_cpu_allocated() == 0 && gpu_on_cpu_pinned() == 0);
    expect(s, gpu_on_cpu_opened() == 0 && gpu_on_cpu_freed_open() == 0);
#endif
    return 0;
}

/* Whether one of those that are awaited has ended otherwise than as it should: the others need not go on. */
static inline bool several_await(const std::vector<pid_t> &pids, bool to_be_killed, int *worst)
{
    const int64_t begin_ns = clock_local_ns();
    size_t n_left = pids.size();
    std::vector<bool> ended(pids.size());
    while (n_left > 0 && *worst == 0 && clock_local_ns() - begin_ns < 2 * SEVERAL_LONGEST_NS) {
        for (size_t i = 0; i < pids.size(); i++) {
            int status = 0;
            if (ended[i] || waitpid(pids[i], &status, WNOHANG) != pids[i]) {
                continue;
            }
            ended[i] = true;
            n_left--;
            const bool killed =
                WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && to_be_killed && i == 0;
            *worst = WIFEXITED(status) ? WEXITSTATUS(status) : killed ? 0 : 128;
        }
        usleep(1000);
    }
    const bool all = n_left == 0;
    for (size_t i = 0; i < pids.size(); i++) {
        if (!ended[i]) {
            kill(pids[i], SIGKILL);
            waitpid(pids[i], nullptr, 0);
        }
    }
    return all && *worst == 0;
}

/* n processes; the first may end by SIGKILL where that is what the test is about. */
static inline int several_run(int n, const std::function<void(several &)> &body,
                              bool to_be_killed = false)
{
    several_page *page = (several_page *)mmap(nullptr, sizeof *page, PROT_READ | PROT_WRITE,
                                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const uint64_t seed = device_random()();
    std::vector<pid_t> pids;
    fflush(nullptr);
    for (int i = 0; i < n; i++) {
        const pid_t pid = fork();
        if (pid == 0) {
            const int code = several_one({i, n, page, seed, nullptr}, body);
            fflush(nullptr);
            _exit(code);
        }
        pids.push_back(pid);
    }
    int worst = 0;
    const bool fine = several_await(pids, to_be_killed, &worst);
    munmap(page, sizeof *page);
    return fine ? 0 : worst ? worst : 1;
}

static inline void several_must(int n, const std::function<void(several &)> &body,
                                bool to_be_killed = false)
{
    assert_int_equal(several_run(n, body, to_be_killed), 0);
}

template <size_t n> static inline int several_test_run(const CMUnitTest (&tests)[n])
{
    if (several_run(1, [](several &) {}) == SEVERAL_NO_GPU) {
        printf("skipped: no GPU\n");
        return SEVERAL_NO_GPU;
    }
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
