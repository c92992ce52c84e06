/*
 * epoll_wait(2) with a limit in nanoseconds: epoll_pwait2(2), and where the kernel has none (before Linux
 * 5.11) ppoll(2) on the epoll itself.
 */
#pragma once

#include <signal.h>
#include <stdint.h>
#include <sys/epoll.h>

/* How many events; -1 with errno. mask: of signals while waiting; NULL: as it is. */
int epoll_fine_wait(int epoll_fd, struct epoll_event *events, int n_max, int64_t wait_ns,
                    const sigset_t *mask);
