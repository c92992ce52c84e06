/*
 * Token ids back to text: the "decoder" of a tokenizer.json. Supported is what the SentencePiece
 * families use: any of Replace, ByteFallback, Fuse and Strip (of leading characters), in this
 * order; or null, which joins tokens with a space. Immutable once made.
 *
 * Text is always UTF-8: bytes from byte-fallback tokens that form no character come out as U+FFFD
 * each, as in the Hugging Face `tokenizers` library.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/str.h"
#include "model/vocab.h"

struct json_t;
struct detok;

int detok_parse(struct detok **out, const struct json_t *decoder, const struct vocab *v,
                struct err *e) ERR_CHECKED;
void detok_destroy(struct detok *d);

/* Append the text of ids; special tokens and ids without a token are left out. */
void detok_append(const struct detok *d, const int32_t *ids, size_t n, bool continues,
                  struct str *text);
