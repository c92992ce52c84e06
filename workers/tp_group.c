#include "workers/tp_group.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/mem.h"
#include "core/spin.h"

#define TAG_TP_GROUP 2 // of the bulk plane
#define SPINS        2000
#define YIELD_NS     (1 * NS_PER_MS)
#define NAP_NS       (50 * NS_PER_US)
#define LEAST_BYTES  ((size_t)64 << 10) // of a board
#define LINE         64
#define BLOCK        1024 // values added up at a time
// A sum of more values times further ranks is done in two steps, of which the second costs another wait.
#define AT_ONCE 16384

/* How many exchanges a rank has brought its part to. */
struct mark {
    _Alignas(LINE) atomic_uint_fast64_t n;
};

/* What the group's first rank tells the others of the memory that it has made. */
struct hello {
    int32_t fd;
    int64_t device, file; // numbers by which what is opened is known to be that
};

/*
 * The memory of the group: marks (size), then boards (size, 2, board_bytes). A rank writes what it brings to exchange
 * n on its board n % 2, then its mark: whoever has passed exchange n + 1 knows that all have read those of n.
 */
struct tp_group {
    int size, index;
    size_t max_n_values, board_bytes;
    int *ranks; // (size)
    struct comm *comm;
    int fd;             // of the memory; -1: not open
    struct hello hello; // of the first rank
    bool has_heard;
    struct comm_req *hellos; // (size) on their way
    unsigned char *memory;   // set before is_open
    atomic_bool is_open;     // for the compute thread
    uint64_t n;              // compute thread: exchanges so far
    // for the main thread: the exchange that is waited for; 0: none
    atomic_uint_fast64_t awaited;
};

static size_t memory_bytes(const struct tp_group *g)
{
    return (size_t)g->size * (sizeof(struct mark) + 2 * g->board_bytes);
}

static struct mark *mark_of(const struct tp_group *g, int i)
{
    return (struct mark *)(void *)g->memory + i;
}

static void *board_of(const struct tp_group *g, int i, uint64_t n)
{
    return g->memory + (size_t)g->size * sizeof(struct mark) +
           ((size_t)i * 2 + (size_t)(n % 2)) * g->board_bytes;
}

static int map_memory(struct tp_group *g, struct err *e)
{
    void *at = mmap(NULL, memory_bytes(g), PROT_READ | PROT_WRITE, MAP_SHARED, g->fd, 0);
    if (at == MAP_FAILED) {
        return err_set(e, ERR_ENV, "no memory for sums of %zu values over %d ranks: %s",
                       g->max_n_values, g->size, strerror(errno));
    }
    g->memory = at;
    atomic_store_explicit(&g->is_open, true, memory_order_release);
    return 0;
}

static struct hello hello_of(int fd)
{
    struct stat s = {0};
    return fstat(fd, &s) == 0
               ? (struct hello){.fd = fd, .device = (int64_t)s.st_dev, .file = (int64_t)s.st_ino}
               : (struct hello){.fd = -1};
}

static bool is_memory_of(const struct hello *h, int fd)
{
    const struct hello own = hello_of(fd);
    return own.fd >= 0 && own.device == h->device && own.file == h->file;
}

static int make_memory(struct tp_group *g, struct err *e)
{
    g->fd = memfd_create("tidemark-tp-group", MFD_CLOEXEC);
    if (g->fd < 0 || ftruncate(g->fd, (off_t)memory_bytes(g)) != 0) {
        return err_set(e, ERR_ENV, "no memory for sums of %zu values over %d ranks: %s",
                       g->max_n_values, g->size, strerror(errno));
    }
    g->hello = hello_of(g->fd);
    return map_memory(g, e);
}

int tp_group_create(struct tp_group **out, const struct tp_group_config *cfg, struct err *e)
{
    CHECK(cfg->size >= 1 && cfg->index >= 0 && cfg->index < cfg->size);
    const size_t size = (size_t)cfg->size, least = cfg->max_n_values * sizeof(float);
    struct tp_group *g = xcalloc(1, sizeof *g);
    g->size = cfg->size;
    g->index = cfg->index;
    g->max_n_values = cfg->max_n_values;
    g->board_bytes = (least > LEAST_BYTES ? least : LEAST_BYTES) / LINE * LINE + LINE;
    g->ranks = xcalloc(size, sizeof *g->ranks);
    memcpy(g->ranks, cfg->ranks, size * sizeof *g->ranks);
    g->hellos = xcalloc(size, sizeof *g->hellos);
    g->fd = -1;
    if (g->size > 1 && g->index == 0 && make_memory(g, e) != 0) {
        tp_group_destroy(g);
        return -1;
    }
    *out = g;
    return 0;
}

int tp_group_create_all(struct tp_group **out, int size, size_t max_n_values, struct err *e)
{
    int *ranks = xcalloc((size_t)size, sizeof *ranks), rc = 0;
    for (int i = 0; i < size; i++) {
        ranks[i] = i;
        out[i] = NULL;
    }
    for (int i = 0; i < size && rc == 0; i++) {
        const struct tp_group_config cfg = {ranks, size, i, max_n_values};
        rc = tp_group_create(&out[i], &cfg, e);
        if (rc == 0 && i > 0) {
            out[i]->fd = fcntl(out[0]->fd, F_DUPFD_CLOEXEC, 0);
            rc = map_memory(out[i], e);
        }
    }
    for (int i = 0; i < size && rc; i++) {
        tp_group_destroy(out[i]);
        out[i] = NULL;
    }
    free(ranks);
    return rc;
}

void tp_group_destroy(struct tp_group *g)
{
    if (!g) {
        return;
    }
    for (int i = 0; i < g->size; i++) {
        if (g->hellos[i].handle) {
            comm_cancel(g->comm, &g->hellos[i]);
        }
    }
    if (g->memory) {
        munmap(g->memory, memory_bytes(g));
    }
    if (g->fd >= 0) {
        close(g->fd);
    }
    free(g->hellos);
    free(g->ranks);
    free(g);
}

/* --- main thread ------------------------------------------------------------------------------ */

int tp_group_start(struct tp_group *g, struct comm *comm, struct err *e)
{
    g->comm = comm;
    if (g->index > 0) {
        return comm_irecv(comm, &g->hello, sizeof g->hello, g->ranks[0], TAG_TP_GROUP,
                          &g->hellos[0], e);
    }
    for (int i = 1; i < g->size; i++) {
        if (comm_isend(comm, &g->hello, sizeof g->hello, g->ranks[i], TAG_TP_GROUP, &g->hellos[i],
                       e)) {
            return -1;
        }
    }
    return 0;
}

/* The memory that the group's first rank has made. */
static int open_memory(struct tp_group *g, struct err *e)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", comm_pid(g->comm, g->ranks[0]), g->hello.fd);
    g->fd = open(path, O_RDWR | O_CLOEXEC);
    if (g->fd < 0 || !is_memory_of(&g->hello, g->fd)) {
        return err_set(e, ERR_ENV,
                       "target.tensor: this rank cannot open the memory of rank %d, with which it "
                       "shares a stage (%s: %s): they must see each other's processes",
                       g->ranks[0], path, g->fd < 0 ? strerror(errno) : "another file");
    }
    return map_memory(g, e) == 0 ? 1 : -1;
}

static int hear(struct tp_group *g, struct err *e)
{
    const int got = comm_test(g->comm, &g->hellos[0], e);
    if (got == 1 && g->hellos[0].n_bytes != sizeof g->hello) {
        return err_set(e, ERR_ENV, "rank %d of the tensor-parallel group said %zu bytes, not %zu",
                       g->ranks[0], g->hellos[0].n_bytes, sizeof g->hello);
    }
    g->has_heard = got == 1;
    return got;
}

int tp_group_turn(struct tp_group *g, struct err *e)
{
    for (int i = 1; i < g->size; i++) {
        if (g->hellos[i].handle && comm_test(g->comm, &g->hellos[i], e) < 0) {
            return -1;
        }
    }
    if (g->index == 0 || g->memory) {
        return 0;
    }
    if (!g->has_heard) {
        return hear(g, e);
    }
    return atomic_load(&g->awaited) > 0 ? open_memory(g, e)
                                        : 0; // only then the first rank surely lives
}

static bool has_come(const struct tp_group *g, int i, uint64_t n)
{
    return atomic_load_explicit(&mark_of(g, i)->n, memory_order_acquire) >= n;
}

int tp_group_waits_for(const struct tp_group *g)
{
    const uint64_t n = atomic_load(&g->awaited);
    for (int i = 0; n > 0 && i < g->size; i++) {
        if (!g->memory || (i != g->index && !has_come(g, i, n))) {
            return g->ranks[i];
        }
    }
    return -1;
}

/* --- compute thread ------------------------------------------------------------------------------ */

/* One look more in vain: spin, then give the core away, then sleep. */
static void wait_a_little(int n_looks, int64_t *yield_since_ns)
{
    if (n_looks < SPINS) {
        spin_pause();
        return;
    }
    const int64_t now_ns = clock_local_ns();
    *yield_since_ns = *yield_since_ns ? *yield_since_ns : now_ns;
    if (now_ns - *yield_since_ns < YIELD_NS) {
        sched_yield();
    } else {
        clock_sleep_until_ns(now_ns + NAP_NS);
    }
}

/* The next exchange: where this rank puts what it brings. */
static void *next_board(struct tp_group *g)
{
    int64_t yield_since_ns = 0;
    atomic_store(&g->awaited, ++g->n);
    for (int i = 0; !atomic_load_explicit(&g->is_open, memory_order_acquire); i++) {
        wait_a_little(i, &yield_since_ns);
    }
    return board_of(g, g->index, g->n);
}

/* It is there: wait for all others'. */
static void meet(struct tp_group *g)
{
    int64_t yield_since_ns = 0;
    atomic_store_explicit(&mark_of(g, g->index)->n, g->n, memory_order_release);
    for (int i = 0, n_looks = 0; i < g->size;) {
        if (i == g->index || has_come(g, i, g->n)) {
            i++;
        } else {
            wait_a_little(n_looks++, &yield_since_ns);
        }
    }
    atomic_store(&g->awaited, 0);
}

/* x (n) = values from `first` on of rank 0's board + those of rank 1's + ... */
static void add_up(const struct tp_group *g, float *x, size_t first, size_t n)
{
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t n_here = n - at < BLOCK ? n - at : BLOCK;
        memcpy(x + at, (float *)board_of(g, 0, g->n) + first + at, n_here * sizeof *x);
        for (int i = 1; i < g->size; i++) {
            const float *more = (const float *)board_of(g, i, g->n) + first + at;
            for (size_t k = 0; k < n_here; k++) {
                x[at + k] += more[k];
            }
        }
    }
}

/* Slice i of n values begins here. */
static size_t slice_begin(const struct tp_group *g, size_t n, int i)
{
    return n * (size_t)i / (size_t)g->size;
}

/* Each rank adds up one slice and hands it round. */
static void sum_by_slices(struct tp_group *g, float *x, size_t n)
{
    const size_t begin = slice_begin(g, n, g->index), end = slice_begin(g, n, g->index + 1);
    add_up(g, x + begin, begin, end - begin);
    memcpy(next_board(g), x + begin, (end - begin) * sizeof *x);
    meet(g);
    for (int i = 0; i < g->size; i++) {
        const size_t from = slice_begin(g, n, i), to = slice_begin(g, n, i + 1);
        if (i != g->index) {
            memcpy(x + from, board_of(g, i, g->n), (to - from) * sizeof *x);
        }
    }
}

void tp_group_sum(struct tp_group *g, float *x, size_t n)
{
    CHECK(n <= g->max_n_values);
    if (g->size == 1 || n == 0) {
        return;
    }
    memcpy(next_board(g), x, n * sizeof *x);
    meet(g);
    if (n * (size_t)(g->size - 2) > AT_ONCE) {
        sum_by_slices(g, x, n);
    } else {
        add_up(g, x, 0, n);
    }
}

void tp_group_gather(struct tp_group *g, const void *mine, size_t n_bytes, void *all)
{
    if (g->size == 1) {
        memcpy(all, mine, n_bytes);
        return;
    }
    for (size_t at = 0; at < n_bytes; at += g->board_bytes) {
        const size_t n = n_bytes - at < g->board_bytes ? n_bytes - at : g->board_bytes;
        memcpy(next_board(g), (const char *)mine + at, n);
        meet(g);
        for (int i = 0; i < g->size; i++) {
            memcpy((char *)all + (size_t)i * n_bytes + at, board_of(g, i, g->n), n);
        }
    }
}

static void sum(void *ctx, float *x, size_t n)
{
    tp_group_sum(ctx, x, n);
}

static void gather(void *ctx, const void *mine, size_t n_bytes, void *all)
{
    tp_group_gather(ctx, mine, n_bytes, all);
}

struct shard_group tp_group_shard(struct tp_group *g)
{
    return g ? (struct shard_group){g->index, g->size, g, sum, gather} : (struct shard_group){0};
}
