#include "loadgen/turns.h"

#include <stdlib.h>

#define EVENT_BITS 40
#define TURN_BITS  24

int turns_init(struct turns *t, size_t cap, struct err *e)
{
    *t = (struct turns){.cap = cap, .v = calloc(cap + 1, sizeof *t->v)};
    return t->v ? 0 : err_set(e, ERR_ENV, "no memory for %zu conversations", cap);
}

void turns_free(struct turns *t)
{
    free(t->v);
    *t = (struct turns){0};
}

static bool is_before(const struct turn *a, const struct turn *b)
{
    return a->t_ns != b->t_ns ? a->t_ns < b->t_ns : a->event < b->event;
}

void turns_push(struct turns *t, struct turn turn)
{
    CHECK(t->n < t->cap);
    size_t i = t->n++;
    for (; i > 0 && is_before(&turn, &t->v[(i - 1) / 2]); i = (i - 1) / 2) {
        t->v[i] = t->v[(i - 1) / 2];
    }
    t->v[i] = turn;
}

int64_t turns_next_ns(const struct turns *t)
{
    return t->n > 0 ? t->v[0].t_ns : INT64_MAX;
}

struct turn turns_pop(struct turns *t)
{
    CHECK(t->n > 0);
    struct turn top = t->v[0], last = t->v[--t->n];
    size_t i = 0;
    for (size_t child = 1; child < t->n; child = 2 * i + 1) {
        child += child + 1 < t->n && is_before(&t->v[child + 1], &t->v[child]);
        if (!is_before(&t->v[child], &last)) {
            break;
        }
        t->v[i] = t->v[child];
        i = child;
    }
    t->v[i] = last;
    return top;
}

int turns_init_users(struct turns *t, uint32_t n_users, int rank, int n_ranks, int64_t t_begin_ns,
                     struct err *e)
{
    uint32_t first = (uint32_t)rank, stride = (uint32_t)n_ranks;
    if (turns_init(t, n_users > first ? (n_users - first - 1) / stride + 1 : 0, e) != 0) {
        return -1;
    }
    for (uint64_t u = first; u < n_users; u += stride) {
        turns_push(t, (struct turn){.t_ns = t_begin_ns, .event = u});
    }
    return 0;
}

bool turns_follow(const struct dataset *ds, uint64_t seed, uint32_t n_users, struct turn ended,
                  int64_t end_ns, bool is_failed, struct turn *next)
{
    struct prompt p;
    dataset_get(ds, seed, ended.event, ended.turn, &p);
    bool goes_on = !is_failed && ended.turn + 1 < p.n_turns;
    if (!goes_on && n_users == 0) {
        return false;
    }
    *next = (struct turn){
        .event = goes_on ? ended.event : ended.event + n_users,
        .turn = goes_on ? ended.turn + 1 : 0,
    };
    dataset_get(ds, seed, next->event, next->turn, &p);
    next->t_ns = end_ns + p.think_ns + (is_failed ? TURNS_RETRY_NS : 0);
    return true;
}

uint64_t turns_id(uint64_t event, uint32_t turn)
{
    CHECK(event >> EVENT_BITS == 0 && turn >> TURN_BITS == 0);
    return (uint64_t)turn << EVENT_BITS | event;
}

struct turn turns_of_id(uint64_t id)
{
    return (struct turn){.event = id & ((1ULL << EVENT_BITS) - 1),
                         .turn = (uint32_t)(id >> EVENT_BITS)};
}
