/*
 * A weight matrix (n_rows, n_cols) packed for the kernels: panels of 16 rows, and within a panel the
 * 16 rows' values side by side, so that a kernel streams a panel from front to back and keeps 16
 * outputs in vector lanes. Missing rows of the last panel count as zeros, and so do missing columns.
 *
 *   F32:  f32 [k][r]                      r = row within the panel
 *   F16:  f16 [k][r]
 *   BF16: bf16[k / 2][r][k % 2]           a 32-bit lane holds two k of one row: what vdpbf16ps takes;
 *                                         one shift and one mask widen them
 *   INT8: per 64 columns: u8 [k / 4][r][k % 4] = value + 128, then f16[2][r], the factors of each 32
 *   INT4: per 64 columns: u8 [2][4][r][4], then f16[2][r] as above: of each 32 columns k the low half
 *         of byte [k / 4 % 4][r][k % 4] is column k < 16, the high half k + 16; value + 8
 *
 * A value of INT8 or INT4 is its integer times the factor of its row and 32 columns; integers are
 * -127 .. 127 or -8 .. 7. Made from floats they are the nearest; the factor is max|w| / 127 (or the
 * largest value / -8, so that it comes out exact), in float16, as GGUF's Q8_0 and Q4_0 have it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"
#include "model/arch.h"

#define MATRIX_PANEL 16
#define MATRIX_GROUP 32 // columns that share a factor
#define MATRIX_SPAN  64 // columns between two places where a panel can be entered

struct matrix {
    enum arch_dtype dtype; // F32, F16, BF16, INT8 or INT4
    int n_rows, n_cols, n_panels;
    size_t panel_bytes;
    void *data; // (n_panels, panel_bytes), owned; no page is touched before it is packed
};

/* Sizes up to 2^31 - 1 rows and columns. */
int matrix_init(struct matrix *m, int n_rows, int n_cols, enum arch_dtype dtype,
                struct err *e) ERR_CHECKED;
void matrix_free(struct matrix *m);

/*
 * Put n rows (n, n_cols) at row `at`. `from` is what they are: floats (F32, F16, BF16), or GGUF's
 * blocks of Q8_0 (INT8) and Q4_0 (INT4), whose rows are whole blocks. Equal dtypes are copied
 * exactly. Threads may pack different panels at once; a panel lies in the memory of who packs it.
 */
void matrix_pack(struct matrix *m, int at, int n, enum arch_dtype from, const void *rows);

/* One row as float32: out (n_cols). */
void matrix_row(const struct matrix *m, int row, float *out);

/* Bytes of one row of n_cols values before packing, in the dtypes that matrix_pack takes. */
size_t matrix_row_bytes(enum arch_dtype from, int n_cols);

/* Bytes of a panel's first k columns; k is a multiple of MATRIX_SPAN, or all of them (rounded up). */
size_t matrix_offset(enum arch_dtype dtype, int k);

static inline bool matrix_is_grouped(enum arch_dtype dtype)
{
    return dtype == ARCH_INT8 || dtype == ARCH_INT4;
}

static inline const void *matrix_panel(const struct matrix *m, int panel)
{
    return (const char *)m->data + (size_t)panel * m->panel_bytes;
}

/* n rounded up to whole panels. */
static inline int matrix_padded(int n)
{
    return (n + MATRIX_PANEL - 1) / MATRIX_PANEL * MATRIX_PANEL;
}
