/*
 * Writes a model's tensors as safetensors files in Hugging Face layout: model.safetensors, or shards
 * model-0000i-of-0000n.safetensors with model.safetensors.index.json. First every tensor is declared,
 * in the order of the files; then their bytes follow in the same order, in pieces of any size: only
 * the piece at hand is in memory.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define WRITER_MAX_DIMS 4

struct writer_tensor {
    char name[128];
    const char *dtype; // "F32", "BF16", "F16", "F8_E4M3", "U8"
    int n_dims;
    int64_t shape[WRITER_MAX_DIMS];
    int64_t n_bytes; // of all values
};

struct writer;

/* A shard ends before it grows beyond shard_bytes. The folder exists; its files must not (ERR_INPUT). */
struct writer *writer_create(const char *folder, int64_t shard_bytes);
void writer_declare(struct writer *w, const struct writer_tensor *t);
/* Bytes of all declared. */
int64_t writer_bytes(const struct writer *w);

/* The next bytes, of as many tensors as they are. */
int writer_put(struct writer *w, const void *bytes, size_t n, struct err *e) ERR_CHECKED;

/* All bytes have been put: writes the index. */
int writer_finish(struct writer *w, struct err *e) ERR_CHECKED;
void writer_destroy(struct writer *w);
