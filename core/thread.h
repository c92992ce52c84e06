/*
 * Starting a thread: with all signals blocked, since signals are the main thread's, and with a name that
 * debuggers and top show (cut to the kernel's 15 bytes).
 */
#pragma once

#include <pthread.h>

/* 0, or an errno. */
int thread_start(pthread_t *t, const char *name, void *(*fn)(void *), void *arg);
