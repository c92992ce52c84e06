#include "cli/early_stop.h"

#include "core/clock.h"
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

/* The new end lies ahead by more than a message takes to any rank, so that all of them obey it. */
#define NOTICE_NS (100 * NS_PER_MS)

void early_stop_init(struct early_stop *s, struct comm *comm, int n_load_ranks)
{
    *s = (struct early_stop){.comm = comm, .n_load_ranks = n_load_ranks};
    s->n_waiting = xcalloc((size_t)n_load_ranks, sizeof *s->n_waiting);
}

void early_stop_free(struct early_stop *s)
{
    free(s->n_waiting);
    s->n_waiting = NULL;
}

void early_stop_begin(struct early_stop *s, const struct wire_step *step, double cv, double ttft_s)
{
    s->step = *step;
    s->is_stopped = false;
    s->t_told_ns = step->t_begin_ns;
    memset(s->n_waiting, 0, (size_t)s->n_load_ranks * sizeof *s->n_waiting);
    overload_begin(&s->overload, step->rate_rps, cv, ttft_s, step->t_begin_ns,
                   step->t_end_ns - step->t_begin_ns);
}

static int tell(struct early_stop *s, const struct loop *loop, int64_t now_ns, struct err *e)
{
    if (now_ns - s->t_told_ns < OVERLOAD_PERIOD_NS) {
        return 0;
    }
    s->t_told_ns = now_ns;
    const struct wire_waiting w = {.index = s->step.index, .n_waiting = loop_waiting(loop, now_ns)};
    return comm_post(s->comm, 0, WIRE_WAITING, &w, sizeof w, e);
}

/* The warm-up stays as planned, or half of what is left of a short step. */
static struct wire_step_stop stop_at(const struct wire_step *w, int64_t t_end_ns)
{
    int64_t middle_ns = w->t_begin_ns + (t_end_ns - w->t_begin_ns) / 2;
    return (struct wire_step_stop){
        .index = w->index,
        .t_warm_ns = w->t_warm_ns < middle_ns ? w->t_warm_ns : middle_ns,
        .t_end_ns = t_end_ns,
        .t_drain_ns = t_end_ns + (w->t_drain_ns - w->t_end_ns),
    };
}

static int stop_all(struct early_stop *s, struct loop *loop, const struct wire_step_stop *stop,
                    struct err *e)
{
    s->is_stopped = true;
    loop_end_at(loop, stop->t_end_ns, stop->t_drain_ns);
    for (int r = 1; r < s->n_load_ranks; r++) {
        if (comm_post(s->comm, r, WIRE_STEP_STOP, stop, sizeof *stop, e)) {
            return -1;
        }
    }
    return 1;
}

int early_stop_tick(struct early_stop *s, struct loop *loop, int64_t now_ns,
                    struct wire_step_stop *stop, struct err *e)
{
    if (!s->step.may_stop || s->is_stopped || now_ns + NOTICE_NS >= s->step.t_end_ns) {
        return 0;
    }
    if (comm_rank(s->comm) != 0) {
        return tell(s, loop, now_ns, e);
    }
    if (!overload_is_due(&s->overload, now_ns)) {
        return 0;
    }
    uint64_t n = loop_waiting(loop, now_ns);
    for (int r = 1; r < s->n_load_ranks; r++) {
        n += s->n_waiting[r];
    }
    if (!overload_look(&s->overload, now_ns, n)) {
        return 0;
    }
    *stop = stop_at(&s->step, now_ns + NOTICE_NS);
    return stop_all(s, loop, stop, e);
}

bool early_stop_message(struct early_stop *s, struct loop *loop, const struct comm_msg *m)
{
    struct wire_waiting w;
    struct wire_step_stop stop;
    if (m->tag == WIRE_WAITING && m->n_bytes == sizeof w && m->src < s->n_load_ranks) {
        memcpy(&w, m->data, sizeof w);
        s->n_waiting[m->src] = w.index == s->step.index ? w.n_waiting : s->n_waiting[m->src];
        return true;
    }
    if (m->tag == WIRE_STEP_STOP && m->n_bytes == sizeof stop && m->src == 0) {
        memcpy(&stop, m->data, sizeof stop);
        if (stop.index == s->step.index) {
            loop_end_at(loop, stop.t_end_ns, stop.t_drain_ns);
        }
        return true;
    }
    return false;
}
