#include "analysis/utilisation.h"

#include "core/mem.h"

#include <stdbool.h>
#include <stdlib.h>

/* Disjoint intervals, rising: the union of what was added, after union_close. */
struct interval {
    double from_ns, to_ns;
};
struct interval_union {
    struct interval *v; // (n)
    size_t n, cap;
    double lo_ns, hi_ns; // what is added is clipped to this
};

static void union_add(struct interval_union *u, double from_ns, double to_ns)
{
    from_ns = from_ns < u->lo_ns ? u->lo_ns : from_ns;
    to_ns = to_ns > u->hi_ns ? u->hi_ns : to_ns;
    if (!(from_ns < to_ns)) {
        return;
    }
    if (u->n == u->cap) {
        u->cap = u->cap ? 2 * u->cap : 256;
        u->v = xrealloc(u->v, u->cap * sizeof *u->v);
    }
    u->v[u->n++] = (struct interval){from_ns, to_ns};
}

static int by_start(const void *a, const void *b)
{
    double x = ((const struct interval *)a)->from_ns, y = ((const struct interval *)b)->from_ns;
    return (x > y) - (x < y);
}

static void union_close(struct interval_union *u)
{
    size_t n = 0;
    if (u->n > 1) {
        qsort(u->v, u->n, sizeof *u->v, by_start);
    }
    for (size_t i = 0; i < u->n; i++) {
        if (n > 0 && u->v[i].from_ns <= u->v[n - 1].to_ns) {
            u->v[n - 1].to_ns =
                u->v[i].to_ns > u->v[n - 1].to_ns ? u->v[i].to_ns : u->v[n - 1].to_ns;
        } else {
            u->v[n++] = u->v[i];
        }
    }
    u->n = n;
}

static double union_length(const struct interval_union *u)
{
    double sum = 0;
    for (size_t i = 0; i < u->n; i++) {
        sum += u->v[i].to_ns - u->v[i].from_ns;
    }
    return sum;
}

static double union_overlap(const struct interval_union *a, const struct interval_union *b)
{
    double sum = 0;
    for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
        double from = a->v[i].from_ns > b->v[j].from_ns ? a->v[i].from_ns : b->v[j].from_ns;
        double to = a->v[i].to_ns < b->v[j].to_ns ? a->v[i].to_ns : b->v[j].to_ns;
        sum += to > from ? to - from : 0;
        if (a->v[i].to_ns < b->v[j].to_ns) {
            i++;
        } else {
            j++;
        }
    }
    return sum;
}

/* --- what they are made of --------------------------------------------------------------------- */

static struct interval_union window_union(const struct step_data *d)
{
    return (struct interval_union){.lo_ns = (double)d->info.t_warm_ns,
                                   .hi_ns = (double)d->info.t_end_ns};
}

/* When the replica had work. */
static void add_active(struct interval_union *u, const struct step_data *d, int32_t replica)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct record *r = &d->records[i];
        int64_t from_ns = r->t_recv_ns != RECORD_NONE ? r->t_recv_ns : r->t_send_ns;
        int64_t to_ns = r->t_emit_last_ns != RECORD_NONE ? r->t_emit_last_ns : r->t_last_ns;
        if (r->replica != replica || from_ns == RECORD_NONE) {
            continue;
        }
        if (r->outcome == OUTCOME_CANCELLED || to_ns == RECORD_NONE) {
            to_ns = r->outcome == OUTCOME_CANCELLED ? d->info.t_drain_ns : from_ns;
        }
        union_add(u, (double)from_ns, (double)to_ns);
    }
    union_close(u);
}

static bool is_compute(const struct span *s)
{
    return s->op == SPAN_PREFILL || s->op == SPAN_DECODE || s->op == SPAN_MIXED;
}

static void add_spans(struct interval_union *u, const struct step_data *d, int32_t rank,
                      bool compute, bool send)
{
    for (size_t i = 0; i < d->n_spans; i++) {
        const struct span *s = &d->spans[i];
        if (s->rank == rank && ((compute && is_compute(s)) || (send && s->op == SPAN_SEND))) {
            union_add(u, (double)s->t_begin_ns, (double)s->t_begin_ns + s->dur_ns);
        }
    }
    union_close(u);
}

static struct utilisation row_of(const struct step_data *d, const struct store_rank *rank,
                                 const struct interval_union *active)
{
    struct interval_union busy = window_union(d), send = window_union(d), either = window_union(d);
    add_spans(&busy, d, rank->rank, true, false);
    add_spans(&send, d, rank->rank, false, true);
    add_spans(&either, d, rank->rank, true, true);
    double window = busy.hi_ns - busy.lo_ns;
    struct utilisation row = {
        .replica = rank->replica,
        .stage = rank->stage,
        .tensor = rank->tensor,
        .rank = rank->rank,
        .busy = union_length(&busy) / window,
        .send = union_length(&send) / window,
        .recv_wait = 1 - union_length(&either) / window,
        .bubble = (union_length(active) - union_overlap(active, &either)) / window,
    };
    free(busy.v);
    free(send.v);
    free(either.v);
    return row;
}

size_t utilisation_rows(const struct step_data *d, const struct store_rank *ranks, size_t n_ranks,
                        struct utilisation *rows)
{
    size_t n = 0;
    struct interval_union active = {0};
    int32_t active_of = -1;
    if (d->info.t_end_ns <= d->info.t_warm_ns || d->n_spans == 0) {
        return 0;
    }
    for (size_t i = 0; i < n_ranks; i++) {
        if (ranks[i].role != 1) {
            continue;
        }
        if (ranks[i].replica != active_of) {
            free(active.v);
            active = window_union(d);
            add_active(&active, d, ranks[i].replica);
            active_of = ranks[i].replica;
        }
        rows[n++] = row_of(d, &ranks[i], &active);
    }
    free(active.v);
    return n;
}
