#include "core/hist.h"

#include "core/err.h"

#include <math.h>
#include <string.h>

#define SUB (1 << HIST_SUB_BITS)

static int bucket_of(int64_t v)
{
    if (v < SUB) {
        return (int)v;
    }
    int shift = 63 - __builtin_clzll((unsigned long long)v) - HIST_SUB_BITS;
    return (shift << HIST_SUB_BITS) + (int)(v >> shift);
}

/* The middle of a bucket: the inverse of bucket_of to within half a bucket's width. */
static int64_t bucket_middle(int i)
{
    if (i < 2 * SUB) {
        return i;
    }
    int shift = (i >> HIST_SUB_BITS) - 1;
    int64_t low = (int64_t)(i - (shift << HIST_SUB_BITS)) << shift;
    return low + ((int64_t)1 << shift) / 2;
}

void hist_reset(struct hist *h)
{
    memset(h, 0, sizeof *h);
    h->min = INT64_MAX;
}

void hist_record(struct hist *h, int64_t v)
{
    v = v < 0 ? 0 : v;
    h->n++;
    h->min = v < h->min ? v : h->min;
    h->max = v > h->max ? v : h->max;
    h->counts[bucket_of(v)]++;
}

int64_t hist_quantile(const struct hist *h, double q)
{
    CHECK(q >= 0.0 && q <= 1.0);
    uint64_t rank = (uint64_t)ceil(q * (double)h->n);
    if (h->n == 0 || rank <= 1) {
        return h->n == 0 ? 0 : h->min;
    }
    if (rank >= h->n) {
        return h->max;
    }
    uint64_t seen = 0;
    int i = -1;
    while (seen < rank) {
        seen += h->counts[++i];
    }
    int64_t v = bucket_middle(i);
    return v < h->min ? h->min : v > h->max ? h->max : v;
}
