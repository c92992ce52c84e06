/*
 * GPUs looked at ten times a second by a thread of their own, which computes at low priority and never in
 * the way of the load. The main thread takes what has come, 64 samples a message, to rank 0 as
 * WIRE_JOURNAL every 250 ms of a step; it never waits for a device. Of samples that nobody takes the
 * newest are dropped. A device that does not answer keeps only that thread waiting.
 *
 * All calls but telemetry_start and telemetry_stop take NULL: a rank that samples nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "workers/nvml.h"

struct telemetry;

/* A GPU to look at, and what samples call it. */
struct telemetry_device {
    int index; // of workers/nvml.h
    uint16_t number;
};

size_t telemetry_max_message_bytes(void);

/* Look at these (n). Borrows `nvml`, which nobody else uses until telemetry_stop. */
int telemetry_start(struct telemetry **out, const struct nvml *nvml,
                    const struct telemetry_device *devices, size_t n, struct err *e) ERR_CHECKED;
/* False: a device has not answered for two seconds; the thread is left to it, and `nvml` with it. May
 * be tried again. */
bool telemetry_stop(struct telemetry *t);

/* A step begins: samples from now_ns (clock_now_ns) on belong to it. */
void telemetry_begin_step(struct telemetry *t, struct comm *comm, uint32_t step, int64_t now_ns);
/* Send what is there when 250 ms have passed. */
int telemetry_tick(struct telemetry *t, int64_t now_ns, struct err *e) ERR_CHECKED;
/* The step's end at this rank: all that is there. */
int telemetry_end_step(struct telemetry *t, struct err *e) ERR_CHECKED;
