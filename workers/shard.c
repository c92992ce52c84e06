#include "workers/shard.h"

#define UNIT       32 // dimensions whose weights may share a factor
#define SMALL_UNIT 8  // what the kernels of a GPU take at once
#define SLICE_UNIT 8  // values of hidden states: 16 bytes or 32

/* 0 .. n - 1 in whole units, but for the last one's end. */
static struct shard_span share(int n, int rank, int size, int unit)
{
    const int64_t units = (n + unit - 1) / unit;
    const int64_t first = units * rank / size * unit, end = units * (rank + 1) / size * unit;
    return (struct shard_span){(int)first, (int)((end < n ? end : n) - first)};
}

/* An MLP's inner dimension: units that factors are not cut in, smaller ones where there are too few. */
static struct shard_span share_inner(int n, int rank, int size)
{
    const int unit = n / UNIT >= size ? UNIT : n / SMALL_UNIT >= size ? SMALL_UNIT : 1;
    return share(n, rank, size, unit);
}

struct shard_span shard_vocab(const struct arch *a, int rank, int size)
{
    return share(a->vocab, rank, size, 1);
}

int shard_most_vocab(const struct arch *a, int size)
{
    return (a->vocab + size - 1) / size;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

struct shard_slice shard_hidden(const struct arch *a, size_t n_tokens, int rank, int size)
{
    const size_t n_ranks = size > 0 ? (size_t)size : 1;
    const size_t all = n_tokens * (size_t)a->hidden;
    const size_t value_bytes = arch_carried(a) == ARCH_F32 ? sizeof(float) : sizeof(uint16_t);
    const size_t units = (all + SLICE_UNIT - 1) / SLICE_UNIT;
    const size_t each = least((units + n_ranks - 1) / n_ranks * SLICE_UNIT, all);
    const size_t first = least((size_t)rank * each, all);
    const size_t n = least(each, all - first);
    return (struct shard_slice){first, n, n * value_bytes, each * value_bytes};
}

int shard_init(struct shard *s, const struct arch *a, int rank, int size, struct err *e)
{
    size = size > 0 ? size : 1;
    CHECK(rank >= 0 && rank < size);
    const bool latent = arch_is_latent(a);
    const int kv = latent ? a->n_heads : a->n_kv_heads;
    if (a->n_heads % size != 0 || (kv % size != 0 && size % kv != 0)) {
        return err_set(e, ERR_INPUT,
                       "target.tensor %d does not divide %d attention heads and %d KV heads", size,
                       a->n_heads, a->n_kv_heads);
    }
    if (a->vocab < size || a->intermediate < size ||
        (a->moe.n_experts > 0 && a->moe.intermediate < size)) {
        return err_set(e, ERR_INPUT, "target.tensor %d is more than the MLPs can be split by",
                       size);
    }
    const int n_kv = kv >= size ? kv / size : 1;
    *s = (struct shard){
        .rank = rank,
        .size = size,
        .heads = {a->n_heads / size * rank, a->n_heads / size},
        .kv_heads = {(int)((int64_t)kv * rank / size), n_kv},
        .mlp = share_inner(a->intermediate, rank, size),
        .shared = share_inner(a->moe.n_shared * a->moe.intermediate, rank, size),
        .expert = share_inner(a->moe.intermediate, rank, size),
        .vocab = shard_vocab(a, rank, size),
    };
    return 0;
}
