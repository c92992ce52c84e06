#include "workers/telemetry.h"

#include "core/clock.h"
#include "core/mem.h"
#include "core/thread.h"
#include "model/wire.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PERIOD_NS (100 * NS_PER_MS)
#define FLUSH_NS  (250 * NS_PER_MS)
#define STOP_NS   (2 * NS_PER_S)

enum {
    MAX_SAMPLES = 4096, // kept for the main thread
    PER_MESSAGE = 64,
};

struct telemetry {
    const struct nvml *nvml;
    struct telemetry_device *devices; // (n_devices)
    size_t n_devices;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ending_changed;
    bool is_ending;                          // under lock
    struct gpus_sample samples[MAX_SAMPLES]; // under lock
    size_t n_samples;                        // likewise

    struct comm *comm; // of the main thread, as all below
    bool in_step;
    int64_t t_begin_ns, t_flush_ns;
    struct message { // struct wire_journal with its payload
        uint32_t kind, step;
        struct gpus_sample v[PER_MESSAGE];
    } message;
};

_Static_assert(offsetof(struct message, v) == offsetof(struct wire_journal, bytes),
               "a message is a struct wire_journal");

size_t telemetry_max_message_bytes(void)
{
    return sizeof(struct message);
}

/* --- the thread ------------------------------------------------------------------------------------ */

static void keep(struct telemetry *t, const struct gpus_sample *s)
{
    pthread_mutex_lock(&t->lock);
    if (t->n_samples < MAX_SAMPLES) {
        t->samples[t->n_samples++] = *s;
    }
    pthread_mutex_unlock(&t->lock);
}

static void look_at_all(struct telemetry *t)
{
    for (size_t i = 0; i < t->n_devices; i++) {
        struct gpus_sample s;
        nvml_sample(t->nvml, t->devices[i].index, &s);
        s.device = t->devices[i].number;
        keep(t, &s);
    }
}

/* Until `t_ns` of the local clock, or the end. False: the end. */
static bool wait_until(struct telemetry *t, int64_t t_ns)
{
    const struct timespec until = {.tv_sec = t_ns / NS_PER_S, .tv_nsec = t_ns % NS_PER_S};
    pthread_mutex_lock(&t->lock);
    while (!t->is_ending &&
           pthread_cond_timedwait(&t->ending_changed, &t->lock, &until) != ETIMEDOUT) {
    }
    bool goes_on = !t->is_ending;
    pthread_mutex_unlock(&t->lock);
    return goes_on;
}

static void *run(void *arg)
{
    struct telemetry *t = arg;
    struct sched_param normal = {0};
    (void)sched_setscheduler(0, SCHED_BATCH, &normal);
    int64_t next_ns = clock_local_ns();
    while (wait_until(t, next_ns)) {
        look_at_all(t);
        int64_t now_ns = clock_local_ns();
        next_ns += PERIOD_NS * (1 + (now_ns > next_ns ? (now_ns - next_ns) / PERIOD_NS : 0));
    }
    return NULL;
}

static int start_thread(struct telemetry *t, struct err *e)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->ending_changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int rc = thread_start(&t->thread, "telemetry", run, t);
    return rc == 0 ? 0 : err_set(e, ERR_ENV, "a thread for telemetry: %s", strerror(rc));
}

int telemetry_start(struct telemetry **out, const struct nvml *nvml,
                    const struct telemetry_device *devices, size_t n, struct err *e)
{
    struct telemetry *t = xcalloc(1, sizeof *t);
    t->nvml = nvml;
    t->devices = xcalloc(n + 1, sizeof *t->devices);
    memcpy(t->devices, devices, n * sizeof *devices);
    t->n_devices = n;
    t->message.kind = WIRE_JOURNAL_GPUS;
    if (start_thread(t, e) != 0) {
        free(t->devices);
        free(t);
        return -1;
    }
    *out = t;
    return 0;
}

/* Until it has ended, or STOP_NS have passed. */
static bool join_thread(struct telemetry *t)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_NS / NS_PER_S;
    return pthread_timedjoin_np(t->thread, NULL, &until) == 0;
}

bool telemetry_stop(struct telemetry *t)
{
    if (!t) {
        return true;
    }
    pthread_mutex_lock(&t->lock);
    t->is_ending = true;
    pthread_cond_signal(&t->ending_changed);
    pthread_mutex_unlock(&t->lock);
    if (!join_thread(t)) {
        return false;
    }
    pthread_cond_destroy(&t->ending_changed);
    pthread_mutex_destroy(&t->lock);
    free(t->devices);
    free(t);
    return true;
}

/* --- the main thread ------------------------------------------------------------------------------- */

/* Take at most a message of samples, oldest first: none where the thread is just adding one, unless
 * `all` are wanted. How many. */
static size_t take(struct telemetry *t, bool all)
{
    if ((all ? pthread_mutex_lock(&t->lock) : pthread_mutex_trylock(&t->lock)) != 0) {
        return 0;
    }
    size_t n = t->n_samples < PER_MESSAGE ? t->n_samples : PER_MESSAGE;
    memcpy(t->message.v, t->samples, n * sizeof t->samples[0]);
    memmove(t->samples, t->samples + n, (t->n_samples - n) * sizeof t->samples[0]);
    t->n_samples -= n;
    pthread_mutex_unlock(&t->lock);
    return n;
}

/* Send a message of what is there; 1: there may be more. */
static int post_some(struct telemetry *t, bool all, struct err *e)
{
    size_t n = take(t, all), n_stale = 0;
    while (n_stale < n && t->message.v[n_stale].t_ns < t->t_begin_ns) {
        n_stale++;
    }
    if (n_stale < n) {
        size_t n_bytes = (n - n_stale) * sizeof t->message.v[0];
        memmove(t->message.v, t->message.v + n_stale, n_bytes);
        n_bytes += offsetof(struct message, v);
        if (comm_post(t->comm, 0, WIRE_JOURNAL, &t->message, n_bytes, e) != 0) {
            return -1;
        }
    }
    return n == PER_MESSAGE;
}

static int post(struct telemetry *t, bool all, struct err *e)
{
    int more = 1;
    for (int i = 0; more == 1 && i <= MAX_SAMPLES / PER_MESSAGE; i++) {
        more = post_some(t, all, e);
    }
    return more < 0 ? -1 : 0;
}

void telemetry_begin_step(struct telemetry *t, struct comm *comm, uint32_t step, int64_t now_ns)
{
    if (t) {
        t->comm = comm;
        t->message.step = step;
        t->t_begin_ns = now_ns;
        t->t_flush_ns = now_ns + FLUSH_NS;
        t->in_step = true;
        while (take(t, true) == PER_MESSAGE) { // of before
        }
    }
}

int telemetry_tick(struct telemetry *t, int64_t now_ns, struct err *e)
{
    if (!t || !t->in_step || now_ns < t->t_flush_ns) {
        return 0;
    }
    t->t_flush_ns = now_ns + FLUSH_NS;
    return post(t, false, e);
}

int telemetry_end_step(struct telemetry *t, struct err *e)
{
    if (!t || !t->in_step) {
        return 0;
    }
    t->in_step = false;
    return post(t, true, e);
}
