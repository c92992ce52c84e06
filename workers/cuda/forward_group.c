/* What the ranks of a stage put together: partial sums, and what each found in its part of the vocabulary. */
#include "workers/cuda/forward_impl.h"

#include <stdlib.h>

#include "core/mem.h"
#include "workers/cuda/group_sum.h"

#define LIMIT_NS (30 * NS_PER_S) // of a wait for another rank, once all have begun a batch

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

int forward_group_take(struct forward *f, struct err *e)
{
    const struct shard *s = &f->shard;
    const size_t hidden = (size_t)f->cfg.max_tokens * (size_t)f->arch->hidden;
    const size_t rows = f->cfg.max_rows < FORWARD_HEAD_ROWS ? f->cfg.max_rows : FORWARD_HEAD_ROWS;
    const size_t logits =
        f->cfg.part.has_head ? rows * (size_t)shard_most_vocab(f->arch, s->size) : 0;
    if (s->size == 1) {
        return 0;
    }
    if (s->size > GROUP_SUM_MOST) {
        return err_set(e, ERR_INPUT, "backend cuda: target.tensor is %d, it takes up to %d",
                       s->size, GROUP_SUM_MOST);
    }
    const size_t found = f->cfg.max_rows * sizeof(struct head_found);
    const struct group_config cfg = {
        .size = s->size,
        .index = s->rank,
        .max_bytes = most(most(hidden, logits) * sizeof(float), found),
        .limit_ns = LIMIT_NS,
    };
    return group_create(&f->group, f->gpu, &cfg, &f->group_handle, e);
}

int forward_group_join(struct forward *f, struct err *e)
{
    if (!f->group || f->has_joined || !f->is_warm) {
        return 0;
    }
    const struct shard_group *g = &f->cfg.group;
    struct gpu_ipc_handle *all = xcalloc((size_t)f->shard.size, sizeof *all);
    g->gather(g->ctx, &f->group_handle, sizeof f->group_handle, all);
    const int rc = group_join(f->group, all, e);
    free(all);
    f->has_joined = rc == 0;
    return rc;
}

int forward_group_check(const struct forward *f, struct err *e)
{
    return f->group ? group_check(f->group, e) : 0;
}

void forward_group_end(struct forward *f)
{
    if (f->has_joined) {
        group_abandon(f->group);
    } else {
        group_destroy(f->group);
    }
}

void forward_group_sum(struct forward *f, float *x)
{
    if (f->group && !f->failed) {
        group_sum(f->group, x, (size_t)f->n * (size_t)f->arch->hidden);
        forward_ops_check(f, "a sum over ranks");
    }
}

void forward_group_logits(struct forward *f, int n)
{
    int first[GROUP_SUM_MOST], each[GROUP_SUM_MOST];
    for (int r = 0; r < f->shard.size; r++) {
        const struct shard_span part = shard_vocab(f->arch, r, f->shard.size);
        first[r] = part.first;
        each[r] = part.n;
    }
    if (!f->failed) {
        group_columns(f->group, f->room.part_logits, n, first, each, f->room.logits,
                      f->arch->vocab);
        forward_ops_check(f, "logits of all ranks");
    }
}

void forward_group_hidden(struct forward *f, const void *mine, size_t each_bytes)
{
    if (!f->failed) {
        group_gather(f->group, mine, each_bytes, f->room.arrived);
        forward_ops_check(f, "hidden states of all ranks");
    }
}

void forward_group_found(struct forward *f)
{
    if (!f->failed) {
        group_gather(f->group, f->room.found, (size_t)f->n_sampled * sizeof *f->room.found,
                     f->room.all_found);
        forward_ops_check(f, "what all ranks found");
    }
}
