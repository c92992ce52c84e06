/*
 * Which rank does what. Ranks 0..L-1 are load ranks, then workers: rank = L + (r*P + s)*T + t.
 * The leader of replica r is its stage 0, tensor 0: it runs the scheduler. Pure arithmetic.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

struct layout {
    int load_ranks; // L >= 1
    int replicas;   // R; 0 when the target is not hosted by this job (null, openai)
    int pipeline;   // P
    int tensor;     // T
};

struct layout_worker {
    int replica, stage, tensor;
};

int layout_size(const struct layout *l); // L + R*P*T
bool layout_is_load(const struct layout *l, int rank);
struct layout_worker layout_worker(const struct layout *l, int rank); // of a worker rank
int layout_rank(const struct layout *l, int replica, int stage, int tensor);
int layout_leader(const struct layout *l, int replica);

/* "rank 2 (replica 0, stage 1, tensor 0)", "rank 0 (load rank)": for messages. Returns buf. */
const char *layout_label(const struct layout *l, int rank, char *buf, size_t cap);

/*
 * ERR_INPUT when the tensor ranks of a stage are not all on one host: which stage, which hosts, and how to
 * launch. hosts (layout_size): names, by rank.
 */
int layout_check_hosts(const struct layout *l, const char *const *hosts, struct err *e) ERR_CHECKED;

/* Hops from stage to stage of a replica that go from a host to another one, and the least that so many hosts
 * could have. */
int layout_crossings(const struct layout *l, const char *const *hosts, int replica);
int layout_least_crossings(const struct layout *l, const char *const *hosts, int replica);

/* ERR_INPUT with the sum spelled out when `world` ranks do not fit. */
int layout_check(const struct layout *l, int world, struct err *e) ERR_CHECKED;
