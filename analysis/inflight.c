#include "analysis/inflight.h"

#include "core/clock.h"
#include "core/mem.h"

#include <stdlib.h>
#include <string.h>

static int64_t later(int64_t a_ns, int64_t b_ns)
{
    return a_ns > b_ns ? a_ns : b_ns; // RECORD_NONE is before everything
}

int64_t inflight_end_ns(const struct record *r, int64_t t_drain_ns)
{
    if (r->outcome == OUTCOME_CANCELLED) {
        return t_drain_ns;
    }
    return later(later(r->t_send_ns, r->t_byte_ns), later(r->t_first_ns, r->t_last_ns));
}

/* When it was sent, or would have been without the user's cap: what waits there is backlog, too. */
static int64_t begin_of(const struct record *r)
{
    if (r->t_send_ns == RECORD_NONE) {
        return r->cap_wait_us > 0 ? r->t_sched_ns : RECORD_NONE;
    }
    return r->t_send_ns - (int64_t)r->cap_wait_us * NS_PER_US;
}

/* Add the interval [a, b), in parts from the window's start, to level (m + 1) and edge (m). */
static void add_interval(double a, double b, double *level, double *edge, size_t m)
{
    a = a < 0 ? 0 : a;
    b = b > (double)m ? (double)m : b;
    if (b <= a) {
        return;
    }
    size_t i = (size_t)a, j = (size_t)b;
    if (i == j) {
        edge[i] += b - a;
        return;
    }
    edge[i] += (double)(i + 1) - a;
    level[i + 1]++; // whole parts i + 1 .. j - 1, summed up at the end
    level[j]--;
    if (j < m) {
        edge[j] += b - (double)j;
    }
}

void inflight_means(const struct record *r, size_t n, int64_t from_ns, int64_t to_ns,
                    int64_t t_drain_ns, double *mean, size_t m)
{
    memset(mean, 0, m * sizeof *mean);
    if (to_ns <= from_ns || m == 0) {
        return;
    }
    double *level = xcalloc(m + 1, sizeof *level);
    double part_ns = (double)(to_ns - from_ns) / (double)m;
    for (size_t i = 0; i < n; i++) {
        int64_t begin_ns = begin_of(&r[i]);
        if (begin_ns != RECORD_NONE) {
            add_interval((double)(begin_ns - from_ns) / part_ns,
                         (double)(inflight_end_ns(&r[i], t_drain_ns) - from_ns) / part_ns, level,
                         mean, m);
        }
    }
    double whole = 0;
    for (size_t i = 0; i < m; i++) {
        whole += level[i];
        mean[i] += whole;
    }
    free(level);
}
