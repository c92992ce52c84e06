/*
 * Hidden states from a stage to the next: the order of messages over the hops to and from a rank's
 * neighbours (workers/hop.h). Messages arrive in the order in which they were sent; the batch they belong
 * to travels ahead on the message plane. Two buffers each way: the next message is received while this one
 * is computed on, and written while the last one is still leaving. Buffers belong to the hops,
 * on loan to the stage between recv and release, send_buffer and send. Main thread of the rank.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/comm.h"
#include "core/err.h"
#include "workers/hop.h"

struct transport;

/* Takes the hops over; NULL: there is no stage before, or behind. */
struct transport *transport_create(struct hop *in, struct hop *out);
int transport_start(struct transport *t, struct comm *comm, struct err *e) ERR_CHECKED;
/* Give up what is still to be received; the comm is not touched afterwards. */
void transport_stop(struct transport *t);
void transport_destroy(struct transport *t);

/*
 * 1 and the next message when it is there: exactly n_bytes, else an error that names the sender.
 * 0 while it is not, or while all buffers are on loan. Asked for early, it is on its way into its buffer.
 */
int transport_recv(struct transport *t, size_t n_bytes, void **buf, struct err *e) ERR_CHECKED;
/* The oldest message on loan has been read. */
int transport_release(struct transport *t, struct err *e) ERR_CHECKED;

/* Where to write the next message to, NULL while all buffers are still leaving. */
void *transport_send_buffer(struct transport *t);
int transport_send(struct transport *t, size_t n_bytes, struct err *e) ERR_CHECKED;
/* 1 once for each message that has left, in order. */
int transport_sent(struct transport *t, struct err *e) ERR_CHECKED;
/* Nothing is leaving. */
bool transport_is_quiet(const struct transport *t);

/* What the hop to the next stage is called, or that from the stage before: "mpi"; "" where there is neither. */
const char *transport_name(const struct transport *t);
