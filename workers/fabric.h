/*
 * A fabric as a prediction sees it: which ranks share a host, and what a message takes from each to
 * each, latency + bytes x byte_ns. Read from a file of measured edges (workers/edges_file.h), of whose
 * transports those that carry hidden states count: for each pair the first one that it has, which is the
 * one that a run takes (workers/edges_wire.h). The file comes from outside: every byte is checked.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "workers/edges_plan.h"

#define FABRIC_MAX_RANKS EDGES_PLAN_MAX_RANKS
#define FABRIC_MAX_BYTES ((size_t)64 << 20) // of a file

struct fabric_edge {
    double latency_ns, byte_ns;
};

struct fabric {
    int n_ranks, n_hosts;
    int host[FABRIC_MAX_RANKS];       // which one, from 0, in the order of the ranks
    double look_ns[FABRIC_MAX_RANKS]; // between two looks of a rank that waits; 0: not known
    struct fabric_edge edges[FABRIC_MAX_RANKS][FABRIC_MAX_RANKS]; // [from][to]
};

/* `where` names the text in messages. Of ranks on CPUs edges between GPUs do not count. ERR_INPUT. */
int fabric_parse(struct fabric *f, bool on_cpus, const char *json, size_t len, const char *where,
                 struct err *e) ERR_CHECKED;
int fabric_read(struct fabric *f, bool on_cpus, const char *path, struct err *e) ERR_CHECKED;

double fabric_ns(const struct fabric_edge *edge, double n_bytes);

/* The slowest edge among n ranks, one way: of each coefficient the largest. */
struct fabric_edge fabric_slowest(const struct fabric *f, const int *ranks, int n);
