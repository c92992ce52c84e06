/*
 * A tensor-parallel group of all ranks: a compute thread on each asks for sums and gathers of many
 * sizes while the main threads turn. Every rank must get the bits of the sum in rank order.
 */
#include "core/clock.h"
#include "core/comm.h"
#include "core/mem.h"
#include "workers/tp_group.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_RANKS = 8,
    MAX_N = 70000,
    ROUNDS = 300,
};

static struct comm *c;
static struct tp_group *group;
static int rank, size;
static atomic_bool finished;
static float x[MAX_N], want[MAX_N];

/* Values whose sum depends on its order. */
static float value(int of_rank, int round, size_t i)
{
    uint32_t h = (uint32_t)(of_rank * 7919 + round * 104729) + (uint32_t)i * 2654435761u;
    h ^= h >> 15;
    return (float)(h % 20011) * (h % 3 ? 1e-6f : 1e3f) - 1;
}

static size_t size_of_round(int round)
{
    static const size_t sizes[] = {1, 2, 3, 7, 16, 1000, 4097, MAX_N, 5, 0};
    return sizes[(size_t)round % (sizeof sizes / sizeof *sizes)];
}

static void check_sum(int round)
{
    size_t n = size_of_round(round);
    for (size_t i = 0; i < n; i++) {
        x[i] = value(rank, round, i);
        want[i] = value(0, round, i);
        for (int r = 1; r < size; r++) {
            want[i] += value(r, round, i);
        }
    }
    tp_group_sum(group, x, n);
    if (memcmp(x, want, n * sizeof *x) != 0) {
        comm_abort(c, 1, "round %d: wrong sum of %zu values", round, n);
    }
}

static void check_gather(int round)
{
    int mine[3] = {rank, round, rank * round}, all[MAX_RANKS][3];
    tp_group_gather(group, mine, sizeof mine, all);
    for (int r = 0; r < size; r++) {
        if (all[r][0] != r || all[r][1] != round || all[r][2] != r * round) {
            comm_abort(c, 1, "round %d: rank %d's part is wrong", round, r);
        }
    }
}

/* More than a rank's board holds at once, and an odd end. */
static void check_long_gather(int round)
{
    const size_t n = MAX_N * 9 + 7;
    unsigned char *mine = xmalloc(n), *all = xmalloc((size_t)size * n);
    for (size_t i = 0; i < n; i++) {
        mine[i] = (unsigned char)(i * 31 + i / 4096 + (size_t)(rank + round));
    }
    tp_group_gather(group, mine, n, all);
    for (size_t i = 0; i < (size_t)size * n; i++) {
        const size_t r = i / n, k = i % n;
        if (all[i] != (unsigned char)(k * 31 + k / 4096 + r + (size_t)round)) {
            comm_abort(c, 1, "round %d: byte %zu of rank %zu is wrong", round, k, r);
        }
    }
    free(all);
    free(mine);
}

static void *compute(void *arg)
{
    (void)arg;
    for (int round = 0; round < ROUNDS; round++) {
        check_sum(round);
        check_gather(round);
        if (round % 100 == 0) {
            check_long_gather(round);
        }
    }
    atomic_store(&finished, true);
    return NULL;
}

int main(void)
{
    struct err e = {0};
    int ranks[MAX_RANKS];
    pthread_t thread;
    if (comm_open(&c, &e) != 0) {
        return 1;
    }
    rank = comm_rank(c);
    size = comm_size(c);
    for (int i = 0; i < size; i++) {
        ranks[i] = i;
    }
    const struct tp_group_config cfg = {
        .ranks = ranks, .size = size, .index = rank, .max_n_values = MAX_N};
    if (comm_start(c, 64, &e) != 0 || tp_group_create(&group, &cfg, &e) != 0) {
        comm_abort(c, 1, "%s", e.msg);
    }
    if (tp_group_start(group, c, &e) != 0) {
        comm_abort(c, 1, "%s", e.msg);
    }
    if (pthread_create(&thread, NULL, compute, NULL) != 0) {
        comm_abort(c, 1, "no thread");
    }
    for (int idle = 0; !atomic_load(&finished);) {
        int moved = tp_group_turn(group, &e);
        idle = moved == 1 ? 0 : idle + 1;
        if (moved < 0 || comm_pause(c, idle, &e) != 0) {
            comm_abort(c, 1, "%s", e.msg);
        }
    }
    pthread_join(thread, NULL);
    tp_group_destroy(group);
    if (comm_barrier(c, 10 * NS_PER_S, &e) != 0) {
        comm_abort(c, 1, "%s", e.msg);
    }
    comm_close(c);
    return 0;
}
