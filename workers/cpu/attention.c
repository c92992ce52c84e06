#include "workers/cpu/attention.h"

#include "workers/batch.h"

#include <math.h>
#include <string.h>

#define CHUNK        128 // positions between two rescalings
#define CHUNK_BLOCKS (CHUNK / BATCH_KV_BLOCK)
_Static_assert(BATCH_KV_BLOCK == MATRIX_PANEL, "a KV block is one panel of keys");

/* The state of a call; queries are ordered (token, head). */
struct run {
    const struct kernels *k;
    const struct attention *a, *next;
    int n_queries, padded_dim;
    float *q;      // (n_queries, head_dim) scaled
    float *scores; // (n_queries, CHUNK)
    float *acc;    // (n_queries, padded_dim)
    float largest[ATTENTION_MAX_QUERIES], sum[ATTENTION_MAX_QUERIES];
};

size_t attention_block_values(int head_dim)
{
    return (size_t)(head_dim + matrix_padded(head_dim)) * BATCH_KV_BLOCK;
}

size_t attention_scratch_values(int head_dim)
{
    return (size_t)ATTENTION_MAX_QUERIES * (size_t)(2 * matrix_padded(head_dim) + CHUNK);
}

void attention_store_key(float *block, int at, int head_dim, const float *key)
{
    for (int d = 0; d < head_dim; d++) {
        block[d * BATCH_KV_BLOCK + at] = key[d];
    }
}

void attention_store_value(float *block, int at, int head_dim, const float *value)
{
    float *values = block + (size_t)head_dim * BATCH_KV_BLOCK + (size_t)at * MATRIX_PANEL;
    for (int d = 0; d < head_dim; d += MATRIX_PANEL) {
        int n = head_dim - d < MATRIX_PANEL ? head_dim - d : MATRIX_PANEL;
        memcpy(values + (size_t)d * BATCH_KV_BLOCK, value + d, (size_t)n * sizeof *value);
    }
}

static const float *block_at(const struct attention *a, int block)
{
    return a->kv + (size_t)a->blocks[block] * a->block_values;
}

static const float *values_at(const struct attention *a, int block)
{
    return block_at(a, block) + (size_t)a->head_dim * BATCH_KV_BLOCK;
}

static void begin(struct run *r, float *scratch)
{
    const struct attention *a = r->a;
    r->q = scratch;
    r->scores = r->q + (size_t)r->n_queries * (size_t)r->padded_dim;
    r->acc = r->scores + (size_t)r->n_queries * CHUNK;
    for (int i = 0; i < r->n_queries; i++) {
        int token = i / a->n_heads, head = i % a->n_heads;
        const float *from = a->q + (size_t)token * a->q_ld + (size_t)(head * a->head_dim);
        for (int d = 0; d < a->head_dim; d++) {
            r->q[i * a->head_dim + d] = from[d] * a->scale;
        }
        r->largest[i] = -INFINITY;
        r->sum[i] = 0;
    }
    memset(r->acc, 0, (size_t)(r->n_queries * r->padded_dim) * sizeof *r->acc);
}

/* Positions from `from` on, at most n, that a token sees. */
static int seen(const struct attention *a, int token, int from, int n)
{
    int count = a->pos + token + 1 - from;
    return count < 0 ? 0 : count > n ? n : count;
}

/* Scores against whole blocks: lanes past a query's last position are ignored by what follows. */
static void score(const struct run *r, int from, int n_blocks)
{
    const void *keys[CHUNK_BLOCKS], *values[CHUNK_BLOCKS];
    for (int b = 0; b < n_blocks; b++) {
        keys[b] = block_at(r->a, from / BATCH_KV_BLOCK + b);
        values[b] = values_at(r->a, from / BATCH_KV_BLOCK + b);
    }
    const struct kernels_tile t = {
        .panels = keys,
        .ahead = values,
        .dtype = ARCH_F32,
        .n_panels = n_blocks,
        .n_segments = 1,
        .m = r->n_queries,
        .k = r->a->head_dim,
        .x = {KERNELS_F32, r->q, (size_t)r->a->head_dim * sizeof *r->q},
        .y = r->scores,
        .ldy = CHUNK,
        .mode = KERNELS_SET,
    };
    kernels_tiles(r->k, &t);
}

/* Turn a query's scores of this chunk into weights and rescale what it has summed so far. */
static void soften(struct run *r, int query, int count)
{
    float *scores = r->scores + (size_t)query * CHUNK;
    float largest = r->k->max(scores, count);
    if (largest > r->largest[query]) {
        float shrink = expf(r->largest[query] - largest);
        float *acc = r->acc + (size_t)(query * r->padded_dim);
        for (int d = 0; d < r->padded_dim; d++) {
            acc[d] *= shrink;
        }
        r->sum[query] *= shrink;
        r->largest[query] = largest;
    }
    r->sum[query] += r->k->exp_sum(scores, count, r->largest[query]);
}

/* The keys to fetch while block `b` is summed: the next chunk's, or those that the next call begins with. */
static const float *keys_after(const struct run *r, int b)
{
    const struct attention *a = r->a;
    const int later = b + CHUNK_BLOCKS, last = (a->pos + a->n_tokens - 1) / BATCH_KV_BLOCK;
    if (later <= last) {
        return block_at(a, later);
    }
    const int in_chunk = b % CHUNK_BLOCKS;
    if (r->next && in_chunk <= (r->next->pos + r->next->n_tokens - 1) / BATCH_KV_BLOCK) {
        return block_at(r->next, in_chunk);
    }
    return block_at(a, b);
}

/* Positions of a run of blocks: `n` of each. */
struct stretch {
    int first, n_blocks, n;
};

/* Add the values of a stretch to queries first .. first + m - 1. */
static void add_values(const struct run *r, struct stretch blocks, int first, int m)
{
    enum {
        MAX_PANELS = ATTENTION_MAX_DIM / MATRIX_PANEL,
    };
    const void *panels[CHUNK_BLOCKS * MAX_PANELS], *ahead[CHUNK_BLOCKS * MAX_PANELS];
    const size_t n_panels = (size_t)r->padded_dim / MATRIX_PANEL;
    const size_t panel_values = BATCH_KV_BLOCK * MATRIX_PANEL;
    for (int b = 0; b < blocks.n_blocks; b++) {
        const float *values = values_at(r->a, blocks.first + b);
        const float *keys = keys_after(r, blocks.first + b);
        for (size_t p = 0; p < n_panels; p++) {
            panels[(size_t)b * n_panels + p] = values + p * panel_values;
            ahead[(size_t)b * n_panels + p] = keys + p * panel_values;
        }
    }
    const size_t in_chunk = (size_t)(blocks.first % CHUNK_BLOCKS) * BATCH_KV_BLOCK;
    const struct kernels_tile t = {
        .panels = panels,
        .ahead = ahead,
        .step = n_panels,
        .dtype = ARCH_F32,
        .n_panels = (int)n_panels,
        .n_segments = blocks.n_blocks,
        .m = m,
        .k = blocks.n,
        .x = {KERNELS_F32, r->scores + (size_t)first * CHUNK + in_chunk, CHUNK * sizeof *r->scores},
        .y = r->acc + (size_t)(first * r->padded_dim),
        .ldy = (size_t)r->padded_dim,
        .mode = KERNELS_ONTO,
    };
    kernels_tiles(r->k, &t);
}

static void sum_chunk(const struct run *r, int from, int n_blocks)
{
    const struct attention *a = r->a;
    const int first = from / BATCH_KV_BLOCK;
    const int n_full = seen(a, 0, from, CHUNK) / BATCH_KV_BLOCK; // that all queries see whole
    if (n_full > 0) {
        add_values(r, (struct stretch){first, n_full, BATCH_KV_BLOCK}, 0, r->n_queries);
    }
    for (int b = first + n_full; b < first + n_blocks; b++) {
        for (int t = 0; t < a->n_tokens; t++) { // the causal edge: each token has its own end
            int n = seen(a, t, b * BATCH_KV_BLOCK, BATCH_KV_BLOCK);
            if (n > 0) {
                add_values(r, (struct stretch){b, 1, n}, t * a->n_heads, a->n_heads);
            }
        }
    }
}

static void finish(const struct run *r)
{
    const struct attention *a = r->a;
    for (int i = 0; i < r->n_queries; i++) {
        int token = i / a->n_heads, head = i % a->n_heads;
        float *out = a->out + (size_t)token * a->out_ld + (size_t)(head * a->head_dim);
        const float *acc = r->acc + (size_t)(i * r->padded_dim);
        float inverse = 1.0f / r->sum[i];
        for (int d = 0; d < a->head_dim; d++) {
            out[d] = acc[d] * inverse;
        }
    }
}

void attention_run(const struct kernels *k, const struct attention *a, const struct attention *next,
                   float *scratch)
{
    struct run r = {
        .k = k,
        .a = a,
        .next = next,
        .n_queries = a->n_tokens * a->n_heads,
        .padded_dim = matrix_padded(a->head_dim),
    };
    CHECK(r.n_queries <= ATTENTION_MAX_QUERIES && a->head_dim <= ATTENTION_MAX_DIM);
    begin(&r, scratch);
    int end = a->pos + a->n_tokens; // of what the last token sees
    for (int from = 0; from < end; from += CHUNK) {
        int n = end - from < CHUNK ? end - from : CHUNK;
        int n_blocks = (n + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
        score(&r, from, n_blocks);
        for (int i = 0; i < r.n_queries; i++) {
            int count = seen(a, i / a->n_heads, from, CHUNK);
            if (count > 0) {
                soften(&r, i, count);
            }
        }
        sum_chunk(&r, from, n_blocks);
    }
    finish(&r);
}
