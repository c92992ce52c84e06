#include "workers/kv.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "workers/batch.h"

/* --- pool ------------------------------------------------------------------------------------- */

struct kv_pool {
    uint32_t n_blocks, n_free;
    uint32_t *free;  // (n_free of n_blocks) the last one is handed out next
    uint32_t *count; // (n_blocks) references; 0: free
};

int kv_pool_create(struct kv_pool **out, uint32_t n_blocks, struct err *e)
{
    struct kv_pool *p = xcalloc(1, sizeof *p);
    p->n_blocks = p->n_free = n_blocks;
    p->free = malloc(n_blocks * sizeof *p->free + 1);
    p->count = calloc((size_t)n_blocks + 1, sizeof *p->count);
    if (p->free == NULL || p->count == NULL) {
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
        free(p->free);
        free(p->count);
        free(p);
    }
}

int64_t kv_pool_take(struct kv_pool *p)
{
    if (p->n_free == 0) {
        return -1;
    }
    uint32_t block = p->free[--p->n_free];
    p->count[block] = 1;
    return block;
}

void kv_pool_ref(struct kv_pool *p, uint32_t block)
{
    CHECK(block < p->n_blocks && p->count[block] > 0);
    p->count[block]++;
}

void kv_pool_unref(struct kv_pool *p, uint32_t block)
{
    CHECK(block < p->n_blocks && p->count[block] > 0);
    if (--p->count[block] == 0) {
        p->free[p->n_free++] = block;
    }
}

uint32_t kv_pool_free(const struct kv_pool *p)
{
    return p->n_free;
}

uint32_t kv_pool_size(const struct kv_pool *p)
{
    return p->n_blocks;
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
