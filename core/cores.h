/*
 * Which CPU computes where: the cores of this host in the order in which compute threads should take
 * them, and the part of one of several ranks on it. One hardware thread of every physical core comes
 * before any second one, and cores of one memory node stand together, so that a rank's threads share
 * a node where they can. Only CPUs that this process may run on count.
 */
#pragma once

#include <stdbool.h>

#include "core/err.h"

/* A CPU as the system numbers it; index: which hardware thread of its core, which core of the host. */
struct cores_cpu {
    int os, node, core, thread;
};

/* Sort by what comes first in the plan. Pure. */
void cores_order(struct cores_cpu *cpus, int n);

/*
 * CPUs (n) for threads number `first` .. first + n - 1 of `total` on this host that compute. All -1,
 * which pins nothing, and false where there are fewer CPUs than `total`: threads that share a CPU
 * are better left to the system. ERR_ENV: the host's topology cannot be read.
 */
int cores_plan(int *cpus, int first, int n, int total, bool *pinned, struct err *e) ERR_CHECKED;
