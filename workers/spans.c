#include "workers/spans.h"

#include "core/clock.h"

#define FLUSH_NS (250 * NS_PER_MS)

_Static_assert(offsetof(struct spans_message, v) == offsetof(struct wire_journal, bytes),
               "a spans message is a struct wire_journal");
_Static_assert(offsetof(struct spans_points_message, v) == offsetof(struct wire_journal, bytes),
               "a points message is a struct wire_journal");

size_t spans_max_message_bytes(void)
{
    size_t a = sizeof(struct spans_message), b = sizeof(struct spans_points_message);
    return a > b ? a : b;
}

void spans_begin_step(struct spans *s, struct comm *comm, uint32_t step, int64_t now_ns)
{
    s->comm = comm;
    s->t_flush_ns = now_ns + FLUSH_NS;
    s->n_spans = s->n_points = 0;
    s->spans.kind = WIRE_JOURNAL_SPANS;
    s->points.kind = WIRE_JOURNAL_SERIES;
    s->spans.step = s->points.step = step;
}

static int post_spans(struct spans *s, struct err *e)
{
    size_t n_bytes = offsetof(struct spans_message, v) + s->n_spans * sizeof s->spans.v[0];
    s->n_spans = 0;
    return comm_post(s->comm, 0, WIRE_JOURNAL, &s->spans, n_bytes, e);
}

static int post_points(struct spans *s, struct err *e)
{
    size_t n_bytes = offsetof(struct spans_points_message, v) + s->n_points * sizeof s->points.v[0];
    s->n_points = 0;
    return comm_post(s->comm, 0, WIRE_JOURNAL, &s->points, n_bytes, e);
}

int spans_add(struct spans *s, const struct span *span, int64_t dur_ns, struct err *e)
{
    struct span *to = &s->spans.v[s->n_spans++];
    *to = *span;
    to->dur_ns = dur_ns < 0 ? 0 : dur_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)dur_ns;
    return s->n_spans < SPANS_PER_MESSAGE ? 0 : post_spans(s, e);
}

int spans_add_point(struct spans *s, const struct series_point *p, struct err *e)
{
    s->points.v[s->n_points++] = *p;
    return s->n_points < SPANS_POINTS_PER_MESSAGE ? 0 : post_points(s, e);
}

int spans_flush(struct spans *s, struct err *e)
{
    if (s->n_spans > 0 && post_spans(s, e) != 0) {
        return -1;
    }
    return s->n_points > 0 ? post_points(s, e) : 0;
}

int spans_tick(struct spans *s, int64_t now_ns, struct err *e)
{
    if (now_ns < s->t_flush_ns) {
        return 0;
    }
    s->t_flush_ns = now_ns + FLUSH_NS;
    return spans_flush(s, e);
}
