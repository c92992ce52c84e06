/*
 * How the load loop waits for a due time that is near: asleep, or awake so that the request goes out within
 * a microsecond of it (a wake-up takes tens of microseconds). Awake only where no other rank wants the
 * core. SCHED_FIFO stays awake for the last moments alone, and for no more than 80 % of any 100 ms:
 * Linux stops a real-time thread that hardly sleeps (sched_rt_runtime_us, 950 ms per s), and all that
 * shares the core would starve until then.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PACE_NEAR_NS 150000LL // what is due later than this is not near

struct pace {
    bool may_spin;                      // the core is ours
    bool is_realtime;                   // of class SCHED_FIFO
    bool is_spent;                      // this window's CPU time is used up
    int64_t t_window_ns, cpu_window_ns; // when the window began: time, CPU time of the thread
    int64_t t_look_ns;                  // when CPU time was last looked at
};

/* As the calling thread and the ranks on its host are now. */
void pace_begin(struct pace *p, int ranks_on_this_host, int64_t now_ns);

/* How long to sleep when something is due in left_ns <= PACE_NEAR_NS; 0: stay awake and look again. */
int64_t pace_sleep_ns(struct pace *p, int64_t now_ns, int64_t left_ns);
