#include "workers/cuda/group.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/mem.h"
#include "workers/cuda/group_sum.h"

#define SETUP_NS (60 * NS_PER_S) // for clearing
#define WHAT     "sums of the tensor-parallel group"

/* What this process sees, and copies from. */
struct seen {
    struct group_sum_room *rooms[GROUP_SUM_MOST]; // (size) of others: opened
    uint32_t late;
};

struct group {
    struct gpu *gpu;
    int64_t n_at_once;
    int rank_of[GROUP_SUM_MOST]; // in the world
    struct group_sum_ranks ranks;
    struct seen *seen; // pinned
};

int64_t group_sum_at_once(int size)
{
    return size <= 2 ? INT64_MAX : size <= 4 ? 128 << 10 : 64 << 10; // 512 KB, 256 KB
}

/* The room's flags become zeros, before anyone can see them. */
static int take(struct group *s, struct gpu_ipc_handle *mine, struct err *e)
{
    void *room, *seen;
    if (gpu_ipc_take(s->gpu, group_sum_room_bytes(s->ranks.max_bytes), WHAT, &room, mine, e) != 0) {
        return -1;
    }
    s->ranks.own = room;
    if (gpu_take_host(s->gpu, sizeof *s->seen, WHAT, &seen, e) != 0) {
        return -1;
    }
    s->seen = seen;
    *s->seen = (struct seen){0};
    s->ranks.late = &s->seen->late;
    return gpu_clear(s->gpu, room, sizeof(struct group_sum_room), e) != 0 ||
                   gpu_wait(s->gpu, clock_local_ns() + SETUP_NS, e) != 0
               ? -1
               : 0;
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
    s->ranks = (struct group_sum_ranks){
        .size = cfg->size,
        .index = cfg->index,
        .max_bytes = max_bytes,
        .limit_ns = (uint64_t)cfg->limit_ns,
    };
    if (take(s, mine, e) != 0) {
        group_destroy(s);
        return -1;
    }
    *out = s;
    return 0;
}

int group_join(struct group *s, const struct gpu_ipc_handle *all, struct err *e)
{
    struct group_sum_room **rooms = s->seen->rooms;
    for (int i = 0; i < s->ranks.size; i++) {
        void *p = s->ranks.own;
        if (i != s->ranks.index && gpu_ipc_open(s->gpu, &all[i], WHAT, &p, e) != 0) {
            group_leave(s);
            return -1;
        }
        rooms[i] = p;
        s->rank_of[i] = all[i].rank;
    }
    const size_t n = (size_t)s->ranks.size * sizeof *rooms;
    return gpu_copy_in(s->gpu, s->ranks.own->rooms, rooms, n, e);
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
    CHECK(((uintptr_t)mine | (uintptr_t)all) % GROUP_SUM_ALIGNED == 0);
    if (n_bytes > 0) {
        group_sum_gather_queue(&s->ranks, mine, n_bytes, all, gpu_stream(s->gpu));
    }
}

void group_columns(struct group *s, const float *mine, int n_rows, const int *first, const int *n,
                   float *all, int ld)
{
    struct group_sum_columns c = {.n_rows = n_rows, .ld = ld, .mine = mine, .all = all};
    for (int i = 0; i < s->ranks.size; i++) {
        CHECK((size_t)n_rows * (size_t)n[i] * sizeof *mine <= s->ranks.max_bytes);
        c.first[i] = first[i];
        c.n[i] = n[i];
    }
    if (n_rows > 0) {
        group_sum_columns_queue(&s->ranks, &c, gpu_stream(s->gpu));
    }
}

int group_check(const struct group *s, struct err *e)
{
    const uint32_t late = *(volatile uint32_t *)s->ranks.late; // a kernel writes it
    if (late == 0) {
        return 0;
    }
    err_set(e, ERR_ENV, "%s: rank %d did not come within %.3g s", WHAT, s->rank_of[late - 1],
            (double)s->ranks.limit_ns / 1e9);
    return gpu_blame(s->gpu, e);
}

void group_leave(struct group *s)
{
    for (int i = 0; s->seen && i < s->ranks.size; i++) {
        if (i != s->ranks.index) {
            gpu_ipc_close(s->gpu, s->seen->rooms[i]);
        }
        s->seen->rooms[i] = NULL;
    }
}

/* All but the memory that others may have open. */
static void end(struct group *s)
{
    group_leave(s);
    if (s->seen) {
        gpu_give_host(s->gpu, s->seen);
    }
    free(s);
}

void group_destroy(struct group *s)
{
    if (s) {
        gpu_give(s->gpu, s->ranks.own);
        end(s);
    }
}

void group_abandon(struct group *s)
{
    if (s) {
        gpu_leave(s->gpu, s->ranks.own);
        end(s);
    }
}
