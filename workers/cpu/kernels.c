#include "workers/cpu/kernels.h"

#include <string.h>

#ifdef TIDEMARK_AVX2
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

int kernels_select(const struct kernels **out, const char *name, struct err *e)
{
    bool any = strcmp(name, "auto") == 0;
#ifdef TIDEMARK_AVX2
    if (any || strcmp(name, kernels_avx2.name) == 0) {
        if (has_avx2()) {
            *out = &kernels_avx2;
            return 0;
        }
        if (!any) {
            return err_set(e, ERR_INPUT, "kernels avx2: this CPU has no AVX2 and FMA");
        }
    }
#endif
    if (any || strcmp(name, kernels_portable.name) == 0) {
        *out = &kernels_portable;
        return 0;
    }
    return err_set(e, ERR_INPUT, "kernels \"%.32s\": auto, portable or avx2 (x86-64) wanted", name);
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

void kernels_tiles(const struct kernels *k, const struct kernels_tile *whole)
{
    // Rows in tiles of nearly equal height: 7 rows are 4 + 3, not 6 + 1. Panels outside, so that
    // one group of panels stays in cache for all rows.
    const int n_tiles = (whole->m + k->max_rows - 1) / k->max_rows;
    const int height = (whole->m + n_tiles - 1) / n_tiles;
    const int width = least(k->max_cells / height, k->max_panels);
    struct kernels_tile t = *whole;
    for (int p = 0; p < whole->n_panels; p += width) {
        t.n_panels = least(width, whole->n_panels - p);
        t.panels = whole->panels + p;
        t.ahead = whole->ahead + p;
        t.x = whole->x;
        t.y = whole->y + (size_t)p * MATRIX_PANEL;
        for (int i = 0, row = 0; i < n_tiles; i++, row += t.m) {
            t.m = (whole->m - row + n_tiles - i - 1) / (n_tiles - i);
            k->tile(&t);
            t.x += (size_t)t.m * t.ldx;
            t.y += (size_t)t.m * t.ldy;
        }
    }
}

void kernels_matmul(const struct kernels *k, const struct matrix *w, int first, int end,
                    const float *x, size_t ldx, int m, float *y, size_t ldy, enum kernels_mode mode)
{
    enum {
        AT_ONCE = 64,
    };
    const void *panels[AT_ONCE + 1];
    struct kernels_tile t = {
        .panels = panels,
        .ahead = panels + 1,
        .dtype = w->dtype,
        .n_segments = 1,
        .m = m,
        .k = w->n_cols,
        .x = x,
        .ldx = ldx,
        .y = y,
        .ldy = ldy,
        .mode = mode,
    };
    for (int p = first; p < end && m > 0; p += t.n_panels) {
        t.n_panels = least(AT_ONCE, end - p);
        for (int i = 0; i <= t.n_panels; i++) {
            panels[i] = matrix_panel(w, least(p + i, w->n_panels - 1));
        }
        kernels_tiles(k, &t);
        t.y += (size_t)t.n_panels * MATRIX_PANEL;
    }
}
