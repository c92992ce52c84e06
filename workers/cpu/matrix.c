#include "workers/cpu/matrix.h"

#include "core/mem.h"
#include "workers/weights/bf16.h"
#include "workers/weights/f16.h"
#include "workers/weights/formats.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define CHUNK 512 // columns packed at a time: 16 rows of them stay in the first cache

enum {
    QUAD = 4,                                 // values of a row side by side in INT8 and INT4
    SPAN_GROUPS = MATRIX_SPAN / MATRIX_GROUP, //
    INT8_BYTES = MATRIX_SPAN * MATRIX_PANEL,  // of a span's values
    INT4_BYTES = INT8_BYTES / 2,              //
    FACTOR_BYTES = SPAN_GROUPS * MATRIX_PANEL * 2,
    INT8_ZERO = 128,
    INT4_ZERO = 8,
};

enum {
    BLOCK_VALUES_AT = 2
}; // in GGUF's blocks, behind their factor

size_t matrix_offset(enum arch_dtype dtype, int k)
{
    const size_t n = (size_t)k, spans = (n + MATRIX_SPAN - 1) / MATRIX_SPAN;
    switch (dtype) {
    case ARCH_F16:
        return n * MATRIX_PANEL * sizeof(uint16_t);
    case ARCH_BF16:
        return (n + 1) / 2 * 2 * MATRIX_PANEL * sizeof(uint16_t);
    case ARCH_INT8:
        return spans * (INT8_BYTES + FACTOR_BYTES);
    case ARCH_INT4:
        return spans * (INT4_BYTES + FACTOR_BYTES);
    default:
        CHECK(dtype == ARCH_F32);
        return n * MATRIX_PANEL * sizeof(float);
    }
}

size_t matrix_row_bytes(enum arch_dtype from, int n_cols)
{
    const size_t n = (size_t)n_cols, blocks = (n + MATRIX_GROUP - 1) / MATRIX_GROUP;
    switch (from) {
    case ARCH_F16:
    case ARCH_BF16:
        return n * sizeof(uint16_t);
    case ARCH_INT8:
        return blocks * FORMATS_Q8_0_BYTES;
    case ARCH_INT4:
        return blocks * FORMATS_Q4_0_BYTES;
    default:
        CHECK(from == ARCH_F32);
        return n * sizeof(float);
    }
}

int matrix_init(struct matrix *m, int n_rows, int n_cols, enum arch_dtype dtype, struct err *e)
{
    *m = (struct matrix){
        .dtype = dtype,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .n_panels = matrix_padded(n_rows) / MATRIX_PANEL,
    };
    m->panel_bytes = matrix_offset(dtype, n_cols);
    m->data = mem_pages((size_t)m->n_panels * m->panel_bytes);
    if (!m->data) {
        return err_set(e, ERR_ENV, "no memory for a weight matrix of %d x %d", n_rows, n_cols);
    }
    return 0;
}

void matrix_free(struct matrix *m)
{
    mem_pages_free(m->data, (size_t)m->n_panels * m->panel_bytes);
    *m = (struct matrix){0};
}

/* --- what rows are made of -------------------------------------------------------------------- */

static float block_value(enum arch_dtype from, const uint8_t *row, size_t k)
{
    const size_t at = k % MATRIX_GROUP;
    const uint8_t *block =
        row + k / MATRIX_GROUP * (from == ARCH_INT8 ? FORMATS_Q8_0_BYTES : FORMATS_Q4_0_BYTES);
    uint16_t factor;
    memcpy(&factor, block, sizeof factor);
    const uint8_t byte = block[BLOCK_VALUES_AT + (from == ARCH_INT8 ? at : at % 16)];
    const int value =
        from == ARCH_INT8 ? (int8_t)byte : (at < 16 ? byte & 15 : byte >> 4) - INT4_ZERO;
    return f16_to_f32(factor) * (float)value;
}

/* Columns first .. first + n - 1 of a row as float32. */
static void widen(enum arch_dtype from, const void *row, int first, int n, float *out)
{
    const uint16_t *words = (const uint16_t *)row + first;
    switch (from) {
    case ARCH_F32:
        memcpy(out, (const float *)row + first, (size_t)n * sizeof *out);
        break;
    case ARCH_F16:
        for (int i = 0; i < n; i++) {
            out[i] = f16_to_f32(words[i]);
        }
        break;
    case ARCH_BF16:
        for (int i = 0; i < n; i++) {
            out[i] = bf16_to_f32(words[i]);
        }
        break;
    default:
        CHECK(matrix_is_grouped(from));
        for (int i = 0; i < n; i++) {
            out[i] = block_value(from, row, (size_t)(first + i));
        }
    }
}

/* --- integers --------------------------------------------------------------------------------- */

/* 32 integers and their factor. */
struct group {
    uint16_t factor; // float16
    int8_t values[MATRIX_GROUP];
};

static struct group from_block(enum arch_dtype dtype, const uint8_t *block)
{
    struct group g;
    memcpy(&g.factor, block, sizeof g.factor);
    const uint8_t *bytes = block + BLOCK_VALUES_AT;
    for (int i = 0; i < MATRIX_GROUP; i++) {
        g.values[i] = dtype == ARCH_INT8
                          ? (int8_t)bytes[i]
                          : (int8_t)((i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4) - INT4_ZERO);
    }
    return g;
}

static struct group nearest(enum arch_dtype dtype, const float *w)
{
    uint8_t block[FORMATS_Q8_0_BYTES];
    if (dtype == ARCH_INT8) {
        formats_to_q8_0(w, block);
    } else {
        formats_to_q4_0(w, block);
    }
    return from_block(dtype, block);
}

static void place_group(const struct matrix *m, uint8_t *panel, int r, int group,
                        const struct group *g)
{
    const bool wide = m->dtype == ARCH_INT8;
    const size_t values_bytes = wide ? INT8_BYTES : INT4_BYTES;
    uint8_t *span = panel + (size_t)(group / SPAN_GROUPS) * (values_bytes + FACTOR_BYTES);
    const size_t in_span = (size_t)(group % SPAN_GROUPS);
    uint8_t *to = span + in_span * values_bytes / SPAN_GROUPS + (size_t)r * QUAD;
    const int step = wide ? MATRIX_GROUP : MATRIX_GROUP / 2;
    for (int i = 0; i < step; i++) {
        uint8_t *byte = to + i / QUAD * MATRIX_PANEL * QUAD + i % QUAD;
        *byte = (uint8_t)(wide ? g->values[i] + INT8_ZERO
                               : (g->values[i] + INT4_ZERO) | (g->values[i + 16] + INT4_ZERO) << 4);
    }
    memcpy(span + values_bytes + (in_span * MATRIX_PANEL + (size_t)r) * sizeof g->factor,
           &g->factor, sizeof g->factor);
}

/* Columns first .. first + n - 1 of a row; `first` is a multiple of MATRIX_GROUP. */
static void pack_groups(const struct matrix *m, uint8_t *panel, int r, enum arch_dtype from,
                        const void *row, int first, int n)
{
    for (int k = first; k < first + n; k += MATRIX_GROUP) {
        struct group g;
        if (from == m->dtype) {
            g = from_block(from,
                           (const uint8_t *)row +
                               (size_t)(k / MATRIX_GROUP) *
                                   (from == ARCH_INT8 ? FORMATS_Q8_0_BYTES : FORMATS_Q4_0_BYTES));
        } else {
            float w[MATRIX_GROUP] = {0};
            int left = first + n - k;
            widen(from, row, k, left < MATRIX_GROUP ? left : MATRIX_GROUP, w);
            g = nearest(m->dtype, w);
        }
        place_group(m, panel, r, k / MATRIX_GROUP, &g);
    }
}

/* --- packing ---------------------------------------------------------------------------------- */

/* n values of 16 bits, two by two in lanes of 32. */
static void place_pairs(uint16_t *to, const uint16_t *from, int n)
{
    int k = 0;
    for (; k + 2 <= n; k += 2, to += 2 * MATRIX_PANEL) {
        memcpy(to, from + k, 2 * sizeof *to);
    }
    if (k < n) {
        to[0] = from[k];
    }
}

static void pack_floats(const struct matrix *m, void *panel, int r, int first, int n,
                        const float *w)
{
    if (m->dtype == ARCH_F32) {
        float *to = (float *)panel + (size_t)first * MATRIX_PANEL + r;
        for (int k = 0; k < n; k++) {
            to[(size_t)k * MATRIX_PANEL] = w[k];
        }
        return;
    }
    uint16_t narrow[CHUNK];
    for (int k = 0; k < n; k++) {
        narrow[k] = m->dtype == ARCH_BF16 ? bf16_from_f32(w[k]) : f16_from_f32(w[k]);
    }
    uint16_t *to = (uint16_t *)panel + (size_t)first * MATRIX_PANEL;
    if (m->dtype == ARCH_BF16) {
        place_pairs(to + 2 * r, narrow, n);
        return;
    }
    for (int k = 0; k < n; k++) {
        to[(size_t)k * MATRIX_PANEL + (size_t)r] = narrow[k];
    }
}

/* Columns first .. first + n - 1, at most CHUNK, of one row. */
static void pack_part(const struct matrix *m, int row, enum arch_dtype from, const void *src,
                      int first, int n)
{
    char *panel = (char *)m->data + (size_t)(row / MATRIX_PANEL) * m->panel_bytes;
    const int r = row % MATRIX_PANEL;
    if (matrix_is_grouped(m->dtype)) {
        pack_groups(m, (uint8_t *)panel, r, from, src, first, n);
    } else if (from == ARCH_BF16 && m->dtype == ARCH_BF16) {
        uint16_t *to = (uint16_t *)(void *)panel + (size_t)first * MATRIX_PANEL + 2 * r;
        place_pairs(to, (const uint16_t *)src + first, n);
    } else {
        float w[CHUNK];
        widen(from, src, first, n, w);
        pack_floats(m, panel, r, first, n, w);
    }
}

void matrix_pack(struct matrix *m, int at, int n, enum arch_dtype from, const void *rows)
{
    CHECK(at >= 0 && n >= 0 && at + n <= m->n_panels * MATRIX_PANEL);
    const size_t row_bytes = matrix_row_bytes(from, m->n_cols);
    for (int first = 0; first < m->n_cols; first += CHUNK) {
        const int left = m->n_cols - first, width = left < CHUNK ? left : CHUNK;
        for (int i = 0; i < n; i++) {
            pack_part(m, at + i, from, (const char *)rows + (size_t)i * row_bytes, first, width);
        }
    }
}

/* --- unpacking -------------------------------------------------------------------------------- */

static float grouped_value(const struct matrix *m, const uint8_t *panel, size_t r, size_t k)
{
    const bool wide = m->dtype == ARCH_INT8;
    const size_t values_bytes = wide ? INT8_BYTES : INT4_BYTES;
    const uint8_t *span = panel + k / MATRIX_SPAN * (values_bytes + FACTOR_BYTES);
    const size_t group = k % MATRIX_SPAN / MATRIX_GROUP, at = k % MATRIX_GROUP;
    const size_t in_lines = wide ? at : at % 16;
    const uint8_t byte = span[group * values_bytes / SPAN_GROUPS +
                              in_lines / QUAD * MATRIX_PANEL * QUAD + r * QUAD + in_lines % QUAD];
    const int value = wide ? byte - INT8_ZERO : (at < 16 ? byte & 15 : byte >> 4) - INT4_ZERO;
    uint16_t factor;
    memcpy(&factor, span + values_bytes + (group * MATRIX_PANEL + r) * sizeof factor,
           sizeof factor);
    return f16_to_f32(factor) * (float)value;
}

void matrix_row(const struct matrix *m, int row, float *out)
{
    const void *panel = matrix_panel(m, row / MATRIX_PANEL);
    const size_t r = (size_t)(row % MATRIX_PANEL), n = (size_t)m->n_cols;
    const uint16_t *words = panel;
    for (size_t k = 0; k < n; k++) {
        switch (m->dtype) {
        case ARCH_F32:
            out[k] = ((const float *)panel)[k * MATRIX_PANEL + r];
            break;
        case ARCH_F16:
            out[k] = f16_to_f32(words[k * MATRIX_PANEL + r]);
            break;
        case ARCH_BF16:
            out[k] = bf16_to_f32(words[(k / 2 * MATRIX_PANEL + r) * 2 + k % 2]);
            break;
        default:
            out[k] = grouped_value(m, panel, r, k);
        }
    }
}
