#include "results/store_column.h"

#include "core/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFLATE_LEVEL    1
#define N_FILTERS        3         // shuffle, deflate, fletcher32
#define DEFLATE_SKIPPED  (1u << 1) // the mask of a chunk that deflate could not make smaller
#define CHECKSUM_BYTES   4u
#define DEFLATE_MAX_LOSS 32u                // of bytes that do not compress, beside 0.2 %
#define DEFLATE_MAX_GAIN 1040u              // deflate's best ratio is 1032 : 1
#define READ_MAX_ROWS    STORE_CHUNK_TOKENS // at a time

/* --- writing --------------------------------------------------------------------------- */

static hid_t column_creation(size_t chunk)
{
    hid_t p = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(p, false);
    if (chunk > 0) { // an empty dataset of fixed size cannot have chunks
        hsize_t dim = chunk;
        H5Pset_chunk(p, 1, &dim);
        H5Pset_shuffle(p);
        H5Pset_deflate(p, DEFLATE_LEVEL);
        H5Pset_fletcher32(p);
    }
    return p;
}

/* A cache of one chunk: each is written whole, once. */
static hid_t column_access(size_t chunk_bytes)
{
    hid_t p = H5Pcreate(H5P_DATASET_ACCESS);
    H5Pset_chunk_cache(p, 1, chunk_bytes, 1.0);
    return p;
}

int store_column_create(struct store_column *c, const struct store_group *g, const char *name,
                        const struct store_field *f, size_t n_total, size_t chunk, struct err *e)
{
    *c = (struct store_column){
        .group = g,
        .field = f,
        .type = store_hdf5_type(f),
        .element_bytes = store_schema_bytes(f),
        .chunk = n_total < chunk ? n_total : chunk,
        .n_total = n_total,
    };
    snprintf(c->name, sizeof c->name, "%s", name);
    hsize_t dim = n_total;
    hid_t space = H5Screate_simple(1, &dim, NULL);
    hid_t creation = column_creation(c->chunk);
    hid_t access = column_access(c->chunk * c->element_bytes);
    c->dataset = H5Dcreate2(g->id, name, c->type, space, H5P_DEFAULT, creation, access);
    H5Pclose(access);
    H5Pclose(creation);
    H5Sclose(space);
    c->buf = malloc(c->chunk * c->element_bytes + 1);
    int status = 0;
    if (c->dataset < 0) {
        status = store_hdf5_fail(e, g, name, "cannot be made");
    } else if (c->buf == NULL) {
        status = err_set(e, ERR_ENV, "%s: out of memory", g->store->path);
    } else {
        status = store_hdf5_describe(g, c->dataset, f, e);
    }
    if (status != 0) {
        store_column_close(c);
    }
    return status;
}

static int write_chunk(struct store_column *c, struct err *e)
{
    hsize_t start = c->n_written, count = c->n_buffered;
    hid_t file_space = H5Dget_space(c->dataset);
    hid_t memory = H5Screate_simple(1, &count, NULL);
    herr_t status = H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &start, NULL, &count, NULL);
    if (status >= 0) {
        status = H5Dwrite(c->dataset, c->type, memory, file_space, H5P_DEFAULT, c->buf);
    }
    H5Sclose(memory);
    H5Sclose(file_space);
    if (status < 0) {
        return store_hdf5_fail(e, c->group, c->name, "cannot be written");
    }
    c->n_written += c->n_buffered;
    c->n_buffered = 0;
    return 0;
}

int store_column_push(struct store_column *c, const void *rows, size_t row_bytes, size_t n,
                      struct err *e)
{
    CHECK(c->n_written + c->n_buffered + n <= c->n_total);
    const uint8_t *row = rows;
    for (size_t i = 0; i < n; i++, row += row_bytes) {
        store_hdf5_pack(c->field, row, c->buf + c->n_buffered * c->element_bytes);
        c->n_buffered++;
        if (c->n_buffered == c->chunk && write_chunk(c, e) != 0) {
            return -1;
        }
    }
    return 0;
}

int store_column_end(struct store_column *c, struct err *e)
{
    CHECK(c->n_written + c->n_buffered == c->n_total);
    return c->n_buffered > 0 ? write_chunk(c, e) : 0;
}

void store_column_close(struct store_column *c)
{
    if (c->dataset > 0) {
        H5Dclose(c->dataset);
    }
    if (c->type > 0) {
        H5Tclose(c->type);
    }
    free(c->buf);
    *c = (struct store_column){0};
}

/* --- reading -------------------------------------------------------------------------------------- */

/* Elements per chunk, 0 when the column is stored in one piece; -1: in a way that is not the schema's. */
static long chunk_length(hid_t dataset)
{
    hid_t p = H5Dget_create_plist(dataset);
    hsize_t chunk = 0;
    H5D_layout_t layout = p < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(p);
    bool whole =
        layout == H5D_COMPACT || (layout == H5D_CONTIGUOUS && H5Pget_external_count(p) == 0);
    bool cut = layout == H5D_CHUNKED && H5Pget_chunk(p, 1, &chunk) == 1 && chunk > 0 &&
               chunk <= STORE_CHUNK_TOKENS && H5Pget_nfilters(p) == N_FILTERS;
    H5Pclose(p);
    return whole ? 0 : cut ? (long)chunk : -1;
}

/*
 * The index of chunks is the one part of the file's metadata without a checksum, and HDF5 1.10.8
 * takes what it says: sizes that the filters cannot have made lead it out of bounds, and a chunk that
 * is not found reads as zeros.
 */
static bool chunks_are_whole(hid_t dataset, size_t first, size_t n)
{
    long length = chunk_length(dataset);
    if (length <= 0 || n == 0) {
        return length == 0 || n == 0;
    }
    hid_t type = H5Dget_type(dataset);
    hsize_t raw_bytes = H5Tget_size(type) * (hsize_t)length;
    H5Tclose(type);
    for (hsize_t at = first / (size_t)length * (size_t)length; at < first + n;
         at += (hsize_t)length) {
        unsigned skipped = 0;
        haddr_t address = HADDR_UNDEF;
        hsize_t bytes = 0;
        if (H5Dget_chunk_info_by_coord(dataset, &at, &skipped, &address, &bytes) < 0 ||
            address == HADDR_UNDEF || bytes <= CHECKSUM_BYTES) {
            return false;
        }
        bool packed = skipped == 0 && bytes <= raw_bytes + raw_bytes / 500 + DEFLATE_MAX_LOSS;
        bool stored = skipped == DEFLATE_SKIPPED && bytes == raw_bytes + CHECKSUM_BYTES;
        if (!packed && !stored) {
            return false;
        }
    }
    return true;
}

/*
 * NULL, or what is wrong. A damaged length must not become a huge allocation: what is stored bounds
 * what can be read.
 */
static const char *check_column(hid_t dataset, const struct store_field *f, size_t *n)
{
    hid_t space = H5Dget_space(dataset);
    int n_dims = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    hssize_t n_points = n_dims == 1 ? H5Sget_simple_extent_npoints(space) : -1;
    H5Sclose(space);
    if (n_points < 0) {
        return "is not one-dimensional";
    }
    hid_t type = H5Dget_type(dataset);
    bool matches = store_hdf5_matches(type, f);
    H5Tclose(type);
    if (!matches) {
        return "has another type than the schema's";
    }
    if (chunk_length(dataset) < 0) {
        return "is stored in another way than the schema's";
    }
    hsize_t stored = H5Dget_storage_size(dataset);
    if ((hsize_t)n_points / DEFLATE_MAX_GAIN > stored / store_schema_bytes(f) + 1) {
        return "is longer than what is stored of it";
    }
    *n = (size_t)n_points;
    return NULL;
}

static int open_column(const struct store_group *g, const char *name, const struct store_field *f,
                       hid_t *dataset, size_t *n, struct err *e)
{
    if (!store_hdf5_has(g, name)) {
        return store_hdf5_fail(e, g, name, "is missing");
    }
    hid_t access = column_access(STORE_CHUNK_TOKENS * sizeof(uint64_t));
    hid_t d = H5Dopen2(g->id, name, access);
    H5Pclose(access);
    if (d < 0) {
        return store_hdf5_fail(e, g, name, "cannot be opened");
    }
    const char *wrong = check_column(d, f, n);
    if (wrong != NULL) {
        H5Dclose(d);
        return store_hdf5_fail(e, g, name, wrong);
    }
    *dataset = d;
    return 0;
}

int store_column_length(const struct store_group *g, const char *name, const struct store_field *f,
                        size_t *n, struct err *e)
{
    hid_t d;
    if (open_column(g, name, f, &d, n, e) != 0) {
        return -1;
    }
    H5Dclose(d);
    return 0;
}

static int read_block(hid_t dataset, hid_t type, size_t first, size_t n, void *buf)
{
    hsize_t start = first, count = n;
    hid_t file_space = H5Dget_space(dataset);
    hid_t memory = H5Screate_simple(1, &count, NULL);
    herr_t status = H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &start, NULL, &count, NULL);
    if (status >= 0) {
        status = H5Dread(dataset, type, memory, file_space, H5P_DEFAULT, buf);
    }
    H5Sclose(memory);
    H5Sclose(file_space);
    return status < 0 ? -1 : 0;
}

/* Elements of one block to their rows. */
static bool unpack_rows(const struct store_field *f, const uint8_t *buf, size_t n, uint8_t *rows,
                        size_t row_bytes)
{
    size_t element_bytes = store_schema_bytes(f);
    for (size_t i = 0; i < n; i++) {
        if (!store_hdf5_unpack(f, buf + i * element_bytes, rows + i * row_bytes)) {
            return false;
        }
    }
    return true;
}

int store_column_read(const struct store_group *g, const char *name, const struct store_field *f,
                      size_t first, size_t n, void *rows, size_t row_bytes, struct err *e)
{
    hid_t d;
    size_t length;
    if (open_column(g, name, f, &d, &length, e) != 0) {
        return -1;
    }
    int status = 0;
    if (first > length || n > length - first) {
        status = store_hdf5_fail(e, g, name, "is shorter than the schema asks");
    } else if (!chunks_are_whole(d, first, n)) {
        status = store_hdf5_fail(e, g, name, "has damaged or missing chunks");
    }
    hid_t type = store_hdf5_type(f);
    uint8_t *buf = xmalloc((n < READ_MAX_ROWS ? n : READ_MAX_ROWS) * store_schema_bytes(f));
    uint8_t *to = rows;
    // Blocks begin where chunks do, so that each chunk is unpacked once.
    for (size_t at = first, end = first + n; status == 0 && at < end;) {
        size_t block = READ_MAX_ROWS - at % READ_MAX_ROWS;
        block = block < end - at ? block : end - at;
        if (read_block(d, type, at, block, buf) != 0) {
            status = store_hdf5_fail(e, g, name, "cannot be read");
        } else if (!unpack_rows(f, buf, block, to, row_bytes)) {
            status = store_hdf5_fail(e, g, name, "holds a value that the schema does not name");
        }
        at += block;
        to += block * row_bytes;
    }
    free(buf);
    H5Tclose(type);
    H5Dclose(d);
    return status;
}
