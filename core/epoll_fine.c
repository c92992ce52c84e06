#include "core/epoll_fine.h"

#include "core/clock.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <time.h>

int epoll_fine_wait(int epoll_fd, struct epoll_event *events, int n_max, int64_t wait_ns,
                    const sigset_t *mask)
{
    static _Atomic bool has_none;
    const struct timespec wait = {.tv_sec = wait_ns / NS_PER_S, .tv_nsec = wait_ns % NS_PER_S};
    if (!has_none) {
        int n = epoll_pwait2(epoll_fd, events, n_max, &wait, mask);
        if (n >= 0 || errno != ENOSYS) {
            return n;
        }
        has_none = true;
    }
    struct pollfd readable = {.fd = epoll_fd, .events = POLLIN};
    int n = ppoll(&readable, 1, &wait, mask);
    return n > 0 ? epoll_wait(epoll_fd, events, n_max, 0) : n;
}
