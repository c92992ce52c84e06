/*
 * GGUF files for tests, written as llama.cpp's converters write them: values, tensors, and whole models
 * from what workers/weights reads of a folder or a preset. Failures are cmocka's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/str.h"
#include "model/arch.h"
#include "workers/weights/weights.h"

enum gguf_writer_type { // of tensors, by the numbers of the format
    GGUF_WRITER_F32 = 0,
    GGUF_WRITER_F16 = 1,
    GGUF_WRITER_Q4_0 = 2,
    GGUF_WRITER_Q8_0 = 8,
    GGUF_WRITER_BF16 = 30,
};

/* A zeroed one is empty. */
struct gguf_writer {
    struct str values, infos, data;
    uint64_t n_values, n_tensors;
};

void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t v);
void gguf_writer_f32(struct gguf_writer *w, const char *key, double v);
void gguf_writer_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_writer_text(struct gguf_writer *w, const char *key, const char *v);
void gguf_writer_texts(struct gguf_writer *w, const char *key, int n); // n of them, to be skipped
void gguf_writer_words(struct gguf_writer *w, const char *key, const char *const *words, size_t n);
void gguf_writer_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n);
void gguf_writer_f32s(struct gguf_writer *w, const char *key, const float *v, size_t n);

/* A tensor's name, shape (slowest first) and type; its values follow. */
void gguf_writer_info(struct gguf_writer *w, const char *name, int n_dims, const int64_t *shape,
                      uint32_t type);
void gguf_writer_values(struct str *s, uint32_t type, const float *v, size_t n);

/* A model: all but what rope_freqs.weight says of Llama 3.1's scaling, which is written apart. */
void gguf_writer_metadata(struct gguf_writer *w, const struct arch *a);
void gguf_writer_tensors(struct gguf_writer *w, const struct weights *from, const struct arch *a,
                         uint32_t type);
void gguf_writer_rope_factors(struct gguf_writer *w, double theta, int64_t dim, double factor);

void gguf_writer_assemble(const struct gguf_writer *w, struct str *out);
void gguf_writer_file(const struct gguf_writer *w, const char *path);
void gguf_writer_free(struct gguf_writer *w);
