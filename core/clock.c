#include "core/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <time.h>

static _Atomic int64_t offset_now_ns;

static int64_t read_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t clock_now_ns(void)
{
    return read_ns(CLOCK_MONOTONIC) + atomic_load_explicit(&offset_now_ns, memory_order_relaxed);
}

int64_t clock_local_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

void clock_set_offset_ns(int64_t offset_ns)
{
    atomic_store_explicit(&offset_now_ns, offset_ns, memory_order_relaxed);
}

int64_t clock_unix_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

int64_t clock_process_cpu_ns(void)
{
    return read_ns(CLOCK_PROCESS_CPUTIME_ID);
}

int64_t clock_thread_cpu_ns(void)
{
    return read_ns(CLOCK_THREAD_CPUTIME_ID);
}

void clock_tight_timers(void)
{
    prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
}

void clock_sleep_until_ns(int64_t t_local_ns)
{
    if (t_local_ns <= 0) {
        return;
    }
    struct timespec ts = {.tv_sec = t_local_ns / NS_PER_S, .tv_nsec = t_local_ns % NS_PER_S};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR) {
    }
}
