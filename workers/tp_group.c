#include "workers/tp_group.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/spin.h"

#define TAG_TP_GROUP 2 // of the bulk plane
#define SPINS        2000
#define YIELD_NS     (1 * NS_PER_MS)
#define NAP_NS       (50 * NS_PER_US)

/* Who is to act on the exchange at hand. */
enum turn_of {
    NOBODY,
    MAIN_THREAD,
    COMPUTE_THREAD,
};

/* What goes to and comes from one peer. */
struct part {
    const void *out;
    void *in;
    size_t out_bytes, in_bytes;
    struct comm_req sending, receiving;
};

struct tp_group {
    int size, index;
    size_t max_n_values;
    int *ranks; // (size)
    struct comm *comm;
    struct part *parts; // (size); the own one stays empty
    float *slices;      // (size, longest slice): the others' shares of what this rank adds up
    _Alignas(64) atomic_int turn;
    bool under_way; // main thread: transfers have begun
};

int tp_group_create(struct tp_group **out, const struct tp_group_config *cfg, struct err *e)
{
    CHECK(cfg->size >= 1 && cfg->index >= 0 && cfg->index < cfg->size);
    struct tp_group *g = mem_aligned(sizeof *g);
    if (!g) {
        return err_set(e, ERR_ENV, "no memory for a tensor-parallel group");
    }
    size_t size = (size_t)cfg->size;
    g->size = cfg->size;
    g->index = cfg->index;
    g->max_n_values = cfg->max_n_values;
    g->ranks = xcalloc(size, sizeof *g->ranks);
    memcpy(g->ranks, cfg->ranks, size * sizeof *g->ranks);
    g->parts = xcalloc(size, sizeof *g->parts);
    g->slices = mem_aligned(size * (cfg->max_n_values / size + 1) * sizeof *g->slices);
    if (!g->slices) {
        tp_group_destroy(g);
        return err_set(e, ERR_ENV, "no memory for sums of %zu values over %d ranks",
                       cfg->max_n_values, cfg->size);
    }
    *out = g;
    return 0;
}

void tp_group_destroy(struct tp_group *g)
{
    if (!g) {
        return;
    }
    free(g->slices);
    free(g->parts);
    free(g->ranks);
    free(g);
}

/* --- main thread ------------------------------------------------------------------------------ */

void tp_group_start(struct tp_group *g, struct comm *comm)
{
    g->comm = comm;
}

static int begin(struct tp_group *g, struct err *e)
{
    for (int i = 0; i < g->size; i++) {
        struct part *p = &g->parts[i];
        if ((p->in_bytes > 0 && comm_irecv(g->comm, p->in, p->in_bytes, g->ranks[i], TAG_TP_GROUP,
                                           &p->receiving, e) != 0) ||
            (p->out_bytes > 0 && comm_isend(g->comm, p->out, p->out_bytes, g->ranks[i],
                                            TAG_TP_GROUP, &p->sending, e) != 0)) {
            return -1;
        }
    }
    g->under_way = true;
    return 1;
}

/* 1 when the transfer is over, at once where there was none. */
static int test(struct tp_group *g, struct comm_req *req, struct err *e)
{
    return req->handle ? comm_test(g->comm, req, e) : 1;
}

static int advance(struct tp_group *g, struct err *e)
{
    for (int i = 0; i < g->size; i++) {
        struct part *p = &g->parts[i];
        int received = test(g, &p->receiving, e),
            sent = received < 0 ? -1 : test(g, &p->sending, e);
        if (received < 0 || sent < 0) {
            return -1;
        }
        if (!received || !sent) {
            return 0;
        }
        if (p->in_bytes > 0 && p->receiving.n_bytes != p->in_bytes) {
            return err_set(e, ERR_ENV,
                           "rank %d of the tensor-parallel group sent %zu bytes, not %zu",
                           g->ranks[i], p->receiving.n_bytes, p->in_bytes);
        }
    }
    g->under_way = false;
    atomic_store_explicit(&g->turn, COMPUTE_THREAD, memory_order_release);
    return 1;
}

int tp_group_turn(struct tp_group *g, struct err *e)
{
    if (atomic_load_explicit(&g->turn, memory_order_acquire) != MAIN_THREAD) {
        return 0;
    }
    return g->under_way ? advance(g, e) : begin(g, e);
}

int tp_group_waits_for(const struct tp_group *g)
{
    for (int i = 0; g->under_way && i < g->size; i++) {
        if (g->parts[i].receiving.handle || g->parts[i].sending.handle) {
            return g->ranks[i];
        }
    }
    return -1;
}

/* --- compute thread ------------------------------------------------------------------------------ */

/* Have the parts moved: spin, then give the core away, then sleep. */
static void exchange(struct tp_group *g)
{
    atomic_store_explicit(&g->turn, MAIN_THREAD, memory_order_release);
    int64_t yield_since_ns = 0;
    for (int i = 0; atomic_load_explicit(&g->turn, memory_order_acquire) != COMPUTE_THREAD; i++) {
        if (i < SPINS) {
            spin_pause();
            continue;
        }
        int64_t now_ns = clock_local_ns();
        yield_since_ns = yield_since_ns ? yield_since_ns : now_ns;
        if (now_ns - yield_since_ns < YIELD_NS) {
            sched_yield();
        } else {
            clock_sleep_until_ns(now_ns + NAP_NS);
        }
    }
    atomic_store_explicit(&g->turn, NOBODY, memory_order_relaxed);
}

/* Slice i of n values begins here. */
static size_t slice_begin(const struct tp_group *g, size_t n, int i)
{
    return n * (size_t)i / (size_t)g->size;
}

/* x = x of rank 0 + x of rank 1 + ...; the own one is in x. */
static void add_up(const struct tp_group *g, float *x, size_t n, size_t ld)
{
    for (size_t k = 0; k < n; k++) {
        float sum = 0;
        for (int i = 0; i < g->size; i++) {
            float v = i == g->index ? x[k] : g->slices[(size_t)i * ld + k];
            sum = i == 0 ? v : sum + v;
        }
        x[k] = sum;
    }
}

void tp_group_sum(struct tp_group *g, float *x, size_t n)
{
    CHECK(n <= g->max_n_values);
    if (g->size == 1) {
        return;
    }
    const size_t own = slice_begin(g, n, g->index), end = slice_begin(g, n, g->index + 1);
    const size_t ld = n / (size_t)g->size + 1;
    for (int i = 0; i < g->size; i++) {
        size_t from = slice_begin(g, n, i), to = slice_begin(g, n, i + 1);
        g->parts[i] = i == g->index ? (struct part){0}
                                    : (struct part){.out = x + from,
                                                    .out_bytes = (to - from) * sizeof *x,
                                                    .in = g->slices + (size_t)i * ld,
                                                    .in_bytes = (end - own) * sizeof *x};
    }
    exchange(g);
    add_up(g, x + own, end - own, ld);
    for (int i = 0; i < g->size; i++) {
        size_t from = slice_begin(g, n, i), to = slice_begin(g, n, i + 1);
        g->parts[i] = i == g->index ? (struct part){0}
                                    : (struct part){.out = x + own,
                                                    .out_bytes = (end - own) * sizeof *x,
                                                    .in = x + from,
                                                    .in_bytes = (to - from) * sizeof *x};
    }
    exchange(g);
}

void tp_group_gather(struct tp_group *g, const void *mine, size_t n_bytes, void *all)
{
    memcpy((char *)all + (size_t)g->index * n_bytes, mine, n_bytes);
    if (g->size == 1) {
        return;
    }
    for (int i = 0; i < g->size; i++) {
        g->parts[i] = i == g->index ? (struct part){0}
                                    : (struct part){.out = mine,
                                                    .out_bytes = n_bytes,
                                                    .in = (char *)all + (size_t)i * n_bytes,
                                                    .in_bytes = n_bytes};
    }
    exchange(g);
}
