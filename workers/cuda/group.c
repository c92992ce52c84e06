#include "workers/cuda/group.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/mem.h"
#include "workers/cuda/group_sum.h"

#define SETUP_NS (60 * NS_PER_S) // for clearing
#define WHAT     "sums of the tensor-parallel group"

struct group {
    struct gpu *gpu;
    int64_t n_at_once;
    int rank_of[GROUP_SUM_MOST];
    struct group_sum_ranks ranks; // rooms of others: opened
};

int64_t group_sum_at_once(int size)
{
    return size <= 2 ? INT64_MAX : size <= 4 ? 128 << 10 : 64 << 10; // 512 KB, 256 KB
}

/* Nothing of it was ever there for the others to see. */
static int clear(struct group *s, size_t n_bytes, struct err *e)
{
    if (gpu_clear(s->gpu, s->ranks.rooms[s->ranks.index], n_bytes, e) != 0) {
        return -1;
    }
    return gpu_wait(s->gpu, clock_local_ns() + SETUP_NS, e);
}

int group_create(struct group **out, struct gpu *g, const struct group_config *cfg,
                 struct gpu_ipc_handle *mine, struct err *e)
{
    CHECK(cfg->size >= 1 && cfg->size <= GROUP_SUM_MOST);
    CHECK(cfg->index >= 0 && cfg->index < cfg->size && cfg->limit_ns > 0);
    struct group *s = xcalloc(1, sizeof *s);
    const size_t max_bytes =
        (cfg->max_bytes + GROUP_SUM_ALIGNED - 1) / GROUP_SUM_ALIGNED * GROUP_SUM_ALIGNED;
    s->gpu = g;
    s->n_at_once = cfg->n_at_once > 0 ? cfg->n_at_once : group_sum_at_once(cfg->size);
    memcpy(s->rank_of, cfg->ranks, (size_t)cfg->size * sizeof *s->rank_of);
    s->ranks = (struct group_sum_ranks){
        .size = cfg->size,
        .index = cfg->index,
        .max_bytes = max_bytes,
        .limit_ns = (uint64_t)cfg->limit_ns,
    };
    const size_t n_bytes = group_sum_room_bytes(max_bytes);
    void *room, *late;
    if (gpu_ipc_take(g, n_bytes, WHAT, &room, mine, e) != 0) {
        free(s);
        return -1;
    }
    s->ranks.rooms[cfg->index] = room;
    if (gpu_take_host(g, sizeof *s->ranks.late, WHAT, &late, e) != 0) {
        group_destroy(s);
        return -1;
    }
    s->ranks.late = late;
    *s->ranks.late = 0;
    if (clear(s, sizeof(struct group_sum_room), e) != 0) {
        group_destroy(s);
        return -1;
    }
    *out = s;
    return 0;
}

int group_join(struct group *s, const struct gpu_ipc_handle *all, struct err *e)
{
    for (int i = 0; i < s->ranks.size; i++) {
        void *p;
        if (i == s->ranks.index) {
            continue;
        }
        if (gpu_ipc_open(s->gpu, &all[i], WHAT, &p, e) != 0) {
            group_leave(s);
            return -1;
        }
        s->ranks.rooms[i] = p;
    }
    return 0;
}

void group_sum(struct group *s, float *x, size_t n)
{
    CHECK(n * sizeof *x <= s->ranks.max_bytes);
    CHECK((uintptr_t)x % GROUP_SUM_ALIGNED == 0);
    if (s->ranks.size > 1 && n > 0) {
        group_sum_queue(&s->ranks, x, (int64_t)n, (int64_t)n > s->n_at_once, gpu_stream(s->gpu));
    }
}

void group_gather(struct group *s, const void *mine, size_t n_bytes, void *all)
{
    CHECK(n_bytes <= s->ranks.max_bytes);
    if (n_bytes > 0) {
        group_sum_gather_queue(&s->ranks, mine, n_bytes, all, gpu_stream(s->gpu));
    }
}

int group_check(const struct group *s, struct err *e)
{
    const uint32_t late = atomic_load((_Atomic uint32_t *)s->ranks.late);
    if (late == 0) {
        return 0;
    }
    err_set(e, ERR_ENV, "%s: rank %d did not come within %.3g s", WHAT, s->rank_of[late - 1],
            (double)s->ranks.limit_ns / 1e9);
    return gpu_blame(s->gpu, e);
}

void group_leave(struct group *s)
{
    for (int i = 0; i < s->ranks.size; i++) {
        if (i != s->ranks.index) {
            gpu_ipc_close(s->gpu, s->ranks.rooms[i]);
            s->ranks.rooms[i] = NULL;
        }
    }
}

void group_destroy(struct group *s)
{
    if (!s) {
        return;
    }
    group_leave(s);
    gpu_give(s->gpu, s->ranks.rooms[s->ranks.index]);
    if (s->ranks.late) {
        gpu_give_host(s->gpu, s->ranks.late);
    }
    free(s);
}
