#include "workers/cpu/matrix.h"

#include "core/mem.h"
#include "workers/weights/bf16.h"

#include <stdlib.h>
#include <string.h>

static size_t value_bytes(const struct matrix *m)
{
    return m->dtype == ARCH_BF16 ? sizeof(uint16_t) : sizeof(float);
}

/* Where in its column's 16 values a row of a panel stands. */
static size_t lane(const struct matrix *m, int row)
{
    int r = row % MATRIX_PANEL;
    return (size_t)(m->dtype == ARCH_BF16 ? 2 * (r % 8) + r / 8 : r);
}

int matrix_init(struct matrix *m, int n_rows, int n_cols, enum arch_dtype dtype, struct err *e)
{
    *m = (struct matrix){
        .dtype = dtype,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .n_panels = matrix_padded(n_rows) / MATRIX_PANEL,
    };
    m->panel_bytes = (size_t)n_cols * MATRIX_PANEL * value_bytes(m);
    m->data = mem_aligned((size_t)m->n_panels * m->panel_bytes);
    if (!m->data) {
        return err_set(e, ERR_ENV, "no memory for a weight matrix of %d x %d", n_rows, n_cols);
    }
    return 0;
}

void matrix_free(struct matrix *m)
{
    free(m->data);
    *m = (struct matrix){0};
}

static void pack_row(struct matrix *m, int row, const char *src)
{
    size_t bytes = value_bytes(m);
    char *to =
        (char *)m->data + (size_t)(row / MATRIX_PANEL) * m->panel_bytes + lane(m, row) * bytes;
    for (int k = 0; k < m->n_cols; k++) {
        memcpy(to, src, bytes);
        to += MATRIX_PANEL * bytes;
        src += bytes;
    }
}

void matrix_pack(struct matrix *m, int at, int n, const void *rows)
{
    CHECK(at >= 0 && n >= 0 && at + n <= m->n_panels * MATRIX_PANEL);
    for (int i = 0; i < n; i++) {
        pack_row(m, at + i, (const char *)rows + (size_t)i * (size_t)m->n_cols * value_bytes(m));
    }
}

void matrix_row(const struct matrix *m, int row, float *out)
{
    const void *panel = matrix_panel(m, row / MATRIX_PANEL);
    size_t at = lane(m, row);
    for (int k = 0; k < m->n_cols; k++, at += MATRIX_PANEL) {
        out[k] = m->dtype == ARCH_BF16 ? bf16_to_f32(((const uint16_t *)panel)[at])
                                       : ((const float *)panel)[at];
    }
}
