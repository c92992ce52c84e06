/*
 * Hops between GPUs of one host, the same one or two, through memory that processes share (edge_ipc.h). Over comm's
 * bulk plane goes little: where the receiver's buffers are, once; then for each message that it is there, from the
 * sender; and how many have been read, from the receiver, without which no more than HOP_DEPTH are on their way. Nobody
 * waits for the last of these words: one of an earlier hop between the same two, which may still arrive, is ignored.
 */
#pragma once

#include "core/err.h"
#include "workers/hop.h"

struct gpu;

/* `gpu` outlives it. ERR_ENV: the device has no room for the buffers. */
int hop_ipc_create(struct hop **out, struct gpu *gpu, const struct hop_config *cfg,
                   struct err *e) ERR_CHECKED;
