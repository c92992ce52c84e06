#include "workers/cpu/kernels.h"

#include "core/cpuid.h"

#include <stdio.h>
#include <string.h>

#define MAX_WIDTH   8            // panels of a tile, of any set
#define SMALL_BYTES (512u << 10) // of inputs: half of them at most stay in the second cache
#define MANY_ROWS   512          // computed together at most
#define MANY_PANELS 32           // same
#define SOON_BYTES  4096         // from a load of a panel to the fetch

/* --- sets ------------------------------------------------------------------------------------- */

static bool runs_anywhere(void)
{
    return true;
}

static const struct {
    const struct kernels *set;
    bool (*runs)(void);
    const char *needs;
} sets[] = {
#ifdef TIDEMARK_X86_64
    {&kernels_amx, cpuid_has_amx, "AMX_BF16, or the system does not permit it"},
    {&kernels_avx512_bf16, cpuid_has_avx512_bf16, "AVX512_BF16 and AVX512_VNNI"},
    {&kernels_avx512, cpuid_has_avx512, "AVX-512 (F, BW, DQ, VL)"},
    {&kernels_avx2, cpuid_has_avx2, "AVX2, FMA and F16C"},
#endif
    {&kernels_portable, runs_anywhere, ""},
};

enum {
    N_SETS = sizeof sets / sizeof *sets
};

const struct kernels *kernels_set(int i)
{
    for (int s = 0; s < N_SETS; s++) {
        if (sets[s].runs() && i-- == 0) {
            return sets[s].set;
        }
    }
    return NULL;
}

/* "avx512, avx2, portable": what can run here. */
static const char *names_here(char *buf, size_t cap)
{
    size_t len = 0;
    const struct kernels *k;
    buf[0] = '\0';
    for (int i = 0; (k = kernels_set(i)) != NULL && len < cap; i++) {
        len += (size_t)snprintf(buf + len, cap - len, "%s%s", i > 0 ? ", " : "", k->name);
    }
    return buf;
}

int kernels_select(const struct kernels **out, const char *name, struct err *e)
{
    if (strcmp(name, "auto") == 0) {
        *out = kernels_set(0);
        return 0;
    }
    for (int s = 0; s < N_SETS; s++) {
        if (strcmp(name, sets[s].set->name) != 0) {
            continue;
        }
        if (!sets[s].runs()) {
            char here[96];
            return err_set(e, ERR_INPUT, "kernels %s: this CPU has not %s; it has %s", name,
                           sets[s].needs, names_here(here, sizeof here));
        }
        *out = sets[s].set;
        return 0;
    }
    return err_set(e, ERR_INPUT,
                   "kernels \"%.32s\": auto, portable, or on x86-64 avx2, avx512, avx512_bf16, "
                   "amx wanted",
                   name);
}

enum kernels_input kernels_form(const struct kernels *k, enum arch_dtype dtype)
{
    return matrix_is_grouped(dtype) ? KERNELS_INT8
           : dtype == ARCH_BF16     ? k->bf16_form
                                    : KERNELS_F32;
}

/* Bytes of a row's first k values; whole spans of integers. */
static size_t row_offset(enum kernels_input form, int k)
{
    switch (form) {
    case KERNELS_BF16:
        return (size_t)k * 2;
    case KERNELS_INT8:
        return (size_t)((k + MATRIX_SPAN - 1) / MATRIX_SPAN) *
               (MATRIX_SPAN / MATRIX_GROUP * sizeof(struct kernels_group));
    default:
        return (size_t)k * sizeof(float);
    }
}

/* Rows a multiple of 1 KiB apart would share a few sets of the caches. */
static size_t apart(size_t bytes)
{
    return bytes % 1024 == 0 ? bytes + 64 : bytes;
}

size_t kernels_row_bytes(enum kernels_input form, int n)
{
    return apart((row_offset(form, matrix_padded(n)) + 63) / 64 * 64);
}

int kernels_ld(int n)
{
    return (int)(apart((size_t)matrix_padded(n) * sizeof(float)) / sizeof(float));
}

/* --- products --------------------------------------------------------------------------------- */

static int least(int a, int b)
{
    return a < b ? a : b;
}

struct cut {
    int n_tiles; // from top to bottom
    int height;  // of the higher ones
    int width;   // panels of a tile
};

static int round_up(int n, int unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Rows in tiles of nearly equal height: 7 rows are 4 + 3, not 6 + 1. */
static struct cut cut_rows(const struct kernels *k, enum kernels_input form, int m)
{
    const struct kernels_shape *shape = &k->shapes[form];
    const int n_tiles = (m + shape->max_rows - 1) / shape->max_rows;
    const int height = round_up((m + n_tiles - 1) / n_tiles, shape->unit);
    return (struct cut){n_tiles, height, least(shape->max_cells / height, shape->max_panels)};
}

/* The part of a tile that is computed for all its rows: panels from `panel` on, columns from `from` on. */
struct part {
    int panel, width, from, n;
};

static const void *at_column(const void *panel, enum arch_dtype dtype, int k)
{
    return (const char *)panel + matrix_offset(dtype, k);
}

/*
 * Panels of the part, and what is fetched meanwhile: of a tile that has its panels alone, and so waits
 * for memory, what it needs itself a little later; of others what is read after them.
 */
static void aim(const struct kernels_tile *whole, const struct part *part, bool by_panels,
                bool alone, const void **panels, const void **ahead)
{
    const int next = by_panels ? part->from + part->n : whole->k;
    for (int i = 0; i < part->width; i++) {
        const void *panel = whole->panels[part->panel + i];
        const void *after = whole->ahead[part->panel + i];
        panels[i] = at_column(panel, whole->dtype, part->from);
        ahead[i] = alone             ? (const char *)panels[i] + SOON_BYTES
                   : next < whole->k ? at_column(panel, whole->dtype, next)
                                     : at_column(after, whole->dtype, by_panels ? 0 : part->from);
    }
}

static void all_rows(const struct kernels *k, const struct kernels_tile *whole,
                     const struct part *part, const struct cut *cut, bool by_panels)
{
    const void *panels[MAX_WIDTH], *ahead[MAX_WIDTH];
    struct kernels_tile t = *whole;
    t.n_panels = part->width;
    t.k = part->n;
    t.x.data = (const char *)whole->x.data + row_offset(whole->x.form, part->from);
    t.y = whole->y + (size_t)part->panel * MATRIX_PANEL;
    t.mode = part->from > 0 ? KERNELS_ADD : whole->mode;
    if (whole->n_segments == 1) {
        t.soon = cut->n_tiles == 1;
        aim(whole, part, by_panels, t.soon, panels, ahead);
        t.panels = panels;
        t.ahead = ahead;
    } else {
        t.panels = whole->panels + part->panel;
        t.ahead = whole->ahead + part->panel;
    }
    const int unit = k->shapes[t.x.form].unit;
    t.n_turns = cut->n_tiles;
    t.turn = 0;
    for (int row = 0; row < whole->m; t.turn++, row += t.m) {
        const int left = whole->m - row, tiles_left = cut->n_tiles - t.turn;
        t.m = least(left, round_up((left + tiles_left - 1) / tiles_left, unit));
        k->tile(&t);
        t.x.data = (const char *)t.x.data + (size_t)t.m * t.x.stride;
        t.y += (size_t)t.m * t.ldy;
    }
}

void kernels_tiles(const struct kernels *k, const struct kernels_tile *whole)
{
    const struct cut cut = cut_rows(k, whole->x.form, whole->m);
    CHECK(whole->k <= k->k_block || (whole->n_segments == 1 && whole->mode != KERNELS_ONTO));
    // Few inputs stay in cache whole, and panels stream by from front to back; of many, one block of
    // columns at a time stays there, for all panels.
    const bool by_panels = (size_t)whole->m * whole->x.stride <= SMALL_BYTES;
    const int outer_k = by_panels ? whole->k : k->k_block;
    for (int k0 = 0; k0 < whole->k; k0 += outer_k) {
        for (int p = 0, width = 0; p < whole->n_panels; p += width) {
            width = cut.width <= whole->n_panels - p ? cut.width : 1; // the widths that sets have
            const int end = least(k0 + outer_k, whole->k);
            for (int from = k0; from < end; from += k->k_block) {
                const struct part part = {
                    .panel = p,
                    .width = width,
                    .from = from,
                    .n = least(k->k_block, end - from),
                };
                all_rows(k, whole, &part, &cut, by_panels);
            }
        }
    }
}

static void some_rows(const struct kernels *k, const struct matrix *w, int first, int end,
                      struct kernels_tile *t)
{
    const void *panels[MANY_PANELS + MAX_WIDTH];
    t->panels = panels;
    t->ahead = panels + cut_rows(k, t->x.form, t->m).width;
    float *y = t->y;
    for (int p = first; p < end; p += t->n_panels) {
        t->n_panels = least(MANY_PANELS, end - p);
        for (int i = 0; i < t->n_panels + MAX_WIDTH; i++) {
            panels[i] = matrix_panel(w, least(p + i, w->n_panels - 1));
        }
        kernels_tiles(k, t);
        t->y += (size_t)t->n_panels * MATRIX_PANEL;
    }
    t->y = y;
}

void kernels_matmul(const struct kernels *k, const struct matrix *w, int first, int end,
                    const struct kernels_rows *x, int m, float *y, size_t ldy,
                    enum kernels_mode mode)
{
    struct kernels_tile t = {
        .dtype = w->dtype,
        .n_segments = 1,
        .k = w->n_cols,
        .x = *x,
        .y = y,
        .ldy = ldy,
        .mode = mode,
    };
    CHECK(mode != KERNELS_ONTO);
    for (int row = 0; row < m; row += t.m) {
        t.m = least(MANY_ROWS, m - row);
        some_rows(k, w, first, end, &t);
        t.x.data = (const char *)t.x.data + (size_t)t.m * x->stride;
        t.y += (size_t)t.m * ldy;
    }
}
