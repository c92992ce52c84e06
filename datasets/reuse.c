#include "datasets/reuse.h"

#include "core/mem.h"
#include "model/token_ids.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MAX_EVENTS 100000
#define SEED       0

struct seen {          // a set of hashes
    uint64_t *v;       // (n_slots) 0: free
    size_t n, n_slots; // n_slots a power of two
};

static bool put(struct seen *s, uint64_t hash);

static void grow(struct seen *s)
{
    struct seen bigger = {.n_slots = s->n_slots > 0 ? 2 * s->n_slots : 1 << 16};
    bigger.v = xcalloc(bigger.n_slots, sizeof *bigger.v);
    for (size_t i = 0; i < s->n_slots; i++) {
        if (s->v[i] != 0) {
            put(&bigger, s->v[i]);
        }
    }
    free(s->v);
    *s = bigger;
}

/* Whether it was there before. */
static bool put(struct seen *s, uint64_t hash)
{
    hash |= hash == 0;
    if (2 * s->n >= s->n_slots) {
        grow(s);
    }
    size_t i = hash & (s->n_slots - 1);
    while (s->v[i] != 0 && s->v[i] != hash) {
        i = (i + 1) & (s->n_slots - 1);
    }
    if (s->v[i] == hash) {
        return true;
    }
    s->v[i] = hash;
    s->n++;
    return false;
}

struct tally {
    struct seen prompts, blocks;
    uint64_t n_requests, n_tokens, n_repeats, n_shared;
};

/* Each block's hash takes up that of the block before it: a match is a match of the whole prefix. */
static void count(struct tally *t, const int32_t *ids, uint32_t n)
{
    uint64_t chain = 0;
    bool is_shared = true;
    for (uint32_t at = 0; at + REUSE_BLOCK_TOKENS <= n; at += REUSE_BLOCK_TOKENS) {
        chain = XXH64(ids + at, REUSE_BLOCK_TOKENS * sizeof *ids, chain + 1);
        is_shared = put(&t->blocks, chain) && is_shared;
        t->n_shared += is_shared ? REUSE_BLOCK_TOKENS : 0;
    }
    t->n_repeats += put(&t->prompts, XXH64(ids, n * sizeof *ids, n));
    t->n_requests++;
    t->n_tokens += n;
}

/* Without ids, the text stands for them: one "token" per byte. */
static void count_text(struct tally *t, const struct prompt_text *text, struct token_ids *bytes)
{
    bytes->n = 0;
    for (size_t i = 0; i < text->json.len; i++) {
        token_ids_push(bytes, text->json.data[i]);
    }
    count(t, bytes->v, (uint32_t)bytes->n);
}

static void count_event(struct tally *t, const struct dataset *d, uint64_t i, struct token_ids *ids,
                        struct prompt_text *text)
{
    struct prompt p = {.n_turns = 1};
    for (uint32_t turn = 0; turn < p.n_turns; turn++) {
        dataset_get(d, SEED, i, turn, &p);
        if (dataset_is_estimated(d)) {
            dataset_text(d, SEED, i, &p, text);
            count_text(t, text, ids);
            continue;
        }
        if (ids->cap < p.n_in) {
            ids->cap = p.n_in;
            ids->v = xrealloc(ids->v, ids->cap * sizeof *ids->v);
        }
        count(t, dataset_ids(d, SEED, i, &p, ids->v), p.n_in);
    }
}

struct reuse reuse_measure(const struct dataset *d)
{
    struct tally t = {0};
    struct token_ids ids = {0};
    struct prompt_text text = {0};
    uint64_t n = dataset_n_typical(d);
    for (uint64_t i = 0; i < n && i < MAX_EVENTS; i++) {
        count_event(&t, d, i, &ids, &text);
    }
    token_ids_free(&ids);
    prompt_text_free(&text);
    free(t.prompts.v);
    free(t.blocks.v);
    return (struct reuse){
        .n_requests = t.n_requests,
        .n_tokens = t.n_tokens,
        .repeat_share = (double)t.n_repeats / (double)t.n_requests,
        .prefix_share = (double)t.n_shared / (double)t.n_tokens,
    };
}
