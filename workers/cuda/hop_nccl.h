/*
 * Hops between GPUs over NCCL: of different hosts, or of one whose GPUs do not see each other's memory. Each hop has a
 * communicator of its own, of two ranks; the sender makes its id and tells it over comm's bulk plane. A receive is posted
 * when its batch is announced, with exactly its size; both go beside what the GPUs compute.
 */
#pragma once

#include "core/err.h"
#include "workers/hop.h"

struct gpu;
struct nccl_library;

/* `gpu` and `library` outlive it. ERR_ENV: the device has no room for the buffers. */
int hop_nccl_create(struct hop **out, struct gpu *gpu, const struct nccl_library *library,
                    const struct hop_config *cfg, struct err *e) ERR_CHECKED;
