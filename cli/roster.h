/*
 * What a run is made of, as its ranks say: who they are, what their engines compute with, what lies between
 * them; and from that what the result file says of the target.
 */
#pragma once

#include <stddef.h>

#include "cli/world.h"
#include "core/err.h"
#include "results/record.h"
#include "results/store.h"

struct json_t;

/* On rank 0; elsewhere empty. */
struct roster {
    struct store_rank *ranks; // (ranks of the run)
    struct engine *engines;   // (n_engines) of the workers, by rank
    size_t n_engines;
    struct edge *edges; // (n_edges), by sender
    size_t n_edges;
};

/* Collective: every rank tells of itself. To be freed on failure, too. */
int roster_call(struct roster *r, struct world *w, struct err *e) ERR_CHECKED;
void roster_free(struct roster *r);

/* store_run's `target`, on rank 0: {kind, model, backend, replicas, pipeline, tensor, server, ...}. The caller's. */
struct json_t *roster_target(const struct roster *r, const struct world *w);
