#include "workers/cpu/attention.h"

#include "workers/batch.h"

#include <math.h>
#include <string.h>

#define CHUNK        128 // positions between two rescalings
#define CHUNK_BLOCKS (CHUNK / BATCH_KV_BLOCK)

/* The state of a call; queries are ordered (token, head). */
struct run {
    const struct kernels *k;
    const struct attention *a, *next;
    int n_queries, key_dim, padded_dim; // of values
    float *q;                           // (n_queries, key_dim) scaled
    float *scores;                      // (n_queries, CHUNK)
    float *acc;                         // (n_queries, padded_dim)
    float *keys;                        // (CHUNK_BLOCKS, cache_keys_floats)
    float *values;                      // (CHUNK_BLOCKS, cache_values_floats)
    float largest[ATTENTION_MAX_QUERIES], sum[ATTENTION_MAX_QUERIES];
    // of the chunk at hand: its first position, its blocks that some query sees, their panels
    int from, first_block, end_block;
    const float *keys_at[CHUNK_BLOCKS], *values_at[CHUNK_BLOCKS];
};

/* Positions first .. end - 1. */
struct positions {
    int first, end;
};

size_t attention_scratch_values(const struct cache *c)
{
    const size_t of_query =
        (size_t)(matrix_padded(c->key_dim) + CHUNK + matrix_padded(c->value_dim));
    return ATTENTION_MAX_QUERIES * of_query +
           CHUNK_BLOCKS * (cache_keys_floats(c) + cache_values_floats(c));
}

static const char *block_at(const struct attention *a, int block)
{
    return a->kv + (size_t)a->blocks[block] * a->block_bytes;
}

/* Block b of the chunk at hand. */
static const char *chunk_block(const struct run *r, int b)
{
    return block_at(r->a, r->from / BATCH_KV_BLOCK + b);
}

/* What a token sees: from the window's edge to itself. */
static struct positions seen(const struct attention *a, int token)
{
    const int end = a->pos + token + 1, first = a->layer.window > 0 ? end - a->layer.window : 0;
    return (struct positions){first > 0 ? first : 0, end};
}

/* The part of it in the chunk, counted from the chunk's beginning: whole blocks in front. */
static struct positions seen_in_chunk(const struct run *r, int token)
{
    const struct positions s = seen(r->a, token);
    const int first = s.first / BATCH_KV_BLOCK * BATCH_KV_BLOCK - r->from, end = s.end - r->from;
    return (struct positions){first > 0 ? first : 0, end < CHUNK ? end : CHUNK};
}

static void begin(struct run *r, float *scratch)
{
    const struct attention *a = r->a;
    r->q = scratch;
    r->scores = r->q + (size_t)r->n_queries * (size_t)matrix_padded(r->key_dim);
    r->acc = r->scores + (size_t)r->n_queries * CHUNK;
    r->keys = r->acc + (size_t)r->n_queries * (size_t)r->padded_dim;
    r->values = r->keys + CHUNK_BLOCKS * cache_keys_floats(a->cache);
    for (int i = 0; i < r->n_queries; i++) {
        int token = i / a->n_heads, head = i % a->n_heads;
        const float *from = a->q + (size_t)token * a->q_ld + (size_t)head * a->q_step;
        for (int d = 0; d < r->key_dim; d++) {
            r->q[i * r->key_dim + d] = from[d] * a->layer.scale;
        }
        // A sink is a score whose value is nothing.
        r->largest[i] = a->sinks ? a->sinks[head] : -INFINITY;
        r->sum[i] = a->sinks ? 1 : 0;
    }
    memset(r->acc, 0, (size_t)(r->n_queries * r->padded_dim) * sizeof *r->acc);
}

/* Scores against whole blocks: lanes outside of what a query sees are ignored by what follows. */
static void score(struct run *r)
{
    const struct cache *c = r->a->cache;
    const void *keys[CHUNK_BLOCKS], *ahead[CHUNK_BLOCKS];
    const int first = r->first_block;
    for (int b = first; b < r->end_block; b++) {
        const char *block = chunk_block(r, b);
        r->keys_at[b] = cache_keys(c, block, r->keys + (size_t)b * cache_keys_floats(c));
        keys[b] = r->keys_at[b];
        ahead[b] = block + c->values_at;
    }
    const struct kernels_tile t = {
        .panels = keys + first,
        .ahead = (cache_keys_floats(c) > 0 ? keys : ahead) + first,
        .dtype = ARCH_F32,
        .n_panels = r->end_block - first,
        .n_segments = 1,
        .m = r->n_queries,
        .k = r->key_dim,
        .x = {.form = KERNELS_F32, .data = r->q, .stride = (size_t)r->key_dim * sizeof *r->q},
        .y = r->scores + (size_t)first * BATCH_KV_BLOCK,
        .ldy = CHUNK,
        .mode = KERNELS_SET,
    };
    kernels_tiles(r->k, &t);
}

/* Scores or weights of a query, times the factors of the stored keys or values. */
static void apply_factors(const struct run *r, float *x, struct positions s,
                          const float *(*factors_of)(const struct cache *, const void *))
{
    for (int b = s.first / BATCH_KV_BLOCK; b * BATCH_KV_BLOCK < s.end; b++) {
        const float *factors = factors_of(r->a->cache, chunk_block(r, b));
        for (int j = 0; factors && j < BATCH_KV_BLOCK; j++) {
            x[b * BATCH_KV_BLOCK + j] *= factors[j];
        }
    }
}

/* What one query sees of the chunk's scores: factors, cap and mask. */
static void shape_scores(const struct run *r, float *scores, struct positions s, int token)
{
    apply_factors(r, scores, s, cache_key_factors);
    if (r->a->layer.softcap > 0) {
        r->k->softcap(scores + s.first, s.end - s.first, r->a->layer.softcap);
    }
    const int unseen = seen(r->a, token).first - r->from;
    for (int i = s.first; i < unseen; i++) { // less than a block
        scores[i] = -INFINITY;
    }
}

/* Turn a query's scores of this chunk into weights and rescale what it has summed so far. */
static void soften(struct run *r, int query)
{
    const int token = query / r->a->n_heads;
    const struct positions s = seen_in_chunk(r, token);
    if (s.first >= s.end) {
        return;
    }
    float *scores = r->scores + (size_t)query * CHUNK;
    shape_scores(r, scores, s, token);
    float largest = r->k->max(scores + s.first, s.end - s.first);
    if (largest > r->largest[query]) {
        float shrink = expf(r->largest[query] - largest);
        float *acc = r->acc + (size_t)(query * r->padded_dim);
        for (int d = 0; d < r->padded_dim; d++) {
            acc[d] *= shrink;
        }
        r->sum[query] *= shrink;
        r->largest[query] = largest;
    }
    r->sum[query] += r->k->exp_sum(scores + s.first, s.end - s.first, r->largest[query]);
    apply_factors(r, scores, s, cache_value_factors);
}

/* The keys to fetch while block `b` is summed: the next chunk's, or those that the next call begins with. */
static const char *keys_after(const struct run *r, int b)
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

/* A run of the chunk's blocks: `n` positions of each. */
struct stretch {
    int first, n_blocks, n;
};

/* Add the values of a stretch to queries first .. first + m - 1. */
static void add_values(const struct run *r, struct stretch s, int first, int m)
{
    enum {
        MAX_PANELS = ATTENTION_MAX_DIM / MATRIX_PANEL,
    };
    const void *panels[CHUNK_BLOCKS * MAX_PANELS], *ahead[CHUNK_BLOCKS * MAX_PANELS];
    const size_t n_panels = (size_t)r->padded_dim / MATRIX_PANEL;
    const size_t panel_values = BATCH_KV_BLOCK * MATRIX_PANEL;
    const bool in_place = cache_values_floats(r->a->cache) == 0;
    for (int b = 0; b < s.n_blocks; b++) {
        const float *values = r->values_at[s.first + b];
        const char *keys = keys_after(r, r->from / BATCH_KV_BLOCK + s.first + b);
        for (size_t p = 0; p < n_panels; p++) {
            const size_t i = (size_t)b * n_panels + p;
            panels[i] = values + p * panel_values;
            ahead[i] = in_place ? keys + p * panel_values * sizeof(float) : panels[i];
        }
    }
    const float *weights = r->scores + (size_t)first * CHUNK + (size_t)s.first * BATCH_KV_BLOCK;
    const struct kernels_tile t = {
        .panels = panels,
        .ahead = ahead,
        .step = n_panels,
        .dtype = ARCH_F32,
        .n_panels = (int)n_panels,
        .n_segments = s.n_blocks,
        .m = m,
        .k = s.n,
        .x = {.form = KERNELS_F32, .data = weights, .stride = CHUNK * sizeof *weights},
        .y = r->acc + (size_t)(first * r->padded_dim),
        .ldy = (size_t)r->padded_dim,
        .mode = KERNELS_ONTO,
    };
    kernels_tiles(r->k, &t);
}

/* Blocks first .. end - 1 of the chunk, token by token: each has its own edges. */
static void add_edges(const struct run *r, int first, int end)
{
    const struct attention *a = r->a;
    for (int b = first; b < end; b++) {
        for (int t = 0; t < a->n_tokens; t++) {
            const struct positions s = seen_in_chunk(r, t);
            const int left = s.end - b * BATCH_KV_BLOCK;
            if (b * BATCH_KV_BLOCK >= s.first && left > 0) {
                const int n = left < BATCH_KV_BLOCK ? left : BATCH_KV_BLOCK;
                add_values(r, (struct stretch){b, 1, n}, t * a->n_heads, a->n_heads);
            }
        }
    }
}

static int within(int x, int least, int most)
{
    return x < least ? least : x > most ? most : x;
}

static void sum_chunk(struct run *r)
{
    const struct attention *a = r->a;
    const struct cache *c = a->cache;
    const int first = r->first_block, end = r->end_block;
    for (int b = first; b < end; b++) {
        r->values_at[b] = cache_values(c, chunk_block(r, b), r->keys_at[b],
                                       r->values + (size_t)b * cache_values_floats(c));
    }
    // What all queries see whole: from the last token's first block to the first token's last one.
    const int last_first = seen_in_chunk(r, a->n_tokens - 1).first / BATCH_KV_BLOCK;
    const int whole = within(last_first, first, end);
    const int edge = within(seen_in_chunk(r, 0).end / BATCH_KV_BLOCK, whole, end);
    add_edges(r, first, whole);
    if (edge > whole) {
        add_values(r, (struct stretch){whole, edge - whole, BATCH_KV_BLOCK}, 0, r->n_queries);
    }
    add_edges(r, edge, end);
}

static void finish(const struct run *r)
{
    const struct attention *a = r->a;
    for (int i = 0; i < r->n_queries; i++) {
        int token = i / a->n_heads, head = i % a->n_heads;
        float *out = a->out + (size_t)token * a->out_ld + (size_t)head * a->out_step;
        const float *acc = r->acc + (size_t)(i * r->padded_dim);
        float inverse = 1.0f / r->sum[i];
        for (int d = 0; d < a->cache->value_dim; d++) {
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
        .key_dim = a->cache->key_dim,
        .padded_dim = matrix_padded(a->cache->value_dim),
    };
    CHECK(r.n_queries <= ATTENTION_MAX_QUERIES && r.key_dim <= ATTENTION_MAX_DIM &&
          r.padded_dim <= ATTENTION_MAX_DIM);
    begin(&r, scratch);
    const int first = seen(a, 0).first, end = a->pos + a->n_tokens; // what any token sees
    for (r.from = first / CHUNK * CHUNK; r.from < end; r.from += CHUNK) {
        const int n = end - r.from < CHUNK ? end - r.from : CHUNK;
        r.first_block = first > r.from ? (first - r.from) / BATCH_KV_BLOCK : 0;
        r.end_block = (n + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
        score(&r);
        for (int i = 0; i < r.n_queries; i++) {
            soften(&r, i);
        }
        sum_chunk(&r);
    }
    finish(&r);
}
