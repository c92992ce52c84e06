/*
 * The backend that computes nothing and takes the time that a table of costs says (costs.h), on the
 * real clock: a batch begins when it is submitted and is done when its time is over, which
 * backend_poll finds; no thread, no weights. Scheduler, stages and transports above it are the real
 * ones.
 *
 * Ids are a hash of the request's ids so far, so that they are the same however a request is cut into
 * chunks, batched with others, moved between KV blocks, recomputed or split over stages. The hash
 * takes the way of the real thing: the cache holds it for every token, found through the block tables,
 * and the first 8 bytes of each token's hidden state carry it from stage to stage, each layer mixing in
 * its number. What goes wrong in scheduling or on the way shows in the ids.
 */
#pragma once

#include <stdint.h>

struct backend;

extern const struct backend_ops backend_sim;

/* The id that follows ids (n) in a model of these sizes: what any split and batching must come to. */
int32_t backend_sim_next(const int32_t *ids, uint32_t n, int n_layers, int vocab);
