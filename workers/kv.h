/*
 * Paged KV cache book-keeping: a pool of reference-counted blocks of 16 tokens (the leader's), with a
 * prefix cache where it is wanted, and the block table of every scheduler slot (each stage's). No
 * tensor data lives here. Pure.
 *
 * The prefix cache knows what a full block holds by a chain: what the block before it holds (a number
 * that is never given twice), and its own 16 token ids, compared in full: no collision can mix two
 * prompts up. A block keeps its content when it becomes free and is handed out after all those without,
 * the longest free one first.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define KV_CHAIN_START 0 // what lies before a request's first block

struct kv_pool;

int kv_pool_create(struct kv_pool **out, uint32_t n_blocks, bool has_cache,
                   struct err *e) ERR_CHECKED;
void kv_pool_destroy(struct kv_pool *p);

/* A free block with reference count 1, or -1 when none is left. Freed blocks are reused last-in first-out. */
int64_t kv_pool_take(struct kv_pool *p);
void kv_pool_ref(struct kv_pool *p, uint32_t block);   // in use, or free with content
void kv_pool_unref(struct kv_pool *p, uint32_t block); // free at 0
uint32_t kv_pool_free(const struct kv_pool *p);
uint32_t kv_pool_size(const struct kv_pool *p);
bool kv_pool_in_use(const struct kv_pool *p, uint32_t block);

/*
 * A block in use has been computed in full: ids (BATCH_KV_BLOCK) behind `chain`. Returns the chain up to
 * and with it. Where another block holds the same already, that one stays the one to be found.
 */
uint64_t kv_pool_keep(struct kv_pool *p, uint64_t chain, uint32_t block, const int32_t *ids);
/* The block that holds ids (BATCH_KV_BLOCK) behind *chain, and *chain with it; -1: none. Takes no reference. */
int64_t kv_pool_find(const struct kv_pool *p, uint64_t *chain, const int32_t *ids);

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
 * Whether a batch from another rank may be applied: each slot at most once, a new request behind
 * whole blocks that it brings, an old one inside the blocks it has or brings, no table longer than it can be.
 */
int kv_tables_check(struct kv_tables *t, const struct batch *b, struct err *e) ERR_CHECKED;
/* Apply a batch's rows: BATCH_BEGIN empties the slot's table, new blocks are appended. */
void kv_tables_apply(struct kv_tables *t, const struct batch *b);
