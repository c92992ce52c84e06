#include "workers/kv.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "core/mem.h"
#include "workers/batch.h"

#define NONE UINT32_MAX

/* --- pool ------------------------------------------------------------------------------------- */

/* What a block holds, where there is a cache. */
struct content {
    uint64_t parent, chain; // chain 0: nothing that can be found
    uint32_t next;          // in its bucket
    uint32_t older, newer;  // free blocks with content, by when they became free
    int32_t ids[BATCH_KV_BLOCK];
};

struct kv_pool {
    uint32_t n_blocks, n_free;
    uint32_t *free;  // (n_free of n_blocks) without content: the last one is handed out next
    uint32_t *count; // (n_blocks) references; 0: free
    struct content *contents;          // (n_blocks) NULL: no cache
    uint32_t *buckets, mask;           // (mask + 1) first block of each
    uint32_t oldest, newest, n_cached; // free blocks with content
    uint64_t last_chain;
};

static int create_cache(struct kv_pool *p)
{
    uint32_t n_buckets = 16;
    while (n_buckets < p->n_blocks && n_buckets < UINT32_MAX / 2) {
        n_buckets *= 2;
    }
    p->mask = n_buckets - 1;
    p->oldest = p->newest = NONE;
    p->contents = calloc((size_t)p->n_blocks + 1, sizeof *p->contents);
    p->buckets = malloc(n_buckets * sizeof *p->buckets);
    if (p->contents == NULL || p->buckets == NULL) {
        return -1;
    }
    memset(p->buckets, 0xFF, n_buckets * sizeof *p->buckets); // NONE
    return 0;
}

int kv_pool_create(struct kv_pool **out, uint32_t n_blocks, bool has_cache, struct err *e)
{
    struct kv_pool *p = xcalloc(1, sizeof *p);
    p->n_blocks = p->n_free = n_blocks;
    p->free = malloc(n_blocks * sizeof *p->free + 1);
    p->count = calloc((size_t)n_blocks + 1, sizeof *p->count);
    if (p->free == NULL || p->count == NULL || (has_cache && create_cache(p) != 0)) {
        kv_pool_destroy(p);
        return err_set(e, ERR_ENV, "no memory for the book-keeping of %u KV blocks", n_blocks);
    }
    for (uint32_t i = 0; i < n_blocks; i++) {
        p->free[i] = n_blocks - 1 - i; // block 0 first
    }
    *out = p;
    return 0;
}

void kv_pool_destroy(struct kv_pool *p)
{
    if (p != NULL) {
        free(p->contents);
        free(p->buckets);
        free(p->free);
        free(p->count);
        free(p);
    }
}

static uint32_t *bucket(const struct kv_pool *p, uint64_t parent, const int32_t *ids)
{
    uint64_t h = XXH3_64bits_withSeed(ids, BATCH_KV_BLOCK * sizeof *ids, parent);
    return &p->buckets[h & p->mask];
}

static void unlink_cached(struct kv_pool *p, uint32_t block)
{
    struct content *c = &p->contents[block];
    *(c->older == NONE ? &p->oldest : &p->contents[c->older].newer) = c->newer;
    *(c->newer == NONE ? &p->newest : &p->contents[c->newer].older) = c->older;
    p->n_cached--;
}

static void link_cached(struct kv_pool *p, uint32_t block)
{
    struct content *c = &p->contents[block];
    c->older = p->newest;
    c->newer = NONE;
    *(p->newest == NONE ? &p->oldest : &p->contents[p->newest].newer) = block;
    p->newest = block;
    p->n_cached++;
}

/* Forget what the block that has been free for longest holds, and hand it out. */
static uint32_t evict(struct kv_pool *p)
{
    uint32_t block = p->oldest;
    struct content *c = &p->contents[block];
    unlink_cached(p, block);
    uint32_t *at = bucket(p, c->parent, c->ids);
    while (*at != block) {
        at = &p->contents[*at].next;
    }
    *at = c->next;
    c->chain = 0;
    return block;
}

int64_t kv_pool_take(struct kv_pool *p)
{
    if (kv_pool_free(p) == 0) {
        return -1;
    }
    uint32_t block = p->n_free > 0 ? p->free[--p->n_free] : evict(p);
    p->count[block] = 1;
    return block;
}

void kv_pool_ref(struct kv_pool *p, uint32_t block)
{
    CHECK(block < p->n_blocks);
    if (p->count[block]++ == 0) {
        CHECK(p->contents != NULL && p->contents[block].chain != 0);
        unlink_cached(p, block);
    }
}

void kv_pool_unref(struct kv_pool *p, uint32_t block)
{
    CHECK(block < p->n_blocks && p->count[block] > 0);
    if (--p->count[block] > 0) {
        return;
    }
    if (p->contents != NULL && p->contents[block].chain != 0) {
        link_cached(p, block);
    } else {
        p->free[p->n_free++] = block;
    }
}

uint32_t kv_pool_free(const struct kv_pool *p)
{
    return p->n_free + p->n_cached;
}

uint32_t kv_pool_size(const struct kv_pool *p)
{
    return p->n_blocks;
}

bool kv_pool_in_use(const struct kv_pool *p, uint32_t block)
{
    return p->count[block] > 0;
}

int64_t kv_pool_find(const struct kv_pool *p, uint64_t *chain, const int32_t *ids)
{
    const struct content *c;
    for (uint32_t i = *bucket(p, *chain, ids); i != NONE; i = c->next) {
        c = &p->contents[i];
        if (c->parent == *chain && memcmp(c->ids, ids, sizeof c->ids) == 0) {
            *chain = c->chain;
            return i;
        }
    }
    return -1;
}

uint64_t kv_pool_keep(struct kv_pool *p, uint64_t chain, uint32_t block, const int32_t *ids)
{
    struct content *c = &p->contents[block];
    CHECK(p->count[block] > 0 && c->chain == 0);
    uint64_t known = chain;
    if (kv_pool_find(p, &known, ids) >= 0) {
        return known;
    }
    uint32_t *head = bucket(p, chain, ids);
    c->parent = chain;
    c->chain = ++p->last_chain;
    c->next = *head;
    memcpy(c->ids, ids, sizeof c->ids);
    *head = block;
    return c->chain;
}

/* --- tables ----------------------------------------------------------------------------------- */

int kv_tables_init(struct kv_tables *t, uint32_t n_slots, uint32_t max_blocks, struct err *e)
{
    *t = (struct kv_tables){.n_slots = n_slots, .max_blocks = max_blocks};
    t->blocks = calloc((size_t)n_slots * max_blocks + 1, sizeof *t->blocks);
    t->n = calloc((size_t)n_slots + 1, sizeof *t->n);
    t->seen = calloc((size_t)n_slots + 1, sizeof *t->seen);
    if (t->blocks == NULL || t->n == NULL || t->seen == NULL) {
        kv_tables_free(t);
        return err_set(e, ERR_ENV, "no memory for %u block tables of %u entries", n_slots,
                       max_blocks);
    }
    return 0;
}

void kv_tables_free(struct kv_tables *t)
{
    free(t->blocks);
    free(t->n);
    free(t->seen);
    *t = (struct kv_tables){0};
}

int kv_tables_check(struct kv_tables *t, const struct batch *b, struct err *e)
{
    t->turn++;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        if (r->slot >= t->n_slots || t->seen[r->slot] == t->turn) {
            return err_set(e, ERR_ENV, "batch row %u: slot %u is unknown or has a row already", i,
                           r->slot);
        }
        t->seen[r->slot] = t->turn;
        uint64_t n_blocks = (uint64_t)((r->flags & BATCH_BEGIN) ? 0 : t->n[r->slot]) + r->n_blocks;
        uint64_t end = (uint64_t)r->pos + r->n_tokens;
        if (n_blocks > t->max_blocks || end > n_blocks * BATCH_KV_BLOCK) {
            return err_set(e, ERR_ENV,
                           "batch row %u: position %llu of slot %u lies outside its %llu KV blocks",
                           i, (unsigned long long)end, r->slot, (unsigned long long)n_blocks);
        }
    }
    return 0;
}

void kv_tables_apply(struct kv_tables *t, const struct batch *b)
{
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        CHECK(r->slot < t->n_slots);
        uint32_t *n = &t->n[r->slot];
        if (r->flags & BATCH_BEGIN) {
            *n = 0;
        }
        CHECK(r->n_blocks <= t->max_blocks - *n);
        memcpy(t->blocks + (size_t)r->slot * t->max_blocks + *n, b->blocks + r->first_block,
               r->n_blocks * sizeof *t->blocks);
        *n += r->n_blocks;
    }
}
