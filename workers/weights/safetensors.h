/*
 * Reader of the safetensors format: 8 bytes little-endian header length, a JSON header
 * {name: {dtype, shape, data_offsets}}, then the tensors' bytes (github.com/huggingface/safetensors,
 * "Format"). The file is untrusted: every tensor's dtype, shape and range is checked when it is
 * opened; ranges must cover the data exactly, without holes or overlaps, as the format demands.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define SAFETENSORS_MAX_DIMS 8

struct safetensors;

struct safetensors_tensor {
    const char *name;  // owned by the file
    const char *dtype; // "F32", "BF16", ...
    int n_dims;
    int64_t shape[SAFETENSORS_MAX_DIMS];
    const void *data; // not necessarily aligned
    size_t n_bytes;
};

/* Map a file. ERR_INPUT: missing, truncated, or not sound. */
int safetensors_open(struct safetensors **out, const char *path, struct err *e) ERR_CHECKED;

/* The same over bytes that the caller keeps; `where` stands in messages. */
int safetensors_parse(struct safetensors **out, const void *bytes, size_t n_bytes,
                      const char *where, struct err *e) ERR_CHECKED;

void safetensors_close(struct safetensors *s);

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name);
size_t safetensors_count(const struct safetensors *s);
const struct safetensors_tensor *safetensors_at(const struct safetensors *s, size_t i); // by name

/* xxh64 of the header, seeded with the file's size: tells files apart without reading their data. */
uint64_t safetensors_hash(const struct safetensors *s);
