#include "workers/patience.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/err.h"

#define TIMES    20 // the median
#define FIRST    4  // times the fixed time
#define STALL_NS (1 * NS_PER_S)

void patience_init(struct patience *p, int64_t least_ns)
{
    *p = (struct patience){.least_ns = least_ns};
}

static int size_of(uint32_t n_tokens)
{
    int size = n_tokens > 1 ? 32 - __builtin_clz(n_tokens - 1) : 0;
    return size < PATIENCE_SIZES ? size : PATIENCE_SIZES - 1;
}

void patience_begin(struct patience *p, uint32_t n_tokens, int64_t now_ns)
{
    CHECK(p->n_begun - p->n_ended < PATIENCE_MAX);
    p->since_ns = p->n_begun == p->n_ended ? now_ns : p->since_ns;
    uint64_t i = p->n_begun++ % PATIENCE_MAX;
    p->under_way[i].t_begin_ns = now_ns;
    p->under_way[i].n_tokens = n_tokens;
}

void patience_end(struct patience *p, int64_t now_ns)
{
    CHECK(p->n_ended < p->n_begun);
    uint64_t i = p->n_ended++ % PATIENCE_MAX;
    int size = size_of(p->under_way[i].n_tokens);
    uint64_t n = p->sizes[size].n++;
    p->sizes[size].took_ns[n % PATIENCE_WINDOW] = now_ns - p->under_way[i].t_begin_ns;
    p->since_ns = now_ns;
}

void patience_restart(struct patience *p, int64_t now_ns)
{
    p->since_ns = now_ns;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t patience_limit_ns(const struct patience *p, uint32_t n_tokens)
{
    int size = size_of(n_tokens);
    uint64_t n = p->sizes[size].n;
    if (n == 0) {
        return FIRST * p->least_ns;
    }
    int64_t sorted[PATIENCE_WINDOW];
    n = n < PATIENCE_WINDOW ? n : PATIENCE_WINDOW;
    memcpy(sorted, p->sizes[size].took_ns, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare);
    int64_t limit_ns = TIMES * sorted[n / 2];
    return limit_ns > p->least_ns ? limit_ns : p->least_ns;
}

bool patience_is_over(struct patience *p, int64_t now_ns, int64_t beyond_ns,
                      struct patience_late *late)
{
    bool was_away = now_ns - p->t_check_ns > STALL_NS;
    p->t_check_ns = now_ns;
    if (p->n_begun == p->n_ended) {
        return false;
    }
    if (was_away) {
        p->since_ns = now_ns;
    }
    int64_t waited_ns = now_ns - p->since_ns;
    if (waited_ns <= p->least_ns + beyond_ns) { // no limit is less
        return false;
    }
    uint32_t n_tokens = p->under_way[p->n_ended % PATIENCE_MAX].n_tokens;
    *late = (struct patience_late){
        .waited_ns = waited_ns,
        .limit_ns = patience_limit_ns(p, n_tokens),
        .n_tokens = n_tokens,
    };
    return waited_ns > late->limit_ns + beyond_ns;
}

const char *patience_text(const struct patience_late *late, char *buf, int cap)
{
    snprintf(buf, (size_t)cap,
             "a batch of %u tokens for %.1f s (limit %.1f s: deadline.batch, or %d x the median)",
             late->n_tokens, (double)late->waited_ns / 1e9, (double)late->limit_ns / 1e9, TIMES);
    return buf;
}
