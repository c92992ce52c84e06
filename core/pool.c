#include "core/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/err.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/spin.h"
#include "core/thread.h"

#define IDLE_SPIN_NS     (30 * NS_PER_US) // between submissions, before sleeping
#define BARRIER_SPINS    32               // about 1 us, then give the core away
#define BARRIER_YIELD_NS (1 * NS_PER_MS)  // then sleep: somebody else needs the core
#define BARRIER_NAP_NS   (50 * NS_PER_US)

struct member {
    struct pool *pool;
    int index;
    pthread_t thread;
};

struct pool {
    int n_members;
    bool idle_class, pinned;
    struct member *members; // (n_members)

    pool_fn fn; // NULL ends the members; published by `submitted`
    void *arg;
    // Each on a cache line of its own: they are spun on.
    _Alignas(64) atomic_uint submitted; // counts submissions; futex of the sleepers
    _Alignas(64) atomic_int n_sleeping;
    _Alignas(64) atomic_int n_running;
    _Alignas(64) atomic_int n_arrived; // at the barrier
    _Alignas(64) atomic_uint barriers; // counts completed barriers
};

static void futex_wait(atomic_uint *word, unsigned seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Wait for a submission after number `seen`: spin, then sleep until woken. */
static unsigned await_submission(struct pool *p, unsigned seen)
{
    int64_t start_ns = clock_local_ns();
    for (int i = 1;; i++) {
        unsigned now = atomic_load_explicit(&p->submitted, memory_order_acquire);
        if (now != seen) {
            return now;
        }
        spin_pause();
        if (i % 16 == 0 && clock_local_ns() - start_ns > IDLE_SPIN_NS) {
            break;
        }
    }
    // Sleepers announce themselves before the kernel compares the word, and the submitter changes
    // the word before it looks for sleepers: one of the two always sees the other.
    atomic_fetch_add(&p->n_sleeping, 1);
    while (atomic_load(&p->submitted) == seen) {
        futex_wait(&p->submitted, seen);
    }
    atomic_fetch_sub(&p->n_sleeping, 1);
    return atomic_load_explicit(&p->submitted, memory_order_acquire);
}

static void *member_main(void *arg)
{
    struct member *m = arg;
    struct pool *p = m->pool;
    for (unsigned seen = 0;;) {
        seen = await_submission(p, seen);
        if (!p->fn) {
            return NULL;
        }
        p->fn(p->arg, m->index, p->n_members);
        atomic_fetch_sub_explicit(&p->n_running, 1, memory_order_acq_rel);
    }
}

/* Whether it could be. */
static bool pin(const struct member *m, int cpu)
{
    cpu_set_t set;
    if (cpu < 0 || cpu >= CPU_SETSIZE) {
        return false;
    }
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    int rc = pthread_setaffinity_np(m->thread, sizeof set, &set);
    if (rc) {
        log_warn("pool", "cannot pin thread %d to CPU %d: %s", m->index, cpu, strerror(rc));
    }
    return rc == 0;
}

static void place(struct pool *p, struct member *m, const int *cpus, bool idle_class)
{
    p->pinned = cpus && pin(m, cpus[m->index]) && p->pinned;
    struct sched_param none = {0};
    if (idle_class && pthread_setschedparam(m->thread, SCHED_IDLE, &none)) {
        p->idle_class = false;
    }
}

struct pool *pool_create(int n_members, const int *cpus, bool idle_class)
{
    CHECK(n_members >= 1);
    struct pool *p = mem_aligned(sizeof *p);
    if (!p) {
        log_error("pool", "out of memory");
        exit(ERR_ENV);
    }
    p->n_members = n_members;
    p->idle_class = idle_class;
    p->pinned = true; // so far
    p->members = xcalloc((size_t)n_members, sizeof *p->members);
    for (int i = 0; i < n_members; i++) {
        struct member *m = &p->members[i];
        *m = (struct member){.pool = p, .index = i};
        char name[16];
        snprintf(name, sizeof name, "pool-%d", i);
        int rc = thread_start(&m->thread, name, member_main, m);
        if (rc) {
            log_error("pool", "cannot start thread %d of %d: %s", i + 1, n_members, strerror(rc));
            exit(ERR_ENV);
        }
        place(p, m, cpus, idle_class);
    }
    return p;
}

int pool_size(const struct pool *p)
{
    return p->n_members;
}

static void publish(struct pool *p, pool_fn fn, void *arg)
{
    p->fn = fn;
    p->arg = arg;
    atomic_fetch_add(&p->submitted, 1);
    if (atomic_load(&p->n_sleeping) > 0) {
        futex_wake_all(&p->submitted);
    }
}

void pool_submit(struct pool *p, pool_fn fn, void *arg)
{
    CHECK(fn && pool_poll(p));
    atomic_store_explicit(&p->n_running, p->n_members, memory_order_relaxed);
    publish(p, fn, arg);
}

bool pool_poll(struct pool *p)
{
    return atomic_load_explicit(&p->n_running, memory_order_acquire) == 0;
}

/* Wait for the barrier after number `seen`. The core may be shared with the one waited for. */
static void await_barrier(struct pool *p, unsigned seen)
{
    int64_t yield_since_ns = 0;
    for (int i = 0; atomic_load_explicit(&p->barriers, memory_order_acquire) == seen; i++) {
        if (i < BARRIER_SPINS) {
            spin_pause();
            continue;
        }
        int64_t now_ns = clock_local_ns();
        if (!yield_since_ns) {
            yield_since_ns = now_ns;
        }
        if (now_ns - yield_since_ns < BARRIER_YIELD_NS) {
            sched_yield();
        } else {
            clock_sleep_until_ns(now_ns + BARRIER_NAP_NS);
        }
    }
}

void pool_barrier(struct pool *p)
{
    unsigned seen = atomic_load_explicit(&p->barriers, memory_order_acquire);
    int before = atomic_fetch_add_explicit(&p->n_arrived, 1, memory_order_acq_rel);
    if (before + 1 < p->n_members) {
        await_barrier(p, seen);
        return;
    }
    atomic_store_explicit(&p->n_arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&p->barriers, seen + 1, memory_order_release);
}

bool pool_is_idle_class(const struct pool *p)
{
    return p->idle_class;
}

bool pool_is_pinned(const struct pool *p)
{
    return p->pinned;
}

void pool_destroy(struct pool *p)
{
    if (!p) {
        return;
    }
    CHECK(pool_poll(p));
    publish(p, NULL, NULL);
    for (int i = 0; i < p->n_members; i++) {
        pthread_join(p->members[i].thread, NULL);
    }
    free(p->members);
    free(p);
}
