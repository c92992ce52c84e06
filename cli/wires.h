/*
 * Who is where and what lies between: hosts, memory nodes and GPUs of the ranks, and the edges over which
 * workers send to each other for every batch. The order of the ranks decides which hops go between hosts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/comm.h"
#include "core/err.h"
#include "core/str.h"
#include "model/layout.h"
#include "results/record.h"
#include "results/store.h"

/* ERR_INPUT when a stage's tensor ranks do not share a host. */
int wires_check(const struct layout *layout, const struct comm *comm, struct err *e) ERR_CHECKED;

/* The memory node of a worker's GPU, else of the CPUs that it computes on; -1: several, or not known. */
int wires_node(const struct engine *mine);

/* All edges, by sender; returns how many. engines: those of all workers, by rank. Caller frees *out. */
size_t wires_edges(const struct layout *layout, const struct comm *comm,
                   const struct engine *engines, struct edge **out);

/* A line on the whole, then one per rank: ranks (layout_size), engines of the workers, edges (n_edges). */
void wires_text(const struct layout *layout, const struct store_rank *ranks,
                const struct engine *engines, const struct edge *edges, size_t n_edges,
                struct str *out);

/* Whether a replica goes between its hosts more often than it would have to, and how: one line, to `out`. */
bool wires_detour(const struct layout *layout, const struct comm *comm, struct str *out);
