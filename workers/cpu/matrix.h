/*
 * A weight matrix (n_rows, n_cols) packed for the kernels: panels of 16 rows, and within a panel the
 * 16 rows' values of one column side by side, so that a kernel streams a panel from front to back
 * and keeps 16 outputs in vector lanes. Missing rows of the last panel are zeros.
 *
 *   F32:  panel[k][r]                     r = row within the panel
 *   BF16: panel[k][2 * (r % 8) + r / 8]   rows r and r + 8 share a 32-bit word: one shift and one
 *                                         mask widen 16 values
 */
#pragma once

#include <stddef.h>

#include "core/err.h"
#include "model/arch.h"

#define MATRIX_PANEL 16

struct matrix {
    enum arch_dtype dtype;
    int n_rows, n_cols, n_panels;
    size_t panel_bytes;
    void *data; // (n_panels, n_cols, MATRIX_PANEL), owned
};

int matrix_init(struct matrix *m, int n_rows, int n_cols, enum arch_dtype dtype,
                struct err *e) ERR_CHECKED;
void matrix_free(struct matrix *m);

/* Put n rows (n, n_cols), in the matrix's dtype, at row `at`. */
void matrix_pack(struct matrix *m, int at, int n, const void *rows);

/* One row as float32: out (n_cols). */
void matrix_row(const struct matrix *m, int row, float *out);

static inline const void *matrix_panel(const struct matrix *m, int panel)
{
    return (const char *)m->data + (size_t)panel * m->panel_bytes;
}

/* n rounded up to whole panels. */
static inline int matrix_padded(int n)
{
    return (n + MATRIX_PANEL - 1) / MATRIX_PANEL * MATRIX_PANEL;
}
