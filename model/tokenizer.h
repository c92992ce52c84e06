/*
 * Text <-> token ids, from a model's own tokenizer.json (byte-pair encoding in the layout of the
 * Hugging Face `tokenizers` library). Immutable once open: any thread may encode with its own
 * buffers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/str.h"
#include "model/token_ids.h"

struct tokenizer;

/*
 * Open DIR/tokenizer.json. ERR_INPUT: not JSON, a feature outside what is supported (named), or a
 * vocabulary with ids outside 0..vocab-1 ("does not match the vocabulary of config.json").
 */
int tokenizer_open(struct tokenizer **out, const char *dir, int vocab, struct err *e) ERR_CHECKED;
int tokenizer_parse(struct tokenizer **out, const char *json, size_t len, const char *where,
                    int vocab, struct err *e) ERR_CHECKED;
void tokenizer_close(struct tokenizer *t);

/*
 * Append the ids of UTF-8 text (any bytes are accepted) as the model expects them: BOS first where
 * its template says so and with_special is true.
 */
void tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool with_special,
                      struct token_ids *ids);

/*
 * Append the text of ids, without special tokens. `continues`: the ids follow earlier text, so no
 * leading space is cut. Always UTF-8: bytes that form no character become U+FFFD each.
 */
void tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool continues,
                      struct str *text);

/* 64-bit hash of the file's bytes, for provenance. */
uint64_t tokenizer_hash(const struct tokenizer *t);
int tokenizer_vocab(const struct tokenizer *t); // highest id + 1

/* Whether id stands for text: it is in the vocabulary and not special. */
bool tokenizer_is_ordinary(const struct tokenizer *t, int32_t id);
