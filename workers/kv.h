/*
 * Paged KV cache book-keeping: a pool of reference-counted blocks of 16 tokens (the leader's), and
 * the block table of every scheduler slot (each stage's). No tensor data lives here. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

struct kv_pool;

int kv_pool_create(struct kv_pool **out, uint32_t n_blocks, struct err *e) ERR_CHECKED;
void kv_pool_destroy(struct kv_pool *p);

/* A free block with reference count 1, or -1 when none is left. Freed blocks are reused last-in first-out. */
int64_t kv_pool_take(struct kv_pool *p);
void kv_pool_ref(struct kv_pool *p, uint32_t block);
void kv_pool_unref(struct kv_pool *p, uint32_t block); // free at 0
uint32_t kv_pool_free(const struct kv_pool *p);
uint32_t kv_pool_size(const struct kv_pool *p);

/* Block tables of all slots of one stage. */
struct kv_tables {
    uint32_t n_slots, max_blocks; // per slot
    uint32_t *blocks;             // (n_slots, max_blocks)
    uint32_t *n;                  // (n_slots) blocks in use
    uint64_t *seen;               // (n_slots) turn of kv_tables_check that last met the slot
    uint64_t turn;
};

int kv_tables_init(struct kv_tables *t, uint32_t n_slots, uint32_t max_blocks,
                   struct err *e) ERR_CHECKED;
void kv_tables_free(struct kv_tables *t);
struct batch;
/*
 * Whether a batch from another rank may be applied: each slot at most once, a new request at position
 * 0, an old one inside the blocks it has or brings, no table longer than it can be.
 */
int kv_tables_check(struct kv_tables *t, const struct batch *b, struct err *e) ERR_CHECKED;
/* Apply a batch's rows: BATCH_BEGIN empties the slot's table, new blocks are appended. */
void kv_tables_apply(struct kv_tables *t, const struct batch *b);
