#include "model/gguf.h"

#include "core/mapped.h"
#include "core/mem.h"

#include <xxhash.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VALUES        65536u
#define MAX_TENSORS       (1u << 20)
#define MAX_NAME          65535u
#define MAX_ALIGNMENT     (1u << 20)
#define DEFAULT_ALIGNMENT 32

enum value_type { // of the file format
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    BOOL,
    TEXT,
    ARRAY,
    U64,
    I64,
    F64,
    N_VALUE_TYPES,
};

static const uint8_t value_bytes[N_VALUE_TYPES] = {
    [U8] = 1,  [I8] = 1,   [U16] = 2, [I16] = 2, [U32] = 4, [I32] = 4,
    [F32] = 4, [BOOL] = 1, [U64] = 8, [I64] = 8, [F64] = 8,
};

/* Tensor types by the numbers of the file format; what has no dtype is known by name alone. */
static const struct type {
    uint32_t number;
    const char *name;
    int dtype;                   // enum arch_dtype, or -1
    unsigned group, group_bytes; // values that lie together, and their bytes
} types[] = {
    {0, "F32", ARCH_F32, 1, 4},     {1, "F16", ARCH_F16, 1, 2},
    {30, "BF16", ARCH_BF16, 1, 2},  {8, "Q8_0", ARCH_INT8, 32, 34},
    {2, "Q4_0", ARCH_INT4, 32, 18}, {39, "MXFP4", ARCH_MXFP4, 32, 17},
    {3, "Q4_1", -1, 0, 0},          {6, "Q5_0", -1, 0, 0},
    {7, "Q5_1", -1, 0, 0},          {10, "Q2_K", -1, 0, 0},
    {11, "Q3_K", -1, 0, 0},         {12, "Q4_K", -1, 0, 0},
    {13, "Q5_K", -1, 0, 0},         {14, "Q6_K", -1, 0, 0},
    {15, "Q8_K", -1, 0, 0},         {20, "IQ4_NL", -1, 0, 0},
    {23, "IQ4_XS", -1, 0, 0},       {26, "I32", -1, 0, 0},
};

struct value {
    const char *key;
    enum value_type type, item; // item: of an array's elements
    const unsigned char *at;    // text: its bytes; array: its first element
    uint64_t n;                 // bytes of text, elements of an array
};

struct gguf {
    struct mapped file; // empty: the bytes are the caller's
    char *where;
    struct arena names;
    size_t n_values, n_tensors;
    struct value *values;        // (n_values) by key
    struct gguf_tensor *tensors; // (n_tensors) by name
    uint64_t hash;
};

/* Where reading stands; every take_* says false once the bytes are out. */
struct cursor {
    const unsigned char *at, *end, *begin;
    const char *where;
    struct err *e;
};

/* --- bytes ------------------------------------------------------------------------------------ */

static uint64_t little_endian(const unsigned char *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++) {
        v |= (uint64_t)p[i] << (8 * i);
    }
    return v;
}

static int truncated(const struct cursor *c, const char *what)
{
    return err_set(c->e, ERR_INPUT, "%s: truncated: the file ends in %.100s at byte %zu", c->where,
                   what, (size_t)(c->end - c->begin));
}

static int take(struct cursor *c, unsigned n, const char *what, uint64_t *out)
{
    if ((size_t)(c->end - c->at) < n) {
        return truncated(c, what);
    }
    *out = little_endian(c->at, n);
    c->at += n;
    return 0;
}

/* A length and as many bytes. */
static int take_text(struct cursor *c, const char *what, const unsigned char **text, uint64_t *n)
{
    if (take(c, 8, what, n)) {
        return -1;
    }
    if (*n > (uint64_t)(c->end - c->at)) {
        return truncated(c, what);
    }
    *text = c->at;
    c->at += *n;
    return 0;
}

/* A key or a tensor's name: short, and without a NUL inside. */
static int take_name(struct cursor *c, struct arena *names, const char *what, const char **out)
{
    const unsigned char *text = NULL;
    uint64_t n = 0;
    if (take_text(c, what, &text, &n)) {
        return -1;
    }
    if (n == 0 || n > MAX_NAME || memchr(text, '\0', (size_t)n)) {
        return err_set(c->e, ERR_INPUT, "%s: %s of %" PRIu64 " bytes; 1 to %u without a NUL wanted",
                       c->where, what, n, MAX_NAME);
    }
    *out = arena_strdup(names, (const char *)text, (size_t)n);
    return *out ? 0 : err_set(c->e, ERR_ENV, "%s: out of memory for names", c->where);
}

/* --- metadata --------------------------------------------------------------------------------- */

static int bad_type(const struct cursor *c, const char *key, uint64_t type)
{
    return err_set(c->e, ERR_INPUT, "%s: metadata %.100s has unknown type %" PRIu64, c->where, key,
                   type);
}

static int skip_texts(struct cursor *c, const char *key, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        const unsigned char *text;
        uint64_t len = 0;
        if (take_text(c, key, &text, &len)) {
            return -1;
        }
    }
    return 0;
}

static int take_array(struct cursor *c, struct value *v)
{
    uint64_t type = 0, n = 0;
    if (take(c, 4, v->key, &type) || take(c, 8, v->key, &n)) {
        return -1;
    }
    if (type >= N_VALUE_TYPES || type == ARRAY) {
        return bad_type(c, v->key, type);
    }
    v->item = (enum value_type)type;
    v->at = c->at;
    v->n = n;
    if (type == TEXT) {
        return skip_texts(c, v->key, n);
    }
    if (n > (uint64_t)(c->end - c->at) / value_bytes[type]) {
        return truncated(c, v->key);
    }
    c->at += n * value_bytes[type];
    return 0;
}

static int take_value(struct cursor *c, struct gguf *g, struct value *v)
{
    uint64_t type = 0, ignored;
    if (take_name(c, &g->names, "a metadata key", &v->key) || take(c, 4, v->key, &type)) {
        return -1;
    }
    if (type >= N_VALUE_TYPES) {
        return bad_type(c, v->key, type);
    }
    v->type = (enum value_type)type;
    if (v->type == ARRAY) {
        return take_array(c, v);
    }
    if (v->type == TEXT) {
        return take_text(c, v->key, &v->at, &v->n);
    }
    v->at = c->at;
    return take(c, value_bytes[type], v->key, &ignored);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct value *)a)->key, ((const struct value *)b)->key);
}

static int take_values(struct cursor *c, struct gguf *g, uint64_t n)
{
    g->values = calloc((size_t)n + 1, sizeof *g->values);
    if (!g->values) {
        return err_set(c->e, ERR_ENV, "%s: out of memory for metadata", c->where);
    }
    for (; g->n_values < n; g->n_values++) {
        if (take_value(c, g, &g->values[g->n_values])) {
            return -1;
        }
    }
    qsort(g->values, g->n_values, sizeof *g->values, by_key);
    for (size_t i = 1; i < g->n_values; i++) {
        if (strcmp(g->values[i].key, g->values[i - 1].key) == 0) {
            return err_set(c->e, ERR_INPUT, "%s: metadata %.100s stands there twice", c->where,
                           g->values[i].key);
        }
    }
    return 0;
}

static const struct value *find_value(const struct gguf *g, const char *key)
{
    const struct value wanted = {.key = key};
    return g->n_values ? bsearch(&wanted, g->values, g->n_values, sizeof *g->values, by_key) : NULL;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find_value(g, key) != NULL;
}

static bool whole_at(enum value_type type, const unsigned char *at, int64_t *out)
{
    if (type == F32 || type == F64 || type == BOOL || type == TEXT || type == ARRAY) {
        return false;
    }
    const unsigned bits = 8u * value_bytes[type];
    uint64_t u = little_endian(at, bits / 8);
    const bool is_signed = type == I8 || type == I16 || type == I32 || type == I64;
    if (is_signed && bits < 64 && u >> (bits - 1)) {
        u |= ~(uint64_t)0 << bits;
    }
    if (type == U64 && u > INT64_MAX) {
        return false;
    }
    *out = (int64_t)u;
    return true;
}

static bool number_at(enum value_type type, const unsigned char *at, double *out)
{
    int64_t whole;
    if (type == F32) {
        float f;
        memcpy(&f, at, sizeof f);
        *out = (double)f;
        return true;
    }
    if (type == F64) {
        memcpy(out, at, sizeof *out);
        return true;
    }
    if (!whole_at(type, at, &whole)) {
        return false;
    }
    *out = (double)whole;
    return true;
}

bool gguf_int(const struct gguf *g, const char *key, int64_t *out)
{
    const struct value *v = find_value(g, key);
    return v && whole_at(v->type, v->at, out);
}

bool gguf_number(const struct gguf *g, const char *key, double *out)
{
    const struct value *v = find_value(g, key);
    return v && number_at(v->type, v->at, out);
}

bool gguf_bool(const struct gguf *g, const char *key, bool *out)
{
    const struct value *v = find_value(g, key);
    if (!v || v->type != BOOL) {
        return false;
    }
    *out = v->at[0] != 0;
    return true;
}

bool gguf_text(const struct gguf *g, const char *key, char *out, size_t out_bytes)
{
    const struct value *v = find_value(g, key);
    if (!v || v->type != TEXT || v->n >= out_bytes || memchr(v->at, '\0', (size_t)v->n)) {
        return false;
    }
    memcpy(out, v->at, (size_t)v->n);
    out[v->n] = '\0';
    return true;
}

bool gguf_array(const struct gguf *g, const char *key, struct gguf_array *out)
{
    const struct value *v = find_value(g, key);
    if (!v || v->type != ARRAY) {
        return false;
    }
    *out = (struct gguf_array){
        .n = v->n, .is_text = v->item == TEXT, .type = (int)v->item, .at = v->at};
    return true;
}

/* Lengths were checked when the file was opened (skip_texts). */
bool gguf_array_text(struct gguf_array *a, const char **text, size_t *len)
{
    if (!a->is_text || a->n_taken == a->n) {
        return false;
    }
    *len = (size_t)little_endian(a->at, 8);
    *text = (const char *)a->at + 8;
    a->at += 8 + *len;
    a->n_taken++;
    return true;
}

bool gguf_array_int(const struct gguf_array *a, uint64_t i, int64_t *out)
{
    CHECK(i < a->n);
    const enum value_type type = (enum value_type)a->type;
    return whole_at(type, a->at + i * value_bytes[type], out);
}

bool gguf_array_number(const struct gguf_array *a, uint64_t i, double *out)
{
    CHECK(i < a->n);
    const enum value_type type = (enum value_type)a->type;
    return number_at(type, a->at + i * value_bytes[type], out);
}

/* --- tensors ---------------------------------------------------------------------------------- */

const char *gguf_type_name(enum arch_dtype type)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (types[i].dtype == (int)type) {
            return types[i].name;
        }
    }
    return "?";
}

static int take_type(struct cursor *c, struct gguf_tensor *t, const struct type **out)
{
    uint64_t number = 0;
    if (take(c, 4, t->name, &number)) {
        return -1;
    }
    const struct type *known = NULL;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        known = types[i].number == number ? &types[i] : known;
    }
    if (!known || known->dtype < 0) {
        return err_set(c->e, ERR_INPUT,
                       "%s: tensor %.100s has type %s (%" PRIu64
                       "); F32, F16, BF16, Q8_0, Q4_0 and "
                       "MXFP4 are supported",
                       c->where, t->name, known ? known->name : "unknown", number);
    }
    t->type = (enum arch_dtype)known->dtype;
    *out = known;
    return 0;
}

/* The file has the fastest dimension first. */
static int take_shape(struct cursor *c, struct gguf_tensor *t, uint64_t *n_values)
{
    uint64_t n_dims = 0;
    if (take(c, 4, t->name, &n_dims)) {
        return -1;
    }
    if (n_dims < 1 || n_dims > GGUF_MAX_DIMS) {
        return err_set(c->e, ERR_INPUT,
                       "%s: tensor %.100s has %" PRIu64 " dimensions; 1 to %d wanted", c->where,
                       t->name, n_dims, GGUF_MAX_DIMS);
    }
    t->n_dims = (int)n_dims;
    *n_values = 1;
    for (int i = t->n_dims - 1; i >= 0; i--) {
        uint64_t size = 0;
        if (take(c, 8, t->name, &size)) {
            return -1;
        }
        if (size == 0 || size > INT32_MAX || __builtin_mul_overflow(*n_values, size, n_values)) {
            return err_set(c->e, ERR_INPUT, "%s: tensor %.100s has a dimension of %" PRIu64,
                           c->where, t->name, size);
        }
        t->shape[i] = (int64_t)size;
    }
    return 0;
}

/* `data` becomes the offset until all infos are read and the data's beginning is known. */
static int take_tensor(struct cursor *c, struct gguf *g, uint64_t alignment, struct gguf_tensor *t,
                       uint64_t *offset)
{
    uint64_t n_values = 0, n_bytes;
    const struct type *type = NULL;
    if (take_name(c, &g->names, "a tensor's name", &t->name) || take_shape(c, t, &n_values) ||
        take_type(c, t, &type) || take(c, 8, t->name, offset)) {
        return -1;
    }
    if (t->shape[t->n_dims - 1] % type->group != 0) {
        return err_set(c->e, ERR_INPUT,
                       "%s: tensor %.100s: rows of %" PRId64 " values of type %s; a "
                       "multiple of %u wanted",
                       c->where, t->name, t->shape[t->n_dims - 1], type->name, type->group);
    }
    if (__builtin_mul_overflow(n_values / type->group, (uint64_t)type->group_bytes, &n_bytes)) {
        return err_set(c->e, ERR_INPUT, "%s: tensor %.100s is larger than any memory", c->where,
                       t->name);
    }
    if (*offset % alignment != 0) {
        return err_set(c->e, ERR_INPUT,
                       "%s: tensor %.100s: offset %" PRIu64 " is no multiple of %" PRIu64, c->where,
                       t->name, *offset, alignment);
    }
    t->n_bytes = (size_t)n_bytes;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}

static int by_place(const void *a, const void *b)
{
    const struct gguf_tensor *x = a, *y = b;
    const char *p = x->data, *q = y->data;
    return (p > q) - (p < q);
}

/* Behind the infos, from the next multiple of the alignment on. */
static int place_tensors(struct cursor *c, struct gguf *g, uint64_t alignment,
                         const uint64_t *offsets)
{
    const size_t head = (size_t)(c->at - c->begin), size = (size_t)(c->end - c->begin);
    const uint64_t start = (head + alignment - 1) / alignment * alignment;
    const uint64_t room = size > start ? size - start : 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        if (offsets[i] > room || t->n_bytes > room - offsets[i]) {
            return err_set(c->e, ERR_INPUT,
                           "%s: truncated: tensor %.100s ends at byte %" PRIu64
                           " of the data, the file has %" PRIu64,
                           c->where, t->name, offsets[i] + t->n_bytes, room);
        }
        t->data = c->begin + start + offsets[i];
    }
    qsort(g->tensors, g->n_tensors, sizeof *g->tensors, by_place);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i - 1];
        if ((const char *)t->data + t->n_bytes > (const char *)g->tensors[i].data) {
            return err_set(c->e, ERR_INPUT, "%s: tensor %.100s overlaps another tensor", c->where,
                           g->tensors[i].name);
        }
    }
    g->hash = XXH64(c->begin, head, size);
    return 0;
}

static int take_tensors(struct cursor *c, struct gguf *g, uint64_t n)
{
    int64_t alignment = DEFAULT_ALIGNMENT;
    if (gguf_has(g, "general.alignment") && (!gguf_int(g, "general.alignment", &alignment) ||
                                             alignment < 1 || alignment > (int64_t)MAX_ALIGNMENT)) {
        return err_set(c->e, ERR_INPUT, "%s: general.alignment must be from 1 to %u", c->where,
                       MAX_ALIGNMENT);
    }
    g->tensors = calloc((size_t)n + 1, sizeof *g->tensors);
    uint64_t *offsets = calloc((size_t)n + 1, sizeof *offsets);
    int rc = g->tensors && offsets
                 ? 0
                 : err_set(c->e, ERR_ENV, "%s: out of memory for %" PRIu64 " tensors", c->where, n);
    for (; rc == 0 && g->n_tensors < n; g->n_tensors += rc == 0) {
        rc = take_tensor(c, g, (uint64_t)alignment, &g->tensors[g->n_tensors],
                         &offsets[g->n_tensors]);
    }
    rc = rc == 0 ? place_tensors(c, g, (uint64_t)alignment, offsets) : -1;
    free(offsets);
    return rc;
}

static int check_names(const struct cursor *c, struct gguf *g)
{
    qsort(g->tensors, g->n_tensors, sizeof *g->tensors, by_name);
    for (size_t i = 1; i < g->n_tensors; i++) {
        if (strcmp(g->tensors[i].name, g->tensors[i - 1].name) == 0) {
            return err_set(c->e, ERR_INPUT, "%s: tensor %.100s stands there twice", c->where,
                           g->tensors[i].name);
        }
    }
    return 0;
}

/* --- the file --------------------------------------------------------------------------------- */

static int read_all(struct cursor *c, struct gguf *g)
{
    uint64_t magic, version = 0, n_tensors = 0, n_values = 0;
    if (take(c, 4, "its head", &magic)) {
        return -1;
    }
    if (memcmp(c->begin, "GGUF", 4) != 0) {
        return err_set(c->e, ERR_INPUT, "%s: not a GGUF file", c->where);
    }
    if (take(c, 4, "its head", &version)) {
        return -1;
    }
    if (version != 2 && version != 3) {
        return err_set(c->e, ERR_INPUT,
                       "%s: GGUF version %" PRIu64 "; 2 and 3 (little-endian) are "
                       "supported",
                       c->where, version);
    }
    if (take(c, 8, "its head", &n_tensors) || take(c, 8, "its head", &n_values)) {
        return -1;
    }
    if (n_tensors > MAX_TENSORS || n_values > MAX_VALUES) {
        return err_set(c->e, ERR_INPUT,
                       "%s: %" PRIu64 " tensors and %" PRIu64 " metadata values; at most %u and %u",
                       c->where, n_tensors, n_values, MAX_TENSORS, MAX_VALUES);
    }
    return take_values(c, g, n_values) || take_tensors(c, g, n_tensors) || check_names(c, g) ? -1
                                                                                             : 0;
}

static int parse(struct gguf *g, const unsigned char *bytes, size_t n, const char *where,
                 struct err *e)
{
    static const unsigned char none[1];
    bytes = bytes ? bytes : none;
    struct cursor c = {.at = bytes, .begin = bytes, .end = bytes + n, .where = where, .e = e};
    g->where = xstrdup(where);
    return read_all(&c, g);
}

int gguf_parse(struct gguf **out, const void *bytes, size_t n_bytes, const char *where,
               struct err *e)
{
    struct gguf *g = xcalloc(1, sizeof *g);
    if (parse(g, bytes, n_bytes, where, e)) {
        gguf_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

int gguf_open(struct gguf **out, const char *path, struct err *e)
{
    struct gguf *g = xcalloc(1, sizeof *g);
    if (mapped_open(&g->file, path, e) || parse(g, g->file.bytes, g->file.n_bytes, path, e)) {
        gguf_close(g);
        return -1;
    }
    *out = g;
    return 0;
}

void gguf_close(struct gguf *g)
{
    if (!g) {
        return;
    }
    mapped_close(&g->file);
    arena_free(&g->names);
    free(g->values);
    free(g->tensors);
    free(g->where);
    free(g);
}

const char *gguf_where(const struct gguf *g)
{
    return g->where;
}

const struct gguf_tensor *gguf_find(const struct gguf *g, const char *name)
{
    const struct gguf_tensor wanted = {.name = name};
    return g->n_tensors ? bsearch(&wanted, g->tensors, g->n_tensors, sizeof *g->tensors, by_name)
                        : NULL;
}

size_t gguf_count(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_at(const struct gguf *g, size_t i)
{
    CHECK(i < g->n_tensors);
    return &g->tensors[i];
}

uint64_t gguf_hash(const struct gguf *g)
{
    return g->hash;
}
