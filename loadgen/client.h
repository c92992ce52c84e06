/*
 * A target, as the load loop sees it. A live request is a slot of the loop; a client sends it and
 * later fills its stamps and token times through live_* (live.h). All calls come from the loop thread
 * and return at once (but wait); between send and last token no client allocates, locks, logs or
 * builds trees of JSON.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "core/str.h"
#include "datasets/dataset.h"
#include "loadgen/live.h"

struct client;

struct client_times {
    uint64_t stamp_ns[2]; // from the arrival of bytes (TLS: a readable socket) to their reading
    uint64_t chunk_ns[2]; // to deal with what one look at a socket brought
};

struct client_ops {
    const char *name; // target.kind
    /* Append to `payload` what submit will need for this prompt. May be NULL: nothing. */
    void (*prepare)(struct client *c, const struct dataset *ds, uint64_t seed, uint64_t event,
                    const struct prompt *p, struct str *payload);
    /* Send the request now; stamps t_send. On failure the request ends with an outcome, no error.
     * What is in `payload` may be kept by swapping it for another str. */
    void (*submit)(struct client *c, struct live *l, struct str *payload);
    /* A message of the comm that belongs to this client: 1 taken, 0 not mine, -1 error. May be NULL. */
    int (*message)(struct client *c, const struct comm_msg *m, struct err *e);
    /* Make progress without waiting: how much was done (0: nothing), or -1. May be NULL. */
    int (*poll)(struct client *c, struct err *e);
    /* The same, after waiting for at most wait_ns until there is something. May be NULL. */
    int (*wait)(struct client *c, int64_t wait_ns, struct err *e);
    /* A step begins, or its records have all been handed over. May be NULL. */
    void (*begin_step)(struct client *c, const struct wire_step *step);
    /* Forget this request: nothing may touch its slot any more. */
    void (*cancel)(struct client *c, struct live *l);
    /* p50 and p99 of its own times in this step, ns. May be NULL: it has none. */
    struct client_times (*times)(struct client *c);
    void (*destroy)(struct client *c);
};

struct client {
    const struct client_ops *ops; // first member of each client's own struct
    bool is_stamped; // what arrives has its time from elsewhere: it need not be looked at at once
};
