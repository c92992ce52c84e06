/*
 * Where a request's time went inside its replica, summed at the last stage from the stamps that each
 * batch carries (struct batch_stage_times): one struct request_trace per scheduler slot. Transparent, pure.
 *
 * All stamps are on rank 0's clock, so a difference between two ranks may be off by both bounds; the
 * differences are kept signed and telescope: at any emit stamp
 *   (t_admit - t_recv) + requeue + bubble + hop + sum of stages == t_emit - t_recv, exactly.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "model/wire.h"
#include "workers/batch.h"

/* What one batch spent between its building and its emit stamp (the last stage's t_send_ns). */
struct request_trace_parts {
    int64_t hop_ns;                      // handing over, under way
    int64_t bubble_ns;                   // there, but the stage was busy
    int64_t stage_ns[RECORD_MAX_STAGES]; // (n_stages) compute
};

struct request_trace {
    struct wire_ticket ticket;
    int64_t t_recv_ns, t_admit_ns, t_prefill_ns;
    int64_t t_emit_ns; // of its latest batch
    struct request_trace_parts sum;
    int64_t requeue_ns; // waiting to be admitted anew, after preemptions
    uint32_t n_preempted, n_cached;
};

void request_trace_measure(const struct batch *b, struct request_trace_parts *p);

/*
 * Add a batch to one of its rows' requests; BATCH_BEGIN starts afresh. The time since its batch
 * before this one is a hop back to the leader up to batch.t_ready_ns, and a bubble from there. With
 * BATCH_AGAIN it is a bubble up to the preemption, then requeue, then a bubble.
 */
void request_trace_add(struct request_trace *t, const struct batch *b,
                       const struct request_trace_parts *p, const struct batch_row *row);

/* As a message, phase WIRE_FIRST or WIRE_LAST; out has room for request_trace_bytes(n_stages). */
size_t request_trace_bytes(uint32_t n_stages);
void request_trace_encode(const struct request_trace *t, uint32_t n_stages, uint32_t phase,
                          struct wire_trace *out);
