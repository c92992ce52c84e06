/*
 * Every way to split a model over the ranks of a fabric, T x P x R, by what it would do there: T ranks
 * share each stage and stand on one host, P stages make a replica, and there are as many replicas as
 * the ranks have room for. Groups of T are taken host by host in the order of the ranks, stages and
 * replicas in the order of the groups. Pure.
 *
 *   requests      of n_in prompt and n_out output tokens, so many at once in each replica as asked for or as
 *                 its fullest stage's memory holds, evenly over P lanes
 *   a lane's turn each request of the lane one token, and the prompts that come in meanwhile: a share
 *                 rows / n_out of turns carries one (or all of them more)
 *   saturation    what the real scheduler gets done on a virtual clock (fabric_traffic.h). Before that all are
 *                 ranked by requests / max(P x slowest stage, way through all stages, hops and back), were all
 *                 turns alike: a bound, by which those that are played out are chosen
 *   TTFT          one prompt alone through all stages and hops and back: no queue
 *   hop           a T-th of tokens x hidden values as they travel (arch_carried_bytes) over the slowest of T edges from
 *                 a stage's ranks to the next one's, latency + bytes x byte_ns as fitted, and their gathering there
 *   look          that a stage's time is over is noticed half a look late (edges.h)
 *   sum           twice a layer, a ring over the group's slowest edge (sim/costs.h), or through memory
 */
#pragma once

#include <stdbool.h>

#include "core/err.h"
#include "model/arch.h"
#include "results/record.h"
#include "workers/capacity.h"
#include "workers/fabric.h"

struct fabric_splits_ask {
    const struct arch *arch;
    const struct fabric *fabric;
    const struct costs
        *costs; // (n_costs) of one rank with a stage to itself, then of those that share one
    int n_costs;
    struct capacity_machine machine;
    double sum_bytes, kv_bytes; // of a value in a sum, and in the cache
    bool sums_in_memory;        // that all ranks of a group map, as on CPUs
    double n_in, n_out;         // tokens of a request
    double n_requests;          // of a replica at once, at most
    int tensor, pipeline;       // 0: all
};

struct fabric_split {
    int tensor, pipeline, replicas;
    int n_ranks, n_hosts; // that it uses
    bool fits;            // nothing below is set otherwise
    bool is_played;       // else saturation is that bound
    int first[RECORD_MAX_STAGES + 1];
    double n_requests;                   // in each replica
    double tokens_per_s, requests_per_s; // of all replicas, output tokens
    double ttft_ns, tpot_ns;             // of the slowest replica
    double hop_ns;                       // the longest, of a lane's turn without prompts; 0: none
    double sum_share;                    // of the slowest stage's time goes to sums, at most
};

/*
 * Into out (FABRIC_SPLITS_MAX), the highest saturation first, what was not played or does not fit last;
 * n: how many. ERR_INPUT: none at all.
 */
#define FABRIC_SPLITS_MAX    512
#define FABRIC_SPLITS_PLAYED 24
int fabric_splits_find(const struct fabric_splits_ask *ask, struct fabric_split *out, int *n,
                       struct err *e) ERR_CHECKED;
