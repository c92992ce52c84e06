/* The largest batch that there can be, once before traffic: what is loaded or taken at first use is then there. */
#include "workers/cuda/forward_impl.h"

#include <stdlib.h>

#include "core/mem.h"

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* As many rows as can be, all but the first with one token, the first with what is left and fits a slot. */
static void fill(const struct forward *f, struct batch *b, struct kv_tables *t)
{
    const struct forward_config *c = &f->cfg;
    const uint32_t n = least(least(c->max_rows, c->n_slots), c->max_tokens);
    const uint32_t most = least(f->positions, c->max_tokens - (n - 1));
    for (uint32_t i = 0; i < n; i++) {
        struct batch_row *r = &b->rows[b->n_rows++];
        *r = (struct batch_row){
            .slot = i,
            .flags = BATCH_BEGIN | BATCH_SAMPLE,
            .first = b->n_tokens,
            .n_tokens = i == 0 ? most : 1,
            .first_block = b->n_blocks,
        };
        r->n_blocks = (r->n_tokens + BATCH_KV_BLOCK - 1) / BATCH_KV_BLOCK;
        for (uint32_t k = 0; k < r->n_blocks; k++, b->n_blocks++) {
            b->blocks[b->n_blocks] = b->n_blocks;
        }
        b->n_tokens += r->n_tokens;
    }
    kv_tables_apply(t, b);
}

/* The same again as single tokens. */
static void keep_single(struct batch *b)
{
    for (uint32_t i = 0; i < b->n_rows; i++) {
        b->rows[i].first = i;
        b->rows[i].n_tokens = 1;
        b->rows[i].n_blocks = 0;
    }
    b->n_tokens = b->n_rows;
}

static int run_one(struct forward *f, const struct forward_io *io, struct err *e)
{
    return forward_run(f, io, FORWARD_SETUP_NS, e);
}

/* Both kinds, then the second as a graph. */
static int run_both(struct forward *f, struct batch *b, const struct kv_tables *t, struct err *e)
{
    const size_t n_bytes = arch_carried_bytes(f->arch, f->cfg.max_tokens);
    void *in = xcalloc(n_bytes, 1), *out = xcalloc(n_bytes, 1);
    int32_t *ids = xcalloc(f->cfg.max_rows, sizeof *ids);
    const struct forward_io io = {.batch = b, .tables = t, .in = in, .out = out, .ids = ids};
    int rc = run_one(f, &io, e);
    keep_single(b);
    rc = rc || run_one(f, &io, e) || forward_graphs_record(f, e) || run_one(f, &io, e) ? -1 : 0;
    f->is_warm = rc == 0;
    free(in);
    free(out);
    free(ids);
    return rc;
}

int forward_profile(struct forward *f, struct err *e)
{
    const struct forward_config *c = &f->cfg;
    const struct batch_limits limits = {
        .max_rows = c->max_rows,
        .max_tokens = c->max_tokens,
        .max_blocks = batch_max_blocks(c->max_rows, c->max_tokens),
        .n_stages = 1,
    };
    struct batch *b;
    struct kv_tables t = {0};
    if (batch_create(&b, &limits, e)) {
        return -1;
    }
    int rc = kv_tables_init(&t, c->n_slots, c->slot_blocks, e);
    if (rc == 0) {
        fill(f, b, &t);
        rc = forward_take_cache(f, limits.max_blocks, e) || run_both(f, b, &t, e) ? -1 : 0;
    }
    forward_give_cache(f);
    kv_tables_free(&t);
    batch_destroy(b);
    return rc;
}
