/*
 * What a worker rank reports of its own work: spans (what it did with each batch) and, at a leader,
 * points of the scheduler's state. Kept in two buffers of one message each, which go to rank 0 as
 * WIRE_JOURNAL when full or every 250 ms; nothing is allocated and nothing is dropped. Times are
 * clock_now_ns. Main thread of the rank.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/comm.h"
#include "core/err.h"
#include "model/wire.h"
#include "results/record.h"

enum {
    SPANS_PER_MESSAGE = 1024,
    SPANS_POINTS_PER_MESSAGE = 64,
};

struct spans {
    struct comm *comm;
    int64_t t_flush_ns; // next time, clock_now_ns
    uint32_t n_spans, n_points;
    struct spans_message { // struct wire_journal with its payload
        uint32_t kind, step;
        struct span v[SPANS_PER_MESSAGE]; // (n_spans)
    } spans;
    struct spans_points_message {
        uint32_t kind, step;
        struct series_point v[SPANS_POINTS_PER_MESSAGE]; // (n_points)
    } points;
};

size_t spans_max_message_bytes(void);

/* Empty, for a new step. */
void spans_begin_step(struct spans *s, struct comm *comm, uint32_t step, int64_t now_ns);

/* Durations saturate; a negative one (stamps of two clocks) becomes 0. */
int spans_add(struct spans *s, const struct span *span, int64_t dur_ns, struct err *e) ERR_CHECKED;
int spans_add_point(struct spans *s, const struct series_point *p, struct err *e) ERR_CHECKED;

/* Send what is there when 250 ms have passed. */
int spans_tick(struct spans *s, int64_t now_ns, struct err *e) ERR_CHECKED;
int spans_flush(struct spans *s, struct err *e) ERR_CHECKED;
