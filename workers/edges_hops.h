/*
 * What goes between the GPUs of two ranks, for edges_wire.h: both hops of a pair, one each way, of a kind that the
 * backend makes (workers/hop.h). They are used as a run uses them, but that nobody computes in between. Opened by both
 * ranks of the pair at the same time, and closed so. Main thread.
 */
#pragma once

#include <stddef.h>

#include "core/comm.h"
#include "core/err.h"
#include "workers/backend.h"

struct edges_hops;

/* kind: "ipc", "nccl". Messages of up to max_bytes. */
int edges_hops_open(struct edges_hops **out, const char *kind, struct backend *backend,
                    struct comm *comm, int peer, size_t max_bytes, struct err *e) ERR_CHECKED;
/*
 * When all messages have come and gone. NULL is allowed. NCCL's communicators end when both ranks close, or after
 * seconds; so does a failed open.
 */
void edges_hops_close(struct edges_hops *h);

/* Begin to receive, or to send, n_bytes; at most one message each way at a time. */
int edges_hops_recv(struct edges_hops *h, size_t n_bytes, struct err *e) ERR_CHECKED;
int edges_hops_send(struct edges_hops *h, size_t n_bytes, struct err *e) ERR_CHECKED;
/* 1 and how many bytes when that is over, 0 not yet, -1 error. */
int edges_hops_received(struct edges_hops *h, size_t *n_bytes, struct err *e) ERR_CHECKED;
int edges_hops_sent(struct edges_hops *h, struct err *e) ERR_CHECKED;
