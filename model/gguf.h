/*
 * Reader of GGUF files, versions 2 and 3, little-endian (ggml's docs/gguf.md): metadata, then names,
 * shapes and types of tensors, then their bytes. The file is untrusted: every length and offset is
 * checked when it is opened, and nothing is read beyond the bytes that are there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "model/arch.h"

#define GGUF_MAX_DIMS 4

struct gguf;

struct gguf_tensor {
    const char *name; // owned by the file
    enum arch_dtype type;
    int n_dims;
    int64_t
        shape[GGUF_MAX_DIMS]; // slowest first, as in safetensors; rows are shape[n_dims - 1] long
    const void *data;         // not necessarily aligned
    size_t n_bytes;
};

/* Map a file. ERR_INPUT: missing, truncated, not sound, or a tensor of a type that is not supported. */
int gguf_open(struct gguf **out, const char *path, struct err *e) ERR_CHECKED;

/* The same over bytes that the caller keeps; `where` stands in messages. */
int gguf_parse(struct gguf **out, const void *bytes, size_t n_bytes, const char *where,
               struct err *e) ERR_CHECKED;

void gguf_close(struct gguf *g);

const char *gguf_where(const struct gguf *g);
const struct gguf_tensor *gguf_find(const struct gguf *g, const char *name);
size_t gguf_count(const struct gguf *g);
const struct gguf_tensor *gguf_at(const struct gguf *g, size_t i); // by name
const char *gguf_type_name(enum arch_dtype type);

/* Metadata. False: no such key, or a value of another kind. Whole numbers are numbers too. */
bool gguf_int(const struct gguf *g, const char *key, int64_t *out);
bool gguf_number(const struct gguf *g, const char *key, double *out);
bool gguf_bool(const struct gguf *g, const char *key, bool *out);
bool gguf_text(const struct gguf *g, const char *key, char *out, size_t out_bytes);
bool gguf_has(const struct gguf *g, const char *key);

/* An array of metadata. Texts are taken one after the other, numbers at any place below n. */
struct gguf_array {
    uint64_t n;
    bool is_text;
    int type;          // of the elements, as the file numbers them
    const uint8_t *at; // the first number, or the next text
    uint64_t n_taken;  // texts
};

/* False: no such key, or no array. */
bool gguf_array(const struct gguf *g, const char *key, struct gguf_array *out);

/* The next text (any bytes, in the file). False at the end, or where elements are no texts. */
bool gguf_array_text(struct gguf_array *a, const char **text, size_t *len);

/* False where elements are of another kind. */
bool gguf_array_int(const struct gguf_array *a, uint64_t i, int64_t *out);
bool gguf_array_number(const struct gguf_array *a, uint64_t i, double *out);

/* xxh64 of all before the tensors' bytes, seeded with the file's size. */
uint64_t gguf_hash(const struct gguf *g);
