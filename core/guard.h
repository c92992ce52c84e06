/*
 * A time limit on a library call that cannot be given one: a thread that ends the process when the
 * call has not come back in time. One line is logged then, and the exit status is the caller's.
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

struct guard {
    pthread_t thread;
    sem_t done;
    int64_t until_ns;
    int exit_code;
    const char *what;
    bool armed; // false when no thread could be started: the call then has no limit
};

/* `g` must live until guard_end, or for ever where the call does not return. */
void guard_start(struct guard *g, const char *what, int64_t limit_ns, int exit_code);
void guard_end(struct guard *g);
