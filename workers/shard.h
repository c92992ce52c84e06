/*
 * Tensor parallelism: which part of every matrix one of T ranks holds. Heads, the MLPs' inner
 * dimensions and the vocabulary are split; q, k, v, gate, up, embedding and head by rows, o and down by
 * columns, whose products are partial sums. Routers, norms and the latents' down-projections are
 * everywhere. Where there are fewer KV heads than ranks, a head is on several.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "model/arch.h"

/*
 * How the ranks of a group put results together. Called by one compute thread at a time, by all ranks for the
 * same things in the same order; sums must give every rank the same bits. All zeros: one rank alone.
 */
struct shard_group {
    int rank, size;
    void *ctx;
    void (*sum)(void *ctx, float *x, size_t n); // x (n) becomes the sum of all ranks' x
    void (*gather)(void *ctx, const void *mine, size_t n_bytes, void *all /* (size, n_bytes) */);
};

struct shard_span {
    int first, n;
};

/*
 * What a rank sends to its like in the next stage: a part of all hidden states (n_tokens, hidden) of a batch, one value
 * behind the other. Parts are of one length, but for the last ones, which have what is left; behind these, too, each_bytes
 * can be read where they arrive, whatever is there, since all ranks gather so much.
 */
struct shard_slice {
    size_t first, n; // values
    size_t n_bytes;
    size_t each_bytes; // of the longest part, which all are gathered as
};

struct shard {
    int rank, size;
    struct shard_span heads, kv_heads;
    struct shard_span mlp, shared, expert; // inner dimensions: dense, shared expert, each expert
    struct shard_span vocab;
};

/* ERR_INPUT when heads or dimensions cannot be split so. A size of 0 counts as 1. */
int shard_init(struct shard *s, const struct arch *a, int rank, int size,
               struct err *e) ERR_CHECKED;

/* A rank's part of the vocabulary, and the most that any rank has. */
struct shard_span shard_vocab(const struct arch *a, int rank, int size);
int shard_most_vocab(const struct arch *a, int size);

/* A size of 0 counts as 1. */
struct shard_slice shard_hidden(const struct arch *a, size_t n_tokens, int rank, int size);
