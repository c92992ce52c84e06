#include "core/guard.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"

static void *watch(void *arg)
{
    struct guard *g = arg;
    struct timespec until = {
        .tv_sec = (time_t)(g->until_ns / NS_PER_S),
        .tv_nsec = (long)(g->until_ns % NS_PER_S),
    };
    int rc;
    do {
        rc = sem_clockwait(&g->done, CLOCK_MONOTONIC, &until);
    } while (rc && errno == EINTR);
    if (rc) {
        log_error("guard", "%s does not return; exiting", g->what);
        _exit(g->exit_code);
    }
    return NULL;
}

void guard_start(struct guard *g, const char *what, int64_t limit_ns, int exit_code)
{
    *g = (struct guard){
        .until_ns = clock_local_ns() + limit_ns,
        .exit_code = exit_code,
        .what = what,
    };
    sem_init(&g->done, 0, 0);
    g->armed = thread_start(&g->thread, "guard", watch, g) == 0;
}

void guard_end(struct guard *g)
{
    if (g->armed) {
        sem_post(&g->done);
        pthread_join(g->thread, NULL);
    }
    sem_destroy(&g->done);
}
