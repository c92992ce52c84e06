/*
 * Time: int64 nanoseconds of CLOCK_MONOTONIC, plus an offset that puts every rank on rank 0's
 * clock once core/clocksync.h has measured it. All stamps in records are clock_now_ns().
 */
#pragma once

#include <stdint.h>

#define NS_PER_US 1000LL
#define NS_PER_MS 1000000LL
#define NS_PER_S  1000000000LL

/* Now, on rank 0's clock: CLOCK_MONOTONIC plus this rank's offset (0 until set). */
int64_t clock_now_ns(void);

/* Now on this host's own CLOCK_MONOTONIC: for deadlines and for measuring offsets. */
int64_t clock_local_ns(void);

/* What clock_now_ns adds to the local clock from here on. Main thread, outside of any step. */
void clock_set_offset_ns(int64_t offset_ns);

/* Wall time, for `created_utc` only. */
int64_t clock_unix_ns(void);

/* CPU time that this process has used, all threads. */
int64_t clock_process_cpu_ns(void);

/* CPU time that the calling thread has used. */
int64_t clock_thread_cpu_ns(void);

/* Ask for 1 ns timer slack, so that short sleeps end on time. Once per thread. */
void clock_tight_timers(void);

/* Sleep until the local clock shows t; returns at once when t has passed. */
void clock_sleep_until_ns(int64_t t_local_ns);
