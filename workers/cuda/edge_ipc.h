/*
 * Hidden states from a stage's GPU into the next one's memory, between processes of one host: the device's half.
 * The receiver takes a few slots and sends where they are; the sender opens them, and queues copies into a slot that is
 * free. When a copy is done (poll) the sender says so, by a message of its own; what the receiver queues after
 * that message reads what was copied. When that reading is done the receiver says that the slot is free again. Both
 * messages are the caller's, and so is whose slot it is: which of them hold what is known from those alone.
 *
 * Copies have a stream of their own, beside what computes: what they read is there by then, and stays until they are
 * done. The sender closes before the receiver gives back (gpu_ipc.h).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "workers/cuda/gpu.h"
#include "workers/cuda/gpu_ipc.h"

/* Where the slots are: plain data, to be sent. */
struct edge_ipc_room {
    struct gpu_ipc_handle memory;
    int64_t slot_bytes; // from one to the next
    int32_t depth;
};

/* --- receiver ----------------------------------------------------------------------------------- */

/* Slots for messages of up to max_bytes; slot k is slot_bytes * k behind the first. Given back by gpu_close or gpu_give. */
int edge_ipc_take(struct gpu *g, int depth, size_t max_bytes, void **slots,
                  struct edge_ipc_room *room, struct err *e) ERR_CHECKED;

/* --- sender ------------------------------------------------------------------------------------- */

struct edge_ipc;

int edge_ipc_open(struct edge_ipc **out, struct gpu *g, const struct edge_ipc_room *room,
                  struct err *e) ERR_CHECKED;
/* When no copy is under way. NULL is allowed. */
void edge_ipc_close(struct edge_ipc *edge);

/* Begin to copy n_bytes of this GPU's memory into a slot, whose last copy is done. */
int edge_ipc_copy(struct edge_ipc *edge, int slot, const void *device, size_t n_bytes,
                  struct err *e) ERR_CHECKED;
/* 1: what was last copied into the slot is there; 0: not yet; -1: it failed. */
int edge_ipc_poll(struct edge_ipc *edge, int slot, struct err *e) ERR_CHECKED;
