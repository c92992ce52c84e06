/*
 * Which CPU computes where: the cores of this host in the order in which compute threads should take
 * them, and the part of one of several ranks on it. One hardware thread of every physical core comes
 * before any second one, and cores of one memory node stand together, so that a rank's threads share
 * a node where they can. Only CPUs that this process may run on count.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define CORES_MAX_CPUS 1024 // CPUs of higher numbers are not seen

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

/* --- several ranks on one host ------------------------------------------------------------------ */

/* CPUs, by bits. */
struct cores_set {
    uint64_t words[CORES_MAX_CPUS / 64];
};

int cores_count(const struct cores_set *s);

/* What a rank tells the others of its host. */
struct cores_rank {
    struct cores_set set; // that it may run on
    int32_t n_cpus;       // whose time it gets: fewer than these under a quota
    int32_t computes;     // else it keeps time
};

struct cores_rank cores_self(bool computes);

enum cores_placement {
    CORES_PINNED,
    CORES_OFF,     // nobody asked for it
    CORES_CROWDED, // threads, and ranks that keep time, are more than CPUs
    CORES_QUOTA,   // others compute on the same CPUs
    CORES_OVERLAP, // ranks whose CPUs are partly the same
};

/* "pinned", "threads share CPUs": for the results. */
const char *cores_placement_text(enum cores_placement p);

struct cores_part {
    enum cores_placement placement;
    int n_threads;    // to compute with, at least 1
    int first, total; // which of all threads that compute on the same CPUs they are: for cores_plan
};

/*
 * The part of rank `mine` of a host's ranks (n), which computes: CPUs are divided evenly between those
 * that compute on the same ones; ranks that keep time keep one each, as long as that is at most a quarter.
 * n_threads 0: as many as its part has. Pure.
 */
struct cores_part cores_divide(const struct cores_rank *ranks, int n, int mine, int n_threads);

/* "0-3,8-14:2": CPUs (n) in ascending order, into buf; what does not fit is "...". Returns buf. */
const char *cores_text(const int *cpus, int n, char *buf, size_t cap);

/* The CPUs of such a text, or of a system's file; false when it is none, or was cut. */
bool cores_read(const char *text, struct cores_set *out);

/* The memory node that all CPUs of such a text are of; -1: several are, or the system does not say. */
int cores_node(const char *text);

/* The same of all CPUs that this process may run on. */
const char *cores_text_self(char *buf, size_t cap);
