/*
 * A target, as the load loop sees it. A live request is a slot of the loop; a client sends it and
 * later fills its stamps and token times through live_* (live.h). All calls come from the loop thread
 * and return at once; between send and last token no client allocates, locks, logs or parses JSON.
 */
#pragma once

#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "loadgen/live.h"

struct client;

struct client_ops {
    const char *name; // target.kind
    /* Send the request now; stamps t_send. On failure the request ends with an outcome, no error. */
    void (*submit)(struct client *c, struct live *l, const int32_t *ids /* (n_in) */);
    /* A message of the comm that belongs to this client: 1 taken, 0 not mine, -1 error. May be NULL. */
    int (*message)(struct client *c, const struct comm_msg *m, struct err *e);
    /* Make progress without waiting. May be NULL. */
    int (*poll)(struct client *c, struct err *e);
    /* Forget this request: nothing may touch its slot any more. */
    void (*cancel)(struct client *c, struct live *l);
    void (*destroy)(struct client *c);
};

struct client {
    const struct client_ops *ops; // first member of each client's own struct
};
