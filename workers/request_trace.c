#include "workers/request_trace.h"

#include <string.h>

#include "core/clock.h"

void request_trace_measure(const struct batch *b, struct request_trace_parts *p)
{
    p->hop_ns = p->bubble_ns = 0;
    int64_t sent_ns = b->t_build_ns;
    for (uint32_t s = 0; s < b->n_stages; s++) {
        const struct batch_stage_times *t = &b->times[s];
        p->hop_ns += t->t_recv_ns - sent_ns;
        p->bubble_ns += t->t_begin_ns - t->t_recv_ns;
        p->stage_ns[s] = t->t_end_ns - t->t_begin_ns;
        p->hop_ns += t->t_send_ns - t->t_end_ns;
        sent_ns = t->t_send_ns;
    }
}

static void add_gap(struct request_trace *t, const struct batch *b)
{
    int64_t gap_ns = b->t_build_ns - t->t_emit_ns;
    int64_t back_ns = b->t_ready_ns - t->t_emit_ns;
    // A request that changed lanes has not seen this lane's last batch: its wait is all bubble then.
    back_ns = back_ns < 0 ? 0 : back_ns;
    back_ns = back_ns > gap_ns ? gap_ns : back_ns;
    t->sum.hop_ns += back_ns;
    t->sum.bubble_ns += gap_ns - back_ns;
}

void request_trace_add(struct request_trace *t, const struct batch *b,
                       const struct request_trace_parts *p, const struct batch_row *row)
{
    if (row->flags & BATCH_AGAIN) {
        t->sum.bubble_ns += row->t_recv_ns - t->t_emit_ns + b->t_build_ns - row->t_admit_ns;
        t->requeue_ns += row->t_admit_ns - row->t_recv_ns;
        t->n_preempted++;
    } else if (row->flags & BATCH_BEGIN) {
        memset(&t->sum, 0, sizeof t->sum);
        t->requeue_ns = 0;
        t->n_preempted = 0;
        t->n_cached = row->pos;
        t->t_recv_ns = row->t_recv_ns;
        t->t_admit_ns = row->t_admit_ns;
        t->t_prefill_ns = b->t_build_ns;
        t->sum.bubble_ns = b->t_build_ns - row->t_admit_ns;
    } else {
        add_gap(t, b);
    }
    t->ticket = row->ticket;
    t->sum.hop_ns += p->hop_ns;
    t->sum.bubble_ns += p->bubble_ns;
    for (uint32_t s = 0; s < b->n_stages; s++) {
        t->sum.stage_ns[s] += p->stage_ns[s];
    }
    t->t_emit_ns = b->times[b->n_stages - 1].t_send_ns;
}

size_t request_trace_bytes(uint32_t n_stages)
{
    return sizeof(struct wire_trace) + n_stages * sizeof(uint32_t);
}

static uint32_t to_us(int64_t ns)
{
    int64_t us = (ns + NS_PER_US / 2) / NS_PER_US;
    return us < 0 ? 0 : us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

void request_trace_encode(const struct request_trace *t, uint32_t n_stages, uint32_t phase,
                          struct wire_trace *out)
{
    *out = (struct wire_trace){
        .ticket = t->ticket,
        .phase = phase,
        .n_stages = n_stages,
        .t_recv_ns = t->t_recv_ns,
        .t_admit_ns = t->t_admit_ns,
        .t_prefill_ns = t->t_prefill_ns,
        .hop_us = to_us(t->sum.hop_ns),
        .bubble_us = to_us(t->sum.bubble_ns),
        .requeue_us = to_us(t->requeue_ns),
        .n_preempted = t->n_preempted,
        .n_cached = t->n_cached,
    };
    for (uint32_t s = 0; s < n_stages; s++) {
        out->stage_us[s] = to_us(t->sum.stage_ns[s]);
    }
}
