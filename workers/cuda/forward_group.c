/*
 * What the ranks of a stage put together: partial sums, hidden states that each has a part of, and what each found in its
 * part of the vocabulary; in memory that they share (group.h), or over NCCL.
 */
#include "workers/cuda/forward_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/mem.h"
#include "workers/cuda/group_sum.h"
#include "workers/cuda/nccl_comm.h"

#define LIMIT_NS (30 * NS_PER_S) // of a wait for another rank, once all have begun a batch

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* --- meeting ------------------------------------------------------------------------------------- */

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
    return f->cfg.nccl ? 0 : group_create(&f->group, f->gpu, &cfg, &f->group_handle, e);
}

static int join_memory(struct forward *f, struct err *e)
{
    const struct shard_group *g = &f->cfg.group;
    struct gpu_ipc_handle *all = xcalloc((size_t)f->shard.size, sizeof *all);
    g->gather(g->ctx, &f->group_handle, sizeof f->group_handle, all);
    const int rc = group_join(f->group, all, e);
    free(all);
    return rc;
}

/* What ranks tell each other before they meet over NCCL; the id is the first one's. */
struct hello {
    struct nccl_library_id id;
    char pci[GPU_PCI_CHARS];
    int32_t rank;
};

/* From all (size): two on one GPU are refused. */
static int start_nccl(struct forward *f, const struct hello *all, int64_t deadline_ns,
                      struct err *e)
{
    const int size = f->shard.size;
    struct nccl_comm_place places[GROUP_SUM_MOST];
    int ranks[GROUP_SUM_MOST];
    char host[64] = ""; // of all
    gethostname(host, sizeof host - 1);
    for (int i = 0; i < size; i++) {
        ranks[i] = all[i].rank;
        places[i] = (struct nccl_comm_place){all[i].rank, host, all[i].pci};
    }
    const struct nccl_comm_config cfg = {
        .library = f->cfg.nccl,
        .gpu = f->gpu,
        .purpose = "sums of the tensor-parallel group",
        .ranks = ranks,
        .size = size,
        .index = f->shard.rank,
        .id = all[0].id,
    };
    if (nccl_comm_check(f->cfg.nccl, places, size, e) ||
        nccl_comm_start(&f->sums, &cfg, deadline_ns, e)) {
        return -1;
    }
    int rc;
    while ((rc = nccl_comm_ready(f->sums, e)) == 0) {
        clock_sleep_until_ns(clock_local_ns() + NS_PER_MS);
    }
    return rc < 0 ? -1 : 0;
}

/* deadline_ns: of the meeting and its first sums, from when all have come. */
static int meet_over_nccl(struct forward *f, int64_t *deadline_ns, struct err *e)
{
    const struct shard_group *g = &f->cfg.group;
    struct hello *all = xcalloc((size_t)f->shard.size, sizeof *all);
    struct hello mine = {.rank = gpu_rank(f->gpu)};
    snprintf(mine.pci, sizeof mine.pci, "%s", gpu_info(f->gpu)->pci);
    int rc = f->shard.rank == 0 ? nccl_comm_make_id(f->cfg.nccl, gpu_rank(f->gpu), &mine.id, e) : 0;
    if (rc == 0) {
        g->gather(g->ctx, &mine, sizeof mine, all);
        *deadline_ns = clock_local_ns() + NCCL_COMM_MEETING_NS;
        rc = start_nccl(f, all, *deadline_ns, e);
    }
    free(all);
    return rc;
}

/* What NCCL takes at first use it takes now, so that it cannot fall into a recording; then the graphs. */
static int join_nccl(struct forward *f, struct err *e)
{
    const size_t hidden = (size_t)f->arch->hidden, all = f->cfg.max_tokens * hidden;
    int64_t deadline_ns;
    if (meet_over_nccl(f, &deadline_ns, e) ||
        gpu_clear(f->gpu, f->room.branch, all * sizeof(float), e) ||
        nccl_comm_sum(f->sums, f->room.branch, hidden, ARCH_F32, deadline_ns, e) ||
        nccl_comm_sum(f->sums, f->room.branch, all, ARCH_F32, deadline_ns, e) ||
        nccl_comm_wait(f->sums, deadline_ns, e)) {
        return -1;
    }
    f->has_joined = true;
    return forward_graphs_record(f, e);
}

int forward_group_join(struct forward *f, struct err *e)
{
    if (!forward_is_shared(f) || f->has_joined || !f->is_warm) {
        return 0;
    }
    if (f->cfg.nccl) {
        return join_nccl(f, e);
    }
    f->has_joined = join_memory(f, e) == 0;
    return f->has_joined ? 0 : -1;
}

bool forward_group_records(const struct forward *f)
{
    return !f->cfg.nccl || f->has_joined;
}

int forward_group_wait(struct forward *f, int64_t deadline_ns, struct err *e)
{
    if (f->sums) {
        return nccl_comm_wait(f->sums, deadline_ns, e);
    }
    return gpu_wait(f->gpu, deadline_ns, e) || (f->group && group_check(f->group, e)) ? -1 : 0;
}

void forward_group_end(struct forward *f)
{
    nccl_comm_end(f->sums, NCCL_COMM_ENDING_NS);
    if (f->has_joined) {
        group_abandon(f->group);
    } else {
        group_destroy(f->group);
    }
}

/* --- putting together ------------------------------------------------------------------------------ */

/* Over NCCL nothing happens before the ranks have met, as in shared memory. */
static bool goes_over_nccl(struct forward *f)
{
    return f->cfg.nccl && f->has_joined && !f->failed;
}

static void gather(struct forward *f, const void *mine, size_t n_bytes, void *all, const char *what)
{
    if (n_bytes > 0 && goes_over_nccl(f)) {
        const int64_t deadline_ns = clock_local_ns() + LIMIT_NS;
        f->failed = nccl_comm_gather(f->sums, mine, n_bytes, all, deadline_ns, f->e) != 0;
    } else if (f->group && !f->failed) {
        group_gather(f->group, mine, n_bytes, all);
    }
    forward_ops_check(f, what);
}

void forward_group_sum(struct forward *f, float *x)
{
    const size_t n = (size_t)f->n * (size_t)f->arch->hidden;
    if (goes_over_nccl(f)) {
        const int64_t deadline_ns = clock_local_ns() + LIMIT_NS;
        f->failed = nccl_comm_sum(f->sums, x, n, ARCH_F32, deadline_ns, f->e) != 0;
    } else if (f->group && !f->failed) {
        group_sum(f->group, x, n);
    }
    forward_ops_check(f, "a sum over ranks");
}

/* Whole rows from parts that have been gathered. */
static void place_logits(struct forward *f, int n, const int *first, const int *each)
{
    const size_t part = (size_t)n * (size_t)shard_most_vocab(f->arch, f->shard.size);
    struct group_sum_columns c = {.n_rows = n, .ld = f->arch->vocab, .all = f->room.logits};
    for (int r = 0; r < f->shard.size; r++) {
        c.first[r] = first[r];
        c.n[r] = each[r];
    }
    if (!goes_over_nccl(f)) {
        return; // there are no parts
    }
    gather(f, f->room.part_logits, part * sizeof(float), f->room.all_parts, "logits of all ranks");
    if (!f->failed) {
        group_sum_place_queue(&c, f->shard.size, f->room.all_parts, (int64_t)part,
                              gpu_stream(f->gpu));
        forward_ops_check(f, "logits of all ranks");
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
    if (f->cfg.nccl) {
        place_logits(f, n, first, each);
    } else if (!f->failed) {
        group_columns(f->group, f->room.part_logits, n, first, each, f->room.logits,
                      f->arch->vocab);
        forward_ops_check(f, "logits of all ranks");
    }
}

void forward_group_hidden(struct forward *f, const void *mine, size_t each_bytes)
{
    gather(f, mine, each_bytes, f->room.arrived, "hidden states of all ranks");
}

void forward_group_found(struct forward *f)
{
    gather(f, f->room.found, (size_t)f->n_sampled * sizeof *f->room.found, f->room.all_found,
           "what all ranks found");
}
