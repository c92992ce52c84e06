/*
 * A table = a group with one column per field of a schema table, all of one length, and the
 * dimension scale of its rows where the schema names one. Inner header of results/store*.c.
 */
#pragma once

#include "results/store_column.h"

/* Every column of a table and, where it has one, its dimension scale. */
struct store_columns { // zeroed: closed
    struct store_group group;
    const struct store_table *table;
    struct store_column *columns; // (n_columns)
    size_t n_columns;             // opened so far
};

/* Makes the group under PARENT ("a/b": both). Columns of a second table of the same rows join the
 * scale of `scale_of` (may be NULL). */
int store_columns_create(struct store_columns *c, const struct store_group *parent,
                         const struct store_table *t, size_t n_rows,
                         const struct store_columns *scale_of, struct err *e) ERR_CHECKED;
int store_columns_push(struct store_columns *c, const void *rows, size_t n,
                       struct err *e) ERR_CHECKED;
int store_columns_end(struct store_columns *c, struct err *e) ERR_CHECKED;
void store_columns_close(struct store_columns *c);

/* Make `column` belong to the row axis of `scale_of`. */
int store_columns_attach(const struct store_columns *scale_of, const struct store_column *column,
                         struct err *e) ERR_CHECKED;

/* A whole small table at once: group, columns, rows. */
int store_columns_write(const struct store_group *parent, const struct store_table *t,
                        const void *rows, size_t n_rows, struct err *e) ERR_CHECKED;

/* All columns of a table into `n` rows; each must have that length. */
int store_columns_read(const struct store_group *g, const struct store_table *t, size_t n,
                       void *rows, struct err *e) ERR_CHECKED;
