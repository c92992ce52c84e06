/* Which tile of queries meets which part of its context: attention.h. */
#include "workers/cuda/attention.h"

#include "core/err.h"

#include <string.h>

#define SMALL_ROWS      16
#define WIDE_ROWS       8
#define LARGE_ROWS      128
#define LARGE_ROWS_DEEP 64 // of more than 128 dims

/* Blocks of threads that a launch should have per multiprocessor, and a part's least positions. */
#define SMALL_PER_SM 4
#define LARGE_PER_SM 2
#define LEAST_PART   128
#define PART_STEP    64

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

static int group(const struct attention_shape *s)
{
    return s->n_heads / s->layout.n_kv_heads;
}

static struct attention_tile tile_of(int n_heads, int rows)
{
    struct attention_tile t = {.rows = rows};
    t.slices = (n_heads + rows - 1) / rows;
    t.heads = (n_heads + t.slices - 1) / t.slices;
    t.tokens = rows / t.heads;
    return t;
}

struct attention_tile attention_work_small(const struct attention_shape *s)
{
    if (s->layout.dtype == ARCH_F32) {
        return tile_of(group(s), WIDE_ROWS);
    }
    return group(s) <= SMALL_ROWS ? tile_of(group(s), SMALL_ROWS) : (struct attention_tile){0};
}

struct attention_tile attention_work_large(const struct attention_shape *s)
{
    const bool is_deep = s->layout.value_dim > 128 || s->layout.key_dim > 128 || s->layout.shared;
    if (s->layout.dtype == ARCH_F32) {
        return (struct attention_tile){0};
    }
    return tile_of(group(s), is_deep ? LARGE_ROWS_DEEP : LARGE_ROWS);
}

/* --- limits ------------------------------------------------------------------------------------- */

/* Parts of contexts, beyond one per tile, that fill the device. */
static uint32_t budget(const struct attention_shape *s, const struct attention_tile *t, int per_sm)
{
    return ceil_div((uint32_t)(s->n_sms * per_sm), (uint32_t)(s->layout.n_kv_heads * t->slices));
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/*
 * Of tiles that may be as many as there are rows, more with their tokens: items and, as only split tiles have
 * them, partials.
 */
static uint32_t most_items(const struct attention_shape *s, const struct attention_tile *t,
                           int per_sm, uint32_t max_rows, uint32_t max_tokens,
                           struct attention_limits *l)
{
    if (t->rows == 0) {
        return 0;
    }
    const uint32_t parts = budget(s, t, per_sm), tokens = (uint32_t)t->tokens;
    const uint32_t tiles = least(max_rows + max_tokens / tokens, max_tokens);
    l->max_partials += parts * least(tokens, max_tokens);
    l->max_merges += least(parts * tokens, max_tokens);
    return tiles + parts;
}

void attention_work_limits(struct attention_limits *l, const struct attention_shape *s,
                           uint32_t max_rows, uint32_t max_tokens)
{
    const struct attention_tile small = attention_work_small(s), large = attention_work_large(s);
    *l = (struct attention_limits){0};
    l->max_small = most_items(s, &small, SMALL_PER_SM, max_rows, max_tokens, l);
    l->max_large = most_items(s, &large, LARGE_PER_SM, max_rows, max_tokens, l);
    l->max_merges = least(l->max_merges, max_tokens);
    l->large_at = l->max_small * sizeof(struct attention_item);
    l->merges_at = l->large_at + l->max_large * sizeof(struct attention_item);
    l->bytes = l->merges_at + l->max_merges * sizeof(struct attention_merge);
    l->partials_bytes = (size_t)l->max_partials * (size_t)s->n_heads *
                        (size_t)(s->layout.value_dim + 2) * sizeof(float);
}

/* --- filling ------------------------------------------------------------------------------------ */

/* One kernel's share of the batch: counted first, then written. */
struct share {
    const struct attention_shape *shape;
    struct attention_tile tile;
    int window;
    uint32_t part;  // positions of a part, if there are several; 0: tiles are being counted
    uint64_t total; // positions of all tiles' contexts
    struct attention_item *items;
    uint32_t n_items, max_items;
};

/* The first position that any token from `pos` on sees, down to a block's beginning. */
static uint32_t first_seen(const struct share *h, uint32_t pos)
{
    const uint32_t window = (uint32_t)h->window;
    const uint32_t first = window > 0 && pos + 1 > window ? pos + 1 - window : 0;
    return first / CACHE_BLOCK * CACHE_BLOCK;
}

/* Parts of n positions, all but the last equally long, that long in steps. */
static uint32_t parts_of(const struct share *h, uint32_t n, uint32_t *each)
{
    const uint32_t wanted = n / h->part;
    if (wanted < 2) {
        *each = n;
        return 1;
    }
    *each = ceil_div(ceil_div(n, wanted), PART_STEP) * PART_STEP;
    return ceil_div(n, *each);
}

static void add_tile(struct share *h, const struct attention_row *r, uint32_t t, uint32_t n_tokens,
                     struct attention_work *w, uint32_t *n_partials)
{
    struct attention_item item = {
        .token = r->token + t, .n_tokens = n_tokens, .row = r->row, .pos = r->pos + t};
    const uint32_t from = first_seen(h, item.pos), end = item.pos + n_tokens;
    if (h->part == 0) {
        h->total += end - from;
        return;
    }
    uint32_t each;
    const uint32_t n = parts_of(h, end - from, &each);
    item.partial = ATTENTION_WHOLE;
    item.partial_step = n;
    for (uint32_t i = 0; i < n; i++) {
        item.from = from + i * each;
        item.to = least(item.from + each, end);
        if (n > 1) {
            item.partial = *n_partials + i;
        }
        CHECK(h->n_items < h->max_items);
        h->items[h->n_items++] = item;
    }
    for (uint32_t i = 0; n > 1 && i < n_tokens; i++) {
        w->merges[w->n_merges++] =
            (struct attention_merge){.token = item.token + i, .first = *n_partials + i * n, .n = n};
    }
    *n_partials += n > 1 ? n * n_tokens : 0;
}

/* Whether a row's tokens are the small kernel's: they fit one tile of it. */
static bool is_small(const struct attention_tile *small, const struct attention_tile *large,
                     const struct attention_row *r)
{
    return large->rows == 0 || (small->rows > 0 && r->n_tokens <= (uint32_t)small->tokens);
}

static void add_rows(struct share *h, bool small, const struct attention_row *rows, uint32_t n_rows,
                     struct attention_work *w, uint32_t *n_partials)
{
    const struct attention_tile of_small = attention_work_small(h->shape);
    const struct attention_tile of_large = attention_work_large(h->shape);
    const uint32_t step = (uint32_t)h->tile.tokens;
    for (uint32_t i = 0; i < n_rows; i++) {
        if (is_small(&of_small, &of_large, &rows[i]) != small) {
            continue;
        }
        for (uint32_t t = 0; t < rows[i].n_tokens; t += step) {
            add_tile(h, &rows[i], t, least(step, rows[i].n_tokens - t), w, n_partials);
        }
    }
}

static void fill_share(struct share *h, bool small, int per_sm, const struct attention_row *rows,
                       uint32_t n_rows, struct attention_work *w, uint32_t *n_partials)
{
    if (h->tile.rows == 0) {
        return;
    }
    add_rows(h, small, rows, n_rows, w, n_partials);
    const uint32_t parts = budget(h->shape, &h->tile, per_sm);
    const uint64_t part = (h->total + parts - 1) / parts;
    h->part = part > LEAST_PART ? (uint32_t)part : LEAST_PART;
    add_rows(h, small, rows, n_rows, w, n_partials);
}

void attention_work_fill(struct attention_work *w, void *memory, const struct attention_limits *l,
                         const struct attention_shape *s, int window,
                         const struct attention_row *rows, uint32_t n_rows)
{
    char *bytes = memory;
    *w = (struct attention_work){
        .small = (struct attention_item *)memory,
        .large = (struct attention_item *)(void *)(bytes + l->large_at),
        .merges = (struct attention_merge *)(void *)(bytes + l->merges_at),
    };
    struct share small = {.shape = s, .tile = attention_work_small(s), .window = window};
    struct share large = {.shape = s, .tile = attention_work_large(s), .window = window};
    small.items = w->small, small.max_items = l->max_small;
    large.items = w->large, large.max_items = l->max_large;
    uint32_t n_partials = 0;
    fill_share(&small, true, SMALL_PER_SM, rows, n_rows, w, &n_partials);
    fill_share(&large, false, LARGE_PER_SM, rows, n_rows, w, &n_partials);
    w->n_small = small.n_items;
    w->n_large = large.n_items;
    CHECK(n_partials <= l->max_partials && w->n_merges <= l->max_merges);
}

void attention_work_pad(struct attention_work *w, uint32_t n_small, uint32_t n_large,
                        uint32_t n_merges)
{
    CHECK(n_small >= w->n_small && n_large >= w->n_large && n_merges >= w->n_merges);
    memset(w->small + w->n_small, 0, (n_small - w->n_small) * sizeof *w->small);
    memset(w->large + w->n_large, 0, (n_large - w->n_large) * sizeof *w->large);
    memset(w->merges + w->n_merges, 0, (n_merges - w->n_merges) * sizeof *w->merges);
    w->n_small = n_small;
    w->n_large = n_large;
    w->n_merges = n_merges;
}
