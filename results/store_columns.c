#include "results/store_columns.h"

#include "core/mem.h"

#include <hdf5_hl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "path/first": the first part may exist already. */
static int make_group(const struct store_group *parent, const char *name, struct store_group *out,
                      struct err *e)
{
    const char *slash = strchr(name, '/');
    if (slash == NULL) {
        return store_hdf5_group_create(parent, name, out, e);
    }
    char first[32];
    snprintf(first, sizeof first, "%.*s", (int)(slash - name), name);
    struct store_group middle;
    int status = store_hdf5_has(parent, first) ? store_hdf5_group_open(parent, first, &middle, e)
                                               : store_hdf5_group_create(parent, first, &middle, e);
    if (status != 0) {
        return -1;
    }
    status = store_hdf5_group_create(&middle, slash + 1, out, e);
    store_hdf5_group_close(&middle);
    return status;
}

static const struct store_column *scale_column(const struct store_columns *c)
{
    for (size_t i = 0; i < c->n_columns; i++) {
        if (c->table->scale != NULL && strcmp(c->table->fields[i].name, c->table->scale) == 0) {
            return &c->columns[i];
        }
    }
    return NULL;
}

int store_columns_attach(const struct store_columns *scale_of, const struct store_column *column,
                         struct err *e)
{
    const struct store_column *scale = scale_column(scale_of);
    CHECK(scale != NULL);
    if (H5DSattach_scale(column->dataset, scale->dataset, 0) < 0) {
        return store_hdf5_fail(e, column->group, column->name,
                               "dimension scale cannot be attached");
    }
    return 0;
}

static int attach_all(struct store_columns *c, const struct store_columns *scale_of, struct err *e)
{
    const struct store_column *own = scale_column(c);
    if (own != NULL && H5DSset_scale(own->dataset, c->table->axis) < 0) {
        return store_hdf5_fail(e, &c->group, own->name, "cannot be made a dimension scale");
    }
    const struct store_columns *of = own != NULL ? c : scale_of;
    for (size_t i = 0; of != NULL && i < c->n_columns; i++) {
        if (&c->columns[i] != own && store_columns_attach(of, &c->columns[i], e) != 0) {
            return -1;
        }
    }
    return 0;
}

int store_columns_create(struct store_columns *c, const struct store_group *parent,
                         const struct store_table *t, size_t n_rows,
                         const struct store_columns *scale_of, struct err *e)
{
    *c = (struct store_columns){.table = t};
    if (make_group(parent, t->group, &c->group, e) != 0) {
        *c = (struct store_columns){0};
        return -1;
    }
    c->columns = xcalloc(t->n_fields, sizeof *c->columns);
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct store_field *f = &t->fields[i];
        if (store_column_create(&c->columns[i], &c->group, f->name, f, n_rows, STORE_CHUNK_ROWS,
                                e) != 0) {
            goto close;
        }
        c->n_columns++;
    }
    if (attach_all(c, scale_of, e) != 0) {
        goto close;
    }
    return 0;
close:
    store_columns_close(c);
    return -1;
}

int store_columns_push(struct store_columns *c, const void *rows, size_t n, struct err *e)
{
    for (size_t i = 0; i < c->n_columns; i++) {
        if (store_column_push(&c->columns[i], rows, c->table->row_bytes, n, e) != 0) {
            return -1;
        }
    }
    return 0;
}

int store_columns_end(struct store_columns *c, struct err *e)
{
    for (size_t i = 0; i < c->n_columns; i++) {
        if (store_column_end(&c->columns[i], e) != 0) {
            return -1;
        }
    }
    return 0;
}

void store_columns_close(struct store_columns *c)
{
    for (size_t i = 0; i < c->n_columns; i++) {
        store_column_close(&c->columns[i]);
    }
    free(c->columns);
    store_hdf5_group_close(&c->group);
    *c = (struct store_columns){0};
}

int store_columns_write(const struct store_group *parent, const struct store_table *t,
                        const void *rows, size_t n_rows, struct err *e)
{
    struct store_columns c;
    if (store_columns_create(&c, parent, t, n_rows, NULL, e) != 0) {
        return -1;
    }
    int status = store_columns_push(&c, rows, n_rows, e);
    if (status == 0) {
        status = store_columns_end(&c, e);
    }
    store_columns_close(&c);
    return status;
}

/* `rows` came zeroed. */
static void fill_missing(const struct store_field *f, size_t n, void *rows, size_t row_bytes)
{
    const uint32_t missing = UINT32_MAX; // and -1
    const bool is_32 = f->type == FIELD_U32 || f->type == FIELD_I32;
    for (size_t i = 0; i < n && f->may_miss && is_32; i++) {
        memcpy((char *)rows + i * row_bytes + f->offset, &missing, sizeof missing);
    }
}

int store_columns_read(const struct store_group *g, const struct store_table *t, size_t n,
                       void *rows, struct err *e)
{
    for (size_t i = 0; i < t->n_fields; i++) {
        const struct store_field *f = &t->fields[i];
        size_t length;
        if (store_schema_is_recent(f) && !store_hdf5_has(g, f->name)) {
            fill_missing(f, n, rows, t->row_bytes);
            continue;
        }
        if (store_column_length(g, f->name, f, &length, e) != 0) {
            return -1;
        }
        if (length != n) {
            return store_hdf5_fail(e, g, f->name, "is not as long as the other columns");
        }
        if (store_column_read(g, f->name, f, 0, n, rows, t->row_bytes, e) != 0) {
            return -1;
        }
    }
    return 0;
}
