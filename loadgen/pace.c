#include "loadgen/pace.h"

#include "core/clock.h"

#include <sched.h>

#define SLEEP_NS     (50 * NS_PER_US) // at once: messages are looked at in between
#define AWAKE_NS     (60 * NS_PER_US) // before a due time; a sleep ends up to 40 us late
#define WINDOW_NS    (100 * NS_PER_MS)
#define WINDOW_SHARE 0.8
#define LOOK_NS      NS_PER_MS

void pace_begin(struct pace *p, int ranks_on_this_host, int64_t now_ns)
{
    cpu_set_t cpus;
    int n_cpus = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
    *p = (struct pace){
        .may_spin = ranks_on_this_host <= n_cpus,
        .is_realtime = sched_getscheduler(0) == SCHED_FIFO,
        .t_window_ns = now_ns,
        .cpu_window_ns = clock_thread_cpu_ns(),
        .t_look_ns = now_ns,
    };
}

static void look(struct pace *p, int64_t now_ns)
{
    if (now_ns - p->t_look_ns < LOOK_NS) {
        return;
    }
    int64_t cpu_ns = clock_thread_cpu_ns();
    p->t_look_ns = now_ns;
    if (now_ns - p->t_window_ns >= WINDOW_NS) {
        p->t_window_ns = now_ns;
        p->cpu_window_ns = cpu_ns;
    }
    p->is_spent = (double)(cpu_ns - p->cpu_window_ns) > WINDOW_SHARE * (double)WINDOW_NS;
}

int64_t pace_sleep_ns(struct pace *p, int64_t now_ns, int64_t left_ns)
{
    if (p->may_spin && !p->is_realtime) {
        return 0;
    }
    look(p, now_ns);
    int64_t awake_ns = p->may_spin && !p->is_spent ? AWAKE_NS : 0;
    int64_t sleep_ns = left_ns > awake_ns ? left_ns - awake_ns : 0;
    return sleep_ns < SLEEP_NS ? sleep_ns : SLEEP_NS;
}
