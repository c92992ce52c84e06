#include "workers/weights/safetensors.h"

#include "core/mapped.h"
#include "core/mem.h"

#include <jansson.h>
#include <xxhash.h>

#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES     8u
#define MAX_HEADER_BYTES 100000000u // as the reference implementation

struct safetensors {
    struct mapped file; // empty: the bytes are the caller's
    json_t *header;     // owns the names
    uint64_t hash;
    size_t n;
    struct safetensors_tensor *tensors; // (n) by name
};

/* What the header is being checked against. */
struct parse {
    const char *where;
    const unsigned char *data; // (n_bytes) after the header
    size_t n_bytes;
    struct err *e;
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    {"F32", 4}, {"BF16", 2}, {"F16", 2},  {"F64", 8},     {"I8", 1},
    {"U8", 1},  {"I16", 2},  {"U16", 2},  {"I32", 4},     {"U32", 4},
    {"I64", 8}, {"U64", 8},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1},
};

static int bad(const struct parse *p, const char *tensor, const char *what)
{
    return err_set(p->e, ERR_INPUT, "%s: tensor %.100s: %s", p->where, tensor, what);
}

static int read_dtype(const struct parse *p, const json_t *v, struct safetensors_tensor *t,
                      size_t *value_bytes)
{
    const char *name = json_string_value(v);
    for (size_t i = 0; name && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            t->dtype = dtypes[i].name;
            *value_bytes = dtypes[i].bytes;
            return 0;
        }
    }
    return bad(p, t->name, name ? "unknown dtype" : "dtype is missing");
}

/* Multiplies the sizes up in bytes; anything beyond the data cannot be right. */
static int read_shape(const struct parse *p, const json_t *v, struct safetensors_tensor *t,
                      size_t value_bytes)
{
    if (!json_is_array(v) || json_array_size(v) > SAFETENSORS_MAX_DIMS) {
        return bad(p, t->name, "shape must be a list of at most 8 sizes");
    }
    t->n_dims = (int)json_array_size(v);
    t->n_bytes = value_bytes;
    for (int i = 0; i < t->n_dims; i++) {
        const json_t *size = json_array_get(v, (size_t)i);
        json_int_t n = json_integer_value(size);
        if (!json_is_integer(size) || n < 0) {
            return bad(p, t->name, "shape must be a list of at most 8 sizes");
        }
        if (__builtin_mul_overflow(t->n_bytes, (size_t)n, &t->n_bytes)) {
            return bad(p, t->name, "shape is larger than any memory");
        }
        t->shape[i] = n;
    }
    return 0;
}

static int read_range(const struct parse *p, const json_t *v, struct safetensors_tensor *t)
{
    const json_t *from = json_array_get(v, 0), *to = json_array_get(v, 1);
    if (json_array_size(v) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
        json_integer_value(from) < 0 || json_integer_value(to) < json_integer_value(from)) {
        return bad(p, t->name, "data_offsets must be [begin, end]");
    }
    uint64_t begin = (uint64_t)json_integer_value(from), end = (uint64_t)json_integer_value(to);
    if (end > p->n_bytes) {
        return err_set(p->e, ERR_INPUT,
                       "%s: truncated: tensor %.100s ends at byte %llu of the data, the file has "
                       "%zu",
                       p->where, t->name, (unsigned long long)end, p->n_bytes);
    }
    if (end - begin != t->n_bytes) {
        return bad(p, t->name, "data_offsets do not match dtype and shape");
    }
    t->data = p->data + begin;
    return 0;
}

static int read_tensor(const struct parse *p, const char *name, const json_t *v,
                       struct safetensors_tensor *t)
{
    t->name = name;
    size_t value_bytes = 0;
    if (!json_is_object(v)) {
        return bad(p, name, "not an object");
    }
    if (read_dtype(p, json_object_get(v, "dtype"), t, &value_bytes) ||
        read_shape(p, json_object_get(v, "shape"), t, value_bytes) ||
        read_range(p, json_object_get(v, "data_offsets"), t)) {
        return -1;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int by_place(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    const char *p = x->data, *q = y->data;
    if (p != q) {
        return p < q ? -1 : 1;
    }
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes); // empty ones first
}

/* The tensors must follow each other from the first byte of the data to the last. */
static int check_cover(const struct parse *p, struct safetensors *s)
{
    qsort(s->tensors, s->n, sizeof *s->tensors, by_place);
    const unsigned char *at = p->data;
    for (size_t i = 0; i < s->n; i++) {
        const struct safetensors_tensor *t = &s->tensors[i];
        if ((const unsigned char *)t->data != at) {
            return bad(p, t->name,
                       (const unsigned char *)t->data < at ? "overlaps another tensor"
                                                           : "a gap lies before its data");
        }
        at += t->n_bytes;
    }
    size_t left = p->n_bytes - (size_t)(at - p->data);
    if (left > 0) {
        return err_set(p->e, ERR_INPUT, "%s: %zu bytes follow the last tensor", p->where, left);
    }
    return 0;
}

static int read_tensors(const struct parse *p, struct safetensors *s)
{
    if (!json_is_object(s->header)) {
        return err_set(p->e, ERR_INPUT, "%s: header is not a JSON object", p->where);
    }
    size_t max = json_object_size(s->header);
    s->tensors = calloc(max + 1, sizeof *s->tensors);
    if (!s->tensors) {
        return err_set(p->e, ERR_ENV, "%s: out of memory for %zu tensors", p->where, max);
    }
    const char *name;
    json_t *v;
    json_object_foreach(s->header, name, v)
    {
        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        if (read_tensor(p, name, v, &s->tensors[s->n])) {
            return -1;
        }
        s->n++;
    }
    if (check_cover(p, s)) {
        return -1;
    }
    qsort(s->tensors, s->n, sizeof *s->tensors, by_name);
    return 0;
}

static int parse_bytes(struct safetensors *s, const unsigned char *bytes, size_t n_bytes,
                       const char *where, struct err *e)
{
    if (n_bytes < LENGTH_BYTES) {
        return err_set(e, ERR_INPUT, "%s: truncated: %zu bytes are no safetensors file", where,
                       n_bytes);
    }
    uint64_t header_bytes = 0;
    for (unsigned i = 0; i < LENGTH_BYTES; i++) {
        header_bytes |= (uint64_t)bytes[i] << (8 * i);
    }
    if (header_bytes > MAX_HEADER_BYTES) {
        return err_set(e, ERR_INPUT, "%s: not a safetensors file: a header of %llu bytes", where,
                       (unsigned long long)header_bytes);
    }
    if (header_bytes > n_bytes - LENGTH_BYTES) {
        return err_set(e, ERR_INPUT, "%s: truncated: its header has %llu bytes, the file %zu",
                       where, (unsigned long long)header_bytes, n_bytes);
    }
    json_error_t je;
    const unsigned char *text = bytes + LENGTH_BYTES;
    s->header = json_loadb((const char *)text, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &je);
    if (!s->header) {
        return err_set(e, ERR_INPUT, "%s: header is not JSON: %s", where, je.text);
    }
    s->hash = XXH64(bytes, LENGTH_BYTES + (size_t)header_bytes, n_bytes);
    const struct parse p = {
        .where = where,
        .data = text + header_bytes,
        .n_bytes = n_bytes - LENGTH_BYTES - (size_t)header_bytes,
        .e = e,
    };
    return read_tensors(&p, s);
}

int safetensors_parse(struct safetensors **out, const void *bytes, size_t n_bytes,
                      const char *where, struct err *e)
{
    struct safetensors *s = xcalloc(1, sizeof *s);
    if (parse_bytes(s, bytes, n_bytes, where, e)) {
        safetensors_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

int safetensors_open(struct safetensors **out, const char *path, struct err *e)
{
    struct safetensors *s = xcalloc(1, sizeof *s);
    if (mapped_open(&s->file, path, e) || parse_bytes(s, s->file.bytes, s->file.n_bytes, path, e)) {
        safetensors_close(s);
        return -1;
    }
    *out = s;
    return 0;
}

void safetensors_close(struct safetensors *s)
{
    if (!s) {
        return;
    }
    json_decref(s->header);
    free(s->tensors);
    mapped_close(&s->file);
    free(s);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    const struct safetensors_tensor key = {.name = name};
    return s->n ? bsearch(&key, s->tensors, s->n, sizeof *s->tensors, by_name) : NULL;
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->n;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *s, size_t i)
{
    CHECK(i < s->n);
    return &s->tensors[i];
}

uint64_t safetensors_hash(const struct safetensors *s)
{
    return s->hash;
}
