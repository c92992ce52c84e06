/* What the host says of a batch: its tokens and where they stand, and who attends to what. */
#include "workers/cuda/forward_impl.h"

#include <string.h>

#include "core/mem.h"

/* --- a slate -------------------------------------------------------------------------------------- */

static size_t aligned(size_t n)
{
    return (n + 255) / 256 * 256;
}

int forward_slate_take(struct forward *f, struct forward_slate *s, uint32_t max_tokens,
                       struct err *e)
{
    const size_t each = aligned(max_tokens * sizeof(uint32_t));
    void *host, *device;
    s->max_tokens = max_tokens;
    s->max_rows = f->cfg.max_rows < max_tokens ? f->cfg.max_rows : max_tokens;
    attention_work_limits(&s->limits, &f->shape, s->max_rows, max_tokens);
    s->pos_at = each;
    s->row_at = 2 * each;
    s->bytes = 3 * each;
    for (int i = 0; i < f->n_windows; i++) {
        s->work_at[i] = s->bytes;
        s->bytes += aligned(s->limits.bytes);
    }
    if (gpu_take_host(f->gpu, s->bytes, "a batch's tokens", &host, e) ||
        gpu_take(f->gpu, s->bytes, "a batch's tokens", &device, e)) {
        return -1;
    }
    s->host = host;
    s->device = device;
    memset(host, 0, s->bytes);
    return 0;
}

static uint32_t *host_part(const struct forward_slate *s, size_t at)
{
    return (uint32_t *)(void *)(s->host + at);
}

static void fill_up(struct forward *f, uint32_t from)
{
    struct forward_slate *s = f->slate;
    for (uint32_t i = from; i < (uint32_t)f->n; i++) {
        host_part(s, 0)[i] = 0;
        host_part(s, s->pos_at)[i] = 0;
        host_part(s, s->row_at)[i] = CACHE_NO_ROW;
    }
}

/* A graph's grids are those of the most work that its rows can make. */
static void pad_work(struct forward *f)
{
    struct attention_limits l;
    attention_work_limits(&l, &f->shape, (uint32_t)f->n, (uint32_t)f->n);
    for (int i = 0; i < f->n_windows; i++) {
        attention_work_pad(&f->slate->work[i], l.max_small, l.max_large, l.max_merges);
    }
}

static void fill_work(struct forward *f, uint32_t n_rows)
{
    struct forward_slate *s = f->slate;
    for (int i = 0; i < f->n_windows; i++) {
        attention_work_fill(&s->work[i], s->host + s->work_at[i], &s->limits, &f->shape,
                            f->windows[i], f->rows, n_rows);
    }
    if (s == &f->single) {
        pad_work(f);
    }
}

void forward_slate_fill(struct forward *f)
{
    struct forward_slate *s = f->slate;
    const struct batch *b = f->io->batch;
    memcpy(s->host, b->tokens, b->n_tokens * sizeof *b->tokens);
    uint32_t *pos = host_part(s, s->pos_at), *row = host_part(s, s->row_at);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        f->rows[i] = (struct attention_row){r->first, r->n_tokens, r->pos, r->slot};
        for (uint32_t t = 0; t < r->n_tokens; t++) {
            pos[r->first + t] = r->pos + t;
            row[r->first + t] = r->slot;
        }
    }
    fill_up(f, b->n_tokens);
    fill_work(f, b->n_rows);
}

void forward_slate_pad(struct forward *f)
{
    fill_up(f, 0);
    fill_work(f, 0);
}

int forward_slate_queue(struct forward *f, struct err *e)
{
    return gpu_copy_in(f->gpu, f->slate->device, f->slate->host, f->slate->bytes, e);
}

/* --- block tables --------------------------------------------------------------------------------- */

int forward_slate_queue_entries(struct forward *f, struct err *e)
{
    const struct batch *b = f->io->batch;
    const struct kv_tables *t = f->io->tables;
    struct tables_entry *entries = f->staged.entries;
    uint32_t n = 0;
    CHECK(t->max_blocks <= f->cfg.slot_blocks && t->n_slots <= f->cfg.n_slots);
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        const uint32_t end = t->n[r->slot];
        for (uint32_t k = end - r->n_blocks; k < end; k++) {
            CHECK(n < f->max_entries);
            entries[n++] = (struct tables_entry){
                .at = r->slot * f->cfg.slot_blocks + k,
                .block = t->blocks[(size_t)r->slot * t->max_blocks + k],
            };
        }
    }
    if (n == 0) {
        return 0;
    }
    if (gpu_copy_in(f->gpu, f->room.entries, entries, n * sizeof *entries, e)) {
        return -1;
    }
    const struct tables_entries all = {.n = n, .v = f->room.entries, .tables = f->room.tables};
    tables_queue(&all, gpu_stream(f->gpu));
    return gpu_launched(f->gpu, "block tables", e);
}

/* --- experts that are drawn ----------------------------------------------------------------------- */

static void draw_layer(struct forward *f, int layer, int32_t *out)
{
    const struct batch *b = f->io->batch;
    const struct arch *a = f->arch;
    const int top_k = a->moe.top_k;
    for (uint32_t i = 0; i < b->n_rows; i++) {
        const struct batch_row *r = &b->rows[i];
        for (uint32_t t = 0; t < r->n_tokens; t++) {
            const uint32_t at = r->first + t;
            const struct router_place place = {
                .layer = layer, .token = b->tokens[at], .pos = r->pos + t};
            router_draw(a, &f->cfg.routing, &place, out + (size_t)at * (size_t)top_k);
        }
    }
    for (uint32_t i = b->n_tokens; i < (uint32_t)f->n; i++) {
        for (int k = 0; k < top_k; k++) {
            out[(size_t)i * (size_t)top_k + (size_t)k] = k;
        }
    }
}

int forward_slate_queue_drawn(struct forward *f, struct err *e)
{
    const struct layers_part *part = &f->cfg.part;
    const size_t top_k = (size_t)f->arch->moe.top_k, each = f->cfg.max_tokens * top_k;
    for (int i = 0; f->room.drawn && i < part->n_layers; i++) {
        const int layer = part->first_layer + i;
        int32_t *out = f->staged.drawn + (size_t)i * each;
        if (!arch_is_moe(f->arch, layer)) {
            continue;
        }
        draw_layer(f, layer, out);
        if (gpu_copy_in(f->gpu, f->room.drawn + (size_t)i * each, out,
                        (size_t)f->n * top_k * sizeof *out, e)) {
            return -1;
        }
    }
    return 0;
}
