/*
 * One column = one 1-D dataset of a field. Written front to back in whole chunks, each exactly once
 * (shuffle, deflate 1, fletcher32), so nothing that was flushed is ever written again. Read back
 * with every claim of the file checked first. Inner header of results/store*.c.
 */
#pragma once

#include "results/store_hdf5.h"

struct store_column {
    const struct store_group *group; // borrowed
    const struct store_field *field;
    char name[32];
    hid_t dataset;
    hid_t type;
    size_t element_bytes;
    size_t chunk;      // elements per chunk; 0: an empty column
    size_t n_total;    // length of the column
    size_t n_written;  // elements in the file
    size_t n_buffered; // elements in buf
    uint8_t *buf;      // (chunk, element_bytes)
};

/* A zeroed column is a closed one. NAME is the field's name, or stands for it ("stage_00_us"). -1 leaves nothing open. */
int store_column_create(struct store_column *c, const struct store_group *g, const char *name,
                        const struct store_field *f, size_t n_total, size_t chunk,
                        struct err *e) ERR_CHECKED;
/* Take the field from n rows that lie row_bytes apart. */
int store_column_push(struct store_column *c, const void *rows, size_t row_bytes, size_t n,
                      struct err *e) ERR_CHECKED;
/* Write the last chunk; all n_total elements have been pushed. */
int store_column_end(struct store_column *c, struct err *e) ERR_CHECKED;
void store_column_close(struct store_column *c);

/* Length of a column, after checking its type, rank, chunks and stored bytes. */
int store_column_length(const struct store_group *g, const char *name, const struct store_field *f,
                        size_t *n, struct err *e) ERR_CHECKED;

/* Elements first..first+n-1 into rows that lie row_bytes apart. */
int store_column_read(const struct store_group *g, const char *name, const struct store_field *f,
                      size_t first, size_t n, void *rows, size_t row_bytes,
                      struct err *e) ERR_CHECKED;
