/*
 * The target inside this job: prompt ids go to the leader of a replica, tokens come back from its
 * last stage (model/wire.h). Requests are spread over the replicas by what is outstanding there
 * (model/routing.h): leaders say what other load ranks have.
 *
 * Messages are checked: one that does not parse is an error (the peer is broken); one for a request
 * that has ended meanwhile is dropped; tokens that contradict the request end it as bad_stream.
 */
#pragma once

#include <stdbool.h>

#include "core/comm.h"
#include "core/err.h"
#include "loadgen/client.h"
#include "model/layout.h"
#include "model/routing.h"
#include "model/wire.h"

/* context bounds n_in + n_out. With ignore_eos a reply shorter than asked for is `truncated`. */
struct client *client_stages_create(struct comm *comm, const struct layout *layout,
                                    struct live_table *t, int context, bool ignore_eos,
                                    enum routing_kind routing);

/* Requests draw their tokens in this way, each with a seed of its own that follows from how->seed, the
 * step's and the event. Before the first; else all are greedy. */
void client_stages_sample(struct client *c, const struct wire_sampling *how);
